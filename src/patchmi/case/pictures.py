"""Pictures that some tool made, opened to be scored."""

from typing import Any

import torch

from patchmi.audit import Pictures
from patchmi.data import load_labelled, load_public, shape_of


def open_pictures(
    source: str, *, untrained: str | None, public: str | None, public_count: int, max_bad_share: float
) -> tuple[Pictures, tuple[str, ...]]:
    """Reconstructions that some tool made, and what was noticed.

    Args:
        source: safetensors or npz with `images` and `labels`, or a folder of class folders.
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
    seeds = torch.zeros_like(made.labels)
    return Pictures(made.images, made.labels, seeds, made.class_names, **controls), tuple(notes)
