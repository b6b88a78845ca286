"""Numbers of arms, counted by hand."""

import math

import pytest
import torch
from torch import nn

from patchmi.audit import Judge
from patchmi.audit.scores import (
    Arm,
    JudgedArm,
    arm_scores,
    confidence_floors,
    judge_arm,
    nearest_ratio_interval,
    share_of,
    snapshot_scores,
)
from patchmi.audit.scores import _frechet_interval as frechet_interval
from patchmi.metrics import clopper_pearson, frechet_distance
from patchmi.types import Snapshot

RIGHT, WRONG = 4.0, -4.0


def judged(
    answers: list[list[int]], labels: list[int], seeds: list[int], *, votes_needed: int = 2
) -> JudgedArm:
    """An arm of which each judge named the given classes, of two."""
    named = torch.tensor(answers)
    logits = torch.nn.functional.one_hot(named, 2).float() * (RIGHT - WRONG) + WRONG
    count = len(labels)
    arm = Arm(torch.rand(count, 1, 2, 2), torch.tensor(labels), torch.tensor(seeds))
    return JudgedArm(arm, logits, torch.zeros(count, 3), votes_needed)


@pytest.fixture
def eight() -> JudgedArm:
    """Two seeds, two classes, two images of each; three judges."""
    labels, seeds = [0, 0, 1, 1, 0, 0, 1, 1], [5, 5, 5, 5, 9, 9, 9, 9]
    answers = [[0, 0, 1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1, 0, 0], [0, 1, 0, 1, 1, 1, 1, 0]]
    return judged(answers, labels, seeds)


def test_each_judge_s_accuracy_is_counted_for_each_seed_and_class(eight):
    expected = [[[1.0, 1.0], [0.5, 0.5]], [[0.5, 1.0], [0.5, 0.0]], [[0.5, 0.5], [0.0, 0.5]]]
    assert eight.top_k().tolist() == expected
    assert eight.top_k(5).unique().tolist() == [1]


def test_a_consensus_needs_two_of_three(eight):
    # Right for two judges or more: images 0; 2 and 3; 4; 6.
    assert eight.consensus().tolist() == [[0.5, 1.0], [0.5, 0.5]]


def test_an_arm_s_two_rates_are_means_over_judges_seeds_and_classes(eight):
    scores = arm_scores(eight)
    assert set(scores) == {"judge_top1", "consensus_top1"}
    assert scores["judge_top1"].value == pytest.approx(13 / 24)
    assert scores["consensus_top1"].value == pytest.approx(5 / 8)
    assert scores["judge_top1"].n == 4


def test_confidence_is_the_probability_of_the_intended_class_averaged_over_judges(eight):
    right = 1 / (1 + math.exp(WRONG - RIGHT))
    votes = torch.tensor([3, 1, 2, 3, 2, 0, 2, 0])
    assert torch.allclose(eight.confidence(), (votes * right + (3 - votes) * (1 - right)).double() / 3)


def test_the_order_of_an_arm_s_images_does_not_matter(eight):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    arm = Arm(eight.arm.images[order], eight.arm.labels[order], eight.arm.seeds[order])
    shuffled = JudgedArm(arm, eight.logits[:, order], eight.features, 2)
    assert torch.equal(shuffled.top_k(), eight.top_k())
    assert torch.equal(shuffled.consensus(), eight.consensus())


