"""Class or individual? How near reconstructions lie to training images, and to images never seen.

A ratio rho = d(reconstruction, nearest train) / d(reconstruction, nearest held-out) around 1 speaks of the
class alone; clearly below 1, of the training images themselves. Both sets must be of one size, since the
nearest of many is nearer. The test is patchmi's own; nearest-neighbour ratios of this kind are usual in
audits of synthetic data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_CHUNK_SIZE = 512


@dataclass(frozen=True)
class NeighbourRatio:
    """Distances of each reconstruction to its nearest image in two equally large sets, and their ratio."""

    train_distance: Float[Tensor, " n"]
    held_out_distance: Float[Tensor, " n"]
    ratio: Float[Tensor, " n"]
    """Train over held-out: 1 where both are 0, infinite where only the held-out distance is."""
    reference_count: int
    """Images of each set."""


def nearest_distances(
    points: Float[Tensor, "n features"], *, references: Float[Tensor, "references features"]
) -> Float[Tensor, " n"]:
    """Euclidean distance of each point to the nearest reference; exactly 0 for a copy.

    Raises:
        ValueError: If there is no reference.
    """
    if references.shape[0] == 0:
        raise ValueError("nearest distances need at least one reference image")
    references = references.double()
    chunks = [
        torch.cdist(chunk.double(), references, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        for chunk in points.split(_CHUNK_SIZE)
    ]
    return torch.cat(chunks)


def neighbour_ratio(
    *,
    reconstructions: Float[Tensor, "n features"],
    train: Float[Tensor, "train features"],
    held_out: Float[Tensor, "held_out features"],
    seed: int = 0,
) -> NeighbourRatio:
    """Compare the nearest training image with the nearest held-out one, for each reconstruction.

    The larger set is thinned at random to the size of the smaller. Give one class at a time, or sets with
    the same mixture of classes.

    Args:
        reconstructions: Features of reconstructions.
        train: Features of the target's training images.
        held_out: Features of private images that the target never saw.
        seed: Seed of the thinning.

    Raises:
        ValueError: If one of the sets is empty.
    """
    count = min(train.shape[0], held_out.shape[0])
    generator = torch.Generator().manual_seed(seed)
    train_distance = nearest_distances(reconstructions, references=_thin(train, count, generator))
    held_out_distance = nearest_distances(reconstructions, references=_thin(held_out, count, generator))
    both_copied = (train_distance == 0) & (held_out_distance == 0)
    ratio = torch.where(both_copied, 1.0, train_distance / held_out_distance)
    return NeighbourRatio(train_distance, held_out_distance, ratio, reference_count=count)


def _thin(
    points: Float[Tensor, "n features"], count: int, generator: torch.Generator
) -> Float[Tensor, "count features"]:
    if points.shape[0] == count:
        return points
    return points[torch.randperm(points.shape[0], generator=generator)[:count].to(points.device)]
