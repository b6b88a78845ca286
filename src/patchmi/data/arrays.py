"""Arrays of pixels in npz and safetensors files. Neither can run code: object arrays are refused unread."""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from safetensors import safe_open

from patchmi.data.contents import (
    Contents,
    SourceInvalid,
    Splits,
    check_labels,
    numbered_classes,
    parsing,
)
from patchmi.data.names import listed, printable
from patchmi.data.pictures import MAX_PIXELS, range_problem
from patchmi.errors import UnsafeInput

NEEDED = "it needs an array `images` of uint8 or of floats in [0, 1], and `labels` of whole numbers"
CHANNELS = (1, 3, 4)


def npz_file(path: Path) -> Splits:
    """The one split of an npz file, channels last."""
    return {"train": partial(_open_npz, path)}


def safetensors_file(path: Path) -> Splits:
    """The one split of a safetensors file, channels first, such as a run's reconstructions."""
    return {"train": partial(_open_safetensors, path)}


def array_contents(
    path: Path,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    *,
    class_names: tuple[str, ...] = (),
    channels_first: bool = False,
    without_labels: str = "no array `labels`; add one",
) -> Contents:
    """Contents of pixels that are in memory.

    Args:
        path: The file they come from.
        pixels: N×H×W, N×H×W×C or N×C×H×W.
        labels: Each picture's class.
        class_names: The classes' names; their numbers if not given.
        channels_first: Which of two possible readings of a shape is right.
        without_labels: What to say where labels are needed and there are none.

    Raises:
        SourceInvalid: If pixels or labels are of another kind, shape or range.
    """
    pixels = _channels_last(path, pixels, channels_first=channels_first)
    if pixels.dtype != np.uint8 and pixels.size:
        if problem := range_problem(float(pixels.min()), float(pixels.max())):
            raise SourceInvalid(f"{path}: {problem}")
    fetch = partial(_fetch, pixels)
    if labels is None:
        return Contents(len(pixels), fetch, unlabelled=f"{path}: no labels found ({without_labels})")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise SourceInvalid(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; give whole numbers from 0 for each "
            f"of the {len(pixels)} images"
        )
    if class_names:
        check_labels(path, labels, class_count=len(class_names))
    else:
        check_labels(path, labels)
    return Contents(len(pixels), fetch, labels.astype(np.int64), class_names or numbered_classes(labels))


def _fetch(pixels: np.ndarray, numbers: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    for number in numbers:
        yield f"image {number}", pixels[number]


def _channels_last(path: Path, pixels: np.ndarray, *, channels_first: bool) -> np.ndarray:
    found = f"{path}: images are {pixels.dtype} of shape {pixels.shape}"
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise SourceInvalid(f"{found}; give uint8, or floats in [0, 1]")
    if pixels.ndim == 4:
        may_be_last, may_be_first = pixels.shape[3] in CHANNELS, pixels.shape[1] in CHANNELS
        if may_be_first and (channels_first or not may_be_last):
            pixels = np.moveaxis(pixels, 1, 3)
        elif not may_be_last:
            raise SourceInvalid(f"{found}; give N×H×W, N×H×W×3 or N×3×H×W")
    elif pixels.ndim != 3:
        raise SourceInvalid(f"{found}; give N×H×W, N×H×W×3 or N×3×H×W")
    if not 0 < math.prod(pixels.shape[1:3]) <= MAX_PIXELS:
        raise SourceInvalid(f"{found}; give images of 1 to {MAX_PIXELS:,} pixels")
    return pixels


def _open_npz(path: Path) -> Contents:
    with parsing(path, NEEDED), warnings.catch_warnings():
        warnings.simplefilter("error")
        with ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "images" not in names:
                raise SourceInvalid(
                    f"{path}: cannot be read (no array `images`, but {listed(names)}); {NEEDED}"
                )
            pixels = _read_array(path, archive, "images")
            labels = _read_array(path, archive, "labels") if "labels" in names else None
    return array_contents(path, pixels, labels)


def _read_array(path: Path, archive: ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, dtype = read_header(file)
        if dtype.hasobject:
            raise UnsafeInput(
                f"{path}: `{name}` holds Python objects, which run code when they are read; save numbers"
            )
        # Compared before memory is taken: a header can promise any size.
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"`{name}` is not as long as its shape {shape} says")
        return np.frombuffer(file.read(), dtype).reshape(shape, order="F" if by_columns else "C")


def _open_safetensors(path: Path) -> Contents:
    with parsing(path, NEEDED), safe_open(path, framework="pt") as file:
        names = sorted(file.keys())
        if "images" not in names:
            raise SourceInvalid(f"{path}: cannot be read (no tensor `images`, but {listed(names)}); {NEEDED}")
        images = file.get_tensor("images")
        # NumPy has no bfloat16
        pixels = (images.float() if images.is_floating_point() else images).numpy()
        labels = file.get_tensor("labels").numpy() if "labels" in names else None
        class_names = _class_names(file.metadata() or {})
    return array_contents(path, pixels, labels, class_names=class_names, channels_first=True)


def _class_names(metadata: dict[str, str]) -> tuple[str, ...]:
    names = json.loads(metadata.get("class_names", "[]"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("metadata `class_names` is no JSON list of names")
    return tuple(printable(name) for name in names)
