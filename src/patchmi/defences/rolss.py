"""RoLSS and SSF: a weaker shortcut in the last stage, through which fewer gradients reach the image.

J. Koh, S. Ho, N. Nguyen, N. Cheung, "On the Vulnerability of Skip Connections to Model Inversion Attacks",
ECCV 2024.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import PLAIN_TRAINING, Hooks


@dataclass(frozen=True)
class Rolss(AbstractDefence):
    """The last stage's output is g(z) + (1 - strength) · S(z), S its shortcut: 1 is RoLSS, .8 is SSF.

    The training is the plain one; a network without shortcuts is refused as it is built.

    Args:
        strength: What is taken from the shortcut's scale of 1, above 0 and at most 1.

    Differs from the published code: there the stage before has blocks without a shortcut even in the
    undefended network; here all shortcuts but the last stage's are whole.
    """

    strength: float = 0.8

    variant: ClassVar[str] = "skip-{1:g}"

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"rolss, strength {self.strength:g}: give a share above 0 and at most 1")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """All is in the network's shape."""
        del network, lesson
        yield PLAIN_TRAINING
