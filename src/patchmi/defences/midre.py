"""MIDRE: a part of every training image is erased, so that no class is ever seen whole.

V. Tran, N. Nguyen, S. Mai, H. Vandierendonck, I. Assent, A. Kot, N. Cheung, "Random Erasing vs. Model
Inversion: A Promising Defense or a False Hope?", TMLR 2025.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from kornia import augmentation
from torch import Tensor

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import Hooks
from patchmi.types import Images

LEAST_AREA = 0.1
"""The paper's: of the image."""


def erase_squares(images: Images, *, fill: Float[Tensor, " channels"], most_area: float) -> Images:
    """Images with a square each painted over, somewhere inside them.

    Args:
        images: As they are before.
        fill: The paint.
        most_area: Of a square as a share of the image. The area is uniform from `LEAST_AREA` to it, the side
            rounded to whole pixels and no longer than the image's.
    """
    # kornia paints all channels alike: it says where, in an image of ones
    erasing = augmentation.RandomErasing((LEAST_AREA, most_area), ratio=(1.0, 1.0), value=0.0, p=1.0)
    kept = erasing(torch.ones_like(images[:, :1]))
    return torch.where(kept == 1, images, fill.to(images)[:, None, None])


@dataclass(frozen=True)
class Midre(AbstractDefence):
    """Plain training on images with an erased square, drawn anew whenever an image is shown.

    Args:
        strength: The largest square's share of the image, above .1 and at most .8.

    Differs from the published code: the fill is the mean of the training images, channel by channel; there
    ImageNet's is put into images that were normalised before, where it is a light grey.
    """

    strength: float = 0.4

    def __post_init__(self) -> None:
        if not LEAST_AREA < self.strength <= 0.8:
            raise ValueError(f"midre, strength {self.strength:g}: give an area above 0.1 and at most 0.8")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """Squares are erased after the trainer's own views."""
        del network
        mean = lesson.images.mean(dim=(0, 2, 3))
        yield Hooks(transform=lambda images: erase_squares(images, fill=mean, most_area=self.strength))
