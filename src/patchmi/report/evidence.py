"""The pictures of a report: `evidence.safetensors` read, checked, and laid out as strips and as a time line.

All arrays are uint8 and their class axis follows the order of `result["classes"]`:
`held_out`, `untrained`, `noise` [classes, k, C, H, W]; `reconstructions`, `nearest_public`
[classes, ranks, C, H, W]; `history` [snapshots, classes, C, H, W]. Metadata (JSON texts): `ranks`, percentile
ranks by mean judge confidence from 0 (best) to 100 (worst), and `history_steps`. Every array may be absent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from patchmi.report.images import png_data_uri
from patchmi.report.numbers import point
from patchmi.report.result import Result

Arrays = Mapping[str, np.ndarray]

_PER_CLASS = ("held_out", "reconstructions", "nearest_public", "untrained", "noise")
_SAMPLES_SHOWN = 4
_SNAPSHOTS_SHOWN = 8
_CLASSES_IN_TIME_LINE = 12
_STRIP_BUDGET_BYTES = 6_000_000
_TIME_LINE_BUDGET_BYTES = 1_500_000


class EvidenceInvalid(ValueError):  # noqa: N818
    """An `evidence.safetensors` that does not fit its result: one line with the array and the remedy."""


@dataclass(frozen=True)
class Strip:
    """The pictures of one class, as `data:` addresses; an empty group was not recorded."""

    position: int
    """Where the class stands in `result["classes"]`."""
    held_out: list[str]
    reconstructions: list[tuple[str, str]]
    """(rank in words, picture), from best to worst."""
    nearest_public: list[str]
    """The public image nearest to each reconstruction, in the same order."""
    untrained: list[str]
    noise: list[str]


@dataclass(frozen=True)
class TimeLine:
    """How the pictures emerged: one row a snapshot, one column a class."""

    positions: list[int]
    """The classes of the columns, as positions in `result["classes"]`."""
    rows: list[tuple[int, list[str]]]
    """(step, pictures)."""


def read_evidence(
    path: Path, *, remedy: str = "run `patchmi score` again"
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays and the metadata of `evidence.safetensors`.

    Args:
        path: the file.
        remedy: what writes it again.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        EvidenceInvalid: the file cannot be read as safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        line = " ".join(str(error).split())
        raise EvidenceInvalid(f"{path}: not readable as safetensors ({line}); {remedy}") from None


def check_evidence(result: Result, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    """Check that the arrays are images and that they fit the result.

    Args:
        result: a valid result.
        arrays: the arrays by name.
        metadata: `ranks` and `history_steps`.

    Raises:
        EvidenceInvalid: a type, a shape or a length that does not fit, in one line.
    """
    class_count = len(result["classes"])
    for name, axis in [*((name, 0) for name in _PER_CLASS), ("history", 1)]:
        if name not in arrays:
            continue
        array = arrays[name]
        if array.dtype != np.uint8 or array.ndim != 5 or array.shape[2] not in (1, 3):
            raise EvidenceInvalid(
                f"evidence '{name}': {array.dtype} {list(array.shape)} is not uint8 images of 5 axes with 1 "
                f"or 3 "
                "channels on the third; store 8-bit grey or RGB"
            )
        if array.shape[axis] != class_count:
            raise EvidenceInvalid(
                f"evidence '{name}': {array.shape[axis]} classes where the result has {class_count}; "
                "store one entry for each of $.classes, in that order"
            )
    if "reconstructions" in arrays:
        _check_length("ranks", _metadata_list(metadata, "ranks"), arrays["reconstructions"].shape[1])
        if (
            "nearest_public" in arrays
            and arrays["nearest_public"].shape[1] != arrays["reconstructions"].shape[1]
        ):
            raise EvidenceInvalid(
                "evidence 'nearest_public': not one image a reconstruction; store as many as ranks"
            )
    if "history" in arrays:
        _check_length("history_steps", _metadata_list(metadata, "history_steps"), arrays["history"].shape[0])


def strips(result: Result, arrays: Arrays, metadata: Mapping[str, str]) -> list[Strip]:
    """One strip a class; fewer, evenly spaced over the order of judge success, where all would be too large.

    Args:
        result: a valid result.
        arrays: checked arrays.
        metadata: checked metadata.

    Returns:
        Strips in the order of `result["classes"]`; empty without any picture.
    """
    if not any(name in arrays for name in _PER_CLASS):
        return []
    ranks = (
        [rank_words(rank) for rank in _metadata_list(metadata, "ranks")]
        if "reconstructions" in arrays
        else []
    )
    success = [point(entry["judge_top1"]) or 0.0 for entry in result["classes"]]
    order = sorted(range(len(success)), key=lambda position: (-success[position], position))
    first = _strip(order[0], ranks, arrays)
    fitting = max(2, _STRIP_BUDGET_BYTES // max(1, _weight(first)))
    chosen = sorted(order[place] for place in evenly_spaced(len(order), fitting))
    return [first if position == order[0] else _strip(position, ranks, arrays) for position in chosen]


def time_line(arrays: Arrays, metadata: Mapping[str, str]) -> TimeLine | None:
    """The snapshots of the attack, at most 8 by 12, evenly spaced and with both ends kept.

    Args:
        arrays: checked arrays.
        metadata: checked metadata.

    Returns:
        The pictures, or None where the attack kept no snapshots.
    """
    if "history" not in arrays or 0 in arrays["history"].shape:
        return None
    history, steps = arrays["history"], _metadata_list(metadata, "history_steps")
    picture_bytes = max(1, len(png_data_uri(history[-1, 0])))
    columns_fitting = max(2, _TIME_LINE_BUDGET_BYTES // (picture_bytes * _SNAPSHOTS_SHOWN))
    positions = evenly_spaced(history.shape[1], min(_CLASSES_IN_TIME_LINE, columns_fitting))
    rows = [
        (steps[row], [png_data_uri(history[row, column]) for column in positions])
        for row in evenly_spaced(history.shape[0], _SNAPSHOTS_SHOWN)
    ]
    return TimeLine(positions, rows)


def evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` (≥ 2) of 0 … `count` - 1, evenly spaced, with both ends."""
    if count <= limit:
        return list(range(count))
    return [round(place * (count - 1) / (limit - 1)) for place in range(limit)]


