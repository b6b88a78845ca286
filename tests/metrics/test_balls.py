"""Balls around points on a grid of whole numbers, where everything can be counted without rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.metrics import balls


def grid_points(count: int, *, dimension: int, side: int, offset: int, seed: int) -> torch.Tensor:
    """Whole coordinates, so that many distances tie; far from the origin, so that products round."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(side, (count, dimension), generator=generator).double() + offset


def whole_distances(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    return np.square(first.long().numpy()[:, None] - second.long().numpy()[None]).sum(axis=2)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    dimension=st.integers(1, 5),
    side=st.integers(1, 5),
    offset=st.sampled_from([0, -7, 10**6, 10**9]),
    neighbours=st.integers(1, 3),
    block=st.integers(1, 50),
    pair_count=st.integers(1, 50),
    group_size=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_radii_and_membership_are_those_of_whole_numbers(
    counts, dimension, side, offset, neighbours, block, pair_count, group_size, seed
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balls, "BLOCK_SIZE", block)
        patch.setattr(balls, "_PAIR_COUNT", pair_count)
        patch.setattr(balls, "_GROUP_SIZE", group_size)
        first, second = (
            grid_points(count, dimension=dimension, side=side, offset=offset, seed=seed + number)
            for number, count in enumerate(counts)
        )
        radii = [balls.squared_radii(points, neighbours=neighbours) for points in (first, second)]
        for points, found in zip((first, second), radii, strict=True):
            expected = np.sort(whole_distances(points, points), axis=1)[:, neighbours]
            assert found.tolist() == expected.tolist()
        blocks = list(
            balls.membership(
                first, second, squared_radii_of_centres=radii[0], squared_radii_of_others=radii[1]
            )
        )
    between = whole_distances(first, second)
    own, others = (torch.cat(part).numpy() for part in zip(*blocks, strict=True))
    assert np.array_equal(own, between <= radii[0].numpy()[:, None])
    assert np.array_equal(others, between <= radii[1].numpy()[None])


def test_a_matrix_product_alone_would_blur_the_ties() -> None:
    points = grid_points(60, dimension=3, side=3, offset=10**9, seed=0)
    norms = points.square().sum(dim=1)
    product = norms[:, None] + norms - 2 * points @ points.T
    assert not np.array_equal(product.numpy(), whole_distances(points, points))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), dimension=st.integers(1, 300), copies=st.integers(1, 300))
def test_copies_lie_at_no_distance_at_all(seed: int, dimension: int, copies: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    point = 1e3 + torch.randn(1, dimension, generator=generator, dtype=torch.float64)
    radii = balls.squared_radii(point.repeat(copies + 2, 1), neighbours=1)
    assert radii.tolist() == [0.0] * (copies + 2)
