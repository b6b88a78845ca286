"""AT-AT: projected gradient descent against an oracle, its bounds, and what it must leave alone."""

import pytest
import torch
from tests.defences.test_training import BRIEF, bars, weights
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.defences import AtAt, Lesson, NoDefence, choose_defence, train_defended
from patchmi.defences.at_at import RADIUS, STEP_COUNT, STEP_SIZE, other_classes, perturb_towards
from patchmi.networks import Classifier, build_classifier, stages
from patchmi.target import Batch, Training

PRECISIONS: tuple[machine.Precision, ...] = ("float32", "bfloat16")


def network() -> Classifier:
    torch.manual_seed(0)
    return build_classifier("resnet10", class_count=3, channel_count=1, width=8).train()


def test_other_classes_are_never_the_own_one_and_all_others_alike() -> None:
    torch.manual_seed(0)
    labels = torch.arange(4).repeat(3000)
    drawn = other_classes(labels, class_count=4)
    counts = torch.stack([torch.bincount(drawn[labels == own], minlength=4) for own in range(4)])
    assert counts.diagonal().tolist() == [0, 0, 0, 0]
    assert float(counts[~torch.eye(4, dtype=torch.bool)].float().sub(1000).abs().max()) < 120


def test_a_linear_network_is_fooled_as_far_as_the_ball_reaches() -> None:
    """Its gradient has one sign at every point: each pixel walks to its end of the ball, 5 steps of 1/4."""
    torch.manual_seed(0)
    weight = torch.randn(1, 36)
    last = nn.Linear(36, 2, bias=False)
    linear = nn.Sequential(nn.Flatten(), last)
    with torch.no_grad():
        last.weight.copy_(torch.cat([-weight, weight]))
    images = torch.rand(8, 1, 6, 6) * 0.9 + 0.05
    moved = perturb_towards(linear, images, torch.ones(8, dtype=torch.long)) - images
    walked = moved * weight.view(6, 6).sign() / RADIUS
    assert STEP_COUNT * STEP_SIZE == pytest.approx(1.25 * RADIUS)
    assert float(walked.min()) >= 0.25 - 1e-3  # from one end of the ball, five quarters of a radius on
    assert float(walked.max()) == pytest.approx(1, abs=1e-3)
    assert float((walked > 0.999).float().mean()) == pytest.approx(0.625, abs=0.1)


def slowly_perturbed(model: nn.Module, image: Tensor, target: int, start: Tensor) -> Tensor:
    """One image at a time, pixel bounds spelt out."""
    now = start.clone()
    for _ in range(5):
        now.requires_grad_()
        loss = -F.log_softmax(model(now[None]), dim=1)[0, target]
        loss.backward()
        assert now.grad is not None
        walked = now.detach() - (1 / 255 / 4) * now.grad.sign()
        offset = (walked - image).clamp(-1 / 255, 1 / 255)
        now = (image + offset).clamp(0, 1)
    return now


def test_perturbed_images_are_the_oracles() -> None:
    model = network()
    model(bars(30)[0])  # some statistics
    images, labels = bars(6, seed=4)
    targets = (labels + 1) % 3
    torch.manual_seed(7)
    fast = perturb_towards(model, images, targets)
    torch.manual_seed(7)
    low, high = (images - RADIUS).clamp_min(0), (images + RADIUS).clamp_max(1)
    starts = low + (high - low) * torch.rand_like(images)
    model.eval()
    for image, target, start, found in zip(images, targets.tolist(), starts, fast, strict=True):
        slow = slowly_perturbed(model, image, target, start)
        assert float((slow - found).abs().gt(1e-6).float().mean()) < 0.02  # signs of gradients near 0


def test_perturbed_images_stay_in_the_ball_and_the_range_and_are_taken_for_the_target_more() -> None:
    model = network()
    model(bars(30)[0])
    images, labels = bars(30, seed=4)
    images = images.clamp(0, 1).round(decimals=1)  # many at the ends of the range
    targets = (labels + 1) % 3
    perturbed = perturb_towards(model, images, targets)
    assert not perturbed.requires_grad
    assert float((perturbed - images).abs().max()) <= RADIUS + 1e-6
    assert float(perturbed.min()) >= 0
    assert float(perturbed.max()) <= 1
    model.eval()
    before, after = (
        model(some).softmax(1).gather(1, targets[:, None]).detach() for some in (images, perturbed)
    )
    assert (after > before).all()


def test_looking_for_them_leaves_statistics_gradients_and_modes_alone() -> None:
    model = network()
    stages(model)[1].eval()  # as a frozen part
    modes = [part.training for part in model.modules()]
    before = weights(model)
    images, labels = bars(12)
    perturb_towards(model, images, labels)
    assert weights(model) == before
    assert all(weight.grad is None for weight in model.parameters())
    assert [part.training for part in model.modules()] == modes


def test_the_loss_is_the_sum_of_both_cross_entropies() -> None:
    images, labels = bars(12)
    model = network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    lesson = Lesson(images, labels, BRIEF, class_count=3)
    with AtAt(0.5).applied(model, lesson) as hooks:
        torch.manual_seed(1)
        loss = hooks.loss(Batch(model, images, labels, 0.0))
    model.load_state_dict(state)
    torch.manual_seed(1)
    targets = other_classes(labels, class_count=3)
    perturbed = perturb_towards(model, images, targets)
    plain, fooled = model(images).log_softmax(1), model(perturbed).log_softmax(1)
    rows = torch.arange(12)
    oracle = -plain[rows, labels].mean() - 0.5 * fooled[rows, targets].mean()
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-5)


def test_a_toy_still_learns_and_is_taught_the_wrong_classes_of_perturbed_images() -> None:
    training = Training(step_count=40, batch_size=24, learning_rate=3e-3, precision="float32")
    lesson = Lesson(*bars(48), training, class_count=3)
    plain, defended, again = (
        train_defended("mlp", defence, lesson, seed=0, width=4).network
        for defence in (NoDefence(), AtAt(1.0), AtAt(1.0))
    )
    assert weights(defended) == weights(again)
    images, labels = bars(60, seed=9)
    targets = (labels + 1) % 3
    assert float((defended(images).argmax(1) == labels).float().mean()) > 0.8
    losses = [
        float(F.cross_entropy(one(perturb_towards(one, images, targets)), targets).detach())
        for one in (plain, defended)
    ]
    assert losses[1] < 0.5 * losses[0]


def test_in_bfloat16_perturbed_images_are_as_fine_as_in_float32() -> None:
    """A quarter of 1/255 is less than bfloat16 tells apart near 1: the second term would not see it."""
    model = network()
    images, labels = bars(12)
    lesson = Lesson(images, labels, BRIEF, class_count=3)
    seen: list[Tensor] = []

    def see(module: nn.Module, arguments: tuple[Tensor, ...], answer: Tensor) -> None:
        del arguments
        if module.training:
            seen.append(answer)

    model.register_forward_hook(see)
    for precision in PRECISIONS:
        torch.manual_seed(1)
        with AtAt(0.5).applied(model, lesson) as hooks, machine.mixed_precision(precision):
            hooks.loss(Batch(model, images, labels, 0.0))
        model.load_state_dict(network().state_dict())
    assert torch.equal(seen[0], seen[2])
    assert seen[3].dtype == torch.bfloat16


def test_it_starts_where_the_table_says() -> None:
    assert choose_defence("at-at") == AtAt(0.08)


@pytest.mark.parametrize("strength", [0.0, -0.08, float("inf"), float("nan")])
def test_wrong_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"at-at, strength .*: give a weight above 0$"):
        AtAt(strength)
