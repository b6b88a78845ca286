"""A search of a GAN's latents by scores with CMA-ES, in the place of RLB-MI.

G. Han, J. Choi, H. Lee, J. Kim, "Reinforcement Learning-Based Black-Box Model Inversion Attacks" (RLB-MI),
CVPR 2023, trains an agent for each class whose action is a latent. Its episodes are of one step, and the next
state has no part of the last one (α = 0 in the published code): it is a bandit, and all that is learnt is
which latents bring a high reward,

    r = 4·log p_y + 8·log max(ε, p_y - max_{k≠y} p_k).

The agent's policy is a Gaussian with a variance for each coordinate, squashed by tanh. Separable CMA-ES
(R. Ros, N. Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity", PPSN 2008)
searches just such a Gaussian, with less machinery. It stands for RLB-MI in our tables.

Differs from the paper: that. A reward costs one question: the published code asks about the action and about
the next state, which are the same image there. Every class begins at the best of a pool of latents that is
scored once for all classes. Pictures are drawn from the last Gaussian, with half of its deviations: the paper
shows the best that was seen, one picture of a class.
"""

from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import AbstractAttack, Task
from patchmi.attacks.latent_pool import FLOOR, POOLED, BestLatents, ClassValues, own_values, unnamed_note
from patchmi.attacks.latent_rounds import ClassLatents, Rounds, search_in_rounds
from patchmi.attacks.public_gan import GanTraining, PublicGan
from patchmi.target import ScoreAccess
from patchmi.types import Access, Images, Latents, Reconstructions, Scores

DRAWN_AT = 0.5
"""Where pictures are drawn, as a share of the last Gaussian's deviations."""
SEARCHED = "generations"
"""What candidates are sent for, in the account."""

Points = Float64[Tensor, "classes each latent"]
"""Latents before tanh, as the library has them."""


@dataclass(frozen=True)
class CmaMI(AbstractAttack):
    """CMA-ES over the latents of a GAN (extra `cma`).

    Args:
        gan: The GAN of public images.
        pool_share: Share of the budget for the pool.
        sigma: First deviation of every coordinate.
        uses_target: Off: what the GAN draws, an audit's control.
        precision: Number format of the GAN's training.

    Raises:
        ValueError: If a number is out of range, or the library is missing.
    """

    accesses: ClassVar[tuple[Access, ...]] = ("score",)

    gan: GanTraining = field(default_factory=GanTraining)
    pool_share: float = 0.2
    sigma: float = 0.5
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.pool_share < 1 or not 0 < self.sigma < float("inf"):
            raise ValueError(
                f"pool_share {self.pool_share}, sigma {self.sigma}: give a share between 0 and 1, and a "
                "deviation above 0"
            )
        if self.gan.latent_size == 1:
            raise ValueError("CMA-ES needs a gan.latent_size of 2 or more")
        import_cmaes()

    def without_target(self) -> "CmaMI":
        """The GAN's images of no class."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of the GAN; generations follow from the budget."""
        del image_size
        return {"gan.step_count": self.gan.steps_on(public_count)}

    def _reconstruct(self, door: ScoreAccess, public: Images, task: Task) -> Reconstructions:
        rounds = Rounds(
            title="CMA-ES",
            gan=self.gan,
            start=lambda gan: _Search(self, gan, door),
            first_share=self.pool_share,
            uses_target=self.uses_target,
            precision=self.precision,
        )
        return search_in_rounds(rounds, door, public, task)


