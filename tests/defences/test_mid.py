"""The bottleneck's loss: against torch's own divergence, by hand, and what trainings on it end in."""

import math

import pytest
import torch
from tests.defences.test_training import bars, weights
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from patchmi import machine
from patchmi.defences import DEFENCES, Lesson, Mid, choose_defence, train_defended
from patchmi.defences.mid import code_information, mid_loss
from patchmi.networks import ARCHITECTURES, Bottleneck, Classifier
from patchmi.target import Training


def lesson(step_count: int = 40, *, precision: machine.Precision = "float32") -> Lesson:
    training = Training(step_count=step_count, batch_size=16, learning_rate=5e-3, precision=precision)
    return Lesson(*bars(48), training, class_count=3)


def train(strength: float, given: Lesson) -> Classifier:
    return train_defended("lenet", Mid(strength), given, seed=0, width=4).network


def information(network: Classifier) -> float:
    images, _ = bars(60, seed=1)
    head = network.head
    assert isinstance(head, Bottleneck)
    with torch.no_grad():
        mean, deviation = head.encode(network.features(images))
    return float(code_information(mean=mean, deviation=deviation).mean())


def test_the_codes_information_is_torchs_divergence() -> None:
    mean, deviation = 2 * torch.randn(9, 5), torch.rand(9, 5) + 1e-3
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(code_information(mean=mean, deviation=deviation), expected)


def test_the_loss_counted_by_hand() -> None:
    """Codes of 3 and 1 units off in two numbers: ½·9 and ½·1 nats; p = ½ of each class: ln 2."""
    mean, deviation = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2)
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    loss = mid_loss(logits, labels, mean=mean, deviation=deviation, strength=0.1)
    assert float(loss) == pytest.approx(math.log(2) + 0.1 * (4.5 + 0.5) / 2)


def test_the_least_deviation_that_a_bottleneck_gives_has_finite_information_and_slope() -> None:
    head = Bottleneck(feature_count=4, class_count=2)
    mean, deviation = head.encode(torch.full((1, 4), -1e6))
    loss = code_information(mean=mean * 0, deviation=deviation).mean()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(weight.grad is None or bool(weight.grad.isfinite().all()) for weight in head.parameters())


def test_noise_is_on_in_training_and_off_in_use() -> None:
    images, labels = bars(6)
    given = lesson(1)
    network = train(0.01, given)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        network.train()
        head = network.head
        assert isinstance(head, Bottleneck)
        code = head.encode(network.features(images))
        assert not torch.equal(head.decide(*code), head.decide(*code))
        assert F.cross_entropy(head.decide(*code), labels) > 0


def test_the_codes_information_falls_with_the_strength_and_bars_are_still_told_apart() -> None:
    images, labels = bars(60, seed=1)
    weak, middle, strong = (train(strength, lesson()) for strength in (1e-3, 0.01, 0.1))
    assert information(weak) > 2 * information(middle)
    assert information(middle) > 1.2 * information(strong)
    for network in (weak, middle):
        assert float((network(images).argmax(1) == labels).float().mean()) > 0.9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes(precision: machine.Precision) -> None:
    once, again = (train(0.01, lesson(4, precision=precision)) for _ in range(2))
    assert weights(once) == weights(again)
    assert all(bool(weight.isfinite().all()) for weight in once.parameters())


def test_a_network_without_a_bottleneck_is_refused() -> None:
    plain = ARCHITECTURES["lenet"](class_count=3, channel_count=1, width=4)
    with (
        pytest.raises(ValueError, match=r"^mid: the network has no bottleneck"),
        Mid(0.1).applied(plain, lesson()),
    ):
        pass


def test_strengths_are_checked() -> None:
    for strength in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^mid, strength \S+: give a number above 0$"):
            Mid(strength)
    assert [choose_defence("mid", strength).strength for strength in DEFENCES["mid"].strengths]
