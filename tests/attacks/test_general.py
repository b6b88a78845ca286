from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks.general import GeneralMI
from patchmi.attacks.identity import IdentityTerm
from patchmi.target import Target, WhiteBox

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def smooth_target(fit: Callable[..., nn.Module]) -> Target:
    """Dense layers: what raises a class's logit is a picture of it, in noise."""
    return Target(fit("mlp", width=4), tuple("abcd"), SHAPE)


@pytest.fixture(scope="module")
def public(blobs: Callable[..., torch.Tensor]) -> torch.Tensor:
    return blobs(10, seed=3)


def linear_target(shape: tuple[int, int, int], *, seed: int = 0) -> Target:
    torch.manual_seed(seed)
    size = shape[0] * shape[1] * shape[2]
    return Target(nn.Sequential(nn.Flatten(), nn.Linear(size, 3)), tuple("abc"), shape)


def rates(judge: nn.Module, made: Any) -> list[float]:
    with torch.no_grad():
        hits = (judge(made.images).argmax(dim=1) == made.labels).float()
    return [float(hits[made.labels == label].mean()) for label in range(4)]


def test_a_smooth_targets_classes_are_recognised_by_a_judge_of_another_kind(
    fit, quarters, smooth_target, public
):
    judge = fit("lenet", width=4, seed=1)
    images, truth = quarters(100, seed=50)
    attack = GeneralMI()
    made = attack(WhiteBox(smooth_target), public, count_per_class=20)
    control = attack.without_target()(WhiteBox(smooth_target), public, count_per_class=20)
    assert float((judge(images).argmax(dim=1) == truth).float().mean()) > 0.9
    assert min(rates(judge, made)) >= 0.8
    assert min(rates(judge, control)) < 0.5


def test_a_deep_target_is_convinced_of_every_class_by_pictures_that_a_judge_doubts(fit, public):
    """Why a target's own word is never counted as success."""
    model = fit("resnet10", width=4)
    made = GeneralMI()(WhiteBox(Target(model, tuple("abcd"), SHAPE)), public, count_per_class=20)
    assert min(rates(model, made)) == 1
    assert min(rates(fit("lenet", width=4, seed=1), made)) < 0.8


def searched_by_hand(
    target: Target, start: torch.Tensor, labels: torch.Tensor, step_count: int
) -> torch.Tensor:
    """Adam with β = (.1, .1) on tanh⁻¹(x), written out; the rate falls to a tenth at 1/2 and at 3/4."""
    variables = start.double()
    first, second = torch.zeros_like(variables), torch.zeros_like(variables)
    model = target.model.double()
    for step in range(step_count):
        variables = variables.detach().requires_grad_()
        surprise = -model((variables.tanh() + 1) / 2).log_softmax(dim=1)
        surprise[torch.arange(len(labels)), labels].mean().backward()
        slope = variables.grad
        assert slope is not None
        first, second = 0.1 * first + 0.9 * slope, 0.1 * second + 0.9 * slope**2
        unbiased = 1 - 0.1 ** (step + 1)
        rate = 3e-2 * (1 if step < step_count / 2 else 0.1 if step < step_count * 3 / 4 else 0.01)
        variables = variables - rate * (first / unbiased) / ((second / unbiased).sqrt() + 1e-8)
    return ((variables.tanh() + 1) / 2).detach().float()


@pytest.mark.parametrize("step_count", [1, 8])
def test_the_search_is_the_published_one_written_out(step_count):
    target = linear_target((1, 4, 4))
    attack = GeneralMI(step_count=step_count, precision="float32")
    made = attack(WhiteBox(target), torch.rand(2, 1, 4, 4), count_per_class=2)
    torch.manual_seed(0)
    start = torch.randn(6, 1, 4, 4)
    by_turns = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = searched_by_hand(target, start, by_turns, step_count)
    order = by_turns.argsort(stable=True)
    assert (made.images - expected[order]).abs().max() < 0.51 / 255
    assert (made.snapshots[0].images - (start.tanh()[order] + 1) / 2).abs().max() < 0.51 / 255


def test_two_hundred_steps_are_asked_of_a_thousand_images_at_most():
    target = linear_target((1, 2, 2))
    door = WhiteBox(target)
    made = GeneralMI()(door, torch.rand(2, 1, 2, 2), count_per_class=400)
    assert (door.queries.forward, door.queries.backward) == (2 * 200, 2 * 200)
    assert door.queries.images == 1200 * 200
    assert made.snapshots[-1].step == 200
    assert len(made.images) == 1200


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 10), (2, 5, 5)])
def test_images_of_any_shape_are_searched(shape):
    made = GeneralMI(step_count=2)(WhiteBox(linear_target(shape)), torch.rand(2, *shape), count_per_class=1)
    assert made.images.shape == (3, *shape)


def test_public_images_play_no_part(smooth_target, public):
    assert not GeneralMI.uses_public
    attack = GeneralMI(step_count=3)
    one = attack(WhiteBox(smooth_target), public, count_per_class=2)
    other = attack(WhiteBox(smooth_target), 1 - public[:2], count_per_class=2)
    assert torch.equal(one.images, other.images)


def test_without_its_target_it_is_the_noise_that_it_starts_from(smooth_target, public):
    door = WhiteBox(smooth_target)
    control = GeneralMI(step_count=3).without_target()(door, public, count_per_class=2)
    start = GeneralMI(step_count=3)(WhiteBox(smooth_target), public, count_per_class=2).snapshots[0]
    assert torch.equal(control.images, start.images)
    assert door.queries.forward == 0


def test_another_identity_loss_draws_other_images(smooth_target, public):
    def drawn(loss: Any) -> torch.Tensor:
        attack = GeneralMI(step_count=3, identity=IdentityTerm(loss=loss))
        return attack(WhiteBox(smooth_target), public, count_per_class=2).images

    assert not torch.equal(drawn("cross_entropy"), drawn("max_margin"))


def test_its_steps_are_told_for_an_estimate():
    assert GeneralMI().step_counts(1000, 32) == {"step_count": 200}
    assert GeneralMI(step_count=7).step_counts(1000, 32) == {"step_count": 7}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"step_count": 0}, "step_count"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"identity": IdentityTerm(student_count=2)}, "student_count"),
        ({"identity": IdentityTerm(feature_weight=1.0)}, "feature"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, named):
    with pytest.raises(ValueError, match=named) as refused:
        GeneralMI(**settings)
    assert "\n" not in str(refused.value)