class _Search:
    """The Gaussians of all classes on their way."""

    def __init__(self, attack: CmaMI, gan: PublicGan, door: ScoreAccess) -> None:
        self.attack, self.gan, self.door = attack, gan, door
        self.best = BestLatents(class_count=door.class_count, latent_size=gan.latent_size, kept_count=1)
        self.first_seed = int(torch.randint(2**31, ()))
        self.optimisers: list[Any] = []
        """One of the library's a class, once it is known where it begins."""
        self.rewards: list[ClassValues] = []
        """Of every generation: all that must be kept to come to the same Gaussians again."""

    def look_around(self, count: int) -> bool:
        """Score a part of the pool, for all classes together."""
        points = torch.randn(count, self.gan.latent_size)
        self.best.add(points.expand(self.door.class_count, -1, -1), self._rewards(points, stage=POOLED).T)
        return False

    def begin(self) -> int:
        """A Gaussian around the best of the pool for each class."""
        optimiser = import_cmaes().SepCMA
        means = self.best.latents[:, 0].double().numpy()  # a copy, which the library moves in place
        self.optimisers = [optimiser(mean=mean, sigma=self.attack.sigma, seed=0) for mean in means]
        return self.door.class_count * self.optimisers[0].population_size

    def advance(self) -> None:
        """One generation of every class."""
        points = self._generation()
        self._tell(points, own_values(self._rewards(points.flatten(0, 1).float(), stage=SEARCHED)))

    def _generation(self) -> Points:
        """The candidates of the next generation."""
        return self._draw(self.optimisers[0].population_size, number=1 + len(self.rewards))

    def _draw(self, count: int, *, number: int) -> Points:
        """Points from every class's Gaussian; the noise depends on the number alone."""
        for label, optimiser in enumerate(self.optimisers):
            optimiser.reseed_rng(self.first_seed + number * self.door.class_count + label)
        return torch.from_numpy(
            np.stack([[optimiser.ask() for _ in range(count)] for optimiser in self.optimisers])
        )

    def _tell(self, points: Points, rewards: ClassValues) -> None:
        """Let every class's Gaussian learn from what its candidates brought."""
        self.rewards.append(rewards)
        for optimiser, own_points, own_rewards in zip(
            self.optimisers, points.numpy(), rewards.tolist(), strict=True
        ):
            # The library minimises.
            optimiser.tell([(point, -reward) for point, reward in zip(own_points, own_rewards, strict=True)])

    def _rewards(self, points: Latents, *, stage: str) -> Scores:
        """Of every class, what the GAN's images of squashed points are worth."""
        return rewards_of(self.door.scores(self.gan.draw(points.tanh()), stage=stage))

    def answer(self, noise: ClassLatents) -> ClassLatents:
        """Latents from near the mean of each class's Gaussian, always by the same noise of the library's."""
        means = torch.from_numpy(np.stack([optimiser.mean for optimiser in self.optimisers]))[:, None]
        points = means + DRAWN_AT * (self._draw(noise.shape[1], number=0) - means)
        return points.float().tanh()

    def progress(self) -> dict[str, float]:
        """What the last generation brought, on average."""
        latest = self.rewards[-1] if self.rewards else self.best.values
        return {"reward": float(latest.mean())}

    def notes(self) -> tuple[str, ...]:
        """Which classes were never answered."""
        return unnamed_note(self.door)

    def state(self) -> dict[str, Any]:
        """All that the next generation depends on, but GAN, door and random state."""
        return {"best": self.best.state(), "first_seed": self.first_seed, "rewards": self.rewards}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave: every generation is drawn and told again, and nothing asked."""
        self.best.restore(state["best"])
        self.first_seed = state["first_seed"]
        if state["rewards"]:
            self.begin()
        for rewards in state["rewards"]:
            self._tell(self._generation(), rewards)


def rewards_of(scores: Scores) -> Scores:
    """RLB-MI's reward of every class, for images with these scores.

    The published 2·log p_y of the action and of the next state are one term here, since they are one image.
    """
    best, second = scores.topk(2, dim=1).values.split(1, dim=1)
    best_other = torch.where(scores == best, second, best)
    return 4 * scores.clamp_min(FLOOR).log() + 8 * (scores - best_other).clamp_min(FLOOR).log()


def import_cmaes() -> ModuleType:
    """The library of evolution strategies.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import cmaes
    except ImportError:
        raise ValueError("attack cma-es needs cmaes: pip install 'patchmi[cma]'") from None
    return cmaes
