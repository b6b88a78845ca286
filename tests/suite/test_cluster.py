"""Real cells on Ray's own cluster of several nodes on one machine, and the nodes are killed."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchmi.suite.cluster import run_on_cluster
from patchmi.suite.display import Display
from patchmi.suite.file import read_suite, save_suite
from patchmi.suite.jobs import Job, cell_folder, failure_of, log_file, plan_jobs, read_json
from patchmi.suite.schedule import Bounds, run_locally

pytestmark = pytest.mark.xdist_group("cluster")  # one process, one cluster
TARGET, ATTACK = "target/quarters", "attack/quarters/patch-mi/blobs/none/seed-0"
BROKEN, UNBEGUN = "target/broken", "attack/broken/patch-mi/blobs/none/seed-0"
MADE = "attack/seed-0.safetensors"
SUITE = """
title = "Quarters"
seeds = 1
count_per_class = 4
memory_gb = 0.5
gpus = 0.25
checkpoint_seconds = 0.0
[targets.quarters]
private = "data:quarters.npz"
image_shape = [1, 16, 16]
architecture = "lenet"
step_count = 20
judge_steps = 1
[targets.broken]
private = "data:blobs.npz"
image_shape = [1, 16, 16]
architecture = "lenet"
[public.blobs]
source = "data:blobs.npz"
[attacks.patch-mi]
attack = "patch-mi"
step_count = 60
students = false
weights = false
selection = false
"""


class Machines:
    """A head without processors, and machines with one processor and a make-believe GPU, to be killed."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self._size: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0} | self._size
        )
        self.address = str(self._cluster.address)
        for _ in range(count):
            self.add()

    def add(self) -> None:
        self._cluster.add_node(num_cpus=1, num_gpus=1, memory=2 * 10**9, **self._size)

    def kill_under(self, process: int) -> None:
        """Kill the machine of a cell's process: a worker of Ray started it, and a raylet the worker."""
        raylet = parent(parent(process))
        [node] = [
            node
            for node in self._cluster.worker_nodes
            if raylet in [one.process.pid for one in node.all_processes["raylet"]]
        ]
        self._cluster.remove_node(node, allow_graceful=False)

    def shut_down(self) -> None:
        self._cluster.shutdown()


def parent(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def starts(folder: Path, name: str) -> int:
    """How often a cell has been begun."""
    log = log_file(folder, name)
    return log.read_text().count(f"{name} begins") if log.exists() else 0


def run(folder: Path, jobs: Sequence[Job], address: str) -> tuple[str, ...]:
    return run_on_cluster(folder, jobs, address=address, display=Display(job_count=len(jobs)))


def one_line(caught: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'patchmi[cluster]'")
    # Short, since the names of Ray's sockets must be; and its own, since Ray leaves its logs behind.
    scratch = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", scratch)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Machines(2)
        yield cluster
        cluster.shut_down()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if scratch.encode() in command], "Ray lives on"
    shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, quarters, blobs) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images, labels = quarters(64, seed=1)
    np.savez(folder / "quarters.npz", images=(images * 255).byte().numpy(), labels=labels.numpy())
    np.savez(folder / "blobs.npz", images=(blobs(64, seed=2) * 255).byte().numpy())
    (folder / "suite.toml").write_text(SUITE)
    return folder


def begin(folder: Path, data: Path, *names: str) -> list[Job]:
    """Make a suite's folder, and give some of its jobs."""
    suite = read_suite(data / "suite.toml", data=data)
    folder.mkdir()
    save_suite(folder, suite)
    return [job for job in plan_jobs(suite) if job.name in names]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The folder of a suite that ran on this machine, without a cluster."""
    folder = tmp_path_factory.mktemp("undisturbed") / "suite"
    jobs = begin(folder, data, TARGET, ATTACK)
    bounds = Bounds(jobs=1, memory_gb=8.0, gpus=1.0)
    assert run_locally(folder, jobs, bounds=bounds, display=Display(job_count=2)) == ()
    return folder


@dataclass(frozen=True)
class Disturbed:
    """A suite whose machines were killed, and what it said."""

    folder: Path
    failed: tuple[str, ...]
    in_use: dict[str, float]
    """What the attack took of the cluster."""
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def disturbed(machines: Machines, tmp_path_factory: pytest.TempPathFactory, data: Path) -> Disturbed:
    """Both machines are killed under the attack, one after the other, and then a third comes."""
    folder = tmp_path_factory.mktemp("disturbed") / "suite"
    jobs = begin(folder, data, TARGET, ATTACK, BROKEN, UNBEGUN)
    stdout, stderr = StringIO(), StringIO()
    # Ray starts machines from the main thread only.
    with redirect_stdout(stdout), redirect_stderr(stderr), ThreadPoolExecutor() as pool:
        running = pool.submit(run, folder, jobs, machines.address)
        try:
            wait_until(lambda: saved(folder), "a checkpoint")
            machines.kill_under(owner(folder, ATTACK))
            in_use = resources_in_use()
            wait_until(lambda: starts(folder, ATTACK) == 2, "the second attempt")
            machines.kill_under(owner(folder, ATTACK))
            wait_until(lambda: "(none is left)" in stderr.getvalue(), "a word about missing machines")
            assert not (cell_folder(folder, ATTACK) / "done.json").exists()
        finally:
            machines.add()
            failed = running.result()
    return Disturbed(folder, failed, in_use, stdout.getvalue(), stderr.getvalue())


def saved(folder: Path) -> bool:
    """Whether the attack has a checkpoint."""
    return any(cell_folder(folder, ATTACK).glob("checkpoint/*.safetensors"))


def owner(folder: Path, name: str) -> int:
    """The process that has a cell's folder: the last one to begin, once its number stands in the lock."""
    lock, log = cell_folder(folder, name) / "lock", log_file(folder, name)

    def begun() -> str:
        return log.read_text().rpartition("process ")[2].split("\n")[0]

    wait_until(lambda: lock.exists() and log.exists() and lock.read_text().strip() == begun(), "the owner")
    return int(begun())


