"""What every attack promises, kept in one place; the papers' files keep the loops."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch

from patchmi.losses import Scalar
from patchmi.machine import seeded
from patchmi.runs import NO_CACHE, NO_CHECKPOINT, Cache, Checkpoint
from patchmi.target import AccessDenied, BlackBox, WhiteBox
from patchmi.types import (
    Access,
    Bytes,
    Images,
    Observer,
    Progress,
    Reconstructions,
    Snapshot,
    silent,
    unobserved,
)

SNAPSHOT_SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of the steps after which a snapshot is kept."""
OBSERVED_EVERY = 10
"""Steps from one report of the losses to the next."""


def snapshot_count(class_count: int) -> int:
    """Images of each class in a snapshot: 20, fewer where they would be more than 1,000 together."""
    return min(20, max(1, 1000 // class_count))


Door = WhiteBox | BlackBox
"""All that an attack ever gets of a target."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one run is to make, and what it works with, as `AbstractAttack.__call__` takes them."""

    count_per_class: int
    seed: int
    checkpoint: Checkpoint
    cache: Cache
    progress: Progress
    observe: Observer

    def title(self, attack: str, *, uses_target: bool = True) -> str:
        """What the progress of this run is called, and that of its control, without the target's word."""
        return f"{attack}, seed {self.seed}{'' if uses_target else ', without the target'}"


@dataclass(frozen=True)
class AbstractAttack(ABC):
    """An attack: its hyper-parameters are its fields, what it works on comes in the call."""

    uses_public: ClassVar[bool] = True
    """Whether the public images have a part in it."""
    accesses: ClassVar[tuple[Access, ...]] = ("white-box",)
    """Doors that it can use, the one it is meant for first."""

    @final
    def __call__(
        self,
        door: Door,
        public: Images,
        *,
        count_per_class: int = 200,
        seed: int = 0,
        checkpoint: Checkpoint = NO_CHECKPOINT,
        cache: Cache = NO_CACHE,
        progress: Progress = silent,
        observe: Observer = unobserved,
    ) -> Reconstructions:
        """Reconstruct every class of the target behind `door`.

        Args:
            door: Access to the target, of a kind that the attack can use.
            public: What the attacker has: images in [0, 1] of the target's shape.
            count_per_class: Reconstructions of each class.
            seed: Same seed, machine and thread count: same bytes.
            checkpoint: Where the attack keeps its state, and from where it goes on.
            cache: Keeps what depends on the public images alone, as a GAN trained on them does.
            progress: How to show how far it is.
            observe: Is told the losses of every few steps; the reconstructions do not depend on it.

        Returns:
            Reconstructions in [0, 1], ordered by class.

        Raises:
            AccessDenied: If the attack needs another door.
            ValueError: If the public images do not fit the target.
        """
        self.check_access(door.access)
        if public.shape[1:] != door.image_shape:
            raise ValueError(
                f"public images are {tuple(public.shape[1:])}, the target takes {door.image_shape}: "
                "resize them"
            )
        if len(public) < 2 or not torch.isfinite(public).all() or public.min() < 0 or public.max() > 1:
            raise ValueError("public images: at least 2, finite, in [0, 1]; divide 8-bit images by 255")
        with seeded(seed):
            task = Task(
                count_per_class=count_per_class,
                seed=seed,
                checkpoint=checkpoint,
                cache=cache,
                progress=progress,
                observe=observe,
            )
            result = self._reconstruct(door, public, task)
        images = result.images.detach().float().clamp(0, 1).cpu().contiguous()
        return replace(result, images=images, labels=result.labels.cpu(), seeds=result.seeds.cpu())

    @final
    def check_access(self, access: Access) -> None:
        """Refuse an access that the attack cannot use.

        Raises:
            AccessDenied: In one line.
        """
        if access not in self.accesses:
            raise AccessDenied(
                f"{type(self).__name__} needs {' or '.join(self.accesses)} access, not {access}: choose "
                "another --attack, or another --access"
            )

    @abstractmethod
    def without_target(self) -> "AbstractAttack":
        """The same attack without the target's word, an audit's control: what its prior alone would draw."""

    @abstractmethod
    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """Steps of each of its loops, by the setting that counts them; a dot leads into a group of settings.

        Args:
            public_count: Public images, where epochs over them are counted.
            image_size: Side of the images in pixels.
        """

    @abstractmethod
    def _reconstruct(self, door: Any, public: Images, task: Task) -> Reconstructions:
        """The paper's algorithm."""


def merge_snapshots(answers: Iterable[Mapping[str, Any]]) -> tuple[Snapshot, ...]:
    """Join the snapshots of the parts of an attack, taken at the same steps, in the order of the classes.

    Args:
        answers: Of each part, such as a class, `snapshots`: `step`, `seconds`, `images` in 8 bits, `labels`,
            and `queries` if a black box was asked.
    """
    merged = []
    for together in zip(*(answer["snapshots"] for answer in answers), strict=True):
        labels = torch.cat([one["labels"] for one in together])
        order = labels.argsort(stable=True)
        images = torch.cat([one["images"] for one in together])[order].float() / 255
        seconds = sum(one["seconds"] for one in together)
        queries = sum(one.get("queries", 0) for one in together)
        merged.append(Snapshot(together[0]["step"], seconds, images, labels[order], queries))
    return tuple(merged)


def to_bytes(images: Images) -> Bytes:
    """Images in [0, 1] at 8 bits a pixel, on the CPU."""
    return (images.detach().float() * 255).round().clamp(0, 255).byte().cpu()


def descend(optimiser: torch.optim.Optimizer, loss: Scalar) -> None:
    """One step of an optimiser against a loss."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
