"""Fréchet distance between Gaussian fits of two feature clouds.

Reference: Dowson and Landau, "The Fréchet distance between multivariate normal distributions", J.
Multivariate Analysis 12 (1982), equation 4; Heusel et al., "GANs trained by a two time-scale update rule",
NeurIPS 2017 (as FID, with Inception features).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(
    *, real: Float[Tensor, "real_count features"], fake: Float[Tensor, "fake_count features"]
) -> float:
    """|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½), 0 or more, in squared feature units; lower is closer.

    Numbers from different feature extractors do not compare, and few images bias it upwards: name the
    extractor and the counts beside every value.

    Args:
        real: Features of private images.
        fake: Features of reconstructions, from the same extractor.

    Raises:
        ValueError: If a set has fewer than two points, which have no covariance.
    """
    for name, points in (("real", real), ("fake", fake)):
        if points.shape[0] < 2:
            raise ValueError(f"{points.shape[0]} {name} points: a Fréchet distance needs at least 2")
    real, fake = real.double(), fake.double()
    mean_term = (real.mean(dim=0) - fake.mean(dim=0)).square().sum()
    real_covariance, fake_covariance = _covariance(real), _covariance(fake)
    # Σ₁Σ₂ and the symmetric Σ₁^½ Σ₂ Σ₁^½ have the same eigenvalues, and those of the latter are real.
    root = _symmetric_root(real_covariance)
    eigenvalues = torch.linalg.eigvalsh(root @ fake_covariance @ root)
    cross_term = eigenvalues.clamp(min=0).sqrt().sum()
    distance = mean_term + real_covariance.trace() + fake_covariance.trace() - 2 * cross_term
    return max(0.0, float(distance))


def _covariance(points: Float[Tensor, "count features"]) -> Float[Tensor, "features features"]:
    centred = points - points.mean(dim=0)
    return centred.T @ centred / (points.shape[0] - 1)


def _symmetric_root(matrix: Float[Tensor, "features features"]) -> Float[Tensor, "features features"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
