import math
from collections import Counter
from itertools import repeat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.nn import functional as F

from patchmi.losses import (
    Moments,
    PatchReduction,
    batch_norm_distance,
    batch_norm_loss,
    code_loss,
    discriminator_loss,
    feature_loss,
    generator_loss,
    identity_loss,
    layout_loss,
    layouts,
    logit_loss,
    max_margin_loss,
    mode_seeking_loss,
    patch_cross_entropy,
    total_variation,
)

REDUCTIONS: tuple[PatchReduction, ...] = ("mean_logit", "per_patch")
log_odds = st.floats(-20, 20, width=32)


def patches(*images: list[float]) -> torch.Tensor:
    """Log-odds of each image's patches, as a grid of one row."""
    return torch.tensor(images)[:, None, None, :]


def cross_entropy_oracle(grid: torch.Tensor, *, truth: float, reduction: PatchReduction) -> float:
    """-t·log σ(l) - (1-t)·log(1-σ(l)), one decision at a time, in double precision."""
    decisions = []
    for image in grid.double():
        cells = image.flatten()
        decisions += [cells.mean()] if reduction == "mean_logit" else list(cells)
    total = sum(-truth * F.logsigmoid(one) - (1 - truth) * F.logsigmoid(-one) for one in decisions)
    return float(total) / len(decisions)


