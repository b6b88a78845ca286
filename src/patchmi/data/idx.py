"""IDX files, the format of MNIST and its relatives: a header of big-endian sizes, then the pixels."""

import gzip
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from patchmi.data.arrays import array_contents
from patchmi.data.contents import Contents, SourceInvalid, Splits, numbered_classes, parsing
from patchmi.data.names import in_order, split_within

IMAGES_NAME = re.compile(r"(?P<beginning>.*)images[-.]idx3[-.]ubyte(\.gz)?")
NEEDED = "give IDX files of bytes as MNIST has them, such as train-images-idx3-ubyte.gz"
MAX_BYTES = 2**34


def is_idx_images(path: Path) -> bool:
    """Whether a file is named as IDX images are."""
    return IMAGES_NAME.fullmatch(path.name) is not None


def idx_file(path: Path) -> Splits:
    """The one split of a file of images, with the labels beside it."""
    return {"train": partial(_open, path, (path,), frozenset(path.parent.iterdir()))}


def idx_folder(files: Sequence[Path]) -> Splits:
    """The splits of a folder's files of images, by their names.

    Args:
        files: All files of the folder that may be read.

    Raises:
        SourceInvalid: If two files are of one split.
    """
    paths = tuple(path for path in files if is_idx_images(path))
    of_split: dict[str, Path] = {}
    for path in paths:
        match = IMAGES_NAME.fullmatch(path.name)
        split = split_within(match["beginning"] if match else "") or "train"
        if split in of_split:
            raise SourceInvalid(
                f"{path.parent}: {of_split[split].name} and {path.name} are both {split}; give one of them"
            )
        of_split[split] = path
    return {split: partial(_open, of_split[split], paths, frozenset(files)) for split in in_order(of_split)}


def _open(path: Path, all_paths: Sequence[Path], files: frozenset[Path]) -> Contents:
    labels = {other: _labels(other, files) for other in all_paths}
    known = [some for some in labels.values() if some is not None]
    # Classes are those of all splits: one may lack the last.
    names = numbered_classes(np.concatenate(known)) if known else ()
    missing = f"no file {_labels_name(path)} beside it"
    return array_contents(path, _read(path, 3), labels[path], class_names=names, without_labels=missing)


def _labels(path: Path, files: frozenset[Path]) -> np.ndarray | None:
    name = _labels_name(path)
    places = [path.with_name(name), path.with_name(f"{name}.gz")]
    return next((_read(place, 1) for place in places if place in files), None)


def _labels_name(path: Path) -> str:
    beginning, _, end = path.name.removesuffix(".gz").rpartition("images")
    return f"{beginning}labels{end.replace('idx3', 'idx1')}"


def _read(path: Path, dimension_count: int) -> np.ndarray:
    opened = gzip.open if path.suffix == ".gz" else open
    with parsing(path, NEEDED), opened(path, "rb") as file:
        magic = file.read(4)
        if magic != bytes([0, 0, 8, dimension_count]):
            raise ValueError(f"it begins with {magic.hex(' ') or 'nothing'}")
        shape = np.frombuffer(file.read(4 * dimension_count), ">u4").tolist()
        byte_count = math.prod(shape)
        if byte_count > MAX_BYTES:
            raise ValueError(f"its header promises {byte_count:,} bytes")
        # One more than promised, to see whether there are more; a bomb is not unpacked beyond.
        data = file.read(byte_count + 1)
        if len(data) != byte_count:
            raise ValueError(f"its pixels are not as many as its header says: {' × '.join(map(str, shape))}")
        return np.frombuffer(data, np.uint8).reshape(shape)
