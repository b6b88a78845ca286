"""Miners: is the density that of the draws, and do gradients arrive where they must?"""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, qmc
from torch.distributions import MultivariateNormal, kl_divergence

from patchmi.attacks.variational import divergence_from_prior
from patchmi.networks.miners import FlowMiner, MixtureMiner

SIZE = 3


def any_mixture(component_count: int = 4, *, spread: float = 0.5) -> MixtureMiner:
    """A mixture far from its beginning, in float64."""
    torch.manual_seed(1)
    miner = MixtureMiner(latent_size=SIZE, component_count=component_count).double()
    with torch.no_grad():
        for parameter in miner.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return miner


def any_flow(*, spread: float = 0.3) -> FlowMiner:
    """A flow far from its beginning, in float64."""
    torch.manual_seed(2)
    miner = FlowMiner(latent_size=SIZE, coupling_count=4, width=8).double()
    with torch.no_grad():
        for parameter in miner.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return miner


MINERS: list[Callable[[], MixtureMiner | FlowMiner]] = [any_mixture, any_flow]


def test_a_mixtures_density_is_the_weighted_sum_of_its_gaussians() -> None:
    """Against scipy's Gaussians, their covariances multiplied out: no further log K, nothing added."""
    miner = any_mixture().requires_grad_(False)
    latents = 2 * torch.randn(50, SIZE, dtype=torch.float64)
    shares = miner.mixing_logits.softmax(dim=0)
    logs = [
        np.log(share) + multivariate_normal.logpdf(latents, mean.numpy(), (scale @ scale.T).numpy())  # pyright: ignore[reportArgumentType]
        for share, mean, scale in zip(shares.numpy(), miner.means, miner.scales(), strict=True)
    ]
    wanted = torch.from_numpy(logsumexp(np.stack(logs), axis=0))
    torch.testing.assert_close(miner.log_density(latents), wanted, rtol=1e-10, atol=1e-10)


def test_scales_are_lower_triangular_with_a_positive_diagonal() -> None:
    scales = any_mixture(spread=3.0).scales()
    assert torch.equal(scales, scales.tril())
    assert (scales.diagonal(dim1=1, dim2=2) > 0).all()
    assert (scales.tril(-1) != 0).any()


def test_a_mixture_begins_with_unit_covariances_and_even_weights_around_means_from_the_prior() -> None:
    torch.manual_seed(0)
    miner = MixtureMiner(latent_size=64, component_count=7).requires_grad_(False)
    assert torch.equal(miner.scales(), torch.eye(64).expand(7, -1, -1))
    torch.testing.assert_close(miner.mixing_logits.softmax(dim=0), torch.full((7,), 1 / 7))
    assert float(miner.means.square().mean()) == pytest.approx(1, abs=0.15)


def test_draws_of_one_gaussian_have_its_mean_and_covariance() -> None:
    miner = any_mixture(1).requires_grad_(False)
    torch.manual_seed(0)
    latents, _ = miner.sample(200_000)
    scale = miner.scales()[0]
    torch.testing.assert_close(latents.mean(dim=0), miner.means[0], rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(latents.T), scale @ scale.T, rtol=0, atol=0.05)


def test_draws_are_of_single_components_in_the_mixtures_shares() -> None:
    """Narrow components far apart: a draw between two of them would be seen."""
    miner = MixtureMiner(latent_size=2, component_count=3).requires_grad_(False)
    miner.means.copy_(torch.tensor([[-100.0, 0.0], [0.0, 100.0], [100.0, 0.0]]))
    shares = torch.tensor([0.2, 0.5, 0.3])
    miner.mixing_logits.copy_(shares.log() + 4)
    torch.manual_seed(0)
    latents, _ = miner.sample(20_000)
    distances, nearest = torch.cdist(latents, miner.means).min(dim=1)
    assert distances.max() < 6
    torch.testing.assert_close(nearest.bincount() / 20_000, shares, rtol=0, atol=0.015)


@pytest.mark.parametrize("make", MINERS)
def test_a_draw_comes_with_its_own_density(make: Callable[[], MixtureMiner | FlowMiner]) -> None:
    """Of a flow: zuko's density of the point, computed in the other direction."""
    miner = make()
    latents, densities = miner.sample(100)
    torch.testing.assert_close(densities, miner.log_density(latents), rtol=1e-8, atol=1e-8)
    assert densities.std() > 0.1


