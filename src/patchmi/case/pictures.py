"""Pictures that some tool made, opened to be scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from patchmi.audit import Pictures
from patchmi.case.images import listed
from patchmi.data import SourceInvalid, load_labelled, load_public, shape_of
from patchmi.types import Labels


def open_pictures(
    source: str, *, untrained: str | None, public: str | None, public_count: int, max_bad_share: float
) -> tuple[Pictures, tuple[str, ...]]:
    """Reconstructions that some tool made, and what was noticed.

    Args:
        source: safetensors (perhaps with `seeds`) or npz with `images` and `labels`, or class folders.
        untrained: The same of the tool without its target.
        public: What the attacker had.
        public_count: How many of them.
        max_bad_share: Share of broken images to pass over.

    Raises:
        UnsafeInput: If a file could run code.
        SourceInvalid: If they cannot be read.
    """
    image_shape = shape_of(source)
    made = load_labelled(source, image_shape=image_shape, max_bad_share=max_bad_share)
    notes = [f"Reconstructions: {note}" for note in made.notes]
    controls: dict[str, Any] = {}
    if untrained is not None:
        drawn = load_labelled(untrained, image_shape=image_shape, max_bad_share=max_bad_share)
        controls["untrained"] = drawn.images, drawn.labels
        notes += [f"Pictures without the target: {note}" for note in drawn.notes]
    if public is not None:
        controls["public"] = load_public(
            public, image_shape=image_shape, count=public_count, max_bad_share=max_bad_share
        )
        notes += [f"Public images: {note}" for note in controls["public"].notes]
    seeds = _seeds_of(source, made.labels)
    return Pictures(made.images, made.labels, seeds, made.class_names, **controls), tuple(notes)


def in_order_of(class_names: tuple[str, ...], pictures: Pictures) -> Pictures:
    """The pictures with the private images' classes: matched by name if these are the same, else by number.

    Args:
        class_names: Those of the private images, in order.
        pictures: Any tool's.

    Raises:
        SourceInvalid: If there are more or fewer classes.
    """
    theirs = pictures.class_names
    if len(theirs) != len(class_names):
        raise SourceInvalid(
            f"the pictures show {len(theirs)} classes ({listed(theirs)}), the private images have "
            f"{len(class_names)}; give pictures of all of them"
        )
    if set(theirs) != set(class_names):
        return replace(pictures, class_names=class_names)
    order = torch.tensor([class_names.index(name) for name in theirs])
    untrained = pictures.untrained
    return replace(
        pictures,
        class_names=class_names,
        labels=order[pictures.labels],
        untrained=None if untrained is None else (untrained[0], order[untrained[1]]),
    )


def _seeds_of(source: str, labels: Labels) -> Labels:
    """The run behind each picture, where a safetensors file has `seeds`, as patchmi's do; else one run."""
    if Path(source).suffix == ".safetensors":
        with safe_open(source, framework="pt") as file:
            if "seeds" in file.keys():
                seeds = file.get_tensor("seeds")
                if seeds.shape == labels.shape and seeds.dtype == torch.int64:
                    return seeds
    return torch.zeros_like(labels)