def moments(
    *,
    batch_mean: list[float],
    batch_variance: list[float],
    running_mean: list[float],
    running_variance: list[float],
) -> Moments:
    return Moments(
        torch.tensor(batch_mean),
        torch.tensor(batch_variance),
        torch.tensor(running_mean),
        torch.tensor(running_variance),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_undecided_patches_cost_log_two_whatever_the_truth(reduction: PatchReduction) -> None:
    for truth in (0.0, 0.4, 1.0):
        loss = patch_cross_entropy(torch.zeros(3, 1, 2, 2), truth=truth, reduction=reduction)
        assert float(loss) == pytest.approx(math.log(2))


def test_one_patch_with_odds_of_three_to_one_costs_minus_log_of_three_quarters() -> None:
    odds = patches([math.log(3)])
    for reduction in REDUCTIONS:
        assert float(patch_cross_entropy(odds, truth=1.0, reduction=reduction)) == pytest.approx(
            -math.log(3 / 4)
        )
        assert float(patch_cross_entropy(odds, truth=0.0, reduction=reduction)) == pytest.approx(
            -math.log(1 / 4)
        )


def test_a_bad_patch_beside_a_good_one_costs_more_when_each_patch_is_judged() -> None:
    """σ = 3/4 and 1/4: the mean logit is 0; judged one by one they cost -log(3/4) and -log(1/4)."""
    pair = patches([math.log(3), -math.log(3)])
    mean_logit = float(patch_cross_entropy(pair, truth=1.0, reduction="mean_logit"))
    per_patch = float(patch_cross_entropy(pair, truth=1.0, reduction="per_patch"))
    assert mean_logit == pytest.approx(math.log(2))
    assert per_patch == pytest.approx(math.log(4 / math.sqrt(3)))
    assert per_patch - mean_logit == pytest.approx(math.log(2 / math.sqrt(3)))


def test_the_mean_logit_is_taken_within_each_image_and_not_across_them() -> None:
    batch = patches([math.log(3), math.log(3)], [-math.log(3), -math.log(3)])
    loss = float(patch_cross_entropy(batch, truth=1.0, reduction="mean_logit"))
    assert loss == pytest.approx((-math.log(3 / 4) - math.log(1 / 4)) / 2)


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(log_odds, min_size=12, max_size=12),
    truth=st.floats(0, 1),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_cross_entropy_agrees_with_sigmoids_in_double_precision(
    cells: list[float], truth: float, reduction: PatchReduction
) -> None:
    grid = torch.tensor(cells).reshape(2, 1, 3, 2)
    expected = cross_entropy_oracle(grid, truth=truth, reduction=reduction)
    found = float(patch_cross_entropy(grid, truth=truth, reduction=reduction))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(cells=st.lists(log_odds, min_size=8, max_size=8), truth=st.floats(0, 1))
def test_judging_every_patch_never_costs_less_than_judging_their_mean(
    cells: list[float], truth: float
) -> None:
    grid = torch.tensor(cells).reshape(2, 1, 2, 2)
    per_patch = float(patch_cross_entropy(grid, truth=truth, reduction="per_patch"))
    assert per_patch >= float(patch_cross_entropy(grid, truth=truth, reduction="mean_logit")) - 1e-5


def test_a_few_sure_patches_hide_a_bad_one_from_the_mean_logit_alone() -> None:
    """The pull on a logit is 1 - σ: σ(6) of the mean, an image that passes; σ(-6) of the bad patch itself."""
    pull = {}
    for reduction in REDUCTIONS:
        grid = patches([10.0, 10.0, 10.0, -6.0]).requires_grad_()
        generator_loss(grid, reduction=reduction).backward()
        assert grid.grad is not None
        pull[reduction] = -4 * float(grid.grad[0, 0, 0, 3])
    assert pull["mean_logit"] == pytest.approx(1 / (1 + math.exp(6)), rel=1e-4)
    assert pull["per_patch"] == pytest.approx(1 / (1 + math.exp(-6)), rel=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_discriminator_is_told_real_with_one_minus_smoothing_and_generated_with_zero(
    reduction: PatchReduction,
) -> None:
    real, fake = patches([0.3, 1.2], [-0.4, 2.0]), patches([-1.0, 0.5], [0.7, 0.1])
    expected = cross_entropy_oracle(real, truth=0.9, reduction=reduction)
    expected += cross_entropy_oracle(fake, truth=0.0, reduction=reduction)
    found = discriminator_loss(real=real, fake=fake, smoothing=0.1, reduction=reduction)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_generator_is_paid_for_patches_that_pass_and_not_smoothed(reduction: PatchReduction) -> None:
    fake = patches([-1.0, 0.5], [0.1, 0.2])
    expected = cross_entropy_oracle(fake, truth=1.0, reduction=reduction)
    assert float(generator_loss(fake, reduction=reduction)) == pytest.approx(expected, rel=1e-6)
    assert float(generator_loss(fake + 1, reduction=reduction)) < expected


class TestDiscreteToy:
    """Three kinds of patch, public with shares 1:2:5, generated with shares 4:3:1."""

    public = (1, 2, 5)
    generated = (4, 3, 1)

    def loss_of(self, judge: list[float], *, smoothing: float = 0.0) -> float:
        real, fake = (
            [logit for logit, count in zip(judge, counts, strict=True) for _ in repeat(None, count)]
            for counts in (self.public, self.generated)
        )
        assert Counter(real)[judge[2]] == 5
        loss = discriminator_loss(
            real=patches(real), fake=patches(fake), smoothing=smoothing, reduction="per_patch"
        )
        return float(loss)

    @property
    def optimal_judge(self) -> list[float]:
        return [math.log(p / q) for p, q in zip(self.public, self.generated, strict=True)]

    def test_minus_the_optimal_discriminators_loss_is_twice_the_js_divergence_less_log_four(self) -> None:
        divergence = jensenshannon(self.public, self.generated) ** 2
        assert -self.loss_of(self.optimal_judge) == pytest.approx(2 * divergence - math.log(4), abs=1e-6)

    def test_no_other_discriminator_does_better(self) -> None:
        best = self.loss_of(self.optimal_judge)
        for kind in range(3):
            for error in (-0.5, -0.05, 0.05, 0.5):
                judge = self.optimal_judge
                judge[kind] += error
                assert self.loss_of(judge) > best

    def test_smoothing_lowers_the_optimal_odds_of_public_patches(self) -> None:
        """With s the optimum is D = (1-s)·p/(p+q)."""
        shares = [0.6 * p / (p + q) for p, q in zip(self.public, self.generated, strict=True)]
        judge = [math.log(share / (1 - share)) for share in shares]
        best = self.loss_of(judge, smoothing=0.4)
        assert best < self.loss_of(self.optimal_judge, smoothing=0.4)
        for kind in range(3):
            for error in (-0.05, 0.05):
                moved = list(judge)
                moved[kind] += error
                assert self.loss_of(moved, smoothing=0.4) > best


@pytest.mark.parametrize("loss", [identity_loss, code_loss])
def test_class_and_code_losses_are_the_mean_surprise(loss) -> None:
    """Odds of 3:1 for the right class, then for the wrong one: (-log 3/4 - log 1/4) / 2."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert float(loss(logits, torch.tensor([1, 0]))) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [identity_loss, code_loss])
def test_class_and_code_losses_agree_with_softmax_in_double_precision(loss) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 5 * torch.randn(20, 7, generator=generator)
    labels = torch.randint(7, (20,), generator=generator)
    chosen = torch.softmax(logits.double(), dim=1)[torch.arange(20), labels]
    assert float(loss(logits, labels)) == pytest.approx(float(-chosen.log().mean()), rel=1e-5)


def test_losses_are_summed_in_float32_when_networks_compute_in_bfloat16() -> None:
    grid = torch.linspace(-3, 3, 600).reshape(6, 1, 10, 10).bfloat16()
    for reduction in REDUCTIONS:
        loss = patch_cross_entropy(grid, truth=1.0, reduction=reduction)
        assert loss.dtype == torch.float32
        assert float(loss) == pytest.approx(
            cross_entropy_oracle(grid, truth=1.0, reduction=reduction), rel=1e-5
        )
    logits = torch.linspace(-3, 3, 60).reshape(6, 10).bfloat16()
    assert identity_loss(logits, torch.zeros(6, dtype=torch.long)).dtype == torch.float32


class TestBatchNormMatching:
    first = moments(
        batch_mean=[1.0, 0.0], batch_variance=[4.0, 1.0], running_mean=[0.0, 0.0], running_variance=[1.0, 1.0]
    )
    """Channel one: 1²/1 + (2-1)²/1 = 2; channel two: 0; their mean: 1."""
    second = moments(batch_mean=[3.0], batch_variance=[9.0], running_mean=[1.0], running_variance=[4.0])
    """2²/4 + (3-2)²/4 = 1.25."""

    def test_two_layers_counted_by_hand_weigh_alike_however_many_channels_they_have(self) -> None:
        assert float(batch_norm_loss([self.first], epsilon=0.0)) == pytest.approx(1)
        assert float(batch_norm_loss([self.second], epsilon=0.0)) == pytest.approx(1.25)
        assert float(batch_norm_loss([self.first, self.second], epsilon=0.0)) == pytest.approx((1 + 1.25) / 2)

    def test_the_default_epsilon_hardly_matters_to_layers_of_ordinary_spread(self) -> None:
        assert float(batch_norm_loss([self.first, self.second])) == pytest.approx(1.125, rel=1e-4)

    def test_channels_without_spread_give_finite_losses_and_gradients(self) -> None:
        mean, variance = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        loss = batch_norm_loss([Moments(mean, variance, torch.ones(2), torch.zeros(2))])
        loss.backward()
        assert mean.grad is not None
        assert variance.grad is not None
        assert all(torch.isfinite(found).all() for found in (loss, mean.grad, variance.grad))

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), channels=st.integers(1, 5))
    def test_equal_moments_cost_nothing_and_all_others_something(self, seed: int, channels: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        mean, other_mean = torch.randn(2, channels, generator=generator)
        variance, other_variance = torch.rand(2, channels, generator=generator) * 4
        assert float(batch_norm_loss([Moments(mean, variance, mean, variance)])) == 0
        assert float(batch_norm_loss([Moments(mean, variance, other_mean, other_variance)])) > 0

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
    def test_the_scale_of_a_layer_does_not_matter(self, seed: int, factor: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        mean, other_mean = torch.randn(2, 4, generator=generator)
        variance, other_variance = 0.1 + torch.rand(2, 4, generator=generator)
        plain = batch_norm_loss([Moments(mean, variance, other_mean, other_variance)], epsilon=0.0)
        scaled = Moments(mean * factor, variance * factor**2, other_mean * factor, other_variance * factor**2)
        assert float(batch_norm_loss([scaled], epsilon=0.0)) == pytest.approx(float(plain), rel=1e-3)

    def test_gradient_steps_lead_to_the_remembered_moments(self) -> None:
        activations = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        mean, variance = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([4.0, 0.25, 1.0])
        optimiser = torch.optim.Adam([activations], lr=0.1)
        for _ in range(120):
            found_variance, found_mean = torch.var_mean(activations, dim=0, correction=0)
            optimiser.zero_grad()
            batch_norm_loss([Moments(found_mean, found_variance, mean, variance)]).backward()
            optimiser.step()
        torch.testing.assert_close(activations.mean(dim=0), mean, atol=0.02, rtol=0)
        torch.testing.assert_close(activations.var(dim=0, correction=0), variance, atol=0.05, rtol=0)


class TestModeSeeking:
    @staticmethod
    def picture(*columns: float) -> torch.Tensor:
        """One picture of two rows, each of these columns."""
        return torch.tensor(columns).repeat(2, 1)[None, None]

    def test_the_shortfall_below_the_cap_is_the_loss(self) -> None:
        """Squares of two pixels differ by .2 and 0, so on average by .1: .15 short of .25."""
        loss = mode_seeking_loss(
            first=self.picture(0.2, 0.2, 0.0, 0.0),
            second=self.picture(0.0, 0.0, 0.0, 0.0),
            pooling=2,
            caps=torch.tensor(0.25),
        )
        assert float(loss) == pytest.approx(0.15)

    def test_pooling_hides_differences_within_a_square(self) -> None:
        first, second = self.picture(1.0, -1.0, 1.0, -1.0), self.picture(0.0, 0.0, 0.0, 0.0)
        assert float(
            mode_seeking_loss(first=first, second=second, pooling=2, caps=torch.tensor(0.25))
        ) == pytest.approx(0.25)
        assert float(mode_seeking_loss(first=first, second=second, pooling=1, caps=torch.tensor(0.25))) == 0

    def test_the_cap_is_for_each_pair_so_that_no_pair_makes_up_for_another(self) -> None:
        first = torch.cat([self.picture(0.1, 0.1), self.picture(0.9, 0.9)])
        loss = mode_seeking_loss(
            first=first, second=torch.zeros_like(first), pooling=2, caps=torch.tensor(0.25)
        )
        assert float(loss) == pytest.approx(0.15 / 2)

    def test_every_pair_has_its_own_cap(self) -> None:
        first = torch.cat([self.picture(0.1, 0.1), self.picture(0.1, 0.1)])
        loss = mode_seeking_loss(
            first=first, second=torch.zeros_like(first), pooling=2, caps=torch.tensor([0.05, 0.3])
        )
        assert float(loss) == pytest.approx((0 + 0.2) / 2)

    def test_darker_counts_as_much_as_lighter(self) -> None:
        first, second = self.picture(0.3, 0.3, -0.3, -0.3), self.picture(0.2, 0.2, -0.1, -0.1)
        there = mode_seeking_loss(first=first, second=second, pooling=2, caps=torch.tensor(0.5))
        back = mode_seeking_loss(first=second, second=first, pooling=2, caps=torch.tensor(0.5))
        assert float(there) == pytest.approx(0.5 - (0.1 + 0.2) / 2)
        assert float(there) == pytest.approx(float(back))

    def test_pairs_beyond_the_cap_are_left_in_peace_and_pairs_below_are_pushed_apart(self) -> None:
        first = torch.cat([self.picture(0.1, 0.1), self.picture(0.9, 0.9)]).requires_grad_()
        mode_seeking_loss(
            first=first, second=torch.zeros(2, 1, 2, 2), pooling=2, caps=torch.tensor(0.25)
        ).backward()
        assert first.grad is not None
        assert (first.grad[1] == 0).all()
        torch.testing.assert_close(first.grad[0], torch.full((1, 2, 2), -1 / 8))

    def test_two_equal_pictures_cost_the_whole_cap(self) -> None:
        same = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        assert float(
            mode_seeking_loss(first=same, second=same.clone(), pooling=4, caps=torch.tensor(0.35))
        ) == pytest.approx(0.35)


class TestLayouts:
    checks = torch.tensor([[1.0, 0.0, -1.0, -1.0], [0.0, 1.0, -1.0, -1.0], [0.2, 0.2, 0.4, 0.4]])[None, None]

    def test_a_layout_is_the_mean_of_every_cell_row_by_row_and_channel_by_channel(self) -> None:
        picture = torch.cat([self.checks, self.checks[..., -1:, :]], dim=2)
        seen = layouts(torch.cat([picture, -picture], dim=1), side=2)
        torch.testing.assert_close(seen, torch.tensor([[0.5, -1.0, 0.2, 0.4, -0.5, 1.0, -0.2, -0.4]]))

    def test_cells_cover_images_that_they_do_not_divide(self) -> None:
        """Three rows in two cells share the middle one."""
        assert layouts(self.checks, side=2)[0, 2:].tolist() == pytest.approx(
            [(0.5 + 0.2) / 2, (-1 + 0.4) / 2]
        )

    def test_what_a_cell_differs_by_beyond_the_tolerance_is_the_loss(self) -> None:
        drawn = torch.tensor([0.5, -0.5, 0.0, 1.0]).reshape(1, 1, 2, 2)
        wanted = torch.tensor([[0.4, -0.1, -0.3, 1.0]])
        loss = layout_loss(drawn, wanted, side=2, tolerance=0.15)
        assert float(loss) == pytest.approx((0 + 0.25 + 0.15 + 0) / 4)

    def test_within_the_tolerance_the_generator_is_free(self) -> None:
        drawn = torch.tensor([0.5, -0.5, 0.0, 1.0]).reshape(1, 1, 2, 2).requires_grad_()
        layout_loss(drawn, torch.tensor([[0.6, -0.9, -0.1, 0.9]]), side=2, tolerance=0.15).backward()
        assert drawn.grad is not None
        assert drawn.grad.flatten().tolist() == pytest.approx([0, 1 / 4, 0, 0])


class TestHowAnImageIsToldItsClass:
    logits = torch.tensor([[2.0, -1.0, 0.5], [3.0, 3.5, -2.0]])
    labels = torch.tensor([0, 2])

    def test_the_margin_is_that_to_the_best_other_class(self) -> None:
        """.5 - 2 = -1.5, and 3.5 - (-2) = 5.5: their mean is 2."""
        assert float(max_margin_loss(self.logits, self.labels)) == pytest.approx(2)

    def test_the_logit_loss_takes_the_classs_own_logit_and_no_other(self) -> None:
        assert float(logit_loss(self.logits, self.labels)) == pytest.approx(-(2 - 2) / 2)
        assert float(logit_loss(self.logits, torch.tensor([1, 0]))) == pytest.approx(-(-1 + 3) / 2)

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), shift=st.floats(-30, 30))
    def test_the_margin_is_the_slow_ones_and_blind_to_a_common_shift(self, seed: int, shift: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = 4 * torch.randn(5, 4, generator=generator)
        labels = torch.randint(4, (5,), generator=generator)
        slow = [
            max(float(row[other]) for other in range(4) if other != label) - float(row[label])
            for row, label in zip(logits, labels.tolist(), strict=True)
        ]
        assert float(max_margin_loss(logits, labels)) == pytest.approx(sum(slow) / 5, abs=1e-5)
        assert float(max_margin_loss(logits + shift, labels)) == pytest.approx(sum(slow) / 5, abs=1e-4)

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_a_margin_below_zero_is_a_class_that_wins(self, seed: int) -> None:
        logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed))
        for label in range(5):
            wins = int(logits.argmax()) == label
            assert (float(max_margin_loss(logits, torch.tensor([label]))) < 0) == wins

    def test_the_best_other_class_is_pushed_down_as_hard_as_the_own_is_pulled_up(self) -> None:
        logits = self.logits.clone().requires_grad_()
        max_margin_loss(logits, self.labels).backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == [[-0.5, 0.0, 0.5], [0.0, 0.5, -0.5]]

    def test_sure_logits_still_pull_where_the_cross_entropy_lies_flat(self) -> None:
        pull = {}
        for loss in (identity_loss, max_margin_loss, logit_loss):
            logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
            loss(logits, torch.tensor([0])).backward()
            assert logits.grad is not None
            pull[loss] = float(logits.grad[0, 0])
        assert pull[identity_loss] == 0
        assert pull[max_margin_loss] == pull[logit_loss] == -1

    def test_they_are_summed_in_float32(self) -> None:
        logits = torch.linspace(-3, 3, 60).reshape(6, 10).bfloat16()
        labels = torch.zeros(6, dtype=torch.long)
        assert max_margin_loss(logits, labels).dtype == logit_loss(logits, labels).dtype == torch.float32
        assert feature_loss(logits, torch.zeros(10)).dtype == torch.float32


class TestFeatureDistance:
    def test_squares_are_averaged_over_images_and_features(self) -> None:
        """1 + 4 of one image, 0 + 9 of the other, of 4 numbers: 3.5."""
        features, centre = torch.tensor([[1.0, 0.0], [0.0, 5.0]]), torch.tensor([0.0, 2.0])
        assert float(feature_loss(features, centre)) == pytest.approx(14 / 4)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_no_other_centre_is_nearer_than_the_mean(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(6, 3, generator=generator)
        mean = features.mean(dim=0)
        there = float(feature_loss(features, mean))
        off = torch.randn(3, generator=generator)
        assert float(feature_loss(features, mean + off)) == pytest.approx(
            there + float(off.square().mean()), rel=1e-4
        )


class TestBatchNormDistance:
    first = moments(
        batch_mean=[3.0, 0.0], batch_variance=[1.0, 3.0], running_mean=[0.0, 4.0], running_variance=[1.0, 1.0]
    )
    """√(3² + 4²) + √(0² + 2²) = 7."""
    second = moments(batch_mean=[1.0], batch_variance=[0.5], running_mean=[1.5], running_variance=[2.0])
    """.5 + 1.5 = 2."""

    def test_norms_over_channels_counted_by_hand_are_summed_over_layers(self) -> None:
        assert float(batch_norm_distance([self.first])) == pytest.approx(7)
        assert float(batch_norm_distance([self.second])) == pytest.approx(2)
        assert float(batch_norm_distance([self.first, self.second])) == pytest.approx(9)

    def test_moments_that_agree_cost_nothing_and_pull_nowhere(self) -> None:
        mean, variance = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
        loss = batch_norm_distance([Moments(mean, variance, torch.ones(3), torch.ones(3))])
        loss.backward()
        assert loss.item() == 0
        assert mean.grad is not None
        assert variance.grad is not None
        assert not mean.grad.any()
        assert not variance.grad.any()

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
    def test_it_grows_with_the_gap_and_not_with_its_square(self, seed: int, factor: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        mean, variance, mean_gap, variance_gap = torch.rand(4, 5, generator=generator)
        near = batch_norm_distance([Moments(mean + mean_gap, variance + variance_gap, mean, variance)])
        far = batch_norm_distance(
            [Moments(mean + factor * mean_gap, variance + factor * variance_gap, mean, variance)]
        )
        assert float(far) == pytest.approx(factor * float(near), rel=1e-3)


class TestTotalVariation:
    def test_one_bright_pixel_is_counted_by_hand(self) -> None:
        """In the middle of 3×3: two differences of 1 in each of the four directions, √2 each."""
        image = torch.zeros(1, 1, 3, 3)
        image[0, 0, 1, 1] = 1
        assert float(total_variation(image)) == pytest.approx(4 * math.sqrt(2))

    def test_diagonals_are_told_apart_from_rows_and_columns(self) -> None:
        """2×2: across √(1² + 1²), down √(2² + 2²), one diagonal 3, the other 1."""
        image = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[None, None]
        across, down = math.sqrt(1 + 1), math.sqrt(4 + 4)
        assert float(total_variation(image)) == pytest.approx(across + down + 3 + 1)

    def test_an_even_picture_costs_nothing_and_pulls_nowhere(self) -> None:
        even = torch.full((2, 3, 5, 4), 0.7, requires_grad=True)
        loss = total_variation(even)
        loss.backward()
        assert loss.item() == 0
        assert even.grad is not None
        assert not even.grad.any()

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), height=st.integers(2, 5), width=st.integers(2, 5))
    def test_it_is_the_slow_sum_over_pairs_of_neighbours(self, seed: int, height: int, width: int) -> None:
        images = torch.randn(2, 2, height, width, generator=torch.Generator().manual_seed(seed))
        slow = 0.0
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            squares = [
                float(plane[row, column] - plane[row + down, column + right]) ** 2
                for plane in images.flatten(0, 1)
                for row in range(height - down)
                for column in range(width)
                if 0 <= column + right < width
            ]
            slow += math.sqrt(sum(squares))
        assert float(total_variation(images)) == pytest.approx(slow, rel=1e-5)
        for turned in (images.flip(3), images.flip(2), images.transpose(2, 3)):
            assert float(total_variation(turned)) == pytest.approx(slow, rel=1e-5)
