"""Classes dealt to several generators, and what these draw together."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchmi.attacks import RECIPES, ClassPatchScale, PatchMI
from patchmi.attacks.public_prior import Answers
from patchmi.attacks.shards import balanced_shards, class_moments, shards_of
from patchmi.losses import Moments
from patchmi.runs import open_run
from patchmi.target import Target, WhiteBox
from patchmi.types import silent

THIN = dataclasses.replace(
    RECIPES["default"],
    scales=(ClassPatchScale(width=8),),
    generator_width=4,
    students=(),
    candidate_factor=1.0,
)
SHORT = PatchMI(THIN, step_count=6, shard_count=2, weights=False)


@pytest.fixture(scope="module")
def target(fit) -> Target:
    return Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=(1, 16, 16))


@pytest.fixture(scope="module")
def public(blobs) -> torch.Tensor:
    return blobs(60, seed=3)


def imbalance(moments: torch.Tensor, shards: list[list[int]]) -> float:
    """Squared distance of the shards' means from the mean of all."""
    return sum((moments[shard].mean(dim=0) - moments.mean(dim=0)).square().sum().item() for shard in shards)


def test_opposites_stand_together():
    moments = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    assert sorted(balanced_shards(moments, shard_count=2)) == [[0, 3], [1, 2]]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.integers(0, 1000))
def test_every_class_is_dealt_once_and_shards_are_of_one_size(class_count, shard_count, width, seed):
    shard_count = min(shard_count, class_count)
    moments = torch.randn(class_count, width, generator=torch.Generator().manual_seed(seed))
    shards = balanced_shards(moments, shard_count=shard_count)
    assert sorted(itertools.chain(*shards)) == list(range(class_count))
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(shard == sorted(shard) for shard in shards)


@pytest.mark.parametrize("seed", range(5))
def test_it_deals_nearly_as_evenly_as_the_best_of_all_ways(seed):
    moments = torch.randn(8, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    every_way = [
        imbalance(moments, [list(half), [label for label in range(8) if label not in half]])
        for half in itertools.combinations(range(8), 4)
    ]
    dealt = imbalance(moments, balanced_shards(moments, shard_count=2))
    assert dealt <= sorted(every_way)[len(every_way) // 4]


def test_classes_that_come_sorted_by_kind_are_mixed():
    kinds = torch.arange(100).div(25, rounding_mode="floor")
    moments = torch.nn.functional.one_hot(kinds).double()
    for shard in balanced_shards(moments, shard_count=5):
        assert kinds[shard].bincount().tolist() == [5, 5, 5, 5]


def test_moments_of_classes_average_to_those_of_their_mixture():
    """Counted by hand: of a class, what its images' pixels would give together."""
    pixels = torch.tensor([[0.0, 2.0], [4.0, 4.0], [1.0, 7.0]], dtype=torch.double)
    layer = Moments(
        pixels.mean(dim=1, keepdim=True),
        pixels.var(dim=1, correction=0, keepdim=True),
        torch.tensor([3.0]),
        torch.tensor([4.0]),
    )
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    seen = class_moments(Answers(torch.zeros(3, 2), [layer]), weights)
    # class 0: pixels 0 2 4 4, mean 2.5, square 9; class 1: 1 7, mean 4, square 25; remembered: 3, 4 + 9
    expected = torch.tensor([[-0.5 / 2, (9 - 13) / 4], [1 / 2, (25 - 13) / 4]])
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=0)


def test_a_target_without_batch_norm_has_its_classes_dealt_all_the_same(fit, public):
    names = ("a", "b", "c", "d")
    door = WhiteBox(Target(fit("mlp", width=4), class_names=names, image_shape=(1, 16, 16)))
    shards = shards_of(door, public, shard_count=3, seed=0, progress=silent)
    assert sorted(len(shard) for shard in shards) == [1, 1, 2]


def test_each_shard_alone_draws_what_it_draws_beside_the_others(target, public):
    together = SHORT(WhiteBox(target), public, count_per_class=3, seed=1)
    assert together.labels.tolist() == [label for label in range(4) for _ in range(3)]
    seen = []
    for shard in range(2):
        alone = dataclasses.replace(SHORT, shard=shard)(WhiteBox(target), public, count_per_class=3, seed=1)
        own = torch.isin(together.labels, alone.labels)
        assert torch.equal(alone.labels, together.labels[own])
        assert torch.equal(alone.images, together.images[own])
        for part, whole in zip(alone.snapshots, together.snapshots, strict=True):
            assert torch.equal(part.images, whole.images[torch.isin(whole.labels, part.labels)])
        seen += alone.labels.unique().tolist()
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_paper_s_generators_of_one_class_each_are_shared_out_too(target, public):
    attack = PatchMI("paper-mnist", step_count=2, shard_count=3, shard=1)
    made = attack(WhiteBox(target), public, count_per_class=2)
    assert made.labels.tolist() == [1, 1]
    assert made.snapshots[-1].labels.unique().tolist() == [1]


class Kill(Exception):  # noqa: N818 - the end of a process, here without a process
    """The process dies here."""


def test_killed_in_the_second_shard_it_goes_on_to_the_same_bytes(target, public, tmp_path):
    undisturbed = WhiteBox(target)
    whole = SHORT(undisturbed, public, count_per_class=3)

    def dies(steps, description):
        for step in steps:
            if "shard 2 of 2" in description and step == 4:
                raise Kill
            yield step

    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(Kill):
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        SHORT(WhiteBox(target), public, count_per_class=3, checkpoint=checkpoint, progress=dies)
    looked = []

    def watch(steps, description):
        looked.append(description)
        return steps

    door = WhiteBox(target)
    with open_run(tmp_path, config={}, resume=True) as run:
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        made = SHORT(door, public, count_per_class=3, checkpoint=checkpoint, progress=watch)
    assert torch.equal(made.images, whole.images)
    assert door.queries == undisturbed.queries
    assert not any("looks for shards" in description for description in looked)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [({"shard_count": 0}, "shard_count is 0"), ({"shard_count": 2, "shard": 2}, "give 0 to 1")],
)
def test_shards_that_there_cannot_be_are_refused(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        PatchMI(**settings)


def test_more_shards_than_classes_are_refused(target, public):
    with pytest.raises(ValueError, match=r"shard_count is 5, the target has 4 classes: give fewer"):
        PatchMI(shard_count=5)(WhiteBox(target), public)


def test_the_control_needs_one_generator_only():
    assert dataclasses.replace(SHORT, shard=1).without_target().shard_count == 1
