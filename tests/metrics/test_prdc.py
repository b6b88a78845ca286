import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc

from patchmi.metrics import PRDC, nearest_ball_prdc, prdc, prdc_by_class


def cloud(count: int, *, seed: int, spread: float = 1.0, dimension: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def line(*positions: float) -> torch.Tensor:
    return torch.tensor(positions, dtype=torch.float64)[:, None]


def published_prdc(real: torch.Tensor, fake: torch.Tensor, k: int) -> PRDC:
    """Point by point, as the released code of Patch-MI reads."""
    size = min(len(real), len(fake))
    real, fake = real[:size], fake[:size]

    def radius(points: torch.Tensor, index: int) -> float:
        return sorted(float((points[index] - point).norm()) for point in points)[k]

    def share_in_nearest_ball(centres: torch.Tensor, points: torch.Tensor) -> float:
        inside = 0
        for point in points:
            gaps = [float((centre - point).norm()) for centre in centres]
            nearest = int(np.argmin(gaps))
            inside += gaps[nearest] <= radius(centres, nearest)
        return inside / len(points)

    counts = [
        sum(float((point - real[index]).norm()) <= radius(real, index) for point in fake)
        for index in range(size)
    ]
    return PRDC(
        precision=share_in_nearest_ball(real, fake),
        recall=share_in_nearest_ball(fake, real),
        density=sum(counts) / (k * size),
        coverage=sum(count > 0 for count in counts) / size,
    )


# Balls of k = 1. Reals 0, 1, 10, 14 with radii 1, 1, 4, 4; fakes -0.5, 0.5, 1.5, 7, 30, 31.5 with radii
# 1, 1, 1, 5.5, 1.5, 1.5.  In real balls: -0.5, 0.5 in that of 0; 0.5, 1.5 in that of 1; 7 in that of 10.
# Reals in fake balls: 0 and 1 (of 0.5), 10 (of 7); 14 is 7 away from it.
HAND_REAL = (0.0, 1.0, 10.0, 14.0)
HAND_FAKE = (-0.5, 0.5, 1.5, 7.0, 30.0, 31.5)


def test_four_reals_and_six_fakes_counted_by_hand() -> None:
    found = prdc(real=line(*HAND_REAL), fake=line(*HAND_FAKE), neighbours=1)
    assert found == pytest.approx((4 / 6, 3 / 4, 5 / 6, 3 / 4))


def test_the_published_variant_sees_only_the_nearest_ball() -> None:
    # k = 1. Reals 0, 3, 4, 5 with radii 3, 1, 1, 1: the fake at 1.8 lies in the ball of 0 alone, but nearest
    # to 3. In balls: 1.8 in that of 0; 4.7 in those of 4 and 5; 5.9 in that of 5; none in that of 3.
    real, fake = line(0, 3, 4, 5), line(1.8, 4.7, 5.9, 19.9)
    assert prdc(real=real, fake=fake, neighbours=1) == pytest.approx((3 / 4, 1, 1, 3 / 4))
    assert nearest_ball_prdc(real=real, fake=fake, neighbours=1) == pytest.approx((2 / 4, 1, 1, 3 / 4))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    real_count=st.integers(7, 60),
    fake_count=st.integers(7, 60),
    neighbours=st.integers(1, 5),
    spread=st.sampled_from([0.3, 0.8, 1.0, 1.6]),
)
def test_prdc_equals_the_prdc_package_where_no_distance_ties(
    seed: int, real_count: int, fake_count: int, neighbours: int, spread: float
) -> None:
    real, fake = cloud(real_count, seed=seed), cloud(fake_count, seed=seed + 1, spread=spread)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real.numpy(), fake.numpy(), nearest_k=neighbours)
    assert prdc(real=real, fake=fake, neighbours=neighbours)._asdict() == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), real_count=st.integers(5, 20), fake_count=st.integers(5, 20))
def test_the_published_variant_equals_its_slow_reading(seed: int, real_count: int, fake_count: int) -> None:
    real, fake = cloud(real_count, seed=seed, dimension=2), cloud(fake_count, seed=seed + 1, dimension=2)
    found = nearest_ball_prdc(real=real, fake=fake, neighbours=3)
    assert found == pytest.approx(published_prdc(real, fake, 3))
    ours = prdc(real=real[: len(fake)], fake=fake[: len(real)], neighbours=3)
    assert found.precision <= ours.precision
    assert found.recall <= ours.recall
    assert (found.density, found.coverage) == pytest.approx((ours.density, ours.coverage))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_exchanging_real_and_fake_exchanges_precision_and_recall(seed: int) -> None:
    real, fake = cloud(30, seed=seed), cloud(20, seed=seed + 1, spread=0.6)
    forth, back = prdc(real=real, fake=fake), prdc(real=fake, fake=real)
    assert (forth.precision, forth.recall) == (back.recall, back.precision)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_points_does_not_matter(seed: int) -> None:
    real, fake = cloud(30, seed=seed), cloud(20, seed=seed + 1)
    shuffle = torch.Generator().manual_seed(seed)
    shuffled_real = real[torch.randperm(30, generator=shuffle)]
    shuffled_fake = fake[torch.randperm(20, generator=shuffle)]
    assert prdc(real=real, fake=fake) == prdc(real=shuffled_real, fake=shuffled_fake)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [4, 5, 60])
