"""The document `suite.json`: what the audits of a suite measured, row by row."""

from pathlib import Path
from typing import Any

from patchmi.report.document import (
    Document,
    Faults,
    Kind,
    document_bytes,
    read_document,
    schema_of,
    shown,
    validate_document,
)

SUITE_SCHEMA = "patchmi.suite/1"
"""What a suite's document says of its own form, in its field `schema`."""

_SCHEMA_FILE = "suite.schema.json"


class SuiteInvalid(ValueError):  # noqa: N818
    """A document that does not keep to `patchmi.suite/1`: one line with the place and the remedy."""


def read_suite(path: Path) -> Document:
    """Read and check what a suite measured.

    Args:
        path: the file `suite.json`.

    Returns:
        The document, valid under `validate_suite`.

    Raises:
        SuiteInvalid: the file is missing, is no JSON, or breaks the schema.
    """
    return read_document(path, _KIND)


def suite_bytes(document: Document) -> bytes:
    """The bytes of `suite.json`, the same for the same document.

    Args:
        document: what a suite measured.

    Returns:
        UTF-8 JSON with two spaces of indent and a final line break, fields in their own order.

    Raises:
        SuiteInvalid: the document breaks the schema.
    """
    return document_bytes(document, _KIND)


def validate_suite(document: Any) -> None:
    """Check a document against the schema and against itself.

    Beyond the schema: every number is finite, every interval has low ≤ high, names of targets and ids of rows
    differ, and rows, published numbers and curves name only targets and rows that there are.

    Args:
        document: what a suite measured.

    Raises:
        SuiteInvalid: with one line that names the JSON path and the remedy.
    """
    validate_document(document, _KIND)


def suite_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `patchmi.suite/1`, which points to that of `patchmi.result/1`."""
    return schema_of(_SCHEMA_FILE)


def _inconsistencies(document: Document) -> Faults:
    targets = [target["name"] for target in document["targets"]]
    ids = [row["id"] for row in document["rows"]]
    if len(set(targets)) != len(targets):
        yield "$.targets", "two targets have one name; give each its own"
    if len(set(ids)) != len(ids):
        yield "$.rows", "two rows have one id; keep one of them"
    for part in ("rows", "published"):
        for position, entry in enumerate(document[part]):
            if entry["target"] not in targets:
                yield (
                    f"$.{part}[{position}].target",
                    f"{shown(entry['target'])} is none of $.targets; name one of them",
                )
    for position, curve in enumerate(document["curves"]):
        for place, dot in enumerate(curve["points"]):
            if dot["row"] not in ids:
                yield (
                    f"$.curves[{position}].points[{place}].row",
                    f"{shown(dot['row'])} is the id of no row; name one",
                )


_KIND = Kind(
    schema=SUITE_SCHEMA,
    schema_file=_SCHEMA_FILE,
    fault=SuiteInvalid,
    remedy="write the file again with `patchmi suite report`",
    first_remedy="run `patchmi suite run` first or name a suite's folder",
    inconsistencies=_inconsistencies,
)
