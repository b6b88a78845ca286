"""MIRROR's genetic algorithm: parents, children and populations, by hand and on a plane of two latents."""

import math

import pytest
import torch

from patchmi.attacks import GanTraining, MirrorMI
from patchmi.attacks.latent_pool import POOLED
from patchmi.attacks.mirror import BOUND, BRED, MUTATION, _Evolution, crossed, log_scores, share_of_first
from patchmi.attacks.public_gan import PublicGan
from patchmi.target import OutputMode, ScoreAccess
from patchmi.target.black_box import PLAIN

SIDE = 4
ATTACK = MirrorMI(gan=GanTraining(latent_size=2), population_size=20)
SIGNS = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]])
"""Where on the plane each class lies."""


class Plane(torch.nn.Module):
    """A generator that draws a latent of two numbers as the grey of its left and its right half."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        halves = (latents / 2).clamp(-1, 1)
        return halves[:, None, None, :].expand(-1, 1, SIDE, 2).repeat_interleave(SIDE // 2, dim=3)


def quadrants(images: torch.Tensor) -> torch.Tensor:
    """Four classes: the farther out in its quadrant a latent lay, the surer."""
    places = images[:, 0, 0, :: SIDE // 2].float() / 127.5 - 1
    return (6 * places @ SIGNS.T.float()).softmax(dim=1)


def evolution_on_plane(
    *, budget: int = 100_000, count_per_class: int = 10, mode: OutputMode = PLAIN, attack: MirrorMI = ATTACK
) -> _Evolution:
    door = ScoreAccess(
        quadrants, class_names=("a", "b", "c", "d"), image_shape=(1, SIDE, SIDE), budget=budget, mode=mode
    )
    gan = PublicGan(Plane(), torch.nn.Identity(), 2)
    return _Evolution(attack, gan, door, count_per_class=count_per_class)


def test_a_child_has_more_of_the_better_parent():
    # p of .1 and .001: logarithms in the ratio of 1 to 3.
    good, bad = log_scores(torch.tensor([[0.1]])), log_scores(torch.tensor([[0.001]]))
    torch.testing.assert_close(share_of_first(first=good, second=bad), torch.tensor([[0.75]]))
    torch.testing.assert_close(share_of_first(first=bad, second=good), torch.tensor([[0.25]]))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_parents_that_look_equally_good_give_a_half_each_however_scores_are_rounded(score):
    equal = log_scores(torch.tensor([[score]]))
    assert torch.isfinite(equal).all()
    assert share_of_first(first=equal, second=equal).item() == 0.5


def test_each_coordinate_comes_from_the_parent_that_its_draw_says():
    children = crossed(
        first=torch.tensor([[[1.0, 2, 3, 4], [1, 2, 3, 4]]]),
        second=torch.tensor([[[5.0, 6, 7, 8], [5, 6, 7, 8]]]),
        share=torch.tensor([[0.75, 0.25]]),
        draws=torch.tensor([[[0.0, 0.74, 0.75, 0.9], [0.0, 0.74, 0.25, 0.2]]]),
    )
    assert children.tolist() == [[[1, 2, 7, 8], [1, 6, 7, 4]]]


def test_the_first_population_is_the_best_of_a_pool_that_all_classes_share():
    torch.manual_seed(0)
    evolution = evolution_on_plane()
    evolution.look_around(60)
    evolution.look_around(40)
    assert evolution.door.account.stages == {POOLED: 100}
    assert evolution.begin() == 4 * 19
    torch.manual_seed(0)
    pool = torch.cat([torch.randn(60, 2), torch.randn(40, 2)])
    scores = evolution.door.scores(evolution.gan.draw(pool), stage="check")
    for label in range(4):
        best = pool[scores[:, label].argsort(descending=True, stable=True)[:20]]
        assert torch.equal(evolution.population[label], best)


def test_children_lie_within_a_deviation_and_near_the_coordinates_of_their_parents():
    torch.manual_seed(0)
    evolution = evolution_on_plane()
    evolution.look_around(50)
    evolution.begin()
    children = evolution._children()
    assert children.shape == (4, 19, 2)
    assert children.abs().max() <= BOUND
    parents = evolution.population.clamp(-BOUND, BOUND)
    moved = (children[:, :, None] - parents[:, None]).abs().amin(dim=2)
    assert moved.max() <= MUTATION + 1e-6
    assert 0.01 < (moved > 0).float().mean() < 0.25


def test_parents_are_drawn_by_their_score():
    torch.manual_seed(0)
    evolution = evolution_on_plane()
    evolution.population = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]).expand(4, 2, 2)
    evolution.fitness = log_scores(torch.tensor([[0.9, 0.1]])).expand(4, 2)
    children = torch.cat([evolution._children() for _ in range(100)], dim=1)
    # Both parents are the better one with .81; with .18 it is one of them, and gives log .1 : log .9.
    expected = 0.81 + 0.18 * math.log(0.1) / math.log(0.09)
    assert float((children < 0).float().mean()) == pytest.approx(expected, abs=0.02)


def test_generations_move_every_class_into_its_corner_and_never_lose_the_best():
    torch.manual_seed(0)
    evolution = evolution_on_plane()
    evolution.look_around(30)
    evolution.begin()
    first = evolution.fitness.mean(dim=1)
    for _ in range(15):
        elite, fitness = evolution.best.latents[:, 0], evolution.best.values[:, 0]
        evolution.advance()
        assert torch.equal(evolution.population[:, 0], elite)
        assert torch.equal(evolution.fitness[:, 0], fitness)
        assert torch.equal(evolution.best.values[:, 0], evolution.fitness.amax(dim=1))
    assert (evolution.fitness.mean(dim=1) > first).all()
    assert ((evolution.population * SIGNS[:, None]).mean(dim=1) > 0.6).all()
    assert evolution.door.account.stages == {POOLED: 30, BRED: evolution.door.account.asked - 30}
    assert evolution.progress()["best_score"] > 0.99


def test_the_answer_is_the_best_seen_in_order_and_from_the_first_again():
    torch.manual_seed(0)
    evolution = evolution_on_plane(count_per_class=25)
    evolution.look_around(8)
    evolution.begin()
    for _ in range(2):
        evolution.advance()
    answer = evolution.answer(torch.zeros(4, 25, 2))
    scores = evolution.door.scores(evolution.gan.draw(answer.flatten(0, 1)), stage="check").view(4, 25, 4)
    own = scores.diagonal(dim1=0, dim2=2).T
    assert (own.diff(dim=1) <= 1e-6).all()
    few = evolution_on_plane(count_per_class=25)
    few.look_around(8)
    again = few.answer(torch.zeros(4, 25, 2))
    assert torch.equal(again[:, 8:16], again[:, :8])
    assert torch.equal(again[:, 24], again[:, 0])


@pytest.mark.parametrize(
    "mode", [OutputMode(decimals=0), OutputMode(top_k=1), OutputMode(noise=0.2), OutputMode(temperature=9.0)]
)
def test_scores_that_show_less_still_lead_into_the_class(mode):
    torch.manual_seed(0)
    evolution = evolution_on_plane(mode=mode)
    evolution.look_around(60)
    evolution.begin()
    for _ in range(10):
        evolution.advance()
    assert torch.isfinite(evolution.fitness).all()
    answer = evolution.answer(torch.zeros(4, 10, 2))
    assert ((answer * SIGNS[:, None]) > 0).all(dim=2).float().mean() > 0.9
    assert evolution.notes() == ()


def test_a_class_that_is_never_answered_is_said():
    torch.manual_seed(0)
    evolution = evolution_on_plane()
    evolution.look_around(60)
    evolution.door.account.answered[2] = 0
    (note,) = evolution.notes()
    assert note.startswith("Of 1 of 4 classes")


@pytest.mark.parametrize(
    ("budget", "size"), [(1_000_000, 100), (12_500, 100), (5_000, 50), (300, 3), (10, 2)]
)
def test_populations_are_smaller_where_the_budget_has_not_ten_generations(budget, size):
    attack = MirrorMI(pool_share=0.2)
    assert attack.population_size_on(budget=budget, class_count=8) == size
    assert size == 2 or int(0.8 * budget) // (8 * size) >= 10


@pytest.mark.parametrize("wrong", [{"population_size": 1}, {"pool_share": 0.0}, {"pool_share": 1.0}])
def test_settings_that_there_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="give 2 latents or more"):
        MirrorMI(**wrong)
