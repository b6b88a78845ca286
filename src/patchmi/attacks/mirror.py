"""MIRROR without gradients: a genetic algorithm over a GAN's latents, by the target's scores.

S. An et al., "MIRROR: Model Inversion for Deep Learning Network with High Fidelity", NDSS 2022, its black-box
form. A pool of the GAN's latents is scored once for all classes; the best of them are a class's first
population. In each generation parents are drawn by their score,

    P(i) ∝ exp f_i,   f = log p_y,

a child takes each coordinate from one of its two parents, some coordinates move a little, and all are clipped
to the mean ± one deviation of the latents. The best of a generation lives on in the next.

Differs from the paper: a child has a coordinate from its first parent with f_2/(f_1 + f_2). The published
code takes f_1/(f_1 + f_2), but its f are logarithms, below 0, so that the worse parent gave more. Its
children all move by the same draw; here each has its own. The latents are those of the comparison's GAN
(`public_gan`), N(0, I), instead of a StyleGAN's. The budget decides how large the pool is and how many
generations there are, where the paper has 100,000 and 100 and stops at a score of .95; where it has not ten
generations, populations are smaller. Pictures of a class are the best that were seen in the whole search: the
paper shows one.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import AbstractAttack, Task
from patchmi.attacks.latent_pool import FLOOR, POOLED, BestLatents, ClassValues, own_values, unnamed_note
from patchmi.attacks.latent_rounds import ClassLatents, Rounds, search_in_rounds
from patchmi.attacks.public_gan import GanTraining, PublicGan
from patchmi.target import ScoreAccess
from patchmi.types import Access, Images, Latents, Reconstructions, Scores

MUTATED_SHARE = 0.1
"""Share of a child's coordinates that move."""
MUTATION = 0.1
"""How far at most."""
BOUND = 1.0
"""Children are clipped to [-1, 1], one standard deviation of the latents."""
FEWEST_GENERATIONS = 10
"""Rather than fewer generations, populations are smaller."""
BRED = "generations"
"""What children are sent for, in the account."""


@dataclass(frozen=True)
class MirrorMI(AbstractAttack):
    """A genetic algorithm over the latents of a GAN.

    Args:
        gan: The GAN of public images.
        population_size: Latents of each class in a generation.
        pool_share: Share of the budget for the pool.
        uses_target: Off: what the GAN draws, an audit's control.
        precision: Number format of the GAN's training.

    Raises:
        ValueError: If a number is out of range.
    """

    accesses: ClassVar[tuple[Access, ...]] = ("score",)

    gan: GanTraining = field(default_factory=GanTraining)
    population_size: int = 100
    pool_share: float = 0.2
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.population_size < 2 or not 0 < self.pool_share < 1:
            raise ValueError(
                f"population_size {self.population_size}, pool_share {self.pool_share}: give 2 latents or "
                "more, and a share between 0 and 1"
            )

    def without_target(self) -> "MirrorMI":
        """The GAN's images of no class."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of the GAN; generations follow from the budget."""
        del image_size
        return {"gan.step_count": self.gan.steps_on(public_count)}

    def population_size_on(self, *, budget: int, class_count: int) -> int:
        """Latents of each class in a generation, so that the budget has enough generations of them."""
        affordable = int((1 - self.pool_share) * budget) // (class_count * FEWEST_GENERATIONS)
        return max(2, min(self.population_size, affordable))

    def _reconstruct(self, door: ScoreAccess, public: Images, task: Task) -> Reconstructions:
        rounds = Rounds(
            title="MIRROR",
            gan=self.gan,
            start=lambda gan: _Evolution(self, gan, door, count_per_class=task.count_per_class),
            first_share=self.pool_share,
            uses_target=self.uses_target,
            precision=self.precision,
        )
        return search_in_rounds(rounds, door, public, task)


