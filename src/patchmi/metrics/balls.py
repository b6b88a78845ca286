"""Nearest-neighbour balls around many points: their radii and who lies inside, exactly, in blocks.

A matrix product gives all squared distances fast, with a rounding error of known size. Where that error could
decide, and only there, the differences themselves are squared and summed. So ties stay ties, as if all had
been computed that way, at the price of the product.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_SIZE = 128
"""Points at a time: with 10,000 others a block of distances is 10 MB."""
_PAIR_COUNT = 1 << 14
"""Pairs at a time whose differences are taken."""
_GROUP_SIZE = 64
"""Distances of which one minimum is taken before any are sorted."""


def squared_radii(points: Float[Tensor, "count features"], *, neighbours: int) -> Float[Tensor, " count"]:
    """Squared distance of each point to its k-th nearest other.

    Args:
        points: float64, more than k of them.
        neighbours: k.
    """
    radii = []
    for block, near, slack in _blocks(points, points):
        # The point itself is the first of k + 1.
        roughly = _smallest(near, neighbours + 1)[:, -1:]
        pairs = (near <= roughly + 2 * slack).nonzero()
        counts = pairs[:, 0].bincount(minlength=len(block))
        places = torch.arange(len(pairs), device=pairs.device) - (counts.cumsum(dim=0) - counts)[pairs[:, 0]]
        exact = near.new_full((len(block), int(counts.max())), torch.inf)
        exact[pairs[:, 0], places] = _squared_distances(block, points, pairs)
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
    gaps = near - reach
    inside = gaps <= 0
    if gaps.abs_().min() <= slack:
        pairs = (gaps <= slack).nonzero()
        rows, columns = pairs.unbind(dim=1)
        inside[rows, columns] = _squared_distances(block, others, pairs) <= reach[rows, columns]
    return inside


def _smallest(values: Float[Tensor, "rows columns"], count: int) -> Float[Tensor, "rows smallest"]:
    """The `count` smallest of each row, in order: they lie in the groups with the `count` least minima."""
    columns = values.shape[1]
    group_count = columns // _GROUP_SIZE
    if group_count <= count:
        return values.topk(count, dim=1, largest=False).values
    grouped, rest = values.tensor_split([group_count * _GROUP_SIZE], dim=1)
    grouped = grouped.unflatten(1, (group_count, _GROUP_SIZE))
    groups = grouped.amin(dim=2).topk(count, dim=1, largest=False).indices
    found = grouped.take_along_dim(groups[:, :, None], dim=1).flatten(1)
    return torch.cat([found, rest], dim=1).topk(count, dim=1, largest=False).values


def _blocks(
    points: Float[Tensor, "points features"], others: Float[Tensor, "others features"]
) -> Iterator[tuple[Float[Tensor, "block features"], Float[Tensor, "block others"], float]]:
    """Some points, their squared distances to all others, and how far at most rounding has put these off."""
    feature_count = points.shape[1]
    norms = others.square().sum(dim=1, keepdim=True)
    # ‖x‖² - 2·x·y + ‖y‖² as one product: of (x, ‖x‖², 1) and (-2·y, 1, ‖y‖²).
    widened_others = torch.cat([-2 * others, torch.ones_like(norms), norms], dim=1).T
    for block in points.split(BLOCK_SIZE):
        own = block.square().sum(dim=1, keepdim=True)
        largest = float(torch.maximum(own.max(), norms.max()))
        # Three sums of products and the exact one, each off by features + 2 roundings of 4 × largest at most.
        slack = 16 * (feature_count + 2) * torch.finfo(torch.float64).eps * largest
        yield block, torch.cat([block, own, torch.ones_like(own)], dim=1) @ widened_others, slack


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
