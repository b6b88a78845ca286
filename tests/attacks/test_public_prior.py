"""Which public images a class draws: by the target's word, tilted towards what the target remembers."""

import pytest
import torch
from torch import nn

from patchmi.attacks import public_prior
from patchmi.attacks.public_prior import (
    crops_of,
    effective_counts,
    parents_of,
    public_weights,
    some_of,
    tilt,
)
from patchmi.losses import Moments
from patchmi.networks import ARCHITECTURES
from patchmi.target import Target, WhiteBox
from patchmi.types import Images, silent
from patchmi.views import IDENTITY, Views, affine_views


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


def test_every_layer_s_memory_is_kept_to_however_many_channels_it_has() -> None:
    """Four images, 0 or 1 to either of two layers, which remember other means; the second sees them twice."""
    first, second = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    twice = Moments(
        torch.stack([second, 1 - second], dim=1),
        torch.zeros(4, 2),
        torch.tensor([0.3, 0.7]),
        torch.full((2,), 0.21),
    )
    weights = tilt(EVEN, [layer_of(first, mean=0.8, variance=0.16), twice], entropy_weight=1e-4)
    assert float(weights @ first) == pytest.approx(0.8, abs=0.01)
    assert float(weights @ second) == pytest.approx(0.3, abs=0.01)


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


def ask(door: WhiteBox, images: Images, views: Views = IDENTITY) -> public_prior.Answers:
    return public_prior.ask(door, images, views=views, progress=silent, description="Looking")


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_a_class_draws_what_the_target_takes_for_it(sharpness: float) -> None:
    """Without views and with even weights, q(x|y) is p(y|x)^g, normalised."""
    weights = public_weights(ask(DOOR, GREYS), sharpness=sharpness, entropy_weight=1e6)
    answers = Brightness()(GREYS).softmax(dim=1).T ** sharpness
    torch.testing.assert_close(weights, answers / answers.sum(dim=1, keepdim=True), atol=1e-4, rtol=1e-3)


class Sure(nn.Module):
    """All is of the first of two classes, beyond what a float can hold of doubt."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([300.0, 0.0]).expand(len(images), 2)


def test_a_class_that_the_target_gives_to_nothing_draws_all_images_alike() -> None:
    door = WhiteBox(Target(Sure(), ("all", "none"), (1, 8, 8)))
    weights = public_weights(ask(door, GREYS), sharpness=3.0, entropy_weight=0.01)
    torch.testing.assert_close(weights, torch.full((2, 5), 0.2))


def test_what_is_asked_in_two_parts_weighs_as_if_asked_at_once() -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES["resnet10"](class_count=2, channel_count=1, width=4).eval()
    door = WhiteBox(Target(model, ("dark", "bright"), (1, 8, 8)))
    public = torch.rand(9, 1, 8, 8)
    at_once, in_parts = ask(door, public), ask(door, public[:4]).and_of(ask(door, public[4:]))
    assert len(at_once.layers) == len(in_parts.layers) > 0
    for one, other in zip(at_once.layers, in_parts.layers, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        public_weights(in_parts, sharpness=2.0, entropy_weight=0.1),
        public_weights(at_once, sharpness=2.0, entropy_weight=0.1),
    )


def test_a_class_draws_in_effect_from_as_many_images_as_even_weights_would() -> None:
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert effective_counts(weights).tolist() == [4, 2, 1]


def test_of_too_many_images_some_are_chosen_at_random_once_for_a_seed(monkeypatch) -> None:
    monkeypatch.setattr("patchmi.attacks.public_prior.LOOK_COUNT", 40)
    public = torch.arange(100).float().reshape(-1, 1, 1, 1)
    chosen = some_of(public, seed=0).flatten().tolist()
    assert len(set(chosen)) == 40
    assert chosen == sorted(chosen)
    assert chosen == some_of(public, seed=0).flatten().tolist()
    assert chosen != some_of(public, seed=1).flatten().tolist()
    assert torch.equal(some_of(public[:40], seed=0), public[:40])


def test_every_answer_is_counted_and_every_view_asked() -> None:
    door = WhiteBox(Target(Brightness(), ("dark", "bright"), (1, 8, 8)))
    public = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    views = affine_views(draw_count=2)
    weights = public_weights(ask(door, public, views), sharpness=1.0, entropy_weight=1.0)
    assert weights.shape == (2, 300)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (door.queries.images, door.queries.forward, door.queries.backward) == (900, 6, 0)


@pytest.mark.parametrize("has_parents", [False, True])
def test_crops_are_the_same_for_the_same_seed(has_parents: bool) -> None:
    public = torch.rand(70, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    parents = torch.arange(1300 * 2).reshape(-1, 2) % 70 if has_parents else None
    torch.manual_seed(1)
    expected_draw = torch.rand(3)
    torch.manual_seed(1)
    crops = crops_of(public, parents=parents, count=1300, seed=0)
    assert torch.equal(torch.rand(3), expected_draw), "the random state must go on as if nothing was drawn"
    assert crops.shape == (1300, 1, 16, 16)
    assert crops.min() >= 0
    assert crops.max() <= 1
    assert len(crops.flatten(1).unique(dim=0)) == 1300
    assert torch.equal(crops_of(public, parents=parents, count=1300, seed=0), crops)
    assert not torch.equal(crops_of(public, parents=parents, count=1300, seed=1), crops)


def test_parents_are_two_of_one_class_and_every_class_has_as_many_children() -> None:
    """Classes that share no image: a pair says which class it is of. Heavier images are drawn more often."""
    weights = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    parents = parents_of(weights, count=2000, seed=0)
    classes = parents // 2
    assert torch.equal(classes[:, 0], classes[:, 1])
    assert classes[:, 0].bincount().tolist() == [1000, 1000]
    shares = parents.flatten().bincount(minlength=4) / 2000
    assert shares.tolist() == pytest.approx([0.9, 0.1, 0.5, 0.5], abs=0.03)
    assert torch.equal(parents_of(weights, count=2000, seed=0), parents)
    assert not torch.equal(parents_of(weights, count=2000, seed=1), parents)


def test_children_show_their_parents_and_nobody_else() -> None:
    """Greys of 1/4 to 1: children of the second and fourth are dark, or show a window of white."""
    public = (torch.arange(1, 5) / 4).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    parents = torch.tensor([[1, 3]]).expand(400, 2)
    brightest = crops_of(public, parents=parents, count=400, seed=0).amax(dim=(1, 2, 3))
    is_crossed = brightest > 0.9
    assert 0.35 < is_crossed.float().mean() < 0.6
    torch.testing.assert_close(brightest[brightest < 0.51].median(), torch.tensor(0.5))
    assert ((brightest > 0.9) | (brightest < 0.51)).float().mean() > 0.9


def test_crops_are_drawn_in_full_precision_whatever_the_networks_use() -> None:
    public = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    exact = crops_of(public, parents=None, count=90, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crops_of(public, parents=None, count=90, seed=0), exact)
