"""BREP-MI: labels alone push a GAN's latent away from where another class begins.

M. Kahla, S. Chen, H. A. Just, R. Jia, "Label-Only Model Inversion Attacks via Boundary Repulsion", CVPR 2022,
algorithm 1. From a latent that the target gives to the class, points on a sphere about it are asked. If most
are still of the class the sphere grows; otherwise the latent moves by

    z ← z + α_R · 1/N Σ_i Φ(z + R·u_i)·u_i,   Φ = 0 for the class and -1 for another,

away from those that are not.

Differs from the paper: one search a class for as long as the budget goes, instead of one for each image for a
thousand steps; the pictures are drawn half-way from the centre to the last sphere that was the class's, where
the paper shows the centre alone. The GAN is that of the comparison's baselines (`public_gan`).
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi import machine
from patchmi.attacks.base import AbstractAttack, Task
from patchmi.attacks.latent_rounds import ClassLatents, Rounds, search_in_rounds
from patchmi.attacks.public_gan import GanTraining, PublicGan
from patchmi.target import BlackBox, answer_of
from patchmi.types import Access, Images, Labels, Latents, Reconstructions

BOUND = 1.5
"""First latents are clipped to [-1.5, 1.5]."""
GROWTH = 1.3
WANTED = 0.75
"""Share of a sphere's points that must be of the class for it to grow."""
DRAWN_AT = 0.5
"""Where pictures are drawn, as a share of the last sphere's radius: on it a quarter are another class's."""
BEGUN, REPELLED = "first latents", "spheres"
"""What images are sent for, in the account."""


@dataclass(frozen=True)
class BrepMI(AbstractAttack):
    """Boundary repulsion in the latents of a GAN.

    Args:
        gan: The GAN of public images.
        radius: R of the first sphere.
        point_count: N, points that are asked on each.
        search_share: Share of the budget for finding a first latent of every class.
        uses_target: Off: what the GAN draws, an audit's control.
        precision: Number format of the networks.

    Raises:
        ValueError: If a number is out of range.
    """

    accesses: ClassVar[tuple[Access, ...]] = ("label", "score")

    gan: GanTraining = field(default_factory=GanTraining)
    radius: float = 2.0
    point_count: int = 32
    search_share: float = 0.3
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.point_count < 1 or not 0 < self.search_share < 1:
            raise ValueError(
                f"radius {self.radius}, point_count {self.point_count}, search_share {self.search_share}: "
                "give a radius above 0, 1 point or more, and a share between 0 and 1"
            )

    def without_target(self) -> "BrepMI":
        """The GAN's images of no class."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of the GAN; those of the search follow from the budget."""
        del image_size
        return {"gan.step_count": self.gan.steps_on(public_count)}

    def _reconstruct(self, door: BlackBox, public: Images, task: Task) -> Reconstructions:
        rounds = Rounds(
            title="BREP-MI",
            gan=self.gan,
            start=lambda gan: _Walk(self, gan, door),
            first_share=self.search_share,
            uses_target=self.uses_target,
            precision=self.precision,
        )
        return search_in_rounds(rounds, door, public, task)


class _Walk:
    """The spheres of all classes on their way."""

    def __init__(self, attack: BrepMI, gan: PublicGan, door: BlackBox) -> None:
        self.attack, self.gan, self.door = attack, gan, door
        class_count = door.class_count
        self.is_found = torch.zeros(class_count, dtype=torch.bool)
        self.centres: Latents = torch.zeros(class_count, gan.latent_size)
        self.radii = torch.full((class_count,), attack.radius)
        self.last_centres, self.last_radii = self.centres.clone(), torch.zeros(class_count)

    def look_around(self, count: int) -> bool:
        """Ask about latents of no class, and keep one of each class that had none."""
        latents = torch.randn(count, self.gan.latent_size).clamp(-BOUND, BOUND)
        answers = self._ask(latents, stage=BEGUN)
        for label in (~self.is_found).nonzero().flatten().tolist():
            own = (answers == label).nonzero().flatten()
            if len(own):
                self.is_found[label] = True
                self.centres[label] = self.last_centres[label] = latents[own[0]]
        return bool(self.is_found.all())

    def begin(self) -> int:
        """The images of all spheres, and of the latents that they move."""
        return max(1, int(self.is_found.sum())) * (self.attack.point_count + 1)

    def advance(self) -> None:
        """One round of the algorithm for every class that has a latent."""
        labels = self.is_found.nonzero().flatten()
        if not len(labels):
            return
        count = self.attack.point_count
        directions = F.normalize(torch.randn(len(labels), count, self.gan.latent_size), dim=2)
        points = self.centres[labels, None] + self.radii[labels, None, None] * directions
        answers = self._ask(points.flatten(0, 1), stage=REPELLED).view(len(labels), count)
        is_other = (answers != labels[:, None]).float()
        grows = 1 - is_other.mean(dim=1) >= WANTED
        grown, pushed = labels[grows], labels[~grows]
        self.last_centres[grown], self.last_radii[grown] = self.centres[grown], self.radii[grown]
        self.radii[grown] *= GROWTH
        if len(pushed):
            moved = self.centres[pushed] + repulsion(
                directions[~grows], is_other[~grows], radii=self.radii[pushed]
            )
            stays = self._ask(moved, stage=REPELLED) == pushed
            self.centres[pushed[stays]] = moved[stays]

    def _ask(self, latents: Latents, *, stage: str) -> Labels:
        """The target's labels of the GAN's images."""
        return answer_of(self.door, self.gan.draw(latents), stage=stage).argmax(dim=1)

    def answer(self, noise: ClassLatents) -> ClassLatents:
        """Latents from within each class's last sphere; of a class without a latent, the noise."""
        directions = F.normalize(noise, dim=2)
        within = self.last_centres[:, None] + DRAWN_AT * self.last_radii[:, None, None] * directions
        return torch.where(self.is_found[:, None, None], within, noise)

    def progress(self) -> dict[str, float]:
        """How far it is: there is no loss to follow."""
        radii = self.last_radii[self.is_found]
        return {
            "found": float(self.is_found.float().mean()),
            "radius": float(radii.mean()) if len(radii) else 0.0,
        }

    def notes(self) -> tuple[str, ...]:
        """Which classes were not found."""
        lost = int((~self.is_found).sum())
        if lost == 0:
            return ()
        return (
            f"Of {lost} of {len(self.is_found)} classes no latent was found within the budget: their "
            "pictures are the GAN's, of no class.",
        )

    def state(self) -> dict[str, Any]:
        """All that the next round depends on, but GAN, door and random state."""
        kept = ("is_found", "centres", "radii", "last_centres", "last_radii")
        return {name: getattr(self, name) for name in kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)


def repulsion(
    directions: Float[Tensor, "classes points latent"],
    is_other: Float[Tensor, "classes points"],
    *,
    radii: Float[Tensor, " classes"],
) -> Float[Tensor, "classes latent"]:
    """How far a latent moves: away from the points that are another class's (BREP-MI, equations 4 to 6).

    Args:
        directions: u, of length 1.
        is_other: 1 for a point of another class, 0 for one of its own.
        radii: R; a step is a third of it, at most 3.
    """
    away = -(is_other[:, :, None] * directions).mean(dim=1)
    return (radii / 3).clamp_max(3)[:, None] * away
