"""TL-DMI: the first stages are learnt from public images and never see a private one.

S. Ho, J. Koh, K. Chandrasegaran, N. Nguyen, N. Cheung, "Model Inversion Robustness: Can Transfer Learning
Help?", CVPR 2024.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier, build_classifier, stages
from patchmi.target import Hooks, train_classifier
from patchmi.types import Labelled


@dataclass(frozen=True)
class TlDmi(AbstractDefence):
    """Learn other classes first; then freeze the first stages and learn the private classes with the rest.

    Args:
        strength: Share of the `stages` that are frozen, to the nearest, above 0 and at most 1: then the head
            alone learns.

    Differs from the published code: batch norm's statistics are frozen with the weights; there they go on to
    learn private images.
    """

    strength: float = 0.5

    learns_from_public: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"tl-dmi, strength {self.strength:g}: give a share above 0 and at most 1")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """The trunk is pre-trained as the classifier will be trained, before its own training begins."""
        images, labels = self._public(lesson)
        class_count = int(labels.max()) + 1
        first = build_classifier(
            lesson.architecture, class_count=class_count, channel_count=images.shape[1], width=lesson.width
        )
        seed = int(torch.randint(2**31, ()))
        train_classifier(
            first,
            images=images,
            labels=labels,
            training=lesson.training,
            seed=seed,
            progress=lesson.progress,
            description="Pre-training on public images",
        )
        network.trunk.load_state_dict(first.trunk.state_dict())
        parts = stages(network)
        frozen = tuple(parts[: round(self.strength * len(parts))])
        lesson.notes.append(
            f"Pre-trained on {len(images)} public images of {class_count} other classes; {len(frozen)} of "
            f"{len(parts)} stages stay as they were learnt there."
        )
        yield Hooks(frozen=frozen)

    def _public(self, lesson: Lesson) -> Labelled:
        name = f"tl-dmi, strength {self.strength:g}"
        if lesson.public is None:
            raise ValueError(
                f"{name}: learns from labelled images of other classes first; give --pretraining, "
                "in a suite the key pretraining"
            )
        shape, private = lesson.public[0].shape[1:], lesson.images.shape[1:]
        if shape != private:
            raise ValueError(
                f"{name}: images for pre-training are {'×'.join(map(str, shape))}, private ones "
                f"{'×'.join(map(str, private))}; give images of the same channels and size"
            )
        return lesson.public
