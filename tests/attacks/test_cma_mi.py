"""CMA-ES in the place of RLB-MI: the reward by hand, the search on a plane of two latents, and its memory."""

import sys

import numpy as np
import pytest
import torch

from patchmi.attacks import CmaMI, GanTraining
from patchmi.attacks.cma_mi import SEARCHED, _Search, rewards_of
from patchmi.attacks.latent_pool import POOLED
from patchmi.attacks.public_gan import PublicGan
from patchmi.target import OutputMode, ScoreAccess
from patchmi.target.black_box import PLAIN

SIDE = 4
ATTACK = CmaMI(gan=GanTraining(latent_size=2))
SIGNS = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
"""Where on the plane each class lies."""


class Plane(torch.nn.Module):
    """A generator that draws a latent of two numbers as the grey of its left and its right half."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, None, None, :].expand(-1, 1, SIDE, 2).repeat_interleave(SIDE // 2, dim=3)


def quadrants(images: torch.Tensor) -> torch.Tensor:
    """Classes by how far out in their direction a latent lay."""
    places = images[:, 0, 0, :: SIDE // 2].float() / 127.5 - 1
    return (6 * places @ SIGNS.T).softmax(dim=1)


def halves(images: torch.Tensor) -> torch.Tensor:
    """Two classes, so that one's score says all of the other's."""
    places = images[:, 0, 0, :: SIDE // 2].float() / 127.5 - 1
    return torch.stack([places[:, 0] - places[:, 1], places[:, 1] - places[:, 0]], dim=1).softmax(dim=1)


def search_on_plane(*, mode: OutputMode = PLAIN, oracle=quadrants, names="abcd") -> _Search:
    door = ScoreAccess(
        oracle, class_names=tuple(names), image_shape=(1, SIDE, SIDE), budget=100_000, mode=mode
    )
    return _Search(ATTACK, PublicGan(Plane(), torch.nn.Identity(), 2), door)


def begun(seed: int = 0, **settings) -> _Search:
    torch.manual_seed(seed)
    search = search_on_plane(**settings)
    search.look_around(30)
    search.begin()
    return search


def test_the_reward_counts_the_score_four_times_and_the_margin_eight():
    scores = torch.tensor([[0.7, 0.2, 0.1]])
    first = 4 * torch.tensor(0.7).log() + 8 * torch.tensor(0.5).log()
    second = 4 * torch.tensor(0.2).log() + 8 * torch.tensor(1e-7).log()
    third = 4 * torch.tensor(0.1).log() + 8 * torch.tensor(1e-7).log()
    torch.testing.assert_close(rewards_of(scores), torch.stack([first, second, third])[None])


def test_a_reward_is_finite_where_scores_are_cut_to_0_and_has_no_margin_between_equals():
    rewards = rewards_of(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert torch.isfinite(rewards).all()
    assert rewards[0, 0] == 0
    none = 8 * torch.tensor(1e-7).log() + 4 * torch.tensor(0.5).log()
    torch.testing.assert_close(rewards[1], none.expand(2))


def test_every_class_begins_at_its_best_of_a_pool_that_all_share():
    torch.manual_seed(0)
    search = search_on_plane()
    search.look_around(40)
    assert search.begin() == 4 * 6
    assert search.door.account.stages == {POOLED: 40}
    torch.manual_seed(0)
    torch.randint(2**31, ())
    points = torch.randn(40, 2)
    rewards = rewards_of(quadrants(search.gan.draw(points.tanh())))
    for label, optimiser in enumerate(search.optimisers):
        assert optimiser.mean == pytest.approx(points[rewards[:, label].argmax()].numpy())


def test_every_gaussian_moves_into_its_class_s_corner():
    search = begun()
    first = search.progress()["reward"]
    for _ in range(30):
        search.advance()
    assert search.door.account.stages == {POOLED: 30, SEARCHED: search.door.account.asked - 30}
    assert search.progress()["reward"] > first
    answer = search.answer(torch.zeros(4, 50, 2))
    assert ((answer * SIGNS[:, None]) > 0.7).all()
    assert answer.abs().max() <= 1


def test_pictures_are_drawn_with_half_of_the_deviations_and_do_not_disturb_the_search():
    quiet, shown = begun(), begun()
    answers = [shown.answer(torch.zeros(4, 400, 2)) for _ in range(2)]
    assert torch.equal(answers[0], answers[1])
    points = answers[0].double().atanh()
    means = torch.from_numpy(np.stack([optimiser.mean for optimiser in shown.optimisers]))
    spread = (points - means[:, None]).square().mean(dim=1).sqrt()
    torch.testing.assert_close(spread, torch.full((4, 2), 0.5 * ATTACK.sigma).double(), rtol=0.1, atol=0)
    for search in (quiet, shown):
        search.advance()
    later = shown.answer(torch.zeros(4, 400, 2)).double().atanh()
    means_later = torch.from_numpy(np.stack([optimiser.mean for optimiser in shown.optimisers]))
    assert ((later > means_later[:, None]) == (points > means[:, None])).all()
    for search in (quiet, shown):
        search.advance()
    assert torch.equal(quiet.rewards[-1], shown.rewards[-1])


def test_candidates_differ_between_classes_generations_and_seeds():
    one, two = begun(), begun(seed=1)
    first = one._generation()
    assert torch.equal(first, begun()._generation())
    noises = [
        points - torch.from_numpy(optimiser.mean)
        for search in (one, two)
        for points, optimiser in zip(search._generation(), search.optimisers, strict=True)
    ]
    one.advance()
    again = one._generation()
    noises += [again[0] - torch.from_numpy(one.optimisers[0].mean)]
    assert len({tuple(noise.flatten().mul(1e6).round().tolist()) for noise in noises}) == len(noises)


def test_a_restored_search_has_the_same_gaussians_to_the_bit_and_asks_nothing():
    search = begun()
    for _ in range(5):
        search.advance()
    torch.manual_seed(99)
    restored = search_on_plane()
    restored.restore(search.state())
    assert restored.door.account.asked == 0
    assert torch.equal(restored._generation(), search._generation())
    assert torch.equal(restored.answer(torch.zeros(4, 9, 2)), search.answer(torch.zeros(4, 9, 2)))
    assert len(restored.rewards) == 5


def test_of_two_classes_only_the_order_of_scores_counts():
    plain, flattened = (
        begun(oracle=halves, names="ab", mode=mode) for mode in (PLAIN, OutputMode(temperature=2.0))
    )
    for search in (plain, flattened):
        for _ in range(12):
            search.advance()
    assert not torch.equal(plain.rewards[0], flattened.rewards[0])
    assert torch.equal(plain._generation(), flattened._generation())


def coarse(images: torch.Tensor) -> torch.Tensor:
    """Scores in hundredths: what rounds to two digits rounds nothing away."""
    return (quadrants(images) * 25).round() / 100 + 0.01 * torch.arange(4)


def test_rounding_that_keeps_every_order_changes_nothing():
    plain, rounded = (begun(oracle=coarse, mode=mode) for mode in (PLAIN, OutputMode(decimals=3)))
    for search in (plain, rounded):
        for _ in range(12):
            search.advance()
    assert torch.equal(plain._generation(), rounded._generation())


@pytest.mark.parametrize(
    "mode", [OutputMode(decimals=0), OutputMode(top_k=1), OutputMode(noise=0.2), OutputMode(temperature=9.0)]
)
def test_scores_that_show_less_still_lead_into_the_class(mode):
    search = begun(mode=mode)
    for _ in range(15):
        search.advance()
    answer = search.answer(torch.zeros(4, 20, 2))
    assert ((answer * SIGNS[:, None]) > 0).all(dim=2).float().mean() > 0.8


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"pool_share": 0.0}, "between 0 and 1"),
        ({"sigma": 0.0}, "deviation above 0"),
        ({"gan": GanTraining(latent_size=1)}, "gan.latent_size"),
    ],
)
def test_settings_that_there_cannot_be_are_refused(wrong, remedy):
    with pytest.raises(ValueError, match=remedy):
        CmaMI(**wrong)


def test_without_the_library_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ValueError, match=r"patchmi\[cma\]") as refused:
        CmaMI()
    assert "\n" not in str(refused.value)
