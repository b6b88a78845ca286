"""The frame around a search, filled with the plainest one: images that grow brighter in each step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks.base import Task
from patchmi.attacks.identity import IdentityTerm
from patchmi.attacks.search import refuse_public_terms, search_in_batches
from patchmi.runs import NO_CACHE, NO_CHECKPOINT, Checkpoint
from patchmi.target import Target, WhiteBox
from patchmi.types import Reconstructions, silent, unobserved

CLASSES = 3


class Brighter:
    """Image i is as bright as its class, plus a hundredth for each step; the classes it saw are kept."""

    begun: list[list[int]] = []  # noqa: RUF012 - shared by all batches, on purpose

    def __init__(self, labels: torch.Tensor) -> None:
        self.begun.append(labels.tolist())
        self.level = labels.float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4) * 50 / 255
        self.draws: list[float] = []

    def advance(self, share_done: float) -> dict[str, torch.Tensor]:
        self.level = self.level + 1 / 255
        self.draws.append(float(torch.rand(())))
        return {"share_done": torch.tensor(share_done), "draw": torch.tensor(self.draws[-1])}

    def images(self) -> torch.Tensor:
        return self.level

    def state(self) -> dict[str, Any]:
        return {"level": self.level}

    def restore(self, state: dict[str, Any]) -> None:
        self.level = state["level"]


@pytest.fixture
def door() -> WhiteBox:
    Brighter.begun.clear()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    return WhiteBox(Target(model, ("a", "b", "c"), (1, 4, 4)))


def search(
    door: WhiteBox, *, count_per_class: int, batch_size: int, step_count: int, **changes: Any
) -> Reconstructions:
    task = Task(
        count_per_class=count_per_class,
        seed=5,
        checkpoint=NO_CHECKPOINT,
        cache=NO_CACHE,
        progress=silent,
        observe=unobserved,
    )
    return search_in_batches(
        Brighter,
        door,
        replace(task, **changes),
        batch_size=batch_size,
        step_count=step_count,
        description="Brighter",
    )


def test_every_batch_holds_each_class_as_often_and_none_is_larger_than_asked(door):
    search(door, count_per_class=7, batch_size=8, step_count=1)
    assert sorted(map(len, Brighter.begun)) == [7, 7, 7]
    for batch in Brighter.begun:
        counts = [batch.count(label) for label in range(CLASSES)]
        assert max(counts) - min(counts) <= 1
    assert sorted(label for batch in Brighter.begun for label in batch) == sorted([0, 1, 2] * 7)


def test_the_answer_is_in_the_order_of_the_classes_with_its_own_images(door):
    made = search(door, count_per_class=5, batch_size=4, step_count=3)
    assert made.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert (made.images[:, 0, 0, 0] * 255).round().tolist() == [3] * 5 + [53] * 5 + [103] * 5
    assert made.seeds.tolist() == [5] * 15


def test_snapshots_are_joined_over_the_batches_and_hold_twenty_of_each_class_at_most(door):
    made = search(door, count_per_class=30, batch_size=25, step_count=20)
    assert [snapshot.step for snapshot in made.snapshots] == [0, 1, 2, 4, 7, 10, 15, 20]
    for snapshot in made.snapshots:
        assert snapshot.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
        levels = (snapshot.images[:, 0, 0, 0] * 255).round()
        assert levels.tolist() == [50 * label + snapshot.step for label in snapshot.labels.tolist()]
    seconds = [snapshot.seconds for snapshot in made.snapshots]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0 < seconds[-1]


def test_without_steps_the_start_is_the_answer_and_its_only_snapshot(door):
    made = search(door, count_per_class=2, batch_size=4, step_count=0)
    assert (made.images[:, 0, 0, 0] * 255).round().tolist() == [0, 0, 50, 50, 100, 100]
    assert [snapshot.step for snapshot in made.snapshots] == [0]


def test_an_observer_counts_on_over_the_batches_and_each_begins_anew(door):
    heard: list[tuple[int, float, float]] = []
    search(
        door,
        count_per_class=2,
        batch_size=3,
        step_count=20,
        observe=lambda step, losses: heard.append((step, losses["share_done"], losses["draw"])),
    )
    assert [(step, share) for step, share, _ in heard] == [(0, 0.0), (10, 0.5), (20, 0.0), (30, 0.5)]
    assert heard[0][2] != heard[2][2], "batches of one seed must not draw alike"


def test_batches_of_other_seeds_draw_otherwise(door):
    draws: list[float] = []
    for seed in (0, 1):
        search(
            door,
            count_per_class=1,
            batch_size=3,
            step_count=1,
            seed=seed,
            observe=lambda _, losses: draws.append(losses["draw"]),
        )
    assert draws[0] != draws[1]


class Stop(Exception):  # noqa: N818 - the end of a process, here without one
    """Ends a search between two steps."""


def stopping_after(count: int) -> Callable[..., Any]:
    taken = iter(range(count))

    def progress(steps, description):
        for step in steps:
            if next(taken, None) is None:
                raise Stop
            yield step

    return progress


@pytest.mark.parametrize("last", [2, 4, 7])
def test_stopped_in_any_batch_it_goes_on_with_the_batches_and_queries_that_are_done(
    last: int, door, tmp_path: Path
):
    searched = partial(search, door, count_per_class=3, batch_size=3, step_count=4)
    whole = searched()
    files = (tmp_path / "0", tmp_path / "1")
    door.queries.forward = 11
    with pytest.raises(Stop):
        searched(checkpoint=Checkpoint(files, every_seconds=0.0), progress=stopping_after(last))
    Brighter.begun.clear()
    door.queries.forward = 0
    made = searched(checkpoint=Checkpoint(files, every_seconds=0.0))
    assert len(Brighter.begun) == {2: 3, 4: 3, 7: 2}[last], "batches that were done must not begin again"
    assert door.queries.forward == 11
    assert torch.equal(made.images, whole.images)
    for one, other in zip(made.snapshots, whole.snapshots, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("term", [IdentityTerm(student_count=1), IdentityTerm(feature_weight=0.5)])
def test_what_only_public_images_could_teach_is_refused_in_one_line(term: IdentityTerm):
    with pytest.raises(ValueError, match=r"Some MI uses no public images.*student_count") as refused:
        refuse_public_terms(term, attack="Some MI")
    assert "\n" not in str(refused.value)
    refuse_public_terms(IdentityTerm(loss="logit"), attack="Some MI")