class Sum(nn.Module):
    """Class 1 if a picture's sum passes a threshold; its feature is the sum."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0], [1.0]]))
            self.head.bias.copy_(torch.tensor([threshold, 0.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1).sum(dim=1, keepdim=True))


def sums(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1) * torch.full((1, 1, 2, 2), 0.25)


def test_every_judge_answers_and_the_first_one_gives_the_features():
    judges = [Judge(str(threshold), "sum", Sum(threshold), "nothing") for threshold in (0.3, 0.6)]
    arm = Arm(sums(0.1, 0.5, 0.9), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]))
    answered = judge_arm(arm, judges, votes_needed=2)
    assert answered.logits.argmax(dim=2).tolist() == [[0, 1, 1], [0, 0, 1]]
    assert answered.features is not None
    assert answered.features.flatten().tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert answered.consensus().tolist() == [[1.0, 0.5]]


def test_a_judge_less_sure_than_its_floor_has_no_vote():
    arm = Arm(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    sure, unsure = [[4.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 4.0]]
    logits = torch.tensor([sure, unsure])
    assert JudgedArm(arm, logits, torch.zeros(2, 3), 2).consensus().tolist() == [[1.0, 1.0]]
    floors = torch.tensor([0.9, 0.9])  # the second judge gives class 0 only .73
    assert JudgedArm(arm, logits, torch.zeros(2, 3), 2, floors).consensus().tolist() == [[0.0, 1.0]]


def test_a_floor_is_the_sureness_that_nineteen_of_twenty_real_images_reach():
    margins = torch.arange(21.0)
    logits = torch.stack([margins, torch.zeros(21)], dim=1)[None]
    arm = Arm(torch.rand(21, 1, 2, 2), torch.zeros(21, dtype=torch.long), torch.zeros(21, dtype=torch.long))
    floor = confidence_floors(JudgedArm(arm, logits, torch.zeros(21, 3), 1))
    assert floor.tolist() == pytest.approx([1 / (1 + math.exp(-1.0))])


def test_a_snapshot_is_scored_by_judges_and_target():
    judges = [Judge(str(threshold), "sum", Sum(threshold), "nothing") for threshold in (0.3, 0.6)]
    snapshot = Snapshot(7, 1.5, sums(0.1, 0.5, 0.5, 0.9), torch.tensor([0, 0, 1, 1]))
    target_logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert snapshot_scores(snapshot, judges, target_logits) == {
        "judge_top1": pytest.approx((0.5 + 1 + 1 + 0.5) / 4),
        "worst_class_top1": pytest.approx(0.75),
        "target_top1": pytest.approx(0.75),
    }


@pytest.mark.parametrize(
    ("share", "count", "rounded"), [(0.5, 10, 5), (1.0, 4, 4), (0.0, 4, 0), (1 / 3, 10, 3)]
)
def test_a_share_has_the_exact_interval_of_its_count(share, count, rounded):
    estimate, exact = share_of(share, count), clopper_pearson(rounded, count)
    assert (estimate.value, estimate.n) == (share, count)
    assert estimate.low == min(exact.low, share)
    assert estimate.high == max(exact.high, share)


def test_the_frechet_interval_is_a_jackknife_over_classes():
    random = torch.Generator().manual_seed(0)
    real_labels, fake_labels = torch.arange(60) % 3, torch.arange(45) % 3
    real = torch.randn(60, 2, generator=random) + real_labels[:, None]
    fake = torch.randn(45, 2, generator=random) + 2 * fake_labels[:, None]
    estimate = frechet_interval(real=real, real_labels=real_labels, fake=fake, fake_labels=fake_labels)
    left_out = [
        frechet_distance(real=real[real_labels != label], fake=fake[fake_labels != label])
        for label in range(3)
    ]
    mean = sum(left_out) / 3
    error = math.sqrt(2 / 3 * sum((value - mean) ** 2 for value in left_out))
    assert estimate.value == pytest.approx(frechet_distance(real=real, fake=fake))
    assert estimate.high - estimate.value == pytest.approx(1.96 * error)
    assert estimate.low == pytest.approx(max(0, estimate.value - 1.96 * error))
    assert estimate.n == 3


def test_an_infinite_ratio_gives_no_interval():
    assert nearest_ratio_interval(torch.tensor([1.0, math.inf])) is None
    estimate = nearest_ratio_interval(torch.tensor([0.5, 1.5]))
    assert estimate is not None
    assert (estimate.value, estimate.n) == (1.0, 2)