def resources_in_use() -> dict[str, float]:
    """What Ray has given away, once only the attack runs."""
    import ray

    def given() -> dict[str, float]:
        free = ray.available_resources()
        return {kind: has - free.get(kind, 0) for kind, has in ray.cluster_resources().items()}

    wait_until(lambda: given()["CPU"] == 1, "the attack alone")
    return given()


def test_a_cell_whose_machines_are_killed_ends_in_the_bytes_of_an_undisturbed_run(disturbed, undisturbed):
    for name, file in ((TARGET, "target.safetensors"), (ATTACK, MADE)):
        made, wanted = (cell_folder(folder, name) / file for folder in (disturbed.folder, undisturbed))
        assert made.read_bytes() == wanted.read_bytes()
    assert starts(disturbed.folder, ATTACK) == 3
    assert disturbed.stderr.count(f"{ATTACK}: its machine is lost; it goes on elsewhere") == 2


def test_a_cell_that_raises_is_begun_once_and_takes_only_what_needs_it(disturbed):
    assert disturbed.failed == (BROKEN,)
    assert starts(disturbed.folder, BROKEN) == 1
    assert starts(disturbed.folder, UNBEGUN) == 0
    assert "blobs.npz" in (failure_of(disturbed.folder, BROKEN) or "")
    assert f"not begun, because {BROKEN} failed" in (failure_of(disturbed.folder, UNBEGUN) or "")
    assert (cell_folder(disturbed.folder, ATTACK) / "done.json").exists()


def test_a_cell_begins_when_what_it_needs_is_done(disturbed):
    target = read_json(cell_folder(disturbed.folder, TARGET) / "done.json")
    assert starts(disturbed.folder, TARGET) == 1
    assert read_json(cell_folder(disturbed.folder, ATTACK) / "done.json")["began"] > target["ended"]


def test_ray_sets_aside_what_a_cell_asks_for(disturbed):
    assert {kind: disturbed.in_use[kind] for kind in ("CPU", "GPU", "memory")} == {
        "CPU": 1.0,
        "GPU": 0.25,
        "memory": 0.5e9,
    }


def test_stdout_is_left_to_results_whatever_ray_says(disturbed):
    assert disturbed.stdout == ""
    assert "raylet" in disturbed.stderr


def test_an_interrupt_lets_the_cells_save_and_end(machines, undisturbed, tmp_path, data):
    folder = tmp_path / "suite"
    jobs = begin(folder, data, ATTACK)
    shutil.copytree(cell_folder(undisturbed, TARGET), cell_folder(folder, TARGET))

    def interrupt() -> None:
        wait_until(lambda: saved(folder), "a checkpoint")
        os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor() as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(folder, jobs, machines.address)
        interrupting.result()
    assert f"{ATTACK} was interrupted and can go on" in log_file(folder, ATTACK).read_text()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_cell_whose_own_process_is_killed_has_failed_and_is_not_begun_again(machines, tmp_path, data):
    folder = tmp_path / "suite"
    jobs = begin(folder, data, TARGET)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, folder, jobs, machines.address)
        os.kill(owner(folder, TARGET), signal.SIGKILL)
        assert running.result() == (TARGET,)
    assert "its process was killed" in (failure_of(folder, TARGET) or "")
    assert starts(folder, TARGET) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 2.0}, "1 CPU + 0.5 GB + 2 GPU"),
        ({"threads": 2}, "2 CPU + 0.5 GB + 0.25 GPU"),
        ({"memory_gb": 3.0}, "1 CPU + 3.0 GB + 0.25 GPU"),
    ],
)
def test_a_cell_too_large_for_every_machine_is_refused_before_anything_runs(
    machines, tmp_path, data, asked, words
):
    jobs = begin(tmp_path / "suite", data, TARGET, ATTACK)
    jobs[-1] = replace(jobs[-1], **asked)
    with pytest.raises(ValueError, match="ask for less in the suite file") as refusal:
        run(tmp_path / "suite", jobs, machines.address)
    assert f"no machine has the {words} that {ATTACK} asks for" in one_line(refusal)
    assert "(1 CPU + 2.0 GB + 1 GPU)" in one_line(refusal)
    assert starts(tmp_path / "suite", TARGET) == 0


def test_a_folder_that_a_machine_does_not_see_fails_the_cell_in_one_line(machines, tmp_path):
    job = Job(TARGET, (), 0.5, 0.0, 1)
    assert run(tmp_path, [job], machines.address) == (TARGET,)
    assert f"does not see {tmp_path}: --out must lie on storage" in (failure_of(tmp_path, TARGET) or "")


def test_an_address_where_nothing_listens_is_refused_at_once(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'patchmi[cluster]'")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"^--cluster {address}: nothing answers") as refusal:
        run(tmp_path, [], address)
    assert "ray start --head" in one_line(refusal)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "address", ["auto", "ray://127.0.0.1:10001", "127.0.0.1", ":6379", "127.0.0.1:70000"]
)
def test_what_is_no_address_is_refused(tmp_path, address):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'patchmi[cluster]'")
    with pytest.raises(ValueError, match="give HOST:PORT") as refusal:
        run(tmp_path, [], address)
    assert f"--cluster {address}:" in one_line(refusal)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'patchmi\[cluster\]'") as refusal:
        run(tmp_path, [], "127.0.0.1:6379")
    assert one_line(refusal)
