"""The document `result.json`: its schema, and reading and writing that never let a wrong one through."""

import json
import math
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

SCHEMA = "patchmi.result/1"
"""What a result says of its own form, in its field `schema`."""

Result = dict[str, Any]
"""A result as `json` reads it: plain dictionaries, lists, numbers and texts."""

_REMEDY = "write the file again with `patchmi score`"


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
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ResultInvalid(f"{path}: no such file; run `patchmi audit` first or name a run folder") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultInvalid(f"{path}: not readable as JSON ({_one_line(str(error))}); {_REMEDY}") from None
    except _ConstantError as found:
        raise ResultInvalid(f"{path}: holds {found}, which is no finite number; {_REMEDY}") from None
    try:
        validate_result(result)
    except ResultInvalid as error:
        raise ResultInvalid(f"{path}: {error}") from None
    return result


def result_bytes(result: Result) -> bytes:
    """The bytes of `result.json`, the same for the same document.

    Args:
        result: the document.

    Returns:
        UTF-8 JSON with two spaces of indent and a final line break, fields in their own order.

    Raises:
        ResultInvalid: the document breaks the schema.
    """
    validate_result(result)
    return (json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


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
    for path, number in _numbers(result, "$"):
        if not math.isfinite(number):
            raise ResultInvalid(f"{path}: {number} is no finite number; use null and say why in $.notes")
    error = best_match(_validator().iter_errors(result), key=_closeness)
    if error is not None:
        raise ResultInvalid(_schema_line(error))
    for path, fault in _inconsistencies(result):
        raise ResultInvalid(f"{path}: {fault}")


def result_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `patchmi.result/1`, as shipped in `result.schema.json`."""
    return json.loads(files("patchmi.report").joinpath("result.schema.json").read_text(encoding="utf-8"))


class _ConstantError(Exception):
    """JSON held NaN or an infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(result_schema())


def _closeness(error: ValidationError) -> tuple[bool, int]:
    """Order the faults: a wrong `schema` explains all others, then the one nearest the root."""
    return error.validator == "const", -len(error.absolute_path)


def _schema_line(error: ValidationError) -> str:
    path = error.json_path
    schema: Any = error.schema
    if error.validator == "required":
        missing = next(name for name in schema["required"] if name not in error.instance)
        fault, remedy = f"the field '{missing}' is missing", f"add it, or {_REMEDY}"
    elif error.validator == "const":
        fault = f"{_shown(error.instance)} is not '{SCHEMA}'"
        remedy = "open it with the version of patchmi that wrote it, or score again"
    else:
        fault = f"{_shown(error.instance)} does not fit ({error.validator}: {_shown(error.validator_value)})"
        remedy = f"put {schema['description']}" if "description" in schema else _REMEDY
    return _one_line(f"{path}: {fault}; {remedy}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Every float below `value`, with its JSON path."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _numbers(child, f"{path}.{name}")
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _numbers(child, f"{path}[{position}]")


def _inconsistencies(result: Result) -> Iterator[tuple[str, str]]:
    """Faults that a schema cannot say, as (JSON path, fault and remedy)."""
    try:
        zone = datetime.fromisoformat(result["created"]).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        yield (
            "$.created",
            f"{_shown(result['created'])} is no ISO 8601 time with time zone; write UTC, as in "
            "2026-01-31T12:00:00+00:00",
        )
    for path, low, high in _intervals(result, "$"):
        if low > high:
            yield path, f"low {low} is above high {high}; swap them"
    yield from _unexplained(result)
    yield from _mismatches(result)


def _unexplained(result: Result) -> Iterator[tuple[str, str]]:
    """Scores and controls that are null without a note that names them."""
    notes = " ".join([*result.get("notes", []), *result["attack"]["notes"]]).replace("_", " ").lower()
    for part in ("scores", "controls"):
        for name, value in result[part].items():
            if value is None and name.replace("_", " ").lower() not in notes:
                yield (
                    f"$.{part}.{name}",
                    f"is null without a reason; add a sentence with the word {name} to $.notes",
                )


def _mismatches(result: Result) -> Iterator[tuple[str, str]]:
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


def _intervals(value: Any, path: str) -> Iterator[tuple[str, int | float, int | float]]:
    """Every {value, low, high, n} below `value`: its JSON path and its two ends."""
    if isinstance(value, dict):
        if value.keys() >= {"value", "low", "high", "n"}:
            yield path, value["low"], value["high"]
        for name, child in value.items():
            yield from _intervals(child, f"{path}.{name}")
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from _intervals(child, f"{path}[{position}]")
