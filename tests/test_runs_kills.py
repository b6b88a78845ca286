"""Real processes, really killed. They are forked from one server that has torch imported, on one thread."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.machine import random_state, restore_random_state, seeded
from patchmi.runs import (
    OutOfResources,
    RunError,
    RunLocked,
    open_run,
    terminate_as_interrupt,
)

NEVER = 1e9
RESULT = "result.safetensors"

context = multiprocessing.get_context("forkserver")
# torch's optimisers import `torch._dynamo` at first use.
context.set_forkserver_preload(["torch", "torch._dynamo", "pytest", "patchmi.runs"])


def start(function, *arguments: Any, **options: Any) -> Any:
    process = context.Process(target=function, args=arguments, kwargs=options)
    process.start()
    return process


def finished(process) -> int:
    """The exit code; negative for a signal."""
    process.join(60)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.001)


# What the children do


def die_at(call: str, count: int, moment: str) -> None:
    """From now on, SIGKILL this process before or after its count-th call of `os.fsync` or `os.replace`."""
    original = getattr(os, call)
    calls = 0

    def dying(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == count and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = original(*arguments, **options)
        if calls == count and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(os, call, dying)


def train(
    folder: Path,
    *,
    steps: int,
    every_seconds: float = 0.0,
    pause: float = 0.0,
    fault: tuple[str, int, str] | None = None,
    file_size_limit: int | None = None,
) -> None:
    """A small adversarial pair: each step has two halves, which both draw and both update."""
    torch.set_num_threads(1)
    try:
        with terminate_as_interrupt(), open_run(folder, config={"steps": steps}, resume=True) as run:
            if fault is not None:
                die_at(*fault)
            if file_size_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
            if not run.has(RESULT):
                train_in(run, steps, every_seconds, pause)
    except KeyboardInterrupt:
        sys.exit(130)
    except OutOfResources:
        sys.exit(5)


def train_in(run, steps: int, every_seconds: float, pause: float) -> None:
    checkpoint = run.checkpoint("train", every_seconds)
    with seeded(7):
        layers = (nn.Linear(5, 48), nn.Unflatten(1, (3, 4, 4)), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3))
        maker = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        critic = nn.Linear(8, 1)
        modules = {
            "maker": maker,
            "critic": critic,
            "maker_adam": torch.optim.Adam(maker.parameters(), 1e-2),
            "critic_adam": torch.optim.Adam(critic.parameters(), 1e-2),
        }
        first = 0
        state = checkpoint.load()
        if state is not None:
            first = state["step"]
            for name, module in modules.items():
                module.load_state_dict(state[name])
            restore_random_state(state["random"])
        with checkpoint.guard():
            for step in range(first, steps):
                for optimiser, sign in ((modules["critic_adam"], 1), (modules["maker_adam"], -1)):
                    made = maker(torch.randn(4, 5)).flatten(1)
                    score = critic(made).mean() - critic(torch.randn(4, 8)).mean()
                    optimiser.zero_grad()
                    (sign * score.tanh()).backward()
                    optimiser.step()
                    time.sleep(pause)
                checkpoint.save_if_due(
                    lambda done=step + 1: {
                        "step": done,
                        "random": random_state(),
                        **{name: module.state_dict() for name, module in modules.items()},
                    }
                )
                if step == first:
                    run.path("started").touch()
    run.write_tensors(
        RESULT, {**maker.state_dict(), **critic.state_dict(prefix="critic.")}, {"b": "1", "a": "2"}
    )
    checkpoint.clear()


def hold(folder: Path, *, with_child: bool = False) -> None:
    """Open the folder and stay, alone or with a forked child of one's own that outlives this process."""
    with open_run(folder, config={}, resume=True) as run:
        if with_child:
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            (run.folder / "child").write_text(str(child))
        (run.folder / "ready").touch()
        time.sleep(60)


def open_as_nobody(folder: Path) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        open_run(folder, config={}, resume=False)
    except RunError as error:
        sys.exit(2 if "another --out" in str(error) and "\n" not in str(error) else 3)


