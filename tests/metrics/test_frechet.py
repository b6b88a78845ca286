import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.metrics import frechet_distance


def gaussian(count: int, *, mean: list[float], deviation: list[float]) -> torch.Tensor:
    """Points whose sample mean and (diagonal) covariance are exact."""
    points = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = points - points.mean(dim=0)
    whitening = torch.linalg.inv(torch.linalg.cholesky(points.T @ points / (count - 1))).T
    return points @ whitening * torch.tensor(deviation, dtype=torch.float64) + torch.tensor(
        mean, dtype=torch.float64
    )


def test_gaussians_with_parallel_axes_have_the_closed_form() -> None:
    real = gaussian(50, mean=[0, 0, 0], deviation=[1, 2, 3])
    fake = gaussian(70, mean=[1, 2, 2], deviation=[2, 2, 0.5])
    assert frechet_distance(real=real, fake=fake) == pytest.approx(9 + 1 + 0 + 2.5**2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), real_count=st.integers(8, 40), fake_count=st.integers(8, 40))
def test_any_covariances_agree_with_scipys_matrix_root(seed: int, real_count: int, fake_count: int) -> None:
    generator = np.random.default_rng(seed)
    real = generator.normal(size=(real_count, 5)) @ generator.normal(size=(5, 5))
    fake = generator.normal(size=(fake_count, 5)) @ generator.normal(size=(5, 5)) + 1
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(first @ second))
    expected = np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(first + second - 2 * root)
    found = frechet_distance(real=torch.tensor(real), fake=torch.tensor(fake))
    assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    assert found == pytest.approx(frechet_distance(real=torch.tensor(fake), fake=torch.tensor(real)))


def test_identical_sets_are_at_no_distance_even_with_fewer_points_than_features() -> None:
    points = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(real=points, fake=points) == pytest.approx(0, abs=1e-5)


def test_a_shift_adds_its_square() -> None:
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet_distance(real=points, fake=points + 3) == pytest.approx(36)


def test_one_point_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="1 fake points"):
        frechet_distance(real=torch.zeros(3, 2), fake=torch.zeros(1, 2))
