"""Audits of a classifier of four quarters, small enough to be run whole."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks import RECIPES, AbstractAttack, PatchMI, Task
from patchmi.audit import Judge, Plan, Private, audit
from patchmi.data import Source
from patchmi.runs import open_run
from patchmi.target import Target, WhiteBox
from patchmi.types import Images, Reconstructions

NAMES = ("north-west", "north-east", "south-west", "south-east")


@dataclass(frozen=True)
class Replay(AbstractAttack):
    """An attack with a known answer: some of these images of each class, others for each seed."""

    pictures: str
    """What they are, for the record."""
    draw: Callable[[int, int], torch.Tensor]
    """Images of a class for a seed, as many as there are."""
    draws_without_target: Callable[[int, int], torch.Tensor]
    draw_unselected: Callable[[int, int], torch.Tensor] | None = None
    """What it had drawn before it chose; None: it chose nothing."""

    def without_target(self) -> "Replay":
        return Replay(f"not {self.pictures}", self.draws_without_target, self.draws_without_target)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        return {}

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        def drawn(draw: Callable[[int, int], torch.Tensor]) -> Images:
            return torch.cat(
                [draw(label, task.seed)[: task.count_per_class] for label in range(door.class_count)]
            )

        labels = torch.arange(door.class_count).repeat_interleave(task.count_per_class)
        return Reconstructions(
            drawn(self.draw),
            labels,
            torch.full_like(labels, task.seed),
            notes=("Nothing was attacked.",),
            unselected=None if self.draw_unselected is None else drawn(self.draw_unselected),
        )


class Brightness(nn.Module):
    """A judge with nothing to learn: the brightest quarter it is. Of noise it calls a fourth each class."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power
        self.head = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(20 * torch.eye(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(images**self.power, 2).flatten(1))


@dataclass(frozen=True)
class World:
    """Who takes part in an audit."""

    target: Target
    private: Private
    judges: list[Judge]
    public: Source

    def held_out(self, label: int, seed: int) -> torch.Tensor:
        """All held-out images of a class, another one first for each seed."""
        members = self.private.held_out_images[self.private.held_out_labels == label]
        return members.roll(seed, dims=0)


def noise(label: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(10 * seed + label)
    return (torch.rand(12, 1, 16, 16, generator=random) * 255).round() / 255


@dataclass(frozen=True)
class Audited:
    """An audit that was run to its end."""

    folder: Path
    result: dict[str, Any]
    private: Private
    judges: list[Judge]
    plan: Plan
    calls: list[str]
    """What the progress was told."""


@pytest.fixture(scope="session")
def world(fit: Callable[..., nn.Module], quarters: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> World:
    """Held-out images of which one in twelve bears a wrong label: no judge can be right about all."""
    train, (images, truth) = quarters(96, seed=31), quarters(48, seed=32)
    labels = torch.where(torch.arange(48) < 4, (truth + 1) % 4, truth)
    private = Private(*train, (images * 255).round() / 255, labels, NAMES, "blobs in quarters")
    judges = [
        Judge(f"power {power}", "brightness of quarters", Brightness(power), "nothing") for power in (1, 2, 3)
    ]
    target = Target(fit("resnet10", width=4), NAMES, (1, 16, 16), name="quarters", architecture="resnet10")
    stripes = torch.zeros(40, 1, 16, 16)
    stripes[:, :, ::5] = torch.rand(40, 1, 4, 16, generator=torch.Generator().manual_seed(3))
    return World(target, private, judges, Source(stripes, "40 striped pictures"))


@pytest.fixture(scope="session")
def run_audit(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Audited]:
    def run(attack: AbstractAttack, *, may_be_shown: bool = False, **plan_changes: Any) -> Audited:
        private = Private(
            world.private.train_images,
            world.private.train_labels,
            world.private.held_out_images,
            world.private.held_out_labels,
            NAMES,
            world.private.description,
            may_be_shown,
        )
        plan = Plan(attack, world.public, **{"seeds": (0, 1, 2), "count_per_class": 12, **plan_changes})
        folder, calls = tmp_path_factory.mktemp("audit") / "run", []

        def progress(steps: Any, description: str) -> Any:
            calls.append(description)
            return steps

        with open_run(folder, config={}, resume=False) as opened:
            report = audit(
                opened,
                target=world.target,
                target_digest="0" * 64,
                private=private,
                judges=world.judges,
                plan=plan,
                progress=progress,
            )
            assert report == folder / "report.html"
            return Audited(folder, opened.read_json("result.json"), private, world.judges, plan, calls)

    return run


@pytest.fixture(scope="session")
def revealing(world: World, run_audit: Callable[..., Audited]) -> Audited:
    """The audit of an attack that draws the held-out images themselves."""
    return run_audit(Replay("held-out images", world.held_out, noise), may_be_shown=True)


@pytest.fixture(scope="session")
def harmless(run_audit: Callable[..., Audited]) -> Audited:
    """The audit of an attack that draws noise."""
    return run_audit(Replay("noise", noise, noise), count_per_class=4)


@pytest.fixture(scope="session")
def brief(run_audit: Callable[..., Audited]) -> Audited:
    """The audit of three steps of Patch-MI."""
    recipe = replace(RECIPES["default"], student_warm_up=2)
    return run_audit(PatchMI(recipe, step_count=3), seeds=(4,), count_per_class=5, neighbours=2)
