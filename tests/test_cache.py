"""What is computed once: in one process, in two at once, after a kill, on a damaged or full disk."""

import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmi.machine import random_state, restore_random_state, seeded
from patchmi.runs import NO_CACHE, Cache, Checkpoint, OutOfResources, RunError

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["torch", "pytest", "patchmi.runs"])


class Counted:
    """Makes a tensor, and counts how often it was asked to."""

    def __init__(self, value: float = 1.0) -> None:
        self.count, self.value = 0, value

    def __call__(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        assert checkpoint.load() is None
        self.count += 1
        return {"weights": torch.full((3, 2), self.value)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_same_key_is_made_once_and_another_cache_of_the_folder_knows_it(cache, tmp_path):
    make = Counted(2.5)
    key = {"public": torch.arange(4.0), "steps": 3, "form": "dcgan"}
    first = cache.tensors("gan", key, make)
    again = cache.tensors("gan", dict(key), make)
    elsewhere = Cache(tmp_path / "cache").tensors("gan", key, Counted(9.0))
    assert make.count == 1
    for found in (first, again, elsewhere):
        assert list(found) == ["weights"]
        assert torch.equal(found["weights"], torch.full((3, 2), 2.5))
    assert sum(name.endswith(".safetensors") for name in names(tmp_path / "cache")) == 1


KEY: dict[str, Any] = {"public": torch.arange(6.0).reshape(2, 3), "steps": 3, "form": "dcgan"}


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"form": "wgan"},
        {"seed": 0},
        {"public": torch.arange(6.0).reshape(3, 2)},
        {"public": torch.arange(6.0).reshape(2, 3).double()},
        {"public": torch.arange(6).reshape(2, 3)},
        {"public": torch.arange(6.0).flip(0).reshape(2, 3)},
    ],
    ids=["number", "text", "one more", "shape", "precision", "integers", "content"],
)
def test_another_key_is_made_anew(change, cache):
    make = Counted()
    cache.tensors("gan", KEY, make)
    cache.tensors("gan", KEY | change, make)
    assert make.count == 2
    cache.tensors("gan", KEY, make)
    assert make.count == 2


def test_equal_tensors_of_other_strides_are_the_same_key(cache):
    make = Counted()
    images = torch.rand(2, 3, 4, 5)
    cache.tensors("gan", {"public": images}, make)
    cache.tensors("gan", {"public": images.to(memory_format=torch.channels_last)}, make)
    assert make.count == 1


def test_another_name_is_made_anew(cache):
    make = Counted()
    cache.tensors("gan", KEY, make)
    cache.tensors("wgan", KEY, make)
    assert make.count == 2


@pytest.fixture
def two_threads() -> Iterator[Callable[[], None]]:
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(before + 1)
    torch.set_num_threads(before)


def test_another_number_of_threads_is_made_anew(cache, two_threads):
    make = Counted()
    cache.tensors("gan", KEY, make)
    two_threads()
    cache.tensors("gan", KEY, make)
    assert make.count == 2


def odd_layouts(_: Checkpoint) -> dict[str, torch.Tensor]:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return {"turned": images.permute(0, 2, 3, 1), "part": images[:, 1:], "count": torch.tensor(7)}


def test_what_was_just_made_what_is_read_and_what_no_cache_gives_are_laid_out_alike(cache):
    answers = [
        cache.tensors("gan", {}, odd_layouts),
        cache.tensors("gan", {}, odd_layouts),
        NO_CACHE.tensors("gan", {}, odd_layouts),
    ]
    for name, expected in odd_layouts(Checkpoint(None, every_seconds=0.0)).items():
        for found in (answer[name] for answer in answers):
            assert torch.equal(found, expected.detach())
            assert found.stride() == answers[0][name].stride()
            assert not found.requires_grad


def test_no_cache_keeps_nothing_and_makes_every_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = Counted()
    for count in (1, 2):
        NO_CACHE.tensors("gan", KEY, make)
        assert make.count == count
    assert names(tmp_path) == []


class Kill(Exception):  # noqa: N818 - the end of a process, here without one
    """Ends a computation between two steps."""


