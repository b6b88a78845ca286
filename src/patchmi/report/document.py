"""JSON documents that keep to a schema: reading, checking and writing that never let a wrong one through."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Document = dict[str, Any]
"""A document as `json` reads it: plain dictionaries, lists, numbers and texts."""

Faults = Iterator[tuple[str, str]]
"""(JSON path, fault and remedy), one a fault."""

RESULT_SCHEMA_FILE = "result.schema.json"
"""The schema whose parts other schemas may point to."""


@dataclass(frozen=True)
class Kind:
    """What one kind of document asks for, and what its errors say."""

    schema: str
    """What the document says of its own form, in its field `schema`."""
    schema_file: str
    """The schema among this package's files."""
    fault: type[ValueError]
    """The error that is raised."""
    remedy: str
    """What writes the document again."""
    first_remedy: str
    """What to do where there is none."""
    inconsistencies: Callable[[Document], Faults]
    """Faults of a document that keeps to the schema."""


def read_document(path: Path, kind: Kind) -> Document:
    """Read and check a document.

    Args:
        path: the file.
        kind: what it must be.

    Returns:
        The document, valid under `validate_document`.

    Raises:
        ValueError: as `kind.fault`: the file is missing, is no JSON, or breaks the schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise kind.fault(f"{path}: no such file; {kind.first_remedy}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise kind.fault(f"{path}: not readable as JSON ({_one_line(str(error))}); {kind.remedy}") from None
    except _ConstantError as found:
        raise kind.fault(f"{path}: holds {found}, which is no finite number; {kind.remedy}") from None
    try:
        validate_document(document, kind)
    except kind.fault as error:
        raise kind.fault(f"{path}: {error}") from None
    return document


def document_bytes(document: Document, kind: Kind) -> bytes:
    """UTF-8 JSON with two spaces of indent and a final line break, fields in their own order.

    Args:
        document: the document.
        kind: what it must be.

    Raises:
        ValueError: as `kind.fault`: the document breaks the schema.
    """
    validate_document(document, kind)
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def validate_document(document: Any, kind: Kind) -> None:
    """Check a document against its schema and against itself.

    Beyond the schema: every number is finite, `created` is a time with its zone, every interval has
    low ≤ high, and there are none of the kind's own inconsistencies.

    Args:
        document: the document.
        kind: what it must be.

    Raises:
        ValueError: as `kind.fault`, with one line that names the JSON path and the remedy.
    """
    for path, number in _numbers(document, "$"):
        if not math.isfinite(number):
            raise kind.fault(f"{path}: {number} is no finite number; use null and say why")
    error = best_match(_validator(kind.schema_file).iter_errors(document), key=_closeness)
    if error is not None:
        raise kind.fault(_schema_line(error, kind))
    for faults in (_inconsistencies(document), kind.inconsistencies(document)):
        for path, fault in faults:
            raise kind.fault(f"{path}: {fault}")


def schema_of(schema_file: str) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) as shipped beside this module."""
    return json.loads(files("patchmi.report").joinpath(schema_file).read_text(encoding="utf-8"))


class _ConstantError(Exception):
    """JSON held NaN or an infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


@cache
def _validator(schema_file: str) -> Draft202012Validator:
    shared = DRAFT202012.create_resource(schema_of(RESULT_SCHEMA_FILE))
    # Crawled here: else every reference is looked for anew.
    registry = Registry().with_resource(RESULT_SCHEMA_FILE, shared).crawl()
    return Draft202012Validator(schema_of(schema_file), registry=registry)


def _closeness(error: ValidationError) -> tuple[bool, int]:
    """Order the faults: a wrong `schema` explains all others, then the one nearest the root."""
    return error.validator == "const", -len(error.absolute_path)


def _schema_line(error: ValidationError, kind: Kind) -> str:
    path = error.json_path
    schema: Any = error.schema
    if error.validator == "required":
        missing = next(name for name in schema["required"] if name not in error.instance)
        fault, remedy = f"the field '{missing}' is missing", f"add it, or {kind.remedy}"
    elif error.validator == "const":
        fault = f"{shown(error.instance)} is not '{kind.schema}'"
        remedy = f"open it with the version of patchmi that wrote it, or {kind.remedy}"
    else:
        fault = f"{shown(error.instance)} does not fit ({error.validator}: {shown(error.validator_value)})"
        described = "description" in schema and error.absolute_path
        remedy = f"put {schema['description']}" if described else kind.remedy
    return _one_line(f"{path}: {fault}; {remedy}")


def shown(value: Any) -> str:
    """A value of a document as an error shows it, at most 60 characters."""
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


def _inconsistencies(document: Document) -> Faults:
    """Faults of time and intervals, which a schema cannot say."""
    try:
        zone = datetime.fromisoformat(document["created"]).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        yield (
            "$.created",
            f"{shown(document['created'])} is no ISO 8601 time with time zone; write UTC, as in "
            "2026-01-31T12:00:00+00:00",
        )
    for path, low, high in _intervals(document, "$"):
        if low > high:
            yield path, f"low {low} is above high {high}; swap them"


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
