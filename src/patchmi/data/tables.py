"""Parquet files as data hubs lay them out: a column of encoded images, and one of labels.

They are read with pyarrow where they lie: nothing is copied into a cache, no path in a table is followed.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from patchmi.data.contents import (
    MAX_CLASSES,
    Broken,
    Contents,
    SourceInvalid,
    Splits,
    check_labels,
    numbered_classes,
    parsing,
)
from patchmi.data.names import in_order, listed, natural_order, printable, split_named, split_within
from patchmi.errors import UnsafeInput

IMAGE_COLUMNS = ("image", "img", "images", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
NEEDED = "give parquet with a column `image` of encoded files and a column `label`"
PICKLED = b"arrow.py_extension_type"
"""A column type of old pyarrow that is described by a pickle."""
BATCH_ROWS = 64

_SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a file hold what."""

    row_count: int
    image: str
    label: str | None
    """None where no column holds labels."""
    class_names: tuple[str, ...]
    """Empty where the file does not name them."""
    all_names: tuple[str, ...]


def parquet_file(path: Path) -> Splits:
    """The one split of a single file."""
    return {"train": partial(_open, (path,), (path,))}


def parquet_folder(root: Path, paths: Sequence[Path]) -> Splits:
    """The splits of a folder's parquet files, by the names of files and folders.

    Args:
        root: The folder.
        paths: Its parquet files, as paths within it, in natural order.

    Raises:
        SourceInvalid: If the folder holds several data sets.
    """
    places = {(split_of(path), _data_set_of(path)) for path in paths}
    data_sets = sorted({data_set for _, data_set in places}, key=lambda path: natural_order(str(path)))
    if len(data_sets) > 1:
        names = [*map(str, data_sets)]
        raise SourceInvalid(f"{root}: holds several data sets ({listed(names)}); give the path of one")
    every = tuple(root / path for path in paths)
    return {
        split: partial(_open, tuple(root / path for path in paths if split_of(path) == split), every)
        for split in in_order({split for split, _ in places})
    }


def split_of(path: Path) -> str:
    """The split that a file belongs to by its name, or else by a folder's; `train` where neither says."""
    shard = _SHARD.match(path.stem)
    own = split_within(path.stem) or (shard["split"] if shard else None)
    of_folders = [split for part in reversed(path.parts[:-1]) if (split := split_named(part))]
    return own or next(iter(of_folders), "train")


def _data_set_of(path: Path) -> Path:
    return Path(*(part for part in path.parts[:-1] if not split_named(part)))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with parsing(path, NEEDED), pa.OSFile(str(path)) as file:
        metadata = pq.read_metadata(file)  # leaves the column types undescribed
        described = (metadata.metadata or {}).get(b"ARROW:schema", b"")
        if PICKLED in base64.b64decode(described):
            raise UnsafeInput(
                f"{path}: holds a column type that runs code when it is read; save it with plain types"
            )
        file.seek(0)
        yield pq.ParquetFile(file, metadata=metadata)


def _open(paths: Sequence[Path], all_paths: Sequence[Path]) -> Contents:
    tables = {path: _columns(path) for path in all_paths}
    first = tables[paths[0]]
    for path, table in tables.items():
        if path in paths and (table.image, table.label) != (first.image, first.label):
            raise SourceInvalid(f"{path}: has other columns than {paths[0].name}; give files of one kind")
        if table.label == first.label and table.class_names != first.class_names:
            raise SourceInvalid(f"{path}: has other classes than {paths[0].name}; give files of one kind")
    count = sum(tables[path].row_count for path in paths)
    fetch = partial(_fetch, tuple(paths), first.image)
    if first.label is None:
        found = (
            f"no column {', '.join(LABEL_COLUMNS)} of whole numbers or names among {listed(first.all_names)}"
        )
        return Contents(count, fetch, unlabelled=f"{paths[0]}: no labels found ({found}); add one")
    values = {path: _labels(path, first.label) for path in all_paths if tables[path].label == first.label}
    names = first.class_names or _classes(value for some in values.values() for value in some)
    labels = np.concatenate([_class_numbers(path, values[path], names) for path in paths])
    return Contents(count, fetch, labels, tuple(printable(name) for name in names))