def test_identical_sets_score_one(count: int, dtype: torch.dtype) -> None:
    points = cloud(count, seed=count, dimension=64).to(dtype) + 100
    found = prdc(real=points, fake=points.clone())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density >= 1


@pytest.mark.parametrize(("count", "dimension", "kept"), [(200, 16, 150), (100, 3, 99), (60, 64, 60)])
def test_copies_lie_on_the_edges_of_the_balls_of_their_neighbours(
    count: int, dimension: int, kept: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, dimension, generator=generator)
    chosen = torch.randperm(count, generator=generator)[:kept]
    exact = points.double().numpy()
    gaps = np.sqrt(np.square(exact[:, None] - exact[None]).sum(axis=2))
    nearest = np.argsort(gaps, axis=1)[:, :4]  # the point itself and its three neighbours
    found = prdc(real=points, fake=points[chosen])
    assert found.precision == 1
    assert found.density == pytest.approx(np.isin(nearest, chosen.numpy()).sum() / (3 * kept), abs=1e-12)


def test_a_point_on_the_edge_of_a_ball_lies_inside() -> None:
    # Reals 0, 2, 6 with k = 1: radii 2, 2, 4. Fakes lie on the edges of the first ball and of the third.
    found = prdc(real=line(0, 2, 6), fake=line(-2, 10), neighbours=1)
    assert (found.precision, found.density, found.coverage) == (1, 1, 2 / 3)


def test_duplicates_have_balls_of_no_size_that_hold_their_copies() -> None:
    found = prdc(real=line(1, 1, 1, 1, 5), fake=line(1, 1, 1, 1), neighbours=3)
    assert found == pytest.approx((1, 4 / 5, 20 / 12, 1))


def test_far_apart_sets_score_nothing() -> None:
    assert prdc(real=cloud(20, seed=0), fake=cloud(20, seed=1) + 100) == (0, 0, 0, 0)


def test_mode_collapse_has_high_precision_and_low_recall() -> None:
    real = torch.cat([cloud(50, seed=0), cloud(50, seed=1) + 20])
    found = prdc(real=real, fake=0.3 * cloud(100, seed=2))
    assert found.precision > 0.9
    assert found.recall < 0.2
    assert found.coverage < 0.5


def test_scattered_fakes_have_low_precision() -> None:
    found = prdc(real=cloud(100, seed=0), fake=5 * cloud(100, seed=1))
    assert found.precision < 0.2
    assert found.recall > 0.8


def test_each_class_is_compared_with_its_own_images() -> None:
    real, fake = cloud(40, seed=0), cloud(40, seed=1)
    labels = torch.arange(40) % 3
    table = prdc_by_class(
        real=real, real_labels=labels, fake=fake, fake_labels=labels.flip(0), classes=torch.tensor([2, 0])
    )
    for row, label in zip(table, (2, 0), strict=True):
        expected = prdc(real=real[labels == label], fake=fake[labels.flip(0) == label])
        assert tuple(row.tolist()) == pytest.approx(expected)
    published = prdc_by_class(
        real=real,
        real_labels=labels,
        fake=fake,
        fake_labels=labels,
        classes=torch.tensor([0]),
        measure=nearest_ball_prdc,
    )
    expected = nearest_ball_prdc(real=real[labels == 0], fake=fake[labels == 0])
    assert tuple(published[0].tolist()) == pytest.approx(expected)


def test_a_class_with_too_few_images_is_named() -> None:
    labels = torch.tensor([0] * 8 + [1] * 3)
    points = cloud(11, seed=0)
    with pytest.raises(ValueError, match="class 1: 3 real points for balls of 3 neighbours"):
        prdc_by_class(
            real=points, real_labels=labels, fake=points, fake_labels=labels, classes=torch.tensor([0, 1])
        )
    with pytest.raises(ValueError, match="2 fake points"):
        prdc(real=points, fake=points[:2])
    with pytest.raises(ValueError, match="neighbours is 0"):
        prdc(real=points, fake=points, neighbours=0)
