import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks.deep_inversion import DeepInversion
from patchmi.attacks.identity import IdentityTerm
from patchmi.target import Target, WhiteBox

SHAPE = (1, 16, 16)
BRIEF = DeepInversion(step_count=200, batch_norm_weight=0.3)
"""For networks of a few channels and minutes of training."""


@pytest.fixture(scope="module")
def public(blobs: Callable[..., torch.Tensor]) -> torch.Tensor:
    return blobs(10, seed=3)


def rates(judge: nn.Module, made: Any) -> list[float]:
    with torch.no_grad():
        hits = (judge(made.images).argmax(dim=1) == made.labels).float()
    return [float(hits[made.labels == label].mean()) for label in range(4)]


@pytest.mark.parametrize(("name", "notes"), [("resnet10", 0), ("lenet", 1)])
def test_a_judge_of_another_seed_recognises_what_it_draws_with_and_without_batch_norm(
    name, notes, fit, quarters, public
):
    target = Target(fit(name, width=4), tuple("abcd"), SHAPE)
    judge = fit("lenet", width=4, seed=1)
    images, truth = quarters(100, seed=50)
    assert float((judge(images).argmax(dim=1) == truth).float().mean()) > 0.9
    attack = dataclasses.replace(BRIEF, step_count=200 if notes == 0 else 40)
    made = attack(WhiteBox(target), public, count_per_class=20)
    assert min(rates(judge, made)) >= 0.8
    assert len(made.notes) == notes
    assert all("without batch-norm matching" in note for note in made.notes)
    control = attack.without_target()(WhiteBox(target), public, count_per_class=20)
    assert min(rates(judge, control)) < 0.5
    assert control.notes == ()


class Recorder(nn.Module):
    """Batch norm before the logits, which are all equal; every copy notes its images."""

    seen: list[torch.Tensor] = []  # noqa: RUF012 - shared by the copies, on purpose

    def __init__(self, *, mean: float, variance: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.fill_(mean)
        self.norm.running_var.fill_(variance)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.detach().clone())
        return 0 * self.norm(images).mean(dim=(1, 2, 3))[:, None].expand(-1, 2)


def recorder(*, mean: float = 0.5, variance: float = 0.0625, side: int = 8) -> Target:
    Recorder.seen.clear()
    return Target(Recorder(mean=mean, variance=variance), ("a", "b"), (1, side, side))


def rolls(image: torch.Tensor, *, mirrored: bool) -> dict[tuple[int, int], torch.Tensor]:
    """The batch rolled by each of the 5 × 5 shifts, and mirrored then."""
    moved = {
        (down, right): torch.roll(image, (down, right), dims=(2, 3))
        for down in range(-2, 3)
        for right in range(-2, 3)
    }
    return {shift: one.flip(3) if mirrored else one for shift, one in moved.items()}


@pytest.mark.parametrize("flips", [False, True])
def test_batches_are_shown_rolled_by_two_pixels_at_most_and_mirrored_only_where_flips_are_right(flips):
    target = recorder()
    attack = DeepInversion(step_count=60, learning_rate=1e-12, flips=flips)
    made = attack(WhiteBox(target), torch.rand(2, 1, 8, 8), count_per_class=2)
    start = made.images[[0, 2, 1, 3]]  # by turns, as they were searched
    plain, mirrored = rolls(start, mirrored=False), rolls(start, mirrored=True)

    def shift_of(images: torch.Tensor, among: dict[tuple[int, int], torch.Tensor]) -> tuple[int, int] | None:
        near = [shift for shift, one in among.items() if (one - images).abs().max() < 0.51 / 255]
        return near[0] if near else None

    shifts = [shift_of(images, plain) for images in Recorder.seen]
    mirrored_shifts = [shift_of(images, mirrored) for images in Recorder.seen]
    assert len(shifts) == 60
    assert all((one is None) != (other is None) for one, other in zip(shifts, mirrored_shifts, strict=True))
    known = {shift for shift in shifts + mirrored_shifts if shift is not None}
    for axis in range(2):
        assert {shift[axis] for shift in known} == {-2, -1, 0, 1, 2}
    share = sum(one is not None for one in mirrored_shifts) / 60
    assert 0.25 < share < 0.75 if flips else share == 0


