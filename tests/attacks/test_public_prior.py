"""Which public images a class draws: by the target's word, tilted towards what the target remembers."""

import pytest
import torch
from torch import nn

from patchmi.attacks.public_prior import public_weights, tilt, with_crops
from patchmi.losses import Moments
from patchmi.target import Target, WhiteBox
from patchmi.types import silent
from patchmi.views import IDENTITY, affine_views


def layer_of(values: torch.Tensor, *, mean: float, variance: float) -> Moments:
    """A batch norm of one channel that saw flat images of these values, and remembers other moments."""
    return Moments(
        values[:, None], torch.zeros(len(values), 1), torch.tensor([mean]), torch.tensor([variance])
    )


EVEN = torch.full((4, 2), 0.5)


def test_without_a_memory_all_images_weigh_the_same() -> None:
    torch.testing.assert_close(tilt(EVEN, [], entropy_weight=0.01), torch.full((4,), 0.25))


def test_images_whose_moments_agree_already_weigh_the_same() -> None:
    layer = layer_of(torch.tensor([0.0, 0.0, 1.0, 1.0]), mean=0.5, variance=0.25)
    torch.testing.assert_close(
        tilt(EVEN, [layer], entropy_weight=0.01), torch.full((4,), 0.25), atol=1e-3, rtol=0
    )


def test_weights_move_to_the_remembered_moments() -> None:
    """A memory of mean .8 and variance .16 is that of ones with share .8, and of nothing else here."""
    values = torch.tensor([0.0, 0.0, 1.0, 1.0])
    weights = tilt(EVEN, [layer_of(values, mean=0.8, variance=0.16)], entropy_weight=1e-4)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights @ values) == pytest.approx(0.8, abs=0.01)
    torch.testing.assert_close(weights[:2].mean(), weights[0])


def test_a_dear_entropy_keeps_the_weights_even() -> None:
    values = torch.tensor([0.0, 0.0, 1.0, 1.0])
    layer = layer_of(values, mean=0.8, variance=0.16)
    shares = [float(tilt(EVEN, [layer], entropy_weight=dear) @ values) for dear in (1e-3, 1.0, 100.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.5, abs=0.01)


def test_the_variance_within_images_counts() -> None:
    """Two images of mean 0; only the one that varies within itself has the remembered variance."""
    layer = Moments(torch.zeros(2, 1), torch.tensor([[0.0], [1.0]]), torch.zeros(1), torch.tensor([0.9]))
    weights = tilt(torch.full((2, 2), 0.5), [layer], entropy_weight=1e-4)
    assert float(weights[1]) == pytest.approx(0.9, abs=0.02)


def test_the_tilt_is_computed_in_full_precision_whatever_the_networks_use() -> None:
    layer = layer_of(torch.linspace(0, 1, 4), mean=0.7, variance=0.1)
    exact = tilt(EVEN, [layer], entropy_weight=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tilt(EVEN, [layer], entropy_weight=0.01), exact)


def test_a_class_that_few_images_show_gets_more_weight() -> None:
    answers = torch.tensor([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    weights = tilt(answers, [], entropy_weight=0.01)
    assert 0.4 < float(weights[-1]) < 0.5
    torch.testing.assert_close(weights[:9], weights[:1].expand(9))


class Brightness(nn.Module):
    """Two classes, dark and bright, and no memory."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = 4 * (images.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-bright, bright], dim=1)


DOOR = WhiteBox(Target(Brightness(), ("dark", "bright"), (1, 8, 8)))
GREYS = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 1, 8, 8).contiguous()


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_a_class_draws_what_the_target_takes_for_it(sharpness: float) -> None:
    """Without views and with even weights, q(x|y) is p(y|x)^g, normalised."""
    weights = public_weights(
        DOOR, GREYS, views=IDENTITY, sharpness=sharpness, entropy_weight=1e6, progress=silent
    )
    answers = Brightness()(GREYS).softmax(dim=1).T ** sharpness
    torch.testing.assert_close(weights, answers / answers.sum(dim=1, keepdim=True), atol=1e-4, rtol=1e-3)


class Sure(nn.Module):
    """All is of the first of two classes, beyond what a float can hold of doubt."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([300.0, 0.0]).expand(len(images), 2)


def test_a_class_that_the_target_gives_to_nothing_draws_all_images_alike() -> None:
    door = WhiteBox(Target(Sure(), ("all", "none"), (1, 8, 8)))
    weights = public_weights(door, GREYS, views=IDENTITY, sharpness=3.0, entropy_weight=0.01, progress=silent)
    torch.testing.assert_close(weights, torch.full((2, 5), 0.2))


def test_of_too_many_images_as_many_as_can_be_held_are_looked_at(monkeypatch) -> None:
    monkeypatch.setattr("patchmi.attacks.public_prior.LOOK_COUNT", 3)
    torch.manual_seed(0)
    weights = public_weights(DOOR, GREYS, views=IDENTITY, sharpness=1.0, entropy_weight=1e6, progress=silent)
    looked_at = weights[0] > 0
    assert int(looked_at.sum()) == 3
    assert torch.equal(weights[1] > 0, looked_at)
    answers = Brightness()(GREYS[looked_at]).softmax(dim=1).T
    expected = answers / answers.sum(dim=1, keepdim=True)
    torch.testing.assert_close(weights[:, looked_at], expected, atol=1e-4, rtol=1e-3)


def test_every_answer_is_counted_and_every_view_asked() -> None:
    door = WhiteBox(Target(Brightness(), ("dark", "bright"), (1, 8, 8)))
    public = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    views = affine_views(draw_count=2)
    weights = public_weights(door, public, views=views, sharpness=1.0, entropy_weight=1.0, progress=silent)
    assert weights.shape == (2, 300)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (door.queries.images, door.queries.forward, door.queries.backward) == (900, 6, 0)


def test_crops_make_up_for_public_images_that_are_few() -> None:
    public = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    expected_draw = torch.rand(3)
    torch.manual_seed(1)
    pool = with_crops(public, count=13, seed=0)
    assert torch.equal(torch.rand(3), expected_draw), "the random state must go on as if nothing was drawn"
    assert pool.shape == (13, 1, 16, 16)
    assert pool.min() >= 0
    assert pool.max() <= 1
    assert torch.equal(pool[:5], public)
    assert len(pool.flatten(1).unique(dim=0)) == 13
    assert torch.equal(with_crops(public, count=13, seed=0), pool)
    assert not torch.equal(with_crops(public, count=13, seed=1), pool)


@pytest.mark.parametrize("count", [1, 5])
def test_enough_public_images_stay_as_they_are(count: int) -> None:
    public = torch.rand(5, 1, 16, 16)
    assert torch.equal(with_crops(public, count=count, seed=0), public)


def test_a_crop_shows_a_part_larger_or_the_whole_smaller() -> None:
    """A square in the middle covers up to four times its area, and half of it where it stays whole."""
    public = torch.zeros(1, 1, 32, 32)
    public[..., 8:24, 8:24] = 1
    crops = with_crops(public, count=400, seed=0)[1:]
    areas = crops.sum(dim=(1, 2, 3)) / public.sum()
    assert areas.max() < 4.01
    assert areas.max() > 2
    assert areas.min() < 0.6
