"""Pictures that some tool made, opened to be scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from patchmi.audit import Pictures
from patchmi.data import SourceInvalid, listed, load_labelled, load_public, shape_of
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
        SourceInvalid: If they cannot be read, or the classes of the two kinds differ.
    """
    image_shape = shape_of(source)
    made = load_labelled(source, image_shape=image_shape, max_bad_share=max_bad_share)
    notes = [f"Reconstructions: {note}" for note in made.notes]
    controls: dict[str, Any] = {}
    if untrained is not None:
        drawn = load_labelled(untrained, image_shape=image_shape, max_bad_share=max_bad_share)
        order, _ = match_classes(made.class_names, drawn.class_names, where=f"--untrained {untrained}")
        controls["untrained"] = drawn.images, order[drawn.labels]
        notes += [f"Pictures without the target: {note}" for note in drawn.notes]
    if public is not None:
        controls["public"] = load_public(
            public, image_shape=image_shape, count=public_count, max_bad_share=max_bad_share
        )
        notes += [f"Public images: {note}" for note in controls["public"].notes]
    seeds = _seeds_of(source, made.labels)
    return Pictures(made.images, made.labels, seeds, made.class_names, **controls), tuple(notes)


def in_order_of(class_names: tuple[str, ...], pictures: Pictures) -> tuple[Pictures, tuple[str, ...]]:
    """The pictures with the classes of the private images or of the target, and how they were matched.

    Args:
        class_names: The classes, in order.
        pictures: Any tool's.

    Raises:
        SourceInvalid: If the classes cannot be told.
    """
    order, finding = match_classes(class_names, pictures.class_names, where="the pictures")
    untrained = pictures.untrained
    matched = replace(
        pictures,
        class_names=class_names,
        labels=order[pictures.labels],
        untrained=None if untrained is None else (untrained[0], order[untrained[1]]),
    )
    return matched, finding


def match_classes(
    wanted: tuple[str, ...], given: tuple[str, ...], *, where: str
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """For each given class its number among the wanted ones: by name, or by number where no name is shared.

    Args:
        wanted: The classes in order.
        given: As many, in any order.
        where: What to name in a message.

    Raises:
        SourceInvalid: If there are more or fewer, or only some names are the same.
    """
    if len(given) != len(wanted):
        raise SourceInvalid(
            f"{where}: {len(given)} classes ({listed(given)}) where {len(wanted)} are needed "
            f"({listed(wanted)}); give all of them, named alike"
        )
    if set(given) == set(wanted):
        return torch.tensor([wanted.index(name) for name in given]), ()
    if unknown := [name for name in given if name not in wanted]:
        if len(unknown) < len(given):
            raise SourceInvalid(
                f"{where}: classes {listed(unknown)} are not among {listed(wanted)}; name all alike"
            )
    pairs = ", ".join(f"{one} = {other}" for one, other in zip(given[:12], wanted, strict=False))
    return torch.arange(len(given)), (f"{where}: classes were matched by their order: {pairs}",)


def _seeds_of(source: str, labels: Labels) -> Labels:
    """The run behind each picture, where a safetensors file has `seeds`, as patchmi's do; else one run."""
    if Path(source).suffix == ".safetensors":
        with safe_open(source, framework="pt") as file:
            if "seeds" in file.keys():
                seeds = file.get_tensor("seeds")
                if seeds.shape == labels.shape and seeds.dtype == torch.int64:
                    return seeds
    return torch.zeros_like(labels)
