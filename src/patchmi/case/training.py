"""A target to try attacks on, trained from labelled images and written as `patchmi audit` opens it."""

from pathlib import Path

from patchmi.case.images import TEST_SPLITS, class_order
from patchmi.data import load_labelled, shape_of, splits_of
from patchmi.machine import seeded
from patchmi.networks import ARCHITECTURES
from patchmi.runs import atomic_write
from patchmi.runs.files import pack_tensors
from patchmi.target import Description, Target, Training, answers, train_classifier
from patchmi.types import Progress


def train_target(
    source: str,
    out: Path,
    *,
    architecture: str,
    image_shape: tuple[int, int, int] | None,
    step_count: int,
    seed: int,
    max_bad_share: float,
    progress: Progress,
) -> float | None:
    """Train a classifier and write its weights as `patchmi audit` opens them.

    Args:
        source: Labelled images.
        out: The file to write: safetensors.
        architecture: A name in `ARCHITECTURES`.
        image_shape: Channels, height and width; None: those of the first image.
        step_count: Batches.
        seed: Of weights, batches and views.
        max_bad_share: Share of broken images to pass over.
        progress: How to show how far it is.

    Returns:
        Its accuracy on the source's test split; None where there is none.

    Raises:
        SourceInvalid: If the images cannot be read.
        OutOfResources: If the disk is full.
    """
    shape = image_shape or shape_of(source)
    train = load_labelled(source, image_shape=shape, max_bad_share=max_bad_share)
    with seeded(seed):
        model = ARCHITECTURES[architecture](class_count=len(train.class_names), channel_count=shape[0])
    train_classifier(
        model,
        images=train.images,
        labels=train.labels,
        training=Training(step_count=step_count, learning_rate=5e-3),
        seed=seed,
        progress=progress,
        description=f"Training {architecture}",
    )
    metadata = Description(f"patchmi:{architecture}", train.class_names, shape).metadata()
    atomic_write(out, pack_tensors(model.state_dict(), metadata))
    split = next((name for name in splits_of(source) if name in TEST_SPLITS), None)
    if split is None:
        return None
    test = load_labelled(source, image_shape=shape, split=split, max_bad_share=max_bad_share)
    target = Target(model, train.class_names, shape)
    order = class_order(train.class_names, test.class_names, where=source)
    hits = answers(target, test.images).argmax(dim=1) == order[test.labels]
    return float(hits.double().mean())
