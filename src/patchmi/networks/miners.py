"""Miners: distributions q(w) over a generator's latents, with differentiable draws and a known density.

K.-C. Wang et al., "Variational Model Inversion Attacks" (VMI), NeurIPS 2021, arXiv 2201.10787.
"""

from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn import functional as F

from patchmi.types import Latents

Densities = Float[Tensor, " n"]
"""log q(w) of each latent vector."""


class MixtureMiner(nn.Module):
    """A mixture of Gaussians with full covariances.

    It begins with means from N(0, I), unit covariances and even weights, as published. Each component's
    covariance is L·Lᵀ, L lower-triangular with a positive diagonal.

    Args:
        latent_size: Length of the latent vector.
        component_count: Gaussians in the mixture.
    """

    def __init__(self, *, latent_size: int, component_count: int = 7) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(component_count, latent_size))
        self.log_diagonals = nn.Parameter(torch.zeros(component_count, latent_size))
        self.below_diagonals = nn.Parameter(torch.zeros(component_count, latent_size, latent_size))
        self.mixing_logits = nn.Parameter(torch.zeros(component_count))

    def scales(self) -> Float[Tensor, "components latent latent"]:
        """L of each component."""
        return self.below_diagonals.tril(-1) + torch.diag_embed(self.log_diagonals.exp())

    def sample(self, count: int) -> tuple[Latents, Densities]:
        """Draw latents, and log q of each.

        A draw is of one component; the choice passes gradients to the mixing weights by the straight-through
        Gumbel-softmax. Noise is drawn on the CPU: the same on every machine.
        """
        device = self.means.device
        chosen = F.gumbel_softmax(self.mixing_logits.cpu().expand(count, -1), hard=True).to(device)
        noise = torch.randn(count, self.means.shape[1], dtype=self.means.dtype).to(device)
        of_all = self.means + torch.einsum("kij,nj->nki", self.scales(), noise)
        latents = torch.einsum("nk,nki->ni", chosen, of_all)
        return latents, self.log_density(latents)

    def log_density(self, latents: Latents) -> Densities:
        """The logarithm of Σ_k π_k N(w; m_k, L_k·L_kᵀ)."""
        components = MultivariateNormal(self.means, scale_tril=self.scales(), validate_args=False)
        weights = Categorical(logits=self.mixing_logits, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False).log_prob(latents)


class FlowMiner(nn.Module):
    """A normalising flow of affine couplings (RealNVP) over random halves of the latents; N(0, I) first.

    L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", ICLR 2017.

    Args:
        latent_size: Length of the latent vector, 2 or more.
        coupling_count: Couplings, one after another.
        width: Units of the two hidden layers of each coupling's network.

    Raises:
        ValueError: If zuko is not installed.
    """

    def __init__(self, *, latent_size: int, coupling_count: int = 10, width: int = 64) -> None:
        super().__init__()
        self.flow = import_zuko().flows.RealNVP(
            latent_size, transforms=coupling_count, randmask=True, hidden_features=(width, width)
        )
        # A coupling that shifts by 0 and scales by 1 is the identity.
        for coupling in self.flow.transform.transforms:
            nn.init.zeros_(coupling.hyper[-1].weight)
            nn.init.zeros_(coupling.hyper[-1].bias)

    def sample(self, count: int) -> tuple[Latents, Densities]:
        """Draw latents, and log q of each."""
        return self.flow().rsample_and_log_prob((count,))

    def log_density(self, latents: Latents) -> Densities:
        """N(f(w); 0, I)·|det ∂f/∂w|, its logarithm; f is the flow from latents to noise."""
        return self.flow().log_prob(latents)


def import_zuko() -> ModuleType:
    """The library of flows.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import zuko
    except ImportError:
        raise ValueError("normalising flows need zuko: pip install 'patchmi[flow]'") from None
    return zuko