def test_the_terms_of_the_first_step_are_those_counted_by_hand():
    """Rolling and mirroring change neither the moments, nor the norm, nor equal logits' surprise."""
    target = recorder(mean=0.2, variance=0.3)
    heard: list[dict[str, float]] = []
    made = DeepInversion(step_count=1)(
        WhiteBox(target),
        torch.rand(2, 1, 8, 8),
        count_per_class=3,
        observe=lambda _, terms: heard.append(dict(terms)),
    )
    (images,) = Recorder.seen
    pixels = (images.double() - 0.5) / 0.25
    assert heard[0]["attack"] == pytest.approx(math.log(2))
    mean_gap = abs(float(images.double().mean()) - 0.2)
    variance_gap = abs(float(images.double().var(correction=0)) - 0.3)
    assert heard[0]["batch_norm"] == pytest.approx(mean_gap + variance_gap, rel=1e-4)
    assert heard[0]["norm"] == pytest.approx(float(pixels.square().sum().sqrt()), rel=1e-5)
    assert set(heard[0]) == {"attack", "batch_norm", "total_variation", "norm", "seconds"}
    assert pixels.abs().max() <= 2
    assert float(pixels.std()) == pytest.approx(1, abs=0.15), "N(0, 1) at first, cut at two deviations"
    assert made.snapshots[-1].step == 1


def test_the_best_batch_is_kept_where_later_steps_make_it_worse():
    """The memory is that of the start; then every pixel is thrown to black or white."""
    target = recorder()
    attack = DeepInversion(step_count=5, learning_rate=100.0)
    made = attack(WhiteBox(target), torch.rand(2, 1, 8, 8), count_per_class=50)
    assert ((made.images == 0) | (made.images == 1)).float().mean() < 0.1
    first, last = Recorder.seen[0], Recorder.seen[-1]
    assert ((last == 0) | (last == 1)).float().mean() > 0.9
    assert made.images.mean() == pytest.approx(float(first.mean()), abs=1e-3)
    assert made.images.std() == pytest.approx(float(first.std()), abs=1e-3)


def test_later_steps_that_are_better_take_the_place_of_the_start():
    target = recorder(mean=0.9, variance=0.0025)
    made = DeepInversion(step_count=60)(WhiteBox(target), torch.rand(2, 1, 8, 8), count_per_class=10)
    assert made.images.mean() == pytest.approx(0.9, abs=0.05)
    assert made.images.std() == pytest.approx(0.05, abs=0.04)


def test_pixels_never_leave_what_an_image_can_hold():
    target = recorder(mean=1.5, variance=0.01)
    DeepInversion(step_count=30)(WhiteBox(target), torch.rand(2, 1, 8, 8), count_per_class=4)
    seen = torch.stack(Recorder.seen)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_weights_of_nothing_leave_out_what_they_weigh():
    """Without batch norm's term, equal logits leave only the smoothing."""
    target = recorder(mean=0.9, variance=0.0025)
    attack = DeepInversion(step_count=40, batch_norm_weight=0.0, total_variation_weight=1.0)
    made = attack(WhiteBox(target), torch.rand(2, 1, 8, 8), count_per_class=4)
    assert made.images.mean() == pytest.approx(0.5, abs=0.05)
    assert made.images.std() < 0.1


def test_without_its_target_it_asks_nothing_and_smooths_noise(public, fit):
    door = WhiteBox(Target(fit("resnet10", width=4), tuple("abcd"), SHAPE))
    control = DeepInversion(step_count=30).without_target()(door, public, count_per_class=2)
    assert door.queries.forward == 0
    start = control.snapshots[0].images
    neighbours = (control.images[..., 1:] - control.images[..., :-1]).abs().mean()
    assert neighbours < 0.5 * (start[..., 1:] - start[..., :-1]).abs().mean()


def test_batches_are_of_256_images_and_one_question_a_step():
    target = recorder(side=4)
    door = WhiteBox(target)
    DeepInversion(step_count=2)(door, torch.rand(2, 1, 4, 4), count_per_class=130)
    assert [len(images) for images in Recorder.seen] == [130, 130, 130, 130]
    assert (door.queries.forward, door.queries.backward, door.queries.images) == (4, 4, 520)


def test_public_images_play_no_part(public, fit):
    assert not DeepInversion.uses_public
    target = Target(fit("resnet10", width=4), tuple("abcd"), SHAPE)
    attack = DeepInversion(step_count=2)
    one = attack(WhiteBox(target), public, count_per_class=2)
    other = attack(WhiteBox(target), 1 - public[:2], count_per_class=2)
    assert torch.equal(one.images, other.images)


def test_its_steps_are_told_for_an_estimate():
    assert DeepInversion().step_counts(1000, 32) == {"step_count": 2000}
    assert DeepInversion(step_count=7).step_counts(1000, 32) == {"step_count": 7}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"step_count": 0}, "step_count"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_norm_weight": -1.0}, "batch_norm_weight"),
        ({"total_variation_weight": -1.0}, "total_variation_weight"),
        ({"norm_weight": -1.0}, "norm_weight"),
        ({"identity": IdentityTerm(student_count=1)}, "student_count"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, named):
    with pytest.raises(ValueError, match=named) as refused:
        DeepInversion(**settings)
    assert "\n" not in str(refused.value)
