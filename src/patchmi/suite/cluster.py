"""Cells as tasks of a Ray cluster, each on a machine with the processors, memory and GPUs that it asks for.

A task starts the same process that a single machine would. What fails has failed, as there; only if its whole
machine is lost is a cell begun again, on another, where it goes on from its checkpoint.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from patchmi.runs import terminate_as_interrupt
from patchmi.suite.display import Display
from patchmi.suite.file import SAVED
from patchmi.suite.jobs import Job, reason_of, record_failure, skip_dependants
from patchmi.suite.schedule import let_go, settle, start_worker

Reference = Any
"""A `ray.ObjectRef`: to what a task will return."""
_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 2.0
_SAVE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_GB = 1e9


def run_on_cluster(folder: Path, jobs: Sequence[Job], *, address: str, display: Display) -> tuple[str, ...]:
    """Run jobs on a Ray cluster, each once those that it needs are done.

    Call it on a machine of the cluster. A job whose machine is lost is begun again elsewhere, as often as it
    takes; any other failure takes the job and what needs it, as on a single machine.

    Args:
        folder: The suite's, at the same path on every machine, and on storage that they share.
        jobs: What is to be done; needs that are not among them are done.
        address: `HOST:PORT`, as `ray start --head` prints it.
        display: Where to say what has ended.

    Returns:
        The names of the jobs that failed, without those that were not begun for it.

    Raises:
        ValueError: Ray is not installed, the cluster cannot be reached, or none of its machines has what a
            job asks for: one line.
        KeyboardInterrupt: All workers have saved their states and ended, or a minute has passed.
    """
    check_cluster(address)
    import ray

    # Ray speaks of lost machines on stdout, which is for results.
    with redirect_stdout(sys.stderr), terminate_as_interrupt():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"--cluster {address}: {_first_line(error)}") from error
        try:
            missing = _missing_room(jobs, ray.nodes())
            if missing is not None:
                raise ValueError(f"--cluster {address}: {missing}")
            # Ray has just put in a handler of its own.
            with terminate_as_interrupt():
                return _run(folder, jobs, display)
        finally:
            ray.shutdown()


def check_cluster(address: str) -> None:
    """Whether Ray is installed and something listens at the address: Ray itself would try for minutes.

    Raises:
        ValueError: It is not, or nothing does, or it is no address: one line.
    """
    # Ray would ask a port where something else listens 20 times, for 40 seconds each.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ValueError(f"--cluster {address}: needs Ray; pip install 'patchmi[cluster]'") from None
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"--cluster {address}: give HOST:PORT, as `ray start --head` prints it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"--cluster {address}: nothing answers ({error}); `ray start --head` starts it"
        ) from None


def _run(folder: Path, jobs: Sequence[Job], display: Display) -> tuple[str, ...]:
    import ray
    from ray.exceptions import NodeDiedError

    waiting = {job.name: job for job in jobs}
    submitted: dict[Reference, Job] = {}
    failed: list[str] = []
    said = None
    try:
        while waiting or submitted:
            for job in list(waiting.values()):
                unfinished = {*waiting, *(one.name for one in submitted.values())}
                if not unfinished & set(job.needs):
                    submitted[_submit(folder, job)] = waiting.pop(job.name)
            finished, _ = ray.wait(list(submitted), timeout=_LOOK_SECONDS)
            if not finished:
                missing = _missing_room(submitted.values(), ray.nodes())
                if missing not in (None, said):
                    display.say(f"waiting: {missing}")
                said = missing
            for reference in finished:
                job = submitted.pop(reference)
                try:
                    done = _collect(folder, job.name, reference, display)
                except NodeDiedError:
                    display.say(f"{job.name}: its machine is lost; it goes on elsewhere")
                    waiting[job.name] = job
                    continue
                if done:
                    continue
                failed.append(job.name)
                for lost in skip_dependants(folder, job.name, list(waiting.values())):
                    del waiting[lost]
                    display.skipped(lost, job.name)
    finally:
        _stop(list(submitted))
    return tuple(failed)


def _submit(folder: Path, job: Job) -> Reference:
    """Hand a job to Ray, which starts it where and when there is room."""
    import ray

    # Ray's own retries would begin a cell again that crashes its process by itself, for ever.
    task = ray.remote(
        num_cpus=job.threads, num_gpus=job.gpus, memory=int(job.memory_gb * _GB), max_retries=0
    )(_work)
    return task.options(name=job.name).remote(folder, job)


def _work(folder: Path, job: Job) -> tuple[int, float]:
    """What Ray runs: the cell in a process of its own, as on a single machine.

    Returns:
        Its exit code, and how many seconds it took.
    """
    if not (folder / SAVED).is_file():
        raise ValueError(
            f"{socket.gethostname()} does not see {folder}: --out must lie on storage that all machines share"
        )
    began = time.monotonic()
    process = start_worker(folder, job)
    try:
        # Not `wait`, which Ray's cancelling could not interrupt.
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
    finally:
        let_go(process)
        process.wait()
    return process.returncode, time.monotonic() - began


def _collect(folder: Path, name: str, reference: Reference, display: Display) -> bool:
    """Whether the cell is done; else why not is written down.

    Raises:
        NodeDiedError: Its machine is lost.
    """
    import ray
    from ray.exceptions import NodeDiedError, RayError, RayTaskError

    try:
        code, seconds = ray.get(reference)
    except NodeDiedError:
        raise
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        reason = reason_of(cause) if isinstance(cause, Exception) else f"Ray: {_first_line(error)}"
        record_failure(folder, name, reason)
        display.failed(name, reason)
        return False
    return settle(folder, name, code=code, seconds=seconds, display=display)


def _stop(references: Sequence[Reference]) -> None:
    """Tell workers to save and end, and wait a while."""
    import ray

    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(list(references), num_returns=len(references), timeout=_SAVE_SECONDS)


def _missing_room(jobs: Iterable[Job], nodes: Sequence[dict[str, Any]]) -> str | None:
    """What a job asks for and no living machine has, even if idle; None if there is room for each."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    for job in jobs:
        asked = {"CPU": float(job.threads), "memory": job.memory_gb * _GB, "GPU": job.gpus}
        if not any(all(has.get(kind, 0) >= count for kind, count in asked.items()) for has in machines):
            offers = sorted({_in_words(has) for has in machines if has.get("CPU")})
            return (
                f"no machine has the {_in_words(asked)} that {job.name} asks for "
                f"({'; '.join(offers) or 'none is left'}): add one, or ask for less in the suite file "
                "(threads, memory_gb, gpus)"
            )
    return None


def _in_words(resources: Mapping[str, float]) -> str:
    processors, memory, accelerators = (resources.get(kind, 0) for kind in ("CPU", "memory", "GPU"))
    return f"{processors:g} CPU + {memory / _GB:.1f} GB + {accelerators:g} GPU"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
