"""Defences of the answers: the weights are those of plain training, and the deployed model shows less.

Rounding, fewer scores, a temperature and labels alone are the mitigations of R. Shokri, M. Stronati, C. Song,
V. Shmatikov, "Membership Inference Attacks Against Machine Learning Models", S&P 2017, section VIII.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import PLAIN, PLAIN_TRAINING, Hooks, OutputMode
from patchmi.types import Access


@dataclass(frozen=True)
class OutputDefence(AbstractDefence):
    """Plain training, and an output mode. Whoever has the weights never meets it."""

    hides_scores: ClassVar[bool] = False
    """Whether labels are all that is answered."""

    @property
    @abstractmethod
    def mode(self) -> OutputMode:
        """What the deployed model makes of its scores."""

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """Nothing is changed in the training."""
        del network, lesson
        yield PLAIN_TRAINING


@dataclass(frozen=True)
class Rounding(OutputDefence):
    """Scores are rounded.

    Args:
        strength: Decimals that are left, a whole number; fewer are stronger.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.strength < 0 or not float(self.strength).is_integer():
            raise ValueError(
                f"rounding, strength {self.strength:g}: give a whole number of decimals, 0 or more"
            )

    @property
    def mode(self) -> OutputMode:
        """So many decimals."""
        return OutputMode(decimals=int(self.strength))


@dataclass(frozen=True)
class TopK(OutputDefence):
    """Only the highest scores are shown.

    Args:
        strength: How many, a whole number; fewer are stronger.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.strength < 1 or not float(self.strength).is_integer():
            raise ValueError(f"top-k, strength {self.strength:g}: give a whole number of scores, 1 or more")

    @property
    def mode(self) -> OutputMode:
        """So many scores."""
        return OutputMode(top_k=int(self.strength))


@dataclass(frozen=True)
class Temperature(OutputDefence):
    """Scores are made to look less sure.

    Args:
        strength: The temperature, above 1.
    """

    strength: float = 4.0

    def __post_init__(self) -> None:
        if not 1 < self.strength < float("inf"):
            raise ValueError(f"temperature, strength {self.strength:g}: give a temperature above 1")

    @property
    def mode(self) -> OutputMode:
        """This temperature."""
        return OutputMode(temperature=self.strength)


@dataclass(frozen=True)
class Noise(OutputDefence):
    """Scores are noisy, and the labels with them.

    Args:
        strength: Standard deviation of what is added to each score, above 0.
    """

    strength: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"noise, strength {self.strength:g}: give a standard deviation above 0")

    @property
    def mode(self) -> OutputMode:
        """This noise."""
        return OutputMode(noise=self.strength)


@dataclass(frozen=True)
class LabelOnly(OutputDefence):
    """Labels are answered, and no score; its strength, 1, says nothing."""

    strength: float = 1.0

    hides_scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.strength != 1:
            raise ValueError(f"label-only, strength {self.strength:g}: has no strength; leave it out")

    @property
    def mode(self) -> OutputMode:
        """Plain: the door for labels shows no score that could be changed."""
        return PLAIN


def is_bypassed(defence: AbstractDefence, access: Access) -> bool:
    """Whether an attack with this access never meets the defence: its figures say nothing about it."""
    return isinstance(defence, OutputDefence) and access == "white-box"
