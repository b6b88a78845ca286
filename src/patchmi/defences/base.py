"""What every defence is: one knob, and where it takes part in a training."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from patchmi.networks import Classifier
from patchmi.target import Hooks, Training
from patchmi.types import Images, Labelled, Labels, Progress, silent


@dataclass(frozen=True)
class Lesson:
    """What a defence may look at: never a held-out image.

    Args:
        images: Private training images.
        labels: Their classes.
        training: How the classifier is trained.
        class_count: Number of classes.
        public: Labelled images of other classes, for what learns from them first.
        architecture: What `build_classifier` makes the network of; the trainer says it.
        width: Of its layers; None: the architecture's own. Likewise.
        progress: How to show how far what comes beforehand is. Likewise.
        notes: What the defence says of itself, in whole sentences; it adds to them.
    """

    images: Images
    labels: Labels
    training: Training
    class_count: int
    public: Labelled | None = None
    architecture: str = ""
    width: int | None = None
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AbstractDefence(ABC):
    """A way to train, or to answer, that shall give less away; its whole configuration is its strength.

    Subclasses say as class variables what they change in the network (`variant`, a format of the strength and
    of what it lacks to 1, as `skip-{1:g}`) and in the training (`training_changes`).
    """

    strength: float

    variant: ClassVar[str] = ""
    training_changes: ClassVar[dict[str, Any]] = {}
    learns_from_public: ClassVar[bool] = False
    """Whether it needs labelled images of other classes (`Lesson.public`)."""
    package: ClassVar[tuple[str, str] | None] = None
    """A package that it needs, and the extra of patchmi's that brings it."""

    def named(self, architecture: str) -> str:
        """The architecture with what the defence changes in it, for `build_classifier`."""
        change = self.variant.format(self.strength, 1 - self.strength)
        return f"{architecture}+{change}" if change else architecture

    @abstractmethod
    def applied(self, network: Classifier, lesson: Lesson) -> AbstractContextManager[Hooks]:
        """Take part in the training of `network`, which runs inside the context.

        Args:
            network: Fresh, with the defence's variant, on the device that it will be trained on.
            lesson: What it learns.

        Raises:
            ValueError: What the defence needs is not there: one line.
        """


def missing_package(kind: type[AbstractDefence]) -> str | None:
    """What to install before a defence can be used; None if nothing is missing."""
    if kind.package is None or find_spec(kind.package[0]) is not None:
        return None
    return f"needs {kind.package[0]}: pip install 'patchmi[{kind.package[1]}]'"
