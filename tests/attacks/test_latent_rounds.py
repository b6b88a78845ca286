"""The frame around searches of latents: budgets, snapshots, controls, and a kill between two rounds."""

from collections.abc import Iterable

import pytest
import torch

from patchmi.attacks import AbstractAttack, BrepMI, CmaMI, GanTraining, MirrorMI
from patchmi.runs import Cache, Journal, open_run
from patchmi.target import ScoreAccess

SHAPE = (1, 16, 16)
GAN = GanTraining(step_count=30, batch_size=16, latent_size=4, width=8, learning_rate=1e-3)
ATTACKS: list[AbstractAttack] = [BrepMI(gan=GAN, point_count=4), MirrorMI(gan=GAN), CmaMI(gan=GAN)]
ROUND_COSTS = {MirrorMI: 3 * 7, CmaMI: 3 * 8}
"""Images that a round of all three classes sends, at most."""
PUBLIC = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(0))
EVERY_ATTACK = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One GAN for all."""
    return Cache(tmp_path_factory.mktemp("cache"))


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Three classes, by which part of an image is brightest."""
    return (images.float() / 255).mean(dim=(1, 3))[:, :15].unflatten(1, (3, 5)).mean(dim=2).mul(50).softmax(1)


def door_with(budget: int, record: Journal | None = None) -> ScoreAccess:
    return ScoreAccess(
        brightness, class_names=("a", "b", "c"), image_shape=SHAPE, budget=budget, record=record
    )


@EVERY_ATTACK
@pytest.mark.parametrize("budget", [1, 4, 29, 301])
def test_the_budget_is_planned_and_kept_to_the_image(attack, budget, cache):
    door = door_with(budget)
    made = attack(door, PUBLIC, count_per_class=5, cache=cache)
    assert len(made.images) == 15
    assert 0 < door.account.asked <= budget
    if not isinstance(attack, BrepMI):  # its spheres that grow cost less than was planned
        # What was remembered was planned for as if it were sent.
        assert door.left - door.account.repeated < ROUND_COSTS[type(attack)]
    queries = [snapshot.queries for snapshot in made.snapshots]
    assert queries == sorted(queries)
    assert queries[-1] == door.account.asked


@EVERY_ATTACK
def test_snapshots_begin_before_the_first_round_of_the_search_itself(attack, cache):
    door = door_with(400)
    made = attack(door, PUBLIC, count_per_class=1, cache=cache)
    assert made.snapshots[0].queries == next(iter(door.account.stages.values()))
    assert [snapshot.step for snapshot in made.snapshots][:2] == [1, 2]
    assert made.snapshots[0].labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20


@EVERY_ATTACK
def test_without_the_target_the_images_are_the_gan_s_of_no_class(attack, cache):
    door = door_with(400)
    made = attack.without_target()(door, PUBLIC, count_per_class=4, cache=cache)
    assert door.account.asked == 0
    assert made.notes == ()
    assert len({image.numpy().tobytes() for image in made.images}) == 12


class Kill(Exception):  # noqa: N818 - the end of a process, here without a process
    """Ends an attack between two rounds."""


@EVERY_ATTACK
@pytest.mark.parametrize("place", [0, 1, 3])
def test_killed_between_two_rounds_of_the_search_it_goes_on_to_the_same_bytes(attack, place, cache, tmp_path):
    def until(steps: Iterable[int], description: str) -> Iterable[int]:
        for number, step in enumerate(steps):
            if description.endswith("seed 0") and number == place:
                raise Kill
            yield step

    whole = door_with(300)
    expected = attack(whole, PUBLIC, count_per_class=5, cache=cache)
    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(Kill):
        attack(
            door_with(300, Journal(tmp_path / "queries")),
            PUBLIC,
            count_per_class=5,
            checkpoint=run.checkpoint("attack", every_seconds=0.0),
            cache=cache,
            progress=until,
        )
    torch.manual_seed(99)
    door = door_with(300, Journal(tmp_path / "queries"))
    already_sent = door.sent_count
    with open_run(tmp_path, config={}, resume=True) as run:
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        made = attack(door, PUBLIC, count_per_class=5, checkpoint=checkpoint, cache=cache)
    assert 0 < already_sent < door.sent_count == whole.account.asked
    assert torch.equal(made.images, expected.images)
    assert all(
        torch.equal(x.images, y.images) for x, y in zip(made.snapshots, expected.snapshots, strict=True)
    )
    assert door.account == whole.account
