"""The document `result.json`: what one audit measured."""

from pathlib import Path
from typing import Any

from patchmi.report.document import (
    RESULT_SCHEMA_FILE,
    Document,
    Faults,
    Kind,
    document_bytes,
    read_document,
    schema_of,
    validate_document,
)

SCHEMA = "patchmi.result/1"
"""What a result says of its own form, in its field `schema`."""

Result = Document
"""A result as `json` reads it: plain dictionaries, lists, numbers and texts."""


class ResultInvalid(ValueError):  # noqa: N818
    """A result that does not keep to `patchmi.result/1`: one line with the place and the remedy."""


def read_result(path: Path) -> Result:
    """Read and check a result.

    Args:
        path: the file `result.json`.

    Returns:
        The document, valid under `validate_result`.

    Raises:
        ResultInvalid: the file is missing, is no JSON, or breaks the schema.
    """
    return read_document(path, _KIND)


def result_bytes(result: Result) -> bytes:
    """The bytes of `result.json`, the same for the same document.

    Args:
        result: the document.

    Returns:
        UTF-8 JSON with two spaces of indent and a final line break, fields in their own order.

    Raises:
        ResultInvalid: the document breaks the schema.
    """
    return document_bytes(result, _KIND)


def validate_result(result: Any) -> None:
    """Check a document against the schema and against itself.

    Beyond the schema: every number is finite, every interval has low ≤ high, every score or control that is
    null is named in a note, the kappa matrix is square, class labels differ and lie below
    `target.class_count`.

    Args:
        result: the document.

    Raises:
        ResultInvalid: with one line that names the JSON path and the remedy.
    """
    validate_document(result, _KIND)


def result_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `patchmi.result/1`, as shipped in `result.schema.json`."""
    return schema_of(RESULT_SCHEMA_FILE)


def _inconsistencies(result: Result) -> Faults:
    yield from _unexplained(result)
    yield from _mismatches(result)


def _unexplained(result: Result) -> Faults:
    """Scores and controls that are null without a note that names them."""
    notes = " ".join([*result.get("notes", []), *result["attack"]["notes"]]).replace("_", " ").lower()
    for part in ("scores", "controls"):
        for name, value in result[part].items():
            if value is None and name.replace("_", " ").lower() not in notes:
                yield (
                    f"$.{part}.{name}",
                    f"is null without a reason; add a sentence with the word {name} to $.notes",
                )


def _mismatches(result: Result) -> Faults:
    """Lists whose lengths or labels do not fit each other."""
    judge_count = len(result["agreement"]["judges"])
    kappa = result["agreement"]["kappa"]
    if len(kappa) != judge_count or any(len(row) != judge_count for row in kappa):
        yield "$.agreement.kappa", f"is not {judge_count} × {judge_count}; give one row and column a judge"
    labels = [entry["label"] for entry in result["classes"]]
    if len(set(labels)) != len(labels):
        yield "$.classes", "two entries have one label; keep one entry a class"
    if max(labels) >= result["target"]["class_count"]:
        yield "$.classes", f"label {max(labels)} is not below $.target.class_count; correct one of the two"


_KIND = Kind(
    schema=SCHEMA,
    schema_file=RESULT_SCHEMA_FILE,
    fault=ResultInvalid,
    remedy="write the file again with `patchmi score`",
    first_remedy="run `patchmi audit` first or name a run folder",
    inconsistencies=_inconsistencies,
)
