"""Measures of dependence: against slow loops, by what must hold for them, and what trainings end in."""

import math

import numpy as np
import pytest
import torch
from tests.defences.test_training import bars, weights
from torch import Tensor

from patchmi import machine
from patchmi.defences import (
    DEFENCES,
    AbstractDefence,
    BidoCoco,
    BidoHsic,
    Lesson,
    choose_defence,
    train_defended,
)
from patchmi.defences.bido import (
    Dependence,
    bido_loss,
    centred,
    coco,
    gaussian_kernel,
    image_dependence,
    linear_kernel,
    logits_and_hidden,
    normalised_hsic,
)
from patchmi.networks import ARCHITECTURES, build_classifier, stages
from patchmi.target import Batch, Training

BOTH = pytest.mark.parametrize("dependence", [normalised_hsic, coco])
KINDS = pytest.mark.parametrize("kind", [BidoHsic, BidoCoco])
Matrix = list[list[float]]


def slow_gaussian(things: Tensor) -> Matrix:
    rows = [[float(number) for number in thing.flatten()] for thing in things.double()]
    return [
        [math.exp(-sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / (50 * len(x))) for y in rows]
        for x in rows
    ]


def slow_one_hot(labels: Tensor) -> Matrix:
    return [[float(a == b) for b in labels.tolist()] for a in labels.tolist()]


def slow_product(first: Matrix, second: Matrix) -> Matrix:
    places = range(len(first))
    return [[sum(first[i][k] * second[k][j] for k in places) for j in places] for i in places]


def slow_dependence(dependence: Dependence, first: Matrix, second: Matrix) -> float:
    """As the published code has it: for HSIC each kernel is centred from one side, and not symmetric."""
    m = len(first)
    centring = [[float(i == j) - 1 / m for j in range(m)] for i in range(m)]
    if dependence is coco:
        sides = [slow_product(centring, slow_product(kernel, centring)) for kernel in (first, second)]
        product = slow_product(sides[0], sides[1])
        return math.sqrt(math.sqrt(sum(value**2 for row in product for value in row))) / m
    parts = []
    for kernel in (first, second):
        sided = slow_product(kernel, centring)
        ridged = [[sided[i][j] + m * 1e-5 * (i == j) for j in range(m)] for i in range(m)]
        parts.append(slow_product(sided, np.linalg.inv(np.array(ridged)).tolist()))
    return sum(parts[0][i][j] * parts[1][j][i] for i in range(m) for j in range(m))


def depend(dependence: Dependence, first: Tensor, second: Tensor) -> float:
    return float(dependence(centred(gaussian_kernel(first)), centred(gaussian_kernel(second))))


@BOTH
def test_the_loss_is_the_published_one_in_slow_loops(dependence: Dependence) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(7, 2, 3, 4, generator=random)
    hidden = [torch.randn(7, 5, 2, 2, generator=random), torch.randn(7, 3, generator=random)]
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    loss = bido_loss(
        torch.zeros(7, 3),
        labels,
        images=images,
        hidden=hidden,
        dependence=dependence,
        image_weight=0.3,
        class_weight=2.0,
    )
    expected = math.log(3)
    for outputs in hidden:
        kept = slow_gaussian(outputs)
        expected += 0.3 * slow_dependence(dependence, slow_gaussian(images), kept)
        expected -= 2.0 * slow_dependence(dependence, kept, slow_one_hot(labels))
    assert float(loss) == pytest.approx(expected, rel=1e-7)


def test_dependences_counted_by_hand() -> None:
    """Two things of another class each: L̄ = ½·(1, -1; -1, 1), whose only value beside 0 is 1."""
    pair = centred(linear_kernel(torch.eye(2)))
    torch.testing.assert_close(pair, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]).double())
    assert float(coco(pair, pair)) == pytest.approx(1 / 2)
    assert float(normalised_hsic(pair, pair)) == pytest.approx((1 / (1 + 2e-5)) ** 2)


@BOTH
def test_the_order_of_things_says_nothing_but_the_same_for_both(dependence: Dependence) -> None:
    first, second = torch.randn(12, 4), torch.randn(12, 3)
    order = torch.randperm(12)
    whole = depend(dependence, first, second)
    assert depend(dependence, first[order], second[order]) == pytest.approx(whole)
    assert depend(dependence, second, first) == pytest.approx(whole)
    assert depend(dependence, first[order], second) != pytest.approx(whole, rel=1e-3)


@BOTH
def test_what_is_shared_is_more_than_what_is_not_and_nothing_is_shared_with_a_constant(
    dependence: Dependence,
) -> None:
    random = torch.Generator().manual_seed(0)
    first, second = (torch.randn(100, 2, generator=random) for _ in range(2))
    with_itself = depend(dependence, first, first)
    assert depend(dependence, first, second) < 0.5 * with_itself
    assert depend(dependence, first, first + 0.1 * second) > 0.8 * with_itself
    assert depend(dependence, first, torch.ones(100, 2)) < 1e-6 * with_itself
    assert with_itself < 99