def walk(last: int | None, taken: list[int]) -> Callable[[Checkpoint], dict[str, torch.Tensor]]:
    """Eight random steps, of which each is kept; dies before one of them."""

    def make(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        with seeded(3), checkpoint.guard():
            state = checkpoint.load() or {"step": 0, "place": torch.zeros(2), "random": random_state()}
            restore_random_state(state["random"])
            place = state["place"]
            for step in range(state["step"], 8):
                if step == last:
                    raise Kill
                taken.append(step)
                place = place + torch.randn(2)
                kept = {"step": step + 1, "place": place}
                checkpoint.save_if_due(lambda kept=kept: {**kept, "random": random_state()})
        return {"place": place}

    return make


def test_a_killed_computation_goes_on_from_its_checkpoint_to_the_same_bytes(tmp_path):
    undisturbed = NO_CACHE.tensors("walk", {}, walk(None, []))
    cache, taken = Cache(tmp_path, every_seconds=0.0), []
    with pytest.raises(Kill):
        cache.tensors("walk", {"n": 8}, walk(5, taken))
    assert not list(tmp_path.glob("*.safetensors"))
    found = cache.tensors("walk", {"n": 8}, walk(None, taken))
    assert taken == list(range(8))
    assert torch.equal(found["place"], undisturbed["place"])
    assert not list(tmp_path.glob("*checkpoint*")), "what is done needs no checkpoint"


def test_a_checkpoint_is_not_taken_up_under_another_key(tmp_path):
    cache, taken = Cache(tmp_path, every_seconds=0.0), []
    with pytest.raises(Kill):
        cache.tensors("walk", {"n": 8}, walk(5, []))
    cache.tensors("walk", {"n": 9}, walk(None, taken))
    assert taken == list(range(8))


# Real processes


def make_slowly(folder: Path, log: Path, name: str, *, seconds: float = 0.0, key: int = 0) -> None:
    torch.set_num_threads(1)

    def make(_: Checkpoint) -> dict[str, torch.Tensor]:
        with log.open("a") as file:
            file.write(f"{name}\n")
        time.sleep(seconds)
        return {"made_by": torch.tensor([ord(name)])}

    found = Cache(folder).tensors("gan", {"key": key}, make)
    log.with_name(f"answer-{name}").write_text(chr(int(found["made_by"])))


def start(function: Callable[..., None], *arguments: Any, **options: Any) -> Any:
    process = context.Process(target=function, args=arguments, kwargs=options)
    process.start()
    return process


def finished(process: Any) -> int:
    process.join(60)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.001)


def test_of_two_processes_at_once_one_computes_and_both_have_it(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    children = [start(make_slowly, folder, log, name, seconds=0.5) for name in "xy"]
    assert [finished(child) for child in children] == [0, 0]
    (maker,) = log.read_text().split()
    assert [(tmp_path / f"answer-{name}").read_text() for name in "xy"] == [maker, maker]


def test_a_process_that_makes_something_else_does_not_wait(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    slow = start(make_slowly, folder, log, "x", seconds=60.0)
    try:
        wait_for(log)
        assert finished(start(make_slowly, folder, log, "y", key=1)) == 0
        assert slow.is_alive()
    finally:
        slow.kill()
        finished(slow)


def test_when_the_one_that_computes_is_killed_the_one_that_waits_computes(tmp_path):
    folder, log = tmp_path / "cache", tmp_path / "log"
    first = start(make_slowly, folder, log, "x", seconds=60.0)
    wait_for(log)
    second = start(make_slowly, folder, log, "y")
    time.sleep(0.2)
    assert second.is_alive()
    first.kill()
    assert finished(first) == -signal.SIGKILL
    assert finished(second) == 0
    assert log.read_text().split() == ["x", "y"]


# Disks


@pytest.mark.parametrize("damage", [b"", b"not tensors", "cut"], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_named_in_one_line_with_the_remedy(damage, cache, tmp_path):
    cache.tensors("gan", KEY, Counted())
    (file,) = (tmp_path / "cache").glob("gan-*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] if damage == "cut" else damage)
    make = Counted()
    with pytest.raises(RunError, match="remove it") as refused:
        cache.tensors("gan", KEY, make)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert make.count == 0
    file.unlink()
    cache.tensors("gan", KEY, make)
    assert make.count == 1


def make_much(folder: Path, *, file_size_limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    torch.set_num_threads(1)
    try:
        Cache(folder).tensors("gan", {}, lambda _: {"weights": torch.zeros(10_000)})
    except OutOfResources:
        sys.exit(5)


def test_where_there_is_no_room_no_file_is_left_and_later_it_is_made(tmp_path):
    assert finished(start(make_much, tmp_path, file_size_limit=4096)) == 5
    assert not [name for name in names(tmp_path) if not name.endswith(".lock")]
    assert finished(start(make_much, tmp_path, file_size_limit=1_000_000)) == 0
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 1
