"""The pictures of a suite's page: `suite-pictures.safetensors` checked, and laid out one line an attack.

All arrays are uint8 [classes, pictures, C, H, W]: one named by the id of each row, and `TARGET/held_out`
where a target's own images may be shown. The classes of one target are the same in all of its arrays. Every
array may be absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from patchmi.report.document import Document
from patchmi.report.evidence import EvidenceInvalid, evenly_spaced
from patchmi.report.images import png_data_uri
from patchmi.report.suite_table import lines_of

_BUDGET_BYTES = 8_000_000
_ROOM = 900
"""CSS pixels that a line of pictures, two for each class, can count on."""
_REMEDY = "gather again with `patchmi suite report`"


@dataclass(frozen=True)
class PictureLine:
    """The pictures of one row, or the real images above them."""

    position: int | None
    """Where the row stands in the document; None for real held-out images."""
    cells: list[list[str]]
    """The pictures of each class shown, as `data:` addresses; empty where none were kept."""


@dataclass(frozen=True)
class Gallery:
    """The pictures of one target, one column a class."""

    lines: list[PictureLine]
    class_names: list[str]
    """Of the columns; empty where the document does not name them."""
    class_count: int
    """How many classes there are pictures of; more than columns where all would be too large."""
    tile: int
    """CSS pixels of one picture: a whole multiple of small images, so that their pixels stay even."""


def check_pictures(document: Document, pictures: Mapping[str, np.ndarray]) -> None:
    """Check that the arrays are images, that they fit each other and that each belongs to a row or target.

    Args:
        document: a valid suite.
        pictures: the arrays by name.

    Raises:
        EvidenceInvalid: in one line.
    """
    target_of = {row["id"]: row["target"] for row in document["rows"]}
    target_of |= {_held_out(target["name"]): target["name"] for target in document["targets"]}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, array in pictures.items():
        if name not in target_of:
            raise EvidenceInvalid(f"pictures '{name}': the suite has no such row or target; {_REMEDY}")
        if array.dtype != np.uint8 or array.ndim != 5 or array.shape[2] not in (1, 3) or 0 in array.shape:
            raise EvidenceInvalid(
                f"pictures '{name}': {array.dtype} {list(array.shape)} is not uint8 images "
                "[classes, pictures, 1 or 3, H, W]; store 8-bit grey or RGB"
            )
        shape = (array.shape[0], *array.shape[2:])
        if shapes.setdefault(target_of[name], shape) != shape:
            raise EvidenceInvalid(
                f"pictures '{name}': other classes or sizes than that target's other pictures; {_REMEDY}"
            )
    for target in document["targets"]:
        named, shape = target.get("shown_classes"), shapes.get(target["name"])
        if named is not None and shape is not None and len(named) != shape[0]:
            raise EvidenceInvalid(
                f"pictures of '{target['name']}': {shape[0]} classes where its shown_classes names "
                f"{len(named)}; {_REMEDY}"
            )


def gallery_of(document: Document, pictures: Mapping[str, np.ndarray], target: str) -> Gallery | None:
    """The pictures of a target, in the order of its table; None where there are none.

    Args:
        document: a valid suite.
        pictures: checked arrays.
        target: the target's name.
    """
    rows = [line.position for line in lines_of(document, target) if line.kind == "rows"]
    arrays = {position: pictures.get(document["rows"][position]["id"]) for position in rows}
    held_out = pictures.get(_held_out(target))
    known = [array for array in (held_out, *arrays.values()) if array is not None]
    if not known:
        return None
    class_count = known[0].shape[0]
    largest = max(len(png_data_uri(array[0, 0])) * array.shape[1] for array in known)
    fitting = max(2, _BUDGET_BYTES // (largest * len(known) * len(document["targets"])))
    columns = evenly_spaced(class_count, fitting)
    lines = [] if held_out is None else [PictureLine(None, _cells(held_out, columns))]
    lines += [PictureLine(position, _cells(array, columns)) for position, array in arrays.items()]
    names = next(entry.get("shown_classes", []) for entry in document["targets"] if entry["name"] == target)
    width = known[0].shape[4]
    room = min(64, _ROOM // (2 * len(columns)))
    return Gallery(
        lines=lines,
        class_names=[names[column] for column in columns] if names else [],
        class_count=class_count,
        tile=width * max(1, room // width) if width <= 64 else 64,
    )


def _held_out(target: str) -> str:
    return f"{target}/held_out"


def _cells(array: np.ndarray | None, columns: list[int]) -> list[list[str]]:
    return [] if array is None else [[png_data_uri(image) for image in array[column]] for column in columns]
