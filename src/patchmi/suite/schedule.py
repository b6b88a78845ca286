"""Cells as processes of this machine, as many at once as its processors and its memory allow.

A process a cell: what crashes, or is killed for want of memory, takes one cell with it only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from patchmi.data import listed
from patchmi.runs.files import make_folder
from patchmi.suite.display import Display
from patchmi.suite.jobs import Job, failure_of, log_file, record_failure, skip_dependants

MEMORY_SHARE = 0.8
"""Share of the free memory that cells may need together, unless told otherwise."""
_POLL_SECONDS = 0.05
_GB = 1e9

Command = Callable[[Path, str], list[str]]
"""The command line of a cell's process, from the suite's folder and the job's name."""


@dataclass(frozen=True)
class Bounds:
    """What cells that run at the same time may need together; one that needs more runs alone."""

    jobs: int
    memory_gb: float
    gpus: float

    def allow(self, job: Job, running: Sequence[Job]) -> bool:
        """Whether a job may start beside those that run."""
        return not running or (
            len(running) < self.jobs
            and sum(one.memory_gb for one in (job, *running)) <= self.memory_gb
            and sum(one.gpus for one in (job, *running)) <= self.gpus
        )


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    began: float


def local_bounds(*, threads: int, jobs: int | None, memory_gb: float | None) -> Bounds:
    """This machine's.

    Args:
        threads: Of one cell.
        jobs: Cells at the same time; None: as many as processors have threads for.
        memory_gb: What they may need together; None: 80 % of what is free now.

    Raises:
        ValueError: One is not positive.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs}: give 1 or more")
    if memory_gb is not None and not memory_gb > 0:
        raise ValueError(f"--memory {memory_gb:g}: give the GB that cells may need together, above 0")
    return Bounds(
        jobs=jobs or max(1, _processor_count() // threads),
        memory_gb=memory_gb or MEMORY_SHARE * _free_bytes() / _GB,
        # Cells take the first accelerator; a cluster shares out several.
        gpus=1.0 if torch.cuda.is_available() else float("inf"),
    )


def worker_command(folder: Path, name: str) -> list[str]:
    """The command line of a cell's process."""
    return [sys.executable, "-m", "patchmi.suite.worker", str(folder), name]


def start_worker(folder: Path, job: Job, command: Command = worker_command) -> subprocess.Popen[bytes]:
    """Start a cell's process, which ends when this one does; what it says goes into its log."""
    log = log_file(folder, job.name)
    make_folder(log.parent)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
    with log.open("ab") as file:
        return subprocess.Popen(
            command(folder, job.name),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads},
            # Ctrl-C at a terminal reaches the parent alone, which passes it on once: a second would not wait.
            process_group=0,
        )


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe whose end tells a worker to save its state and end."""
    assert process.stdin is not None
    process.stdin.close()


def settle(folder: Path, name: str, *, code: int, seconds: float, display: Display) -> bool:
    """Say how a cell ended, and write down why if it failed.

    Args:
        folder: The suite's.
        name: The cell's job.
        code: What its process ended with; negative for a signal.
        seconds: How long it took.
        display: Where to say it.

    Returns:
        Whether the cell is done.
    """
    if code == 0:
        display.ended(name, seconds)
        return True
    if failure_of(folder, name) is None:
        record_failure(folder, name, _how_it_ended(code))
    display.failed(name, f"{failure_of(folder, name)} ({log_file(folder, name)})")
    return False


def run_locally(
    folder: Path,
    jobs: Sequence[Job],
    *,
    bounds: Bounds,
    display: Display,
    command: Command = worker_command,
) -> tuple[str, ...]:
    """Run jobs, each once those that it needs are done; a failure takes only what needs it with it.

    Args:
        folder: The suite's.
        jobs: What is to be done; needs that are not among them are done.
        bounds: How much at the same time.
        display: Where to say what has ended.
        command: Of a cell's process, from folder and job's name.

    Returns:
        The names of the jobs that failed, without those that were not begun for it.

    Raises:
        KeyboardInterrupt: All workers have saved their states and ended.
    """
    waiting = {job.name: job for job in jobs}
    running: list[_Running] = []
    failed: list[str] = []
    alone = [job for job in jobs if job.memory_gb > bounds.memory_gb]
    if alone:
        names = listed([job.name for job in alone])
        display.say(f"runs alone, as it asks for more than {bounds.memory_gb:.1f} GB: {names}")
    try:
        while waiting or running:
            # Rows first, once they can be: a page is worth more the sooner it says something.
            for job in sorted(waiting.values(), key=lambda job: not job.name.startswith("row/")):
                unfinished = {*waiting, *(one.job.name for one in running)}
                if not unfinished & set(job.needs) and bounds.allow(job, [one.job for one in running]):
                    del waiting[job.name]
                    running.append(_Running(job, start_worker(folder, job, command), time.monotonic()))
            time.sleep(_POLL_SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                let_go(one.process)
                seconds = time.monotonic() - one.began
                if settle(
                    folder, one.job.name, code=one.process.returncode, seconds=seconds, display=display
                ):
                    continue
                failed.append(one.job.name)
                for lost in skip_dependants(folder, one.job.name, list(waiting.values())):
                    del waiting[lost]
                    display.skipped(lost, one.job.name)
    finally:
        _stop(running)
    return tuple(failed)


def _how_it_ended(code: int) -> str:
    """What an exit code says of a worker that could not say it itself."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for want of memory: give memory_gb more, or --jobs fewer"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _stop(running: Sequence[_Running]) -> None:
    """Tell workers to save and end, and wait; a second Ctrl-C does not wait."""
    for one in running:
        let_go(one.process)
    try:
        for one in running:
            one.process.wait()
    except KeyboardInterrupt:
        for one in running:
            one.process.kill()
            one.process.wait()
        raise


def _processor_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_bytes() -> int:
    """Memory that programs can still get; where the system does not say, all of it."""
    information = Path("/proc/meminfo")
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if information.exists():
        rows = dict(line.split(":", 1) for line in information.read_text().splitlines())
        free = 1024 * int(rows["MemAvailable"].split()[0])
    # A container has a limit of its own, below what the machine has.
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(free, int(text)) if text.isdigit() else free