# What must hold


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The bytes of a run that nobody killed and that saved no checkpoint, by number of steps."""
    known: dict[int, bytes] = {}

    def result(steps: int) -> bytes:
        if steps not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert finished(start(train, folder, steps=steps, every_seconds=NEVER)) == 0
            known[steps] = (folder / RESULT).read_bytes()
        return known[steps]

    return result


def step_reached(folder: Path, steps: int) -> int:
    """The step of the newest checkpoint, after a reopening that must leave no half-written file."""
    with open_run(folder, config={"steps": steps}, resume=True) as run:
        assert not list(folder.rglob(".patchmi-*"))
        state = run.checkpoint("train").load()
    return 0 if state is None else state["step"]


def test_runs_killed_at_random_instants_resume_to_the_same_bytes(tmp_path, undisturbed):
    steps, kills, chosen = 200, 0, random.Random()
    expected = undisturbed(steps)
    began = time.monotonic()
    assert finished(start(train, tmp_path / "measured", steps=steps)) == 0
    seconds = time.monotonic() - began
    for chain in range(15):
        folder = tmp_path / f"chain-{chain}"
        while not (folder / RESULT).exists():
            process = start(train, folder, steps=steps, every_seconds=chosen.choice([0.0, 0.0, 0.02]))
            process.join(chosen.uniform(0, seconds / 2))
            process.kill()
            kills += finished(process) == -signal.SIGKILL
        assert (folder / RESULT).read_bytes() == expected
        if kills >= 20:
            break
    assert kills >= 15


FAULTS = [("fsync", count) for count in range(1, 10)] + [("replace", count) for count in range(1, 5)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("call", "count"), FAULTS)
def test_a_kill_inside_a_checkpoint_write_leaves_the_checkpoint_before_it(
    tmp_path, undisturbed, call, count, moment
):
    steps = 12
    assert finished(start(train, tmp_path, steps=steps, fault=(call, count, moment))) == -signal.SIGKILL
    # Calls of fsync: first for the new folder `checkpoint`, then for file and folder of each save.
    saved = (count - 1) // 2 if call == "fsync" else count - (moment == "before")
    assert step_reached(tmp_path, steps) == saved
    assert finished(start(train, tmp_path, steps=steps)) == 0
    assert (tmp_path / RESULT).read_bytes() == undisturbed(steps)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_save_exit_130_and_resume_to_the_same_bytes(tmp_path, undisturbed, number):
    steps, chosen = 100, random.Random()
    for attempt in range(4):
        folder = tmp_path / f"{attempt}"
        process = start(train, folder, steps=steps, every_seconds=NEVER, pause=0.002)
        wait_for(folder / "started")
        time.sleep(chosen.uniform(0, 0.1))
        sent = time.monotonic()
        os.kill(process.pid, number)
        assert finished(process) == 130
        assert time.monotonic() - sent < 5
        assert 0 < step_reached(folder, steps) < steps
        assert finished(start(train, folder, steps=steps)) == 0
        assert (folder / RESULT).read_bytes() == undisturbed(steps)


def test_a_second_process_is_refused_with_the_pid_until_the_first_is_killed(tmp_path):
    holder = start(hold, tmp_path)
    wait_for(tmp_path / "ready")
    with pytest.raises(RunLocked, match=rf"process {holder.pid}: .*another --out"):
        open_run(tmp_path, config={}, resume=True)
    holder.kill()
    finished(holder)
    assert (tmp_path / "lock").read_text() == f"{holder.pid}\n"
    with open_run(tmp_path, config={}, resume=True):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_killed_process_frees_its_folder_though_its_children_live_on(tmp_path):
    holder = start(hold, tmp_path, with_child=True)
    wait_for(tmp_path / "ready")
    child = int((tmp_path / "child").read_text())
    try:
        with pytest.raises(RunLocked):
            open_run(tmp_path, config={}, resume=True)
        holder.kill()
        finished(holder)
        os.kill(child, 0)
        open_run(tmp_path, config={}, resume=True).close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_without_write_permission_is_refused_before_any_work(tmp_path):
    tmp_path.chmod(0o555)
    assert finished(start(open_as_nobody, tmp_path / "run")) == 2
    assert not (tmp_path / "run").exists()


def test_a_file_size_limit_stops_the_run_and_leaves_it_resumable(tmp_path, undisturbed):
    steps = 30
    process = start(train, tmp_path, steps=steps, every_seconds=NEVER, pause=0.005)
    wait_for(tmp_path / "started")
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process) == 130
    reached = step_reached(tmp_path, steps)
    assert reached > 0
    assert finished(start(train, tmp_path, steps=steps, file_size_limit=4096)) == 5
    assert not list(tmp_path.rglob(".patchmi-*"))
    assert step_reached(tmp_path, steps) == reached
    assert finished(start(train, tmp_path, steps=steps)) == 0
    assert (tmp_path / RESULT).read_bytes() == undisturbed(steps)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no right to mount a small disk: {error}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_out_of_resources_and_leaves_no_partial_file(small_disk):
    with open_run(small_disk / "run", config={}, resume=False) as run:
        checkpoint = run.checkpoint("train")
        checkpoint.save(lambda: {"step": 1, "weights": torch.zeros(1000)})
        with pytest.raises(OutOfResources, match=r"train\.0\.safetensors: No space left"):
            checkpoint.save(lambda: {"step": 2, "weights": torch.zeros(100_000)})
        with pytest.raises(OutOfResources, match=r"images\.safetensors: No space left"):
            run.write_tensors("images.safetensors", {"images": torch.zeros(100_000)}, {})
        assert not run.has("images.safetensors")
        assert not list(small_disk.rglob(".patchmi-*"))
        state = run.checkpoint("train").load()
        assert state is not None
        assert state["step"] == 1
        checkpoint.save(lambda: {"step": 2})
        assert run.checkpoint("train").load() == {"step": 2}
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    with pytest.raises(OutOfResources):
        open_run(small_disk / "another", config={}, resume=False)
