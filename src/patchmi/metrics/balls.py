"""Nearest-neighbour balls around many points: their radii and who lies inside, exactly, in blocks.

A matrix product gives all squared distances fast, with a rounding error of known size. Where that error could
decide, and only there, the differences themselves are squared and summed. So ties stay ties, as if all had
been computed that way, at the price of the product.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_SIZE = 256
"""Points at a time: with 10,000 others a block of distances is 20 MB."""
_PAIR_COUNT = 1 << 14
"""Pairs at a time whose differences are taken."""


def squared_radii(points: Float[Tensor, "count features"], *, neighbours: int) -> Float[Tensor, " count"]:
    """Squared distance of each point to its k-th nearest other.

    Args:
        points: float64, more than k of them.
        neighbours: k.
    """
    radii = []
    for block, near, slack in _blocks(points, points):
        # The point itself is the first of k + 1.
        roughly = near.topk(neighbours + 1, dim=1, largest=False).values[:, -1:]
        pairs = (near <= roughly + 2 * slack).nonzero()
        exact = torch.full_like(near, torch.inf)
        exact[pairs[:, 0], pairs[:, 1]] = _squared_distances(block, points, pairs)
        radii.append(exact.topk(neighbours + 1, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)


def membership(
    centres: Float[Tensor, "centres features"],
    others: Float[Tensor, "others features"],
    *,
    squared_radii_of_centres: Float[Tensor, " centres"],
    squared_radii_of_others: Float[Tensor, " others"],
) -> Iterator[tuple[Bool[Tensor, "block others"], Bool[Tensor, "block others"]]]:
    """For a block of centres at a time: which others lie in their balls, and in whose balls they lie.

    A point on a ball's edge lies inside.

    Args:
        centres: float64.
        others: float64.
        squared_radii_of_centres: By `squared_radii`.
        squared_radii_of_others: By `squared_radii`.
    """
    for (block, near, slack), own in zip(
        _blocks(centres, others), squared_radii_of_centres.split(BLOCK_SIZE), strict=True
    ):
        yield (
            _at_most(near, own[:, None].expand_as(near), slack=slack, block=block, others=others),
            _at_most(near, squared_radii_of_others.expand_as(near), slack=slack, block=block, others=others),
        )


def _at_most(
    near: Float[Tensor, "block others"],
    reach: Float[Tensor, "block others"],
    *,
    slack: float,
    block: Float[Tensor, "block features"],
    others: Float[Tensor, "others features"],
) -> Bool[Tensor, "block others"]:
    """Which squared distances are at most `reach`; the doubtful ones are computed exactly."""
    inside = near <= reach
    pairs = ((near - reach).abs() <= slack).nonzero()
    rows, columns = pairs.unbind(dim=1)
    inside[rows, columns] = _squared_distances(block, others, pairs) <= reach[rows, columns]
    return inside


def _blocks(
    points: Float[Tensor, "points features"], others: Float[Tensor, "others features"]
) -> Iterator[tuple[Float[Tensor, "block features"], Float[Tensor, "block others"], float]]:
    """Some points, their squared distances to all others, and how far at most rounding has put these off."""
    feature_count = points.shape[1]
    norms = others.square().sum(dim=1)
    for block in points.split(BLOCK_SIZE):
        own = block.square().sum(dim=1)
        largest = float(torch.maximum(own.max(), norms.max()))
        # Three sums of products and the exact one, each off by features + 2 roundings of 4 × largest at most.
        slack = 16 * (feature_count + 2) * torch.finfo(torch.float64).eps * largest
        yield block, torch.addmm(own[:, None] + norms, block, others.T, alpha=-2), slack


def _squared_distances(
    points: Float[Tensor, "points features"],
    others: Float[Tensor, "others features"],
    pairs: Int[Tensor, "pairs 2"],
) -> Float[Tensor, " pairs"]:
    """Summed squared differences of some pairs."""
    sums = [
        (points[some[:, 0]] - others[some[:, 1]]).square().sum(dim=1) for some in pairs.split(_PAIR_COUNT)
    ]
    return torch.cat(sums)
