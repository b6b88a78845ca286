"""No defence, trained to the end or stopped early: what every other one is compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import PLAIN_TRAINING, Hooks


@dataclass(frozen=True)
class NoDefence(AbstractDefence):
    """Plain training; its strength, 0, says nothing."""

    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.strength != 0:
            raise ValueError(f"none, strength {self.strength:g}: has no strength; leave it out")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """Nothing is changed."""
        del network, lesson
        yield PLAIN_TRAINING


@dataclass(frozen=True)
class EarlyStopping(AbstractDefence):
    """Plain training that ends early: the accuracy that a defence costs, spent on nothing but less training.

    A defence that gives away as much as this does at equal accuracy has bought nothing.

    Args:
        strength: Share of the steps that are left out, above 0 and below 1.
    """

    strength: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.strength < 1:
            raise ValueError(f"early-stopping, strength {self.strength:g}: give a share above 0 and below 1")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """The learning rate goes on as if the end were not near."""
        del network, lesson
        yield Hooks(stop_share=1 - self.strength)
