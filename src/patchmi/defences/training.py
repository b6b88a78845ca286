"""Train a classifier with a defence: the same trainer, whatever the defence."""

from dataclasses import dataclass, replace

from patchmi import machine
from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier, build_classifier
from patchmi.target import train_classifier
from patchmi.types import Labelled, Progress, silent

DRAWS_APART = 1_000_003
"""Added to the seed for what a defence draws beforehand, lest it draw the network's weights again."""


@dataclass(frozen=True)
class Defended:
    """A classifier that was trained with a defence.

    Args:
        network: In evaluation mode.
        architecture: What `build_classifier` makes it of.
        seconds: That the training took, by `machine.work_seconds`.
        notes: What the defence says of itself.
    """

    network: Classifier
    architecture: str
    seconds: float
    notes: tuple[str, ...]


def train_defended(
    architecture: str,
    defence: AbstractDefence,
    lesson: Lesson,
    *,
    seed: int,
    validation: Labelled | None = None,
    width: int | None = None,
    progress: Progress = silent,
    description: str = "Training the target",
) -> Defended:
    """Train a fresh classifier with a defence.

    Args:
        architecture: A name in `ARCHITECTURES`; the defence adds what it changes.
        defence: Which, and how strong.
        lesson: Private training images, and how a classifier is trained on them without the defence.
        seed: Of weights, batches, views, and of all that the defence draws.
        validation: Images that choose among the moments of the training; None: the last is taken.
        width: Of the network's layers; None: the architecture's own.
        progress: How to show how far it is.
        description: What the progress calls it.

    Raises:
        ValueError: The defence does not fit the architecture, or something that it needs is not there.
    """
    name = defence.named(architecture)
    training = replace(lesson.training, **defence.training_changes)
    lesson = replace(lesson, training=training, architecture=name, width=width, progress=progress, notes=[])
    with machine.seeded(seed):
        network = build_classifier(
            name, class_count=lesson.class_count, channel_count=lesson.images.shape[1], width=width
        )
    began = machine.work_seconds()
    with machine.seeded(seed + DRAWS_APART), defence.applied(machine.place(network), lesson) as hooks:
        train_classifier(
            network,
            images=lesson.images,
            labels=lesson.labels,
            training=lesson.training,
            seed=seed,
            progress=progress,
            description=description,
            hooks=hooks,
            validation=validation,
        )
    return Defended(network, name, machine.work_seconds() - began, tuple(lesson.notes))
