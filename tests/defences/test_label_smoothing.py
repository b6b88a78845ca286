"""Smoothed classes: the equation against torch's own, by hand, and what trainings on it end in."""

import math

import pytest
import torch
from tests.defences.test_training import bars, weights
from torch.nn import functional as F

from patchmi.defences import DEFENCES, LabelSmoothing, Lesson, choose_defence, train_defended
from patchmi.defences.label_smoothing import CAP, smoothed_cross_entropy, strength_at
from patchmi.networks import ARCHITECTURES, Classifier
from patchmi.target import Batch, Training


def train(strength: float, *, step_count: int = 40) -> Classifier:
    training = Training(step_count=step_count, batch_size=16, learning_rate=5e-3, precision="float32")
    lesson = Lesson(*bars(48), training, class_count=3)
    return train_defended("lenet", LabelSmoothing(strength), lesson, seed=0, width=4).network


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.4, 0.9])
def test_it_is_torchs_own_where_torch_has_one(strength: float) -> None:
    logits, labels = 3 * torch.randn(20, 7), torch.arange(20) % 7
    expected = F.cross_entropy(logits, labels, label_smoothing=strength)
    torch.testing.assert_close(
        smoothed_cross_entropy(logits, labels, strength=strength), expected, rtol=0, atol=1e-6
    )


def test_a_negative_strength_counted_by_hand() -> None:
    """p = (1/2, 1/4, 1/4) of class 0: 1.5·ln 2 - .5·(ln 2 + 2·ln 4)/3 = 1.5·ln 2 - 5/6·ln 2."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    loss = smoothed_cross_entropy(logits, torch.tensor([0]), strength=-0.5)
    assert float(loss) == pytest.approx((1.5 - 5 / 6) * math.log(2))


def test_the_cap_is_of_each_class_and_of_the_mean_alone() -> None:
    """-log p is (100, 0, 100) to the bit; the class's own 100 counts in full, in the mean for 50."""
    logits = torch.tensor([[0.0, 100.0, 0.0]])
    loss = smoothed_cross_entropy(logits, torch.tensor([0]), strength=-0.3, cap=50.0)
    assert float(loss) == pytest.approx(1.3 * 100 - 0.3 * 100 / 3)


def test_a_negative_strength_waits_for_the_second_half_and_rises_in_a_line() -> None:
    assert [strength_at(share, -0.2) for share in (0.0, 0.25, 0.5)] == [0, 0, 0]
    assert [strength_at(share, -0.2) for share in (0.625, 0.75, 1.0)] == pytest.approx([-0.05, -0.1, -0.2])
    assert [strength_at(share, 0.2) for share in (0.0, 0.4, 0.99)] == [0.2, 0.2, 0.2]


@pytest.mark.parametrize(("share", "now"), [(0.25, 0.0), (0.75, -0.1)])
def test_a_training_takes_the_strength_of_its_moment(share: float, now: float) -> None:
    images, labels = bars(9)
    network = ARCHITECTURES["lenet"](class_count=3, channel_count=1, width=4)
    lesson = Lesson(images, labels, Training(), class_count=3)
    with LabelSmoothing(-0.2).applied(network, lesson) as hooks:
        loss = hooks.loss(Batch(network, images, labels, share))
    expected = smoothed_cross_entropy(network(images), labels, strength=now)
    torch.testing.assert_close(loss, expected)


def test_without_the_cap_logits_grow_for_ever_and_with_it_they_come_to_rest() -> None:
    labels = torch.arange(3)

    def widest(cap: float) -> float:
        logits = torch.zeros(3, 3, requires_grad=True)
        optimiser = torch.optim.SGD([logits], lr=10.0)
        for _ in range(200):
            optimiser.zero_grad()
            smoothed_cross_entropy(logits, labels, strength=-0.2, cap=cap).backward()
            optimiser.step()
        return float(logits.detach().max() - logits.detach().min())

    assert widest(math.inf) > 2 * CAP
    assert CAP < widest(CAP) < CAP + 2


def test_a_long_training_stays_finite_and_classifies() -> None:
    images, labels = bars(60, seed=1)
    network = train(-0.2, step_count=250)
    with torch.no_grad():
        logits = network(images)
    assert all(bool(torch.isfinite(weight).all()) for weight in network.parameters())
    assert float((logits.argmax(1) == labels).float().mean()) > 0.9
    assert 10 < float(logits.abs().max()) < 10 * CAP


def test_how_sure_a_classifier_is_falls_with_the_strength() -> None:
    images, labels = bars(60, seed=1)
    sureness = []
    for strength in (-0.2, 0.1, 0.4):
        answers = train(strength)(images).softmax(1).detach()
        assert float((answers.argmax(1) == labels).float().mean()) > 0.9
        sureness.append(float(answers.max(1).values.mean()))
    assert sureness[0] > sureness[1] > sureness[2]


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert weights(train(-0.1, step_count=12)) == weights(train(-0.1, step_count=12))


@pytest.mark.parametrize("name", ["label-smoothing", "negative-smoothing"])
def test_every_listed_strength_is_taken_and_has_its_names_sign(name: str) -> None:
    listed = DEFENCES[name]
    for strength in (listed.start, *listed.strengths):
        assert choose_defence(name, strength) == LabelSmoothing(strength)
        with pytest.raises(ValueError, match=f"^{name}, strength .*: give one (above|below) 0$"):
            choose_defence(name, -strength)


@pytest.mark.parametrize("strength", [0.0, 1.0, -1.0, math.nan])
def test_wrong_strengths_are_refused_in_one_line(strength: float) -> None:
    with pytest.raises(ValueError, match=r"^label-smoothing, strength .*: give one above -1 .*$"):
        LabelSmoothing(strength)