@BOTH
@pytest.mark.parametrize("count", [1, 2, 8])
def test_slopes_are_finite_where_all_outputs_are_equal(dependence: Dependence, count: int) -> None:
    hidden = torch.ones(count, 4, requires_grad=True)
    bido_loss(
        torch.zeros(count, 3),
        torch.arange(count) % 3,
        images=torch.rand(count, 1, 4, 4),
        hidden=[hidden],
        dependence=dependence,
        image_weight=1.0,
        class_weight=10.0,
    ).backward()
    assert hidden.grad is not None
    assert bool(hidden.grad.isfinite().all())


@BOTH
def test_autocast_changes_nothing(dependence: Dependence) -> None:
    first, second = torch.randn(16, 8), torch.randn(16, 8)
    plain = depend(dependence, first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert depend(dependence, first, second) == plain


@pytest.mark.parametrize(
    ("architecture", "places"),
    [("resnet10", [1, 3, 5]), ("vgg6", [3, 7, 11]), ("lenet", [0, 1, 2]), ("mlp", [0, 1])],
)
def test_three_stages_are_watched_and_no_hook_stays(architecture: str, places: list[int]) -> None:
    network = build_classifier(architecture, class_count=3, channel_count=2, width=8).eval()
    images = torch.rand(2, 2, 20, 24)
    logits, hidden = logits_and_hidden(network, images)
    assert torch.equal(logits, network(images))
    assert len(hidden) == len(places)
    whole = images * 2 - 1
    parts = stages(network)
    outputs = {}
    for layer in network.trunk.children():
        whole = layer(whole)
        if any(layer is part for part in parts):
            outputs[len(outputs)] = whole
    for place, output in zip(places, hidden, strict=True):
        assert torch.equal(outputs[place], output)
    with pytest.raises(RuntimeError):
        logits_and_hidden(network, torch.rand(2, 5, 20, 24))
    assert not any(part._forward_hooks for part in network.modules())


def test_measuring_takes_a_network_as_in_use_and_leaves_it_as_it_is() -> None:
    network = build_classifier("resnet10", class_count=3, channel_count=1, width=8).train()
    images, _ = bars(12)
    before = weights(network)
    value = image_dependence(network, images, coco)
    assert network.training
    assert weights(network) == before
    assert image_dependence(network.eval(), images, coco) == value


def lesson(step_count: int, *, precision: machine.Precision = "float32") -> Lesson:
    training = Training(step_count=step_count, batch_size=20, learning_rate=5e-3, precision=precision)
    return Lesson(*bars(48), training, class_count=3)


@KINDS
def test_bars_are_learnt_and_the_note_tells_what_became_of_the_dependence(
    kind: type[AbstractDefence],
) -> None:
    images, labels = bars(60, seed=1)
    defended = train_defended("lenet", kind(0.1), lesson(40), seed=0, width=4)
    assert float((defended.network(images).argmax(1) == labels).float().mean()) > 0.9
    (note,) = defended.notes
    dependence = coco if kind is BidoCoco else normalised_hsic
    after = image_dependence(defended.network, bars(48)[0], dependence)
    assert f" before the training, {after:.4g} after it." in note
    assert "48 training images" in note
    assert not defended.network.training


@KINDS
def test_the_images_weight_lowers_what_is_kept_of_them(kind: type[AbstractDefence]) -> None:
    """Without cross-entropy and the class's share, which pull the other way."""
    dependence = coco if kind is BidoCoco else normalised_hsic
    torch.manual_seed(0)
    network = ARCHITECTURES["lenet"](class_count=3, channel_count=1, width=4)
    images, labels = bars(24)
    before = image_dependence(network, images, dependence)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(30):
        logits, hidden = logits_and_hidden(network, images)
        loss = bido_loss(
            logits.detach(),
            labels,
            images=images,
            hidden=hidden,
            dependence=dependence,
            image_weight=1.0,
            class_weight=0.0,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert image_dependence(network, images, dependence) < 0.8 * before


@pytest.mark.parametrize(("kind", "ratio"), [(BidoHsic, 10), (BidoCoco, 50)])
def test_the_strength_sets_both_weights(kind: type[AbstractDefence], ratio: float) -> None:
    given = lesson(1)
    network = ARCHITECTURES["lenet"](class_count=3, channel_count=1, width=4)
    images, labels = bars(12)
    with kind(0.2).applied(network, given) as hooks:
        loss = hooks.loss(Batch(network, images, labels, 0.0))
    logits, hidden = logits_and_hidden(network, images)
    expected = bido_loss(
        logits,
        labels,
        images=images,
        hidden=hidden,
        dependence=coco if kind is BidoCoco else normalised_hsic,
        image_weight=0.2,
        class_weight=0.2 * ratio,
    )
    torch.testing.assert_close(loss, expected)


@KINDS
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes(
    kind: type[AbstractDefence], precision: machine.Precision
) -> None:
    once, again = (
        train_defended("resnet10", kind(0.1), lesson(3, precision=precision), seed=0, width=8)
        for _ in range(2)
    )
    assert weights(once.network) == weights(again.network)
    assert once.notes == again.notes
    assert all(bool(weight.isfinite().all()) for weight in once.network.parameters())


@pytest.mark.parametrize("name", ["bido-hsic", "bido-coco"])
def test_strengths_are_checked(name: str) -> None:
    listed = DEFENCES[name]
    assert [choose_defence(name, strength).strength for strength in listed.strengths] == [*listed.strengths]
    for strength in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"^{name}, strength \S+: give a number above 0$"):
            choose_defence(name, strength)