class _Evolution:
    """The populations of all classes on their way."""

    def __init__(self, attack: MirrorMI, gan: PublicGan, door: ScoreAccess, *, count_per_class: int) -> None:
        self.gan, self.door = gan, door
        self.size = attack.population_size_on(budget=door.budget, class_count=door.class_count)
        self.best = BestLatents(
            class_count=door.class_count,
            latent_size=gan.latent_size,
            kept_count=max(self.size, count_per_class),
        )
        self.population: ClassLatents = self.best.latents
        self.fitness: ClassValues = self.best.values

    def look_around(self, count: int) -> bool:
        """Score a part of the pool, for all classes together."""
        latents = torch.randn(count, self.gan.latent_size)
        self.best.add(latents.expand(self.door.class_count, -1, -1), self._fitness(latents, stage=POOLED).T)
        return False

    def begin(self) -> int:
        """The first population is the best of the pool; the best of each generation is not asked again."""
        self.population, self.fitness = self.best.latents[:, : self.size], self.best.values[:, : self.size]
        return self.door.class_count * (self.size - 1)

    def advance(self) -> None:
        """The next generation of every class."""
        elite, elite_fitness = self.best.latents[:, :1], self.best.values[:, :1]
        children = self._children()
        fitness = own_values(self._fitness(children.flatten(0, 1), stage=BRED))
        self.best.add(children, fitness)
        self.population = torch.cat([elite, children], dim=1)
        self.fitness = torch.cat([elite_fitness, fitness], dim=1)

    def _children(self) -> ClassLatents:
        """Children of parents drawn by their score."""
        classes = torch.arange(self.door.class_count)[:, None]
        drawn = torch.multinomial(self.fitness.softmax(dim=1), 2 * (self.size - 1), replacement=True)
        first, second = drawn.chunk(2, dim=1)
        children = crossed(
            first=self.population[classes, first],
            second=self.population[classes, second],
            share=share_of_first(first=self.fitness[classes, first], second=self.fitness[classes, second]),
            draws=torch.rand(*first.shape, self.gan.latent_size),
        )
        shifts = MUTATION * (2 * torch.rand_like(children) - 1)
        moves = torch.rand_like(children) < MUTATED_SHARE
        return (children + moves * shifts).clamp(-BOUND, BOUND)

    def _fitness(self, latents: Latents, *, stage: str) -> Scores:
        """Of every class, log p_y of the GAN's images."""
        return log_scores(self.door.scores(self.gan.draw(latents), stage=stage))

    def answer(self, noise: ClassLatents) -> ClassLatents:
        """The best seen of each class; from the first again where fewer were seen."""
        return self.best.latents[:, torch.arange(noise.shape[1]) % self.best.latents.shape[1]]

    def progress(self) -> dict[str, float]:
        """The score of each class's best, on average."""
        return {"best_score": float(self.best.values[:, 0].exp().mean())}

    def notes(self) -> tuple[str, ...]:
        """Which classes were never answered."""
        return unnamed_note(self.door)

    def state(self) -> dict[str, Any]:
        """All that the next generation depends on, but GAN, door and random state."""
        return {"best": self.best.state(), "population": self.population, "fitness": self.fitness}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.best.restore(state["best"])
        self.population, self.fitness = state["population"], state["fitness"]


def log_scores(scores: Scores) -> Scores:
    """Log p_y, below 0 even where a score is shown as 1, and finite where it is shown as 0."""
    return scores.clamp(FLOOR, 1 - FLOOR).log()


def share_of_first(*, first: ClassValues, second: ClassValues) -> ClassValues:
    """How much a child has of its first parent: f_2/(f_1 + f_2), the larger share of the better one.

    Args:
        first: f = log p_y of the first parents, below 0.
        second: Of the second ones.
    """
    return second / (first + second)


def crossed(
    *,
    first: ClassLatents,
    second: ClassLatents,
    share: ClassValues,
    draws: Float[Tensor, "classes each latent"],
) -> ClassLatents:
    """Each coordinate from the first parent where its draw from [0, 1) is below its share."""
    return torch.where(draws < share[:, :, None], first, second)
