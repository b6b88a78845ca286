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
    differ, rows, published numbers and curves name only targets and rows that there are, and the points of a
    plane have names of their own and only its attacks.

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
    yield from _curve_faults(document["curves"], ids)
    for position, plane in enumerate(document.get("planes", [])):
        yield from _plane_faults(plane, f"$.planes[{position}]")


def _curve_faults(curves: list[dict[str, Any]], ids: list[str]) -> Faults:
    for position, curve in enumerate(curves):
        for place, dot in enumerate(curve["points"]):
            if dot["row"] not in ids:
                yield (
                    f"$.curves[{position}].points[{place}].row",
                    f"{shown(dot['row'])} is the id of no row; name one",
                )


def _plane_faults(plane: dict[str, Any], path: str) -> Faults:
    attacks = plane["attacks"]
    names = [point["name"] for point in plane["points"]]
    if plane["plain_attack"] != attacks[0]:
        yield (
            f"{path}.attacks",
            f"the first is {shown(attacks[0])} and not the plain attack; put that one first",
        )
    if len(set(names)) != len(names):
        yield f"{path}.points", "two points have one name; keep one of them"
    for place, point in enumerate(plane["points"]):
        for attack in point["leakage"]:
            if attack not in attacks:
                yield (
                    f"{path}.points[{place}].leakage",
                    f"{shown(attack)} is none of the plane's attacks; name it there",
                )
        strongest = point["strongest"]
        if strongest is not None and not isinstance(point["leakage"].get(strongest["attack"]), dict):
            yield (
                f"{path}.points[{place}].strongest.attack",
                f"{shown(strongest['attack'])} has no leakage of its own; name an attack that was measured",
            )


_KIND = Kind(
    schema=SUITE_SCHEMA,
    schema_file=_SCHEMA_FILE,
    fault=SuiteInvalid,
    remedy="write the file again with `patchmi suite report`",
    first_remedy="run `patchmi suite run` first or name a suite's folder",
    inconsistencies=_inconsistencies,
)
