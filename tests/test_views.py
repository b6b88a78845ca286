import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from patchmi import machine
from patchmi.views import (
    IDENTITY,
    Views,
    affine_views,
    paper_celeba_views,
    paper_cifar10_views,
    paper_digit_views,
    paper_public_views,
    random_parts,
    random_windows,
    training_views,
)

SIDE = 32
BLOCKS: dict[str, Callable[[], Views]] = {
    "default": affine_views,
    "default with flips": lambda: affine_views(flips=True),
    "paper digits": lambda: paper_digit_views(SIDE),
    "paper cifar10": lambda: paper_cifar10_views(SIDE),
    "paper celeba": lambda: paper_celeba_views(SIDE),
}
TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "public": lambda: paper_public_views(SIDE),
    "training": training_views,
    "training with flips": lambda: training_views(flips=True),
    **{name: lambda block=block: block().transform for name, block in BLOCKS.items()},
}
every_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
every_transform = pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS.keys())


every_turning = pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: affine_views().transform, 20),
        (lambda: paper_digit_views(64).transform, 20 + 3),
        (lambda: paper_celeba_views(64).transform, 5 + 1),
        (lambda: paper_public_views(64), 90),
        (training_views, 10),
    ],
    ids=["default", "paper digits", "paper celeba", "public", "training"],
)
"""Transforms and the degrees they may turn by, with what a crop of other proportions adds."""