def _columns(path: Path) -> _Columns:
    with _opened(path) as file:
        schema, row_count = file.schema_arrow, file.metadata.num_rows
        features = _features(schema)
    kinds = {name: features[name].get("_type") for name in schema.names if name in features}
    pictures = [column.name for column in schema if _holds_pictures(column.type)]
    image = (
        [name for name in pictures if kinds.get(name) == "Image"]
        or [name for name in IMAGE_COLUMNS if name in pictures]
        or pictures
    )
    if not image:
        raise SourceInvalid(f"{path}: no column of images among {listed(schema.names)}; {NEEDED}")
    classes = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    candidates = [name for name in LABEL_COLUMNS if name in schema.names] or classes[:1]
    label = next((name for name in candidates if _holds_labels(schema.field(name).type)), None)
    names = features.get(label or "", {}).get("names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SourceInvalid(f"{path}: the names of its classes are no list of names; {NEEDED}")
    return _Columns(row_count, image[0], label, tuple(names), tuple(schema.names))


def _features(schema: pa.Schema) -> dict[str, dict]:
    """What the library `datasets` notes about columns: which are images, and how classes are called."""
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {})
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _labels(path: Path, column: str) -> list[int | None] | list[str | None]:
    """Whole numbers or names, one a row, None where there is none."""
    with _opened(path) as file:
        labels = file.read([column], use_threads=False).column(0).to_pylist()
        if len(labels) != file.metadata.num_rows:
            raise ValueError("its rows are not as many as its footer says")
    return labels


def _classes(labels: Iterable[int | str | None]) -> tuple[str, ...]:
    """Classes of all splits, or a class that one split lacks would shift the numbers of the next."""
    values = set(labels) - {None}
    numbers = [value for value in values if isinstance(value, int) and value < MAX_CLASSES]
    names = {str(value) for value in values if isinstance(value, str)}
    return tuple(sorted(names, key=natural_order)) or numbered_classes(np.array(numbers, np.int64))


def _class_numbers(path: Path, labels: Sequence[int | str | None], names: Sequence[str]) -> np.ndarray:
    """Each row's class, -1 where it has none."""
    number_of = {name: number for number, name in enumerate(names)}
    numbers = [number_of.get(label, -2) if isinstance(label, str) else label for label in labels]
    check_labels(path, numbers, class_count=len(names))
    return np.array([-1 if number is None else number for number in numbers], np.int64)


def _fetch(
    paths: Sequence[Path], column: str, numbers: Sequence[int]
) -> Iterator[tuple[str, bytes | Broken]]:
    wanted = np.asarray(numbers, np.int64)
    position = 0
    for path in paths:
        first = position
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                end = position + file.metadata.row_group(group).num_rows
                if not len(_between(wanted, position, end)):
                    position = end
                    continue
                for batch in file.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False
                ):
                    mine = _between(wanted, position, position + len(batch))
                    for number, data in zip(mine, _cells(batch.column(0), mine - position), strict=True):
                        name = f"{path.name} row {number - first}"
                        yield name, Broken(name, "no bytes of an image") if data is None else data
                    position += len(batch)
                if position != end:
                    raise ValueError("its rows are not as many as its footer says")


def _between(numbers: np.ndarray, low: int, high: int) -> np.ndarray:
    """Those of rising numbers that are in [low, high)."""
    return numbers[np.searchsorted(numbers, low) : np.searchsorted(numbers, high)]


def _cells(column: pa.Array, rows: np.ndarray) -> list[bytes | None]:
    cells = column.take(pa.array(rows))
    if pa.types.is_struct(cells.type):
        # The path that stands beside the bytes is left alone: it could name any file, or a page elsewhere.
        cells = cells.flatten()[cells.type.get_field_index("bytes")]
    return cells.to_pylist()