def rank_words(rank: int | float) -> str:
    """A percentile rank in words: `best`, `25 %`, `median`, `75 %`, `worst`."""
    return {0: "best", 50: "median", 100: "worst"}.get(int(rank) if rank == int(rank) else -1, f"{rank:g} %")


def _strip(position: int, ranks: list[str], arrays: Arrays) -> Strip:
    groups = {name: _pictures(arrays, name, position) for name in _PER_CLASS}
    return Strip(
        position,
        held_out=groups["held_out"][:_SAMPLES_SHOWN],
        reconstructions=list(zip(ranks, groups["reconstructions"], strict=True)),
        nearest_public=groups["nearest_public"],
        untrained=groups["untrained"][:_SAMPLES_SHOWN],
        noise=groups["noise"][:_SAMPLES_SHOWN],
    )


def _pictures(arrays: Arrays, name: str, position: int) -> list[str]:
    return [png_data_uri(image) for image in arrays[name][position]] if name in arrays else []


def _weight(strip: Strip) -> int:
    """Bytes that a strip adds to the file."""
    uris = [uri for _, uri in strip.reconstructions]
    return sum(map(len, [*strip.held_out, *uris, *strip.nearest_public, *strip.untrained, *strip.noise]))


def _metadata_list(metadata: Mapping[str, str], name: str) -> list[Any]:
    try:
        values = json.loads(metadata[name])
    except (KeyError, json.JSONDecodeError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise EvidenceInvalid(
            f"evidence metadata '{name}': no JSON list of numbers; store it beside the arrays"
        )
    return values


def _check_length(name: str, values: list[Any], length: int) -> None:
    if len(values) != length:
        raise EvidenceInvalid(
            f"evidence metadata '{name}': {len(values)} entries for {length} images; store one each"
        )