def texture(count: int, channels: int = 1, *, seed: int = 0, side: int = SIDE) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def bars(count: int, side: int = 64) -> torch.Tensor:
    """A lying bar in the middle of each picture, an even number of pixels long and wide."""
    pictures = torch.zeros(count, 1, side, side)
    pictures[:, :, side // 2 - 3 : side // 2 + 3, side // 2 - 14 : side // 2 + 14] = 1
    return pictures


def centres(pictures: torch.Tensor) -> torch.Tensor:
    """Column and row of each picture's centre of mass, from the middle, in shares of the side."""
    side = pictures.shape[-1]
    place = (torch.arange(side) + 0.5) / side - 0.5
    mass = pictures.sum(dim=(1, 2, 3))
    columns = (pictures.sum(dim=(1, 2)) * place).sum(dim=1) / mass
    rows = (pictures.sum(dim=(1, 3)) * place).sum(dim=1) / mass
    return torch.stack([columns, rows], dim=1)


def angles(pictures: torch.Tensor) -> torch.Tensor:
    """Direction of each picture's longer axis in degrees, from its second moments."""
    side = pictures.shape[-1]
    place = (torch.arange(side) + 0.5) / side - 0.5
    found = []
    for picture, (column, row) in zip(pictures[:, 0], centres(pictures), strict=True):
        across, down = (place - column)[None, :], (place - row)[:, None]
        skew = (picture * across * down).sum()
        found.append(0.5 * torch.atan2(2 * skew, (picture * (across**2 - down**2)).sum()))
    return torch.stack(found) * 180 / math.pi


@every_block
@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_shape_range_and_format(block: Callable[[], Views], channels: int) -> None:
    views, images = block(), texture(5, channels)
    shown = views.draw(images)
    assert shown.shape == (views.count * 5, channels, SIDE, SIDE)
    assert shown.dtype == images.dtype
    assert shown.min() >= 0
    assert shown.max() <= 1 + 1e-5


@every_transform
def test_transforms_keep_shape_range_and_the_images_themselves(make: Callable[[], nn.Module]) -> None:
    images = texture(6, 3)
    before = images.clone()
    shown = make()(images)
    assert shown.shape == images.shape
    assert shown.min() >= 0
    assert shown.max() <= 1 + 1e-5
    assert torch.equal(images, before)


@every_transform
def test_each_image_gets_its_own_draw(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    shown = make()(texture(1).repeat(20, 1, 1, 1))
    different = {picture.numpy().tobytes() for picture in shown}
    assert len(different) == 20


@pytest.mark.parametrize("block", [affine_views, lambda: paper_cifar10_views(SIDE)])
def test_each_copy_of_an_image_gets_its_own_draw(block: Callable[[], Views]) -> None:
    torch.manual_seed(0)
    assert len({picture.numpy().tobytes() for picture in block().draw(texture(1))}) == 4


@every_block
def test_the_same_seed_draws_the_same_views_and_another_seed_others(block: Callable[[], Views]) -> None:
    views, images, drawn = block(), texture(4), []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn.append(views.draw(images))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@every_block
def test_gradients_are_those_of_the_drawn_views(block: Callable[[], Views]) -> None:
    """For one draw a view is an affine map of the image: a difference is exactly gradient times step."""
    views = block()
    images, step = texture(3).double().requires_grad_(), texture(3, seed=1).double() - 0.5
    weights = texture(3 * views.count, seed=2).double()

    def weighted_sum(shown: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return (weights * views.draw(shown)).sum()

    (gradient,) = torch.autograd.grad(weighted_sum(images), images)
    difference = weighted_sum(images.detach() + step) - weighted_sum(images.detach())
    assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-6, abs=1e-6)
    assert (gradient != 0).float().mean() > 0.6


def test_views_are_ordered_by_view_then_image_with_the_originals_first() -> None:
    class AddsHundreds(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images + 100

    images = torch.arange(3.0)[:, None, None, None]
    both = Views(AddsHundreds(), draw_count=2, keeps_original=True)
    assert both.draw(images).flatten().tolist() == [0, 1, 2, 100, 101, 102, 100, 101, 102]
    copies = Views(AddsHundreds(), draw_count=2, keeps_original=False)
    assert copies.draw(images).flatten().tolist() == [100, 101, 102, 100, 101, 102]


@every_block
def test_the_kept_original_is_untouched(block: Callable[[], Views]) -> None:
    views, images = block(), texture(4)
    if views.keeps_original:
        assert torch.equal(views.draw(images)[:4], images)


def test_pooling_averages_the_logits_of_each_images_views() -> None:
    """Two images, three views: image 0 has rows 0, 2, 4, image 1 has rows 1, 3, 5."""
    logits = torch.tensor([[0.0, 1.0], [10.0, 11.0], [3.0, 1.0], [10.0, 14.0], [6.0, 1.0], [40.0, 11.0]])
    pooling = Views(nn.Identity(), draw_count=2, keeps_original=True, averages_logits=True)
    assert pooling.pool(logits).tolist() == [[3.0, 1.0], [20.0, 12.0]]
    plain = Views(nn.Identity(), draw_count=2, keeps_original=True)
    assert torch.equal(plain.pool(logits), logits)


def test_each_block_has_the_number_of_views_of_its_recipe() -> None:
    assert (affine_views().count, affine_views().averages_logits) == (4, False)
    assert affine_views(draw_count=1).count == 2
    digits, cifar10, celeba = paper_digit_views(SIDE), paper_cifar10_views(SIDE), paper_celeba_views(SIDE)
    assert (digits.count, digits.keeps_original, digits.averages_logits) == (2, True, False)
    assert (cifar10.count, cifar10.keeps_original, cifar10.averages_logits) == (4, True, True)
    assert (celeba.count, celeba.keeps_original, celeba.averages_logits) == (1, False, False)


def test_without_views_each_image_is_shown_once_and_as_it_is() -> None:
    images, logits = texture(3), torch.rand(3, 10)
    assert IDENTITY.count == 1
    assert torch.equal(IDENTITY.draw(images), images)
    assert torch.equal(IDENTITY.pool(logits), logits)


@pytest.mark.parametrize(
    "make",
    [
        lambda: affine_views().transform,
        lambda: paper_digit_views(SIDE).transform,
        lambda: paper_celeba_views(SIDE).transform,
        lambda: paper_public_views(SIDE),
        training_views,
    ],
)
def test_what_a_transform_leaves_uncovered_is_black(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    shown = make()(torch.ones(40, 1, SIDE, SIDE))
    corners = shown[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).float().mean() > 0.1
    torch.testing.assert_close(shown[:, 0, SIDE // 2, SIDE // 2], torch.ones(40))
    assert torch.equal(make()(torch.zeros(4, 1, SIDE, SIDE)), torch.zeros(4, 1, SIDE, SIDE))


def test_the_default_views_turn_shift_and_scale_within_their_bounds_and_use_them() -> None:
    torch.manual_seed(0)
    pictures = bars(100)
    shown = affine_views(degrees=20.0).draw(pictures)[100:]
    turned = angles(shown).abs()
    assert turned.max() <= 20.5
    assert turned.max() > 17
    shifted = centres(shown).abs().amax(dim=0)
    assert shifted.max() <= 0.11
    assert shifted.min() > 0.08
    sides = (shown.sum(dim=(1, 2, 3)) / pictures[0].sum()).sqrt()
    assert sides.min() >= 0.83
    assert sides.max() <= 1.17
    assert sides.max() - sides.min() > 0.25


@every_turning
def test_every_copy_is_turned_and_by_angles_of_the_whole_range(
    make: Callable[[], nn.Module], most: float
) -> None:
    """A transform that spared some copies would leave their bars lying: no more than chance may."""
    torch.manual_seed(0)
    side = 64
    turned = angles(make()(bars(150, side)).clamp_min(0)).abs()
    assert turned.max() <= most + 1
    assert turned.max() > 0.75 * most
    assert (turned < 0.025 * most).float().mean() < 0.15


def test_flips_mirror_about_half_of_the_copies_and_none_unless_asked_for() -> None:
    torch.manual_seed(0)
    left = torch.zeros(200, 1, SIDE, SIDE)
    left[:, :, 10:22, 4:8] = 1
    for make, flips in (
        (lambda flips: affine_views(flips=flips, draw_count=1).transform, True),
        (lambda flips: training_views(flips=flips), True),
        (lambda flips: affine_views(flips=flips, draw_count=1).transform, False),
        (lambda flips: training_views(flips=flips), False),
    ):
        mirrored = int((centres(make(flips)(left))[:, 0] > 0).sum())
        assert 70 < mirrored < 130 if flips else mirrored == 0


def test_photographs_are_shifted_by_whole_pixels_and_nothing_is_blurred() -> None:
    torch.manual_seed(0)
    photographs = texture(200, 3)
    views = training_views(flips=True, sides=(SIDE, SIDE))(photographs)
    inner = (slice(None), slice(12, 20), slice(12, 20))
    found = set()
    for photograph, view in zip(photographs, views, strict=True):
        for mirrored, image in ((False, photograph), (True, photograph.flip(-1))):
            for down in range(-4, 5):
                for across in range(-4, 5):
                    shifted = image.roll((down, across), dims=(-2, -1))
                    if torch.equal(shifted[inner], view[inner]):
                        found.add((mirrored, down, across))
                        break
    assert len({down for _, down, _ in found}) == len({across for _, _, across in found}) == 9
    assert {mirrored for mirrored, _, _ in found} == {False, True}
    assert views.min() >= photographs.min() > 0, "reflected, not padded with black"


def test_photographs_that_are_no_squares_keep_their_shape() -> None:
    portraits = torch.rand(6, 3, 28, 23)
    assert training_views(flips=True, sides=(28, 23))(portraits).shape == portraits.shape


def test_public_handwriting_is_turned_cropped_and_mirrored_both_ways() -> None:
    torch.manual_seed(0)
    corner = torch.zeros(200, 1, SIDE, SIDE)
    corner[:, :, 6:13, 6:13] = 1
    shown = paper_public_views(SIDE)(corner)
    seen = shown[shown.sum(dim=(1, 2, 3)) > 10]
    quadrants = {(bool(column > 0), bool(row > 0)) for column, row in centres(seen)}
    assert len(quadrants) == 4


@every_block
def test_mixed_precision_moves_views_by_less_than_a_pixel(block: Callable[[], Views]) -> None:
    smooth = torch.linspace(0, 1, SIDE).expand(4, 1, SIDE, SIDE).contiguous()
    shown = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(3)
        with machine.mixed_precision(precision):
            shown.append(block().draw(smooth)[..., 8:-8, 8:-8])
    assert shown[1].dtype == torch.float32
    assert (shown[0] - shown[1]).abs().max() < 1 / SIDE


@pytest.mark.parametrize("shape", [(32, 32), (16, 48)])
def test_a_window_is_a_rectangle_somewhere_at_least_a_third_of_each_side_with_soft_edges(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    shown = random_windows(300, height=shape[0], width=shape[1], least_side=0.35)
    assert shown.shape == (300, 1, *shape)
    rows, columns = shown[:, 0].amax(dim=2), shown[:, 0].amax(dim=1)
    torch.testing.assert_close(shown[:, 0], rows[:, :, None] * columns[:, None, :])
    for opening, size in ((rows, shape[0]), (columns, shape[1])):
        # Soft edges open and close halfway: an opening's sum is its side, but where the frame cuts an edge.
        shares = opening.sum(dim=1) / size
        assert shares.min() > 0.3
        assert 0.35 < shares.quantile(0.05) < 0.45
        assert shares.quantile(0.95) > 0.9
        middles = (opening * (torch.arange(size) + 0.5)).sum(dim=1) / opening.sum(dim=1) / size
        narrow = shares < 0.5
        assert middles[narrow].min() < 0.3
        assert middles[narrow].max() > 0.7
        assert ((opening > 0) & (opening < 1)).any()


def test_a_part_is_seen_larger_or_smaller_through_a_window() -> None:
    """Of a picture that is all white, what a part shows is its window; of a small square, its growth."""
    torch.manual_seed(0)
    square = torch.zeros(1000, 1, SIDE, SIDE)
    square[..., SIDE // 2 - 2 : SIDE // 2 + 2, SIDE // 2 - 2 : SIDE // 2 + 2] = 1
    areas = random_parts(square).sum(dim=(1, 2, 3)) / 16
    assert 3 < areas.max() < 4.5
    assert areas.median() < 2
    assert areas.min() < 0.2
