"""The promises of a whole run: resumed to the same bytes, off the network, attacks blind."""

import inspect
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import grimp
import pytest
import torch
from safetensors.torch import load_file, save_file

from patchmi.attacks import ATTACKS, RECIPES, AbstractAttack, PatchMI, PatchTransfer, Task
from patchmi.audit import Plan, Private, audit, fit_judge, fit_target
from patchmi.data import Source
from patchmi.demo import JUDGES, TARGET
from patchmi.metrics.student import STUDENT
from patchmi.networks import ARCHITECTURES
from patchmi.runs import open_run
from patchmi.target import Training

context = multiprocessing.get_context("forkserver")
# What a child needs is imported once, in the server that it is forked from.
context.set_forkserver_preload(["torch", "torch._dynamo", "pytest", "patchmi.audit", "patchmi.demo", "grimp"])

RECONSTRUCTIONS, RESULT = "reconstructions.safetensors", "result.json"
STAGES = [
    # (loop, how many of that name the process has finished: what earlier processes finished is not run again)
    ("Training target", 0),
    ("Training judges/vgg6", 0),
    ("Training judges/lenet", 0),
    ("Students learn the target", 0),
    ("Patch-MI, seed 0", 0),
    ("Patch-MI, seed 1", 0),
    ("Patch-MI, seed 0, without the target", 0),
    ("Training a student on the reconstructions", 1),
]
"""Every loop of the audit: target, judges, the attack, its control, the scores' students."""


# What the children do


@dataclass
class Doom:
    """A progress that kills its own process at one step of one loop."""

    stage: tuple[str, int] | None
    step: int
    seen: int = 0

    def __call__(self, steps: Iterable[int], description: str) -> Iterator[int]:
        is_named = self.stage is not None and description == self.stage[0]
        is_doomed = is_named and self.stage is not None and self.seen == self.stage[1]
        self.seen += is_named
        for number, step in enumerate(steps):
            if is_doomed and number == self.step:
                os.kill(os.getpid(), signal.SIGKILL)
            yield step


def stay_offline(attempts: Path) -> None:
    """From now on, every way to the network leaves a trace and leads nowhere."""

    def refuse(*where: Any, **_: Any) -> NoReturn:
        attempts.write_text(repr(where))
        raise OSError("the network is not to be touched")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        setattr(socket.socket, name, refuse)
    socket.getaddrinfo = refuse
    socket.create_connection = refuse


def run_audit(folder: Path, world: Path, *, stage: tuple[str, int] | None = None, step: int = 0) -> None:
    """Train, attack, judge and report, in the order of the demo and offline, or die in a stage."""
    torch.set_num_threads(1)
    stay_offline(folder.parent / "attempts")
    images = load_file(world)
    private = Private(
        images["train"],
        images["train_labels"],
        images["held_out"],
        images["held_out_labels"],
        tuple("abcd"),
        "blobs",
    )
    recipe = replace(RECIPES["default"], student_warm_up=4, student_width=4, generator_width=8)
    plan = Plan(
        PatchMI(recipe, step_count=5),
        Source(images["public"], "boxes"),
        seeds=(0, 1),
        count_per_class=4,
        checkpoint_seconds=0.0,
    )
    progress = Doom(stage, step)
    with open_run(folder, config={"blobs": 1}, resume=True) as run:
        brief = Training(step_count=6, batch_size=16)
        target = fit_target(run, private, architecture="resnet10", training=brief, seed=0, progress=progress)
        judges = [
            fit_judge(run, private, architecture=name, training=brief, seed=seed, progress=progress)
            for seed, name in enumerate(("vgg6", "lenet"), start=1)
        ]
        audit(
            run,
            target=target,
            target_digest=run.digest("target.safetensors"),
            private=private,
            judges=judges,
            plan=plan,
            progress=progress,
        )


# What must hold


def start(folder: Path, world: Path, **fault: Any) -> Any:
    folder.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=run_audit, args=(folder, world), kwargs=fault)
    process.start()
    return process


