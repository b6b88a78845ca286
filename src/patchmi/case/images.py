"""The private images: training and held-out ones, their classes in one order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from patchmi.audit import Private
from patchmi.data import (
    LabelledImages,
    SourceInvalid,
    listed,
    load_labelled,
    split_by_class,
    splits_of,
)

TEST_SPLITS = ("test", "validation", "val")
"""Parts of a source that a model is not trained on."""


@dataclass(frozen=True)
class PrivateFiles:
    """What a user says of the private images.

    Args:
        source: Where the training images are.
        held_out: Where images are that the target was not trained on; None: a test split of `source`, or else
            a share of it.
        held_out_share: That share.
        max_bad_share: Share of broken images to pass over.
        may_be_shown: Whether the report may show held-out images.
    """

    source: str
    held_out: str | None = None
    held_out_share: float = 0.2
    max_bad_share: float = 0.01
    may_be_shown: bool = False


def open_private(
    files: PrivateFiles, *, image_shape: tuple[int, int, int]
) -> tuple[Private, tuple[str, ...]]:
    """The private images, training and held-out ones, and what was noticed.

    Args:
        files: Where they are.
        image_shape: Channels, height and width to fit them to.

    Raises:
        SourceInvalid: If they cannot be read, or a class is missing on one side.
    """

    def read(source: str, split: str) -> LabelledImages:
        return load_labelled(source, image_shape=image_shape, split=split, max_bad_share=files.max_bad_share)

    train = read(files.source, "train")
    held_out_split = next((name for name in splits_of(files.source) if name in TEST_SPLITS), None)
    notes = [f"Private images: {note}" for note in train.notes]
    name = Path(files.source).name or files.source
    if files.held_out is not None:
        held_out = _open_held_out(read, files.held_out)
    elif held_out_split is not None:
        held_out = read(files.source, held_out_split)
        notes.append(f"Held-out images: the part {held_out_split!r} of {name}")
    else:
        held_out = None
        notes.append(
            f"Held-out images: a share of {files.held_out_share:.2f} of {name}; if the target was trained on "
            "it, its accuracy is that on training images, and ρ says nothing of single images"
        )
    if held_out is None:
        part = split_by_class(train.images, train.labels, held_out_share=files.held_out_share, seed=0)
        train_part, held_out_part = part
    else:
        notes += [f"Held-out images: {note}" for note in held_out.notes]
        order = class_order(train.class_names, held_out.class_names, where=files.held_out or files.source)
        train_part = train.images, train.labels
        held_out_part = held_out.images, order[held_out.labels]
    private = Private(
        *train_part,
        *held_out_part,
        train.class_names,
        name,
        files.may_be_shown,
    )
    _check_every_class(private, files)
    notes += _copies_held_out(private, files)
    return private, tuple(notes)


def class_order(train: tuple[str, ...], further: tuple[str, ...], *, where: str) -> torch.Tensor:
    """For each class of further images its number among the training images' classes."""
    unknown = [name for name in further if name not in train]
    if unknown:
        raise SourceInvalid(
            f"{where}: classes {listed(unknown)} are not among the training images'; give images of "
            "the same classes, named alike"
        )
    return torch.tensor([train.index(name) for name in further])


def _open_held_out(read: Callable[[str, str], LabelledImages], source: str) -> LabelledImages:
    """A source of its own may call its only part what it likes."""
    splits = splits_of(source)
    return read(source, next((name for name in TEST_SPLITS if name in splits), splits[0]))


def _copies_held_out(private: Private, files: PrivateFiles) -> list[str]:
    """A note on held-out images that are training images too, if they are few."""
    known = {image.numpy().tobytes() for image in (private.train_images * 255).round().byte()}
    held_out = (private.held_out_images * 255).round().byte()
    count = sum(image.numpy().tobytes() in known for image in held_out)
    if 2 * count > len(held_out):
        raise SourceInvalid(
            f"{files.held_out or files.source}: {count:,} of {len(held_out):,} held-out images are training "
            "images too; give images that the target was not trained on"
        )
    return [f"Held-out images: {count:,} are training images too"] if count else []


def _check_every_class(private: Private, files: PrivateFiles, least: int = 4) -> None:
    """Every class needs enough training images to compare with, and one held-out image."""
    class_count = len(private.class_names)
    for labels, needed, where in (
        (private.train_labels, least, "training"),
        (private.held_out_labels, 1, "held-out"),
    ):
        counts = labels.bincount(minlength=class_count).tolist()
        few = [name for name, count in zip(private.class_names, counts, strict=True) if count < needed]
        if few:
            raise SourceInvalid(
                f"{files.source}: fewer than {needed} {where} images of {listed(few)}; give more, or leave "
                "the class out"
            )
