"""A target to try attacks on, trained from labelled images and written as `patchmi audit` opens it."""

from dataclasses import dataclass
from pathlib import Path

from patchmi.case.images import TEST_SPLITS, class_order
from patchmi.data import SourceInvalid, load_labelled, shape_of, split_by_class, splits_of
from patchmi.defences import (
    AbstractDefence,
    Defended,
    Labelled,
    Lesson,
    NoDefence,
    OutputDefence,
    train_defended,
)
from patchmi.runs import atomic_write
from patchmi.runs.files import pack_tensors
from patchmi.target import Description, Target, Training, answers
from patchmi.types import Progress

VALIDATION_SEED = 2
"""Of the split that chooses among a training's moments; other splits have other seeds."""
LEARNING_RATE = 5e-3
UNDEFENDED = NoDefence()


@dataclass(frozen=True)
class Course:
    """How a target is trained.

    Args:
        architecture: A name in `ARCHITECTURES`.
        defence: What it is trained with.
        step_count: Batches.
        seed: Of weights, batches and views, and of what the defence draws.
        validation_share: Share of the images that chooses among the moments of the training; 0: the last.
        pretraining: Labelled images of other classes, for a defence that learns from them first.
        width: Of the network's layers; None: the architecture's own.
        flips: Whether images may be mirrored.

    Raises:
        ValueError: The defence changes answers, and no network.
    """

    architecture: str = "resnet10"
    defence: AbstractDefence = UNDEFENDED
    step_count: int = 1500
    seed: int = 0
    validation_share: float = 0.0
    pretraining: str | None = None
    width: int | None = None
    flips: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.defence, OutputDefence):
            raise ValueError(
                "--defence: this one changes answers and no network; train without it, and give "
                "`patchmi audit` --access score or label with --decimals, --top-k, --temperature or --noise"
            )


@dataclass(frozen=True)
class Trained:
    """Accuracy on the test split, None where there is none, and what the defence says of itself."""

    accuracy: float | None
    notes: tuple[str, ...]


def train_target(
    source: str,
    out: Path,
    course: Course,
    *,
    image_shape: tuple[int, int, int] | None,
    max_bad_share: float,
    progress: Progress,
) -> Trained:
    """Train a classifier and write its weights as `patchmi audit` opens them.

    Args:
        source: Labelled images.
        out: The file to write: safetensors.
        course: How it is trained.
        image_shape: Channels, height and width; None: those of the first image.
        max_bad_share: Share of broken images to pass over.
        progress: How to show how far it is.

    Raises:
        SourceInvalid: If the images cannot be read.
        ValueError: If the defence does not fit the network, or lacks what it needs.
        OutOfResources: If the disk is full.
    """
    shape = image_shape or shape_of(source)
    train = load_labelled(source, image_shape=shape, max_bad_share=max_bad_share)
    made = train_on(
        (train.images, train.labels),
        course,
        class_count=len(train.class_names),
        max_bad_share=max_bad_share,
        progress=progress,
        description=f"Training {course.architecture}",
    )
    metadata = Description(f"patchmi:{made.architecture}", train.class_names, shape).metadata()
    atomic_write(out, pack_tensors(made.network.state_dict(), metadata))
    split = next((name for name in splits_of(source) if name in TEST_SPLITS), None)
    if split is None:
        return Trained(None, made.notes)
    test = load_labelled(source, image_shape=shape, split=split, max_bad_share=max_bad_share)
    target = Target(made.network, train.class_names, shape)
    order = class_order(train.class_names, test.class_names, where=source)
    hits = answers(target, test.images).argmax(dim=1) == order[test.labels]
    return Trained(float(hits.double().mean()), made.notes)


def train_on(
    private: Labelled,
    course: Course,
    *,
    class_count: int,
    progress: Progress,
    max_bad_share: float = 0.0,
    description: str = "Training the target",
) -> Defended:
    """Train a classifier on images of which a part may choose the best moment.

    Args:
        private: Training images and their classes.
        course: How it is trained.
        class_count: Number of classes.
        progress: How to show how far it is.
        max_bad_share: Share of broken images to pass over in `course.pretraining`.
        description: What the progress calls it.

    Raises:
        SourceInvalid: If there are too few images to choose by, or those to learn from first cannot be read.
        ValueError: If the defence does not fit the network, or lacks what it needs.
    """
    learnt, validation = private, None
    if course.validation_share:
        learnt, validation = split_by_class(
            *private, held_out_share=course.validation_share, seed=VALIDATION_SEED
        )
        if not len(learnt[0]) or not len(validation[0]):
            raise SourceInvalid(
                f"validation share {course.validation_share:g} of {len(private[0]):,} images leaves none on "
                "one side; give another share, or more images"
            )
    public = None
    if course.pretraining is not None:
        _, channel_count, height, width = private[0].shape
        found = load_labelled(
            course.pretraining, image_shape=(channel_count, height, width), max_bad_share=max_bad_share
        )
        public = found.images, found.labels
    training = Training(step_count=course.step_count, learning_rate=LEARNING_RATE, flips=course.flips)
    return train_defended(
        course.architecture,
        course.defence,
        Lesson(*learnt, training, class_count=class_count, public=public),
        seed=course.seed,
        validation=validation,
        width=course.width,
        progress=progress,
        description=description,
    )
