"""Precision, recall, density and coverage of reconstructions in a feature space.

References: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
NeurIPS 2019, equations 1 and 2 (precision, recall). Naeem et al., "Reliable fidelity and diversity metrics
for generative models", ICML 2020, equations 3 and 4 (density, coverage), whose package `prdc` gives the
same numbers where no distance ties.

Differs from that package: a point *on* a ball's edge lies inside it, so that identical sets score 1.
Distances are as if all were exact float64 differences, since a matrix product alone blurs ties.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi.metrics.balls import membership, squared_radii


class PRDC(NamedTuple):
    """Precision, recall, coverage in [0, 1]; density from 0, and 1 where fakes lie as densely as reals."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    *,
    real: Float[Tensor, "real_count features"],
    fake: Float[Tensor, "fake_count features"],
    neighbours: int = 3,
) -> PRDC:
    """Compare two feature clouds by their k-nearest-neighbour balls.

    Precision is the share of fakes in *any* real's ball, recall the share of reals in any fake's, density
    the mean number of real balls around a fake over k, coverage the share of reals whose ball holds a fake.

    Args:
        real: Features of private images.
        fake: Features of reconstructions.
        neighbours: The k of the balls; each set must hold more than k points.

    Raises:
        ValueError: If a set has too few points.
    """
    _check_counts(real=real, fake=fake, neighbours=neighbours)
    real, fake = real.double(), fake.double()
    ball_count, real_hits = 0, []
    is_precise = torch.zeros(fake.shape[0], dtype=torch.bool, device=fake.device)
    for in_real_ball, in_fake_ball in membership(
        real,
        fake,
        squared_radii_of_centres=squared_radii(real, neighbours=neighbours),
        squared_radii_of_others=squared_radii(fake, neighbours=neighbours),
    ):
        ball_count += int(in_real_ball.sum())
        is_precise |= in_real_ball.any(dim=0)
        real_hits.append(torch.stack([in_fake_ball.any(dim=1), in_real_ball.any(dim=1)]))
    is_recalled, is_covered = torch.cat(real_hits, dim=1)
    return PRDC(
        precision=_share(is_precise),
        recall=_share(is_recalled),
        density=ball_count / (neighbours * fake.shape[0]),
        coverage=_share(is_covered),
    )


def nearest_ball_prdc(
    *,
    real: Float[Tensor, "real_count features"],
    fake: Float[Tensor, "fake_count features"],
    neighbours: int = 3,
) -> PRDC:
    """The variant in the released code of Patch-MI, PPA and others, for comparison with their tables only.

    Differs from the papers it cites: precision asks the ball of the *nearest* real only, recall that of the
    nearest fake, so both are at most those of `prdc`. As Patch-MI's evaluator does, both sets are cut to
    the smaller size, in the order given; with equal sizes, density and coverage are those of `prdc`.

    Args:
        real: Features of private images.
        fake: Features of reconstructions.
        neighbours: The k of the balls; each set must hold more than k points.

    Raises:
        ValueError: If a set has too few points.
    """
    _check_counts(real=real, fake=fake, neighbours=neighbours)
    size = min(real.shape[0], fake.shape[0])
    real, fake = real[:size], fake[:size]
    distances = _distances(real, fake)
    real_radii, fake_radii = _radii(real, neighbours), _radii(fake, neighbours)
    nearest_real, nearest_fake = distances.min(dim=0), distances.min(dim=1)
    return PRDC(
        precision=_share(nearest_real.values <= real_radii[nearest_real.indices]),
        recall=_share(nearest_fake.values <= fake_radii[nearest_fake.indices]),
        density=float((distances <= real_radii[:, None]).sum()) / (neighbours * size),
        coverage=_share(nearest_fake.values <= real_radii),
    )


def prdc_by_class(
    *,
    real: Float[Tensor, "real_count features"],
    real_labels: Int[Tensor, " real_count"],
    fake: Float[Tensor, "fake_count features"],
    fake_labels: Int[Tensor, " fake_count"],
    classes: Int[Tensor, " classes"],
    neighbours: int = 3,
    measure: Callable[..., PRDC] = prdc,
) -> Float[Tensor, "classes 4"]:
    """One row a class: precision, recall, density, coverage of its reconstructions among its private images.

    Args:
        real: Features of private images.
        real_labels: Their classes.
        fake: Features of reconstructions.
        fake_labels: The classes they are meant to show.
        classes: The classes to compare, in the order of the rows.
        neighbours: The k of the balls.
        measure: `prdc` or `nearest_ball_prdc`.

    Raises:
        ValueError: If a class has too few points; the message names it.
    """
    rows = []
    for label in classes.tolist():
        try:
            rows.append(
                measure(
                    real=real[real_labels == label], fake=fake[fake_labels == label], neighbours=neighbours
                )
            )
        except ValueError as error:
            raise ValueError(f"class {label}: {error}") from error
    return torch.tensor(rows, dtype=torch.float64)


def _check_counts(*, real: Tensor, fake: Tensor, neighbours: int) -> None:
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}: give 1 or more")
    for name, points in (("real", real), ("fake", fake)):
        if points.shape[0] <= neighbours:
            raise ValueError(
                f"{points.shape[0]} {name} points for balls of {neighbours} neighbours: "
                f"give at least {neighbours + 1}, or lower neighbours"
            )


def _distances(
    rows: Float[Tensor, "rows features"], columns: Float[Tensor, "columns features"]
) -> Float[Tensor, "rows columns"]:
    return torch.cdist(rows.double(), columns.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Float[Tensor, "count features"], neighbours: int) -> Float[Tensor, " count"]:
    """Distance of each point to its k-th nearest other; the point itself is the first of k + 1."""
    return _distances(points, points).topk(neighbours + 1, dim=1, largest=False).values[:, -1]


def _share(truths: Tensor) -> float:
    return float(truths.double().mean())
