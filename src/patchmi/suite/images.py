"""A suite's images: the private ones shared out, and what its attackers have."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from patchmi.audit import Private
from patchmi.case import PrivateFiles, class_order, open_private, open_public, public_notes
from patchmi.data import Source, SourceInvalid, listed, load_labelled, split_by_class
from patchmi.suite.tables import UNUSED, Suite, SuiteTarget
from patchmi.types import Labels


def private_files(suite: Suite, target: SuiteTarget) -> PrivateFiles:
    """Where a target's private images are."""
    return PrivateFiles(
        suite.locate(target.private), held_out_share=target.held_out_share, may_be_shown=target.show_private
    )


def share_out(private: Private, target: SuiteTarget) -> tuple[Private, Private | None]:
    """The private images for target and judges, and those put aside for the disjoint judge.

    Raises:
        ValueError: There are fewer classes, or of one fewer training images are left than the measures need.
    """
    private = _some_classes(private, target)
    images, labels = private.train_images, private.train_labels
    if target.private_count is not None:
        chosen = evenly(labels, target.private_count, class_count=len(private.class_names))
        images, labels = images[chosen], labels[chosen]
    disjoint = None
    if target.disjoint_share:
        parts = split_by_class(images, labels, held_out_share=target.disjoint_share, seed=1)
        (images, labels), aside = parts
        disjoint = replace(private, train_images=aside[0], train_labels=aside[1])
    for part in (labels, *([] if disjoint is None else [disjoint.train_labels])):
        if int(part.bincount(minlength=len(private.class_names)).min()) < 4:
            raise ValueError(
                f"{private.description}: private_count and disjoint_share leave fewer than 4 training images "
                "of a class; give more"
            )
    return replace(private, train_images=images, train_labels=labels), disjoint


def from_elsewhere(suite: Suite, target: SuiteTarget, private: Private) -> Private | None:
    """Training images of another collection for the disjoint judge; None where none are named.

    Held-out images stay the target's own: how well the judge knows these classes is part of its word.

    Raises:
        ValueError: They cannot be read, or lack a class.
    """
    if target.disjoint is None:
        return None
    source = suite.locate(target.disjoint)
    shape = private.train_images.shape
    found = load_labelled(source, image_shape=(shape[1], shape[2], shape[3]))
    labels = class_order(private.class_names, found.class_names, where=source)[found.labels]
    counts = labels.bincount(minlength=len(private.class_names)).tolist()
    missing = [name for name, count in zip(private.class_names, counts, strict=True) if count == 0]
    if missing:
        raise SourceInvalid(f"{source}: no image of {listed(missing)}; give images of every class")
    return replace(private, train_images=found.images, train_labels=labels, description=Path(source).name)


def open_attackers_images(
    suite: Suite, name: str, private: Private | None, *, image_shape: tuple[int, int, int]
) -> tuple[Source, tuple[str, ...]]:
    """A public set of the suite, and what was noticed in it.

    Args:
        suite: What was read.
        name: The public set's.
        private: To compare with.
        image_shape: Channels, height and width of the target's images.

    Raises:
        UnsafeInput: If a file could run code.
        ValueError: They cannot be read, or none is left unused.
    """
    chosen = suite.public[name]
    if not chosen.source.startswith(UNUSED):
        source = suite.locate(chosen.source)
        return open_public(source, private, image_shape=image_shape, count=chosen.count)
    owner = suite.targets[chosen.source.removeprefix(UNUSED)]
    whole = _some_classes(open_private(private_files(suite, owner), image_shape=image_shape)[0], owner)
    unused = torch.ones(len(whole.train_labels), dtype=torch.bool)
    assert owner.private_count is not None
    unused[evenly(whole.train_labels, owner.private_count, class_count=len(whole.class_names))] = False
    places = unused.nonzero().flatten()
    if not len(places):
        raise ValueError(f"{chosen.source}: private_count takes all {len(unused):,} images; give fewer")
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[: chosen.count]
    images = whole.train_images[places[order]]
    public = Source(images, f"{len(images):,} images of {whole.description}, none of them a training image")
    return public, public_notes(public, private)


def _some_classes(private: Private, target: SuiteTarget) -> Private:
    """The images of so many classes as the target has, numbered anew.

    Raises:
        ValueError: There are fewer.
    """
    if target.class_count is None:
        return private
    all_count = len(private.class_names)
    if target.class_count > all_count:
        raise ValueError(
            f"{private.description}: has {all_count} classes, class_count asks for {target.class_count}; "
            "give fewer"
        )
    chosen = torch.arange(target.class_count) * all_count // target.class_count
    number = torch.full((all_count,), -1)
    number[chosen] = torch.arange(target.class_count)
    trained, held_out = number[private.train_labels], number[private.held_out_labels]
    return replace(
        private,
        train_images=private.train_images[trained >= 0],
        train_labels=trained[trained >= 0],
        held_out_images=private.held_out_images[held_out >= 0],
        held_out_labels=held_out[held_out >= 0],
        class_names=tuple(private.class_names[label] for label in chosen.tolist()),
    )


def evenly(labels: Labels, count: int, *, class_count: int) -> Tensor:
    """Places of at most `count` images, as many of each class, chosen at random once and for all."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    members = (order[labels[order] == label] for label in range(class_count))
    return torch.cat([own[: count // class_count] for own in members]).sort().values