def finished(process: Any) -> int:
    """The exit code; negative for a signal."""
    process.join(120)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def world(quarters: Any, blobs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All images of the audit, in a file."""
    train, held_out = quarters(32, seed=1), quarters(16, seed=2)
    path = tmp_path_factory.mktemp("world") / "images.safetensors"
    images = {
        "train": train[0],
        "train_labels": train[1],
        "held_out": held_out[0],
        "held_out_labels": held_out[1],
    }
    save_file({**images, "public": blobs(30, seed=3)}, path)
    return path


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finished(start(folder, world)) == 0
    return folder


def timeless(folder: Path) -> dict[str, Any]:
    """The result without what clock and memory say."""
    result = json.loads((folder / RESULT).read_text())
    del result["created"], result["environment"]["peak_memory_bytes"], result["attack"]["seconds"]
    for entry in result["history"]:
        del entry["seconds"]
    return result


def test_killed_in_every_stage_and_at_random_instants_a_run_resumes_to_the_same_bytes(
    tmp_path, world, undisturbed
):
    chosen, folder, kills = random.Random(), tmp_path / "run", 0
    for stage in STAGES:
        process = start(folder, world, stage=stage, step=chosen.randrange(4))
        assert finished(process) == -signal.SIGKILL, stage
        assert not (folder / RESULT).exists()
        kills += 1
    for _ in range(2):
        process = start(folder, world)
        process.join(chosen.uniform(0, 1.5))
        process.kill()
        kills += finished(process) == -signal.SIGKILL
    assert finished(start(folder, world)) == 0
    assert kills >= len(STAGES)
    for name in (
        RECONSTRUCTIONS,
        "target.safetensors",
        "judges/vgg6.safetensors",
        "judges/lenet.safetensors",
    ):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    for name in ("attack/seed-0", "attack/seed-1", "controls/untrained"):
        file = f"{name}.safetensors"
        assert (folder / file).read_bytes() == (undisturbed / file).read_bytes()
    assert timeless(folder) == timeless(undisturbed)
    assert (folder / "evidence.safetensors").read_bytes() == (
        undisturbed / "evidence.safetensors"
    ).read_bytes()
    assert not list(folder.rglob(".patchmi-*"))


def test_a_whole_audit_touches_no_network(undisturbed):
    assert (undisturbed / "report.html").exists()
    assert not (undisturbed.parent / "attempts").exists()


def test_an_attempt_to_reach_the_network_would_be_seen(tmp_path):
    process = context.Process(target=reach_out, args=(tmp_path / "attempts",))
    process.start()
    assert finished(process) == 3
    assert "example" in (tmp_path / "attempts").read_text()


def reach_out(attempts: Path) -> None:
    stay_offline(attempts)
    try:
        socket.create_connection(("host.example", 80))
    except OSError:
        sys.exit(3)


# Blindness


def test_an_attack_is_called_with_no_private_image_and_no_judge():
    # Seed and counts, where its state goes and who is told how far it is: nothing of it is an image.
    task = [field.name for field in fields(Task)]
    assert task == ["count_per_class", "seed", "checkpoint", "cache", "progress", "observe"]
    assert [*inspect.signature(AbstractAttack.__call__).parameters] == ["self", "door", "public", *task]
    for attack in ATTACKS.values():
        assert attack.__call__ is AbstractAttack.__call__
        assert [*inspect.signature(attack._reconstruct).parameters] == ["self", "door", "public", "task"]


def test_an_attack_can_import_no_measure_no_judge_and_no_verdict():
    graph = grimp.build_graph("patchmi", exclude_type_checking_imports=True, cache_dir=None)
    seen = graph.find_upstream_modules("patchmi.attacks", as_package=True)
    forbidden = ("metrics", "audit", "verdict", "report", "demo", "cli")
    assert {
        module for module in seen if module.startswith(tuple(f"patchmi.{room}" for room in forbidden))
    } == set()
    assert "patchmi.target" in seen
    assert "patchmi.metrics" in graph.find_upstream_modules("patchmi.audit", as_package=True)


def test_the_demo_s_judges_are_of_other_kinds_than_its_target_and_each_other():
    assert len(JUDGES) >= 3
    assert {*JUDGES, TARGET[0]} <= set(ARCHITECTURES)
    assert TARGET[0] not in JUDGES


def test_no_judge_is_of_the_kind_that_the_attack_draws_its_pictures_against():
    drawn_against = {TARGET[0], *RECIPES["default"].students, *PatchTransfer().students}
    assert drawn_against.isdisjoint(JUDGES)
    assert STUDENT not in drawn_against
    assert len(JUDGES) >= 3
