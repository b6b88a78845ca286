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

import time
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi import machine
from patchmi.attacks.base import (
    OBSERVED_EVERY,
    SNAPSHOT_SHARES,
    AbstractAttack,
    merge_snapshots,
    snapshot_count,
)
from patchmi.attacks.public_gan import GanTraining, PublicGan, public_gan, restored_gan
from patchmi.attacks.surrogate import answer_of
from patchmi.runs import Cache, Checkpoint
from patchmi.target import BlackBox
from patchmi.types import (
    Access,
    Bytes,
    Images,
    Labels,
    Latents,
    Observer,
    Progress,
    Reconstructions,
    unobserved,
)

BOUND = 1.5
"""First latents are clipped to [-1.5, 1.5]."""
GROWTH = 1.3
WANTED = 0.75
"""Share of a sphere's points that must be of the class for it to grow."""
DRAWN_AT = 0.5
"""Where pictures are drawn, as a share of the last sphere's radius: on it a quarter are another class's."""
SEARCHED_AT_ONCE = 128
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

    def _reconstruct(
        self,
        door: BlackBox,
        public: Images,
        *,
        count_per_class: int,
        seed: int,
        checkpoint: Checkpoint,
        cache: Cache,
        progress: Progress,
        observe: Observer,
    ) -> Reconstructions:
        began = time.perf_counter()
        state = checkpoint.load()
        if state is None:
            gan = public_gan(
                public, self.gan, seed=seed, cache=cache, progress=progress, precision=self.precision
            )
            walk = _Walk(self, gan, door)
            walk.seconds = time.perf_counter() - began
        else:
            gan = restored_gan(state["gan"], self.gan, image_shape=door.image_shape)
            walk = _Walk(self, gan, door)
            walk.restore(state["walk"])
            machine.restore_random_state(state["random"])
        with checkpoint.guard():
            if self.uses_target:
                self._search(walk, seed=seed, checkpoint=checkpoint, progress=progress, observe=observe)
        walk.keep_snapshot()
        labels = torch.arange(door.class_count).repeat_interleave(count_per_class)
        images = walk.images(torch.randn(len(labels), gan.latent_size), labels)
        return Reconstructions(
            images.float() / 255,
            labels,
            torch.full_like(labels, seed),
            merge_snapshots([vars(walk)]),
            self._notes(walk),
        )

    def _search(
        self, walk: "_Walk", *, seed: int, checkpoint: Checkpoint, progress: Progress, observe: Observer
    ) -> None:
        """First latents, until every class has one or their share is spent; then spheres with the rest."""

        def after(began: float) -> None:
            walk.round += 1
            walk.seconds += time.perf_counter() - began
            if observe is not unobserved and (walk.round - 1) % OBSERVED_EVERY == 0:
                observe(walk.round - 1, {**walk.progress(), "seconds": walk.seconds})
            checkpoint.save_if_due(
                lambda: {"gan": walk.gan.state(), "walk": walk.state(), "random": machine.random_state()}
            )

        most = int(self.search_share * walk.door.budget) // walk.searched_at_once
        for _ in progress(range(walk.round, most), f"BREP-MI looks for first latents, seed {seed}"):
            if walk.sphere_rounds is not None or walk.is_found.all():
                break
            began = time.perf_counter()
            walk.look_for_first_latents()
            after(began)
        if walk.sphere_rounds is None:
            sphere_cost = max(1, int(walk.is_found.sum())) * (self.point_count + 1)
            walk.sphere_rounds = range(walk.round, walk.round + walk.door.left // sphere_cost)
        rounds = walk.sphere_rounds
        snapshots_at = {rounds.start + round(share * len(rounds)) for share in SNAPSHOT_SHARES[:-1]}
        for number in progress(range(walk.round, rounds.stop), f"BREP-MI, seed {seed}"):
            began = time.perf_counter()
            if number in snapshots_at:
                walk.keep_snapshot()
            walk.try_spheres()
            after(began)

    def _notes(self, walk: "_Walk") -> tuple[str, ...]:
        lost = int((~walk.is_found).sum())
        if lost == 0 or not self.uses_target:
            return ()
        return (
            f"Of {lost} of {len(walk.is_found)} classes no latent was found within the budget: their "
            "pictures are the GAN's, of no class.",
        )


class _Walk:
    """The spheres of all classes on their way."""

    def __init__(self, attack: BrepMI, gan: PublicGan, door: BlackBox) -> None:
        self.attack, self.gan, self.door = attack, gan, door
        class_count = door.class_count
        self.searched_at_once = max(1, min(SEARCHED_AT_ONCE, int(attack.search_share * door.budget)))
        self.is_found = torch.zeros(class_count, dtype=torch.bool)
        self.centres: Latents = torch.zeros(class_count, gan.latent_size)
        self.radii = torch.full((class_count,), attack.radius)
        self.last_centres, self.last_radii = self.centres.clone(), torch.zeros(class_count)
        self.snapshot_noise = torch.randn(class_count * snapshot_count(class_count), gan.latent_size)
        self.snapshots: list[dict[str, Any]] = []
        self.round, self.seconds = 0, 0.0
        self.sphere_rounds: range | None = None
        """Rounds of spheres, once it is known how many the budget leaves."""

    def look_for_first_latents(self) -> None:
        """Ask about latents of no class, and keep one of each class that had none."""
        latents = torch.randn(self.searched_at_once, self.gan.latent_size).clamp(-BOUND, BOUND)
        answers = self._ask(latents, stage=BEGUN)
        for label in (~self.is_found).nonzero().flatten().tolist():
            own = (answers == label).nonzero().flatten()
            if len(own):
                self.is_found[label] = True
                self.centres[label] = self.last_centres[label] = latents[own[0]]

    def try_spheres(self) -> None:
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
        return answer_of(self.door, self._draw(latents), stage=stage).argmax(dim=1)

    @torch.no_grad()
    def _draw(self, latents: Latents) -> Bytes:
        batches = [self.gan.generator(some.to(machine.device())) for some in latents.split(256)]
        return ((torch.cat(batches) + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def images(self, noise: Latents, labels: Labels) -> Bytes:
        """Pictures from within each class's last sphere; of a class without a latent, the GAN's."""
        directions = F.normalize(noise, dim=1)
        within = self.last_centres[labels] + DRAWN_AT * self.last_radii[labels, None] * directions
        return self._draw(torch.where(self.is_found[labels, None], within, noise))

    def progress(self) -> dict[str, float]:
        """How far it is: there is no loss to follow."""
        radii = self.last_radii[self.is_found]
        return {
            "found": float(self.is_found.float().mean()),
            "radius": float(radii.mean()) if len(radii) else 0.0,
        }

    def keep_snapshot(self) -> None:
        """Keep what it would answer now."""
        class_count = self.door.class_count
        labels = torch.arange(class_count).repeat_interleave(snapshot_count(class_count))
        self.snapshots.append(
            {
                "step": self.round,
                "seconds": self.seconds,
                "images": self.images(self.snapshot_noise, labels),
                "labels": labels,
                "queries": self.door.account.asked,
            }
        )

    def state(self) -> dict[str, Any]:
        """All that the next round depends on, but GAN and random state."""
        kept = ("is_found", "centres", "radii", "last_centres", "last_radii", "snapshot_noise")
        return {
            **{name: getattr(self, name) for name in kept},
            "snapshots": self.snapshots,
            "round": self.round,
            "sphere_rounds": self.sphere_rounds and [self.sphere_rounds.start, self.sphere_rounds.stop],
            "seconds": self.seconds,
            "door": self.door.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        state = dict(state)
        self.door.restore(state.pop("door"))
        spheres = state.pop("sphere_rounds")
        self.sphere_rounds = spheres and range(*spheres)
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