@pytest.mark.parametrize("make", MINERS)
def test_the_density_integrates_to_one(make: Callable[[], MixtureMiner | FlowMiner]) -> None:
    """Quasi-Monte Carlo over a wide box."""
    points = torch.from_numpy(qmc.scale(qmc.Sobol(SIZE, rng=0).random(2**16), [-12] * SIZE, [12] * SIZE))
    with torch.no_grad():
        mass = make().log_density(points).exp().mean() * 24**SIZE
    assert float(mass) == pytest.approx(1, abs=0.02)


def test_the_divergence_of_one_gaussian_is_the_closed_form() -> None:
    miner = any_mixture(1).requires_grad_(False)
    torch.manual_seed(0)
    drawn = divergence_from_prior(*miner.sample(200_000))
    prior = MultivariateNormal(torch.zeros(SIZE).double(), torch.eye(SIZE).double())
    exact = kl_divergence(MultivariateNormal(miner.means[0], scale_tril=miner.scales()[0]), prior)
    assert exact > 0.5
    assert float(drawn) == pytest.approx(float(exact), rel=0.01)


def test_the_divergence_of_the_prior_itself_is_nothing() -> None:
    flow = FlowMiner(latent_size=SIZE).requires_grad_(False)
    latents, densities = flow.sample(100)
    assert float(divergence_from_prior(latents, densities)) == pytest.approx(0, abs=1e-5)
    wanted = -0.5 * latents.square().sum(dim=1) - SIZE / 2 * np.log(2 * np.pi)
    torch.testing.assert_close(densities, wanted)


def test_gradients_reach_means_covariances_and_mixing_weights() -> None:
    miner = any_mixture()
    latents, _ = miner.sample(64)
    latents.square().sum().backward()
    for name, parameter in miner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_give_the_weight_to_the_component_that_is_wanted() -> None:
    torch.manual_seed(0)
    miner = MixtureMiner(latent_size=1, component_count=2)
    with torch.no_grad():
        miner.means.copy_(torch.tensor([[-3.0], [3.0]]))
    latents, _ = miner.sample(1000)
    (latents - 3).square().mean().backward()
    gradient = miner.mixing_logits.grad
    assert gradient is not None
    assert gradient[1] < 0 < gradient[0]


@pytest.mark.parametrize("make", MINERS)
def test_with_the_divergence_alone_a_miner_returns_to_the_prior(
    make: Callable[[], MixtureMiner | FlowMiner],
) -> None:
    miner = make().float()
    optimiser = torch.optim.Adam(miner.parameters(), 0.02)
    before = divergence_from_prior(*miner.sample(5000)).item()
    for _ in range(400):
        optimiser.zero_grad()
        divergence_from_prior(*miner.sample(128)).backward()
        optimiser.step()
    latents, densities = miner.requires_grad_(False).sample(20_000)
    assert before > 0.3
    assert float(divergence_from_prior(latents, densities)) < 0.03
    torch.testing.assert_close(latents.mean(dim=0), torch.zeros(SIZE), rtol=0, atol=0.15)
    torch.testing.assert_close(torch.cov(latents.T), torch.eye(SIZE), rtol=0, atol=0.2)


def test_a_flow_changes_every_latent() -> None:
    """Its halves are drawn anew for each coupling."""
    torch.manual_seed(0)
    flow = FlowMiner(latent_size=16, coupling_count=10)
    with torch.no_grad():
        for coupling in flow.flow.transform.transforms:
            coupling.hyper[-1].bias.fill_(0.2)
    latents = torch.zeros(1, 16)
    assert (flow.flow().transform(latents) != 0).all()


def test_a_restored_flow_is_the_flow() -> None:
    """Its random halves are part of what is kept."""
    flow = any_flow()
    other = FlowMiner(latent_size=SIZE, coupling_count=4, width=8).double()
    other.load_state_dict(flow.state_dict())
    latents = torch.randn(20, SIZE, dtype=torch.float64)
    torch.testing.assert_close(other.log_density(latents), flow.log_density(latents))


def test_a_flow_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ValueError, match=r"patchmi\[flow\]") as refused:
        FlowMiner(latent_size=SIZE)
    assert "\n" not in str(refused.value)
