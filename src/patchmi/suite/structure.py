"""Frozen dataclasses from plain tables, as TOML and JSON give them; what is wrong is named in one line."""

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


def structured(kind: type[Kind], table: Any, *, where: str) -> Kind:
    """A dataclass whose fields are plain values, tuples, named tables, or other such dataclasses.

    Args:
        kind: The dataclass.
        table: Its values by field.
        where: File and key, which a message begins with.

    Raises:
        ValueError: A key is unknown or missing, or a value has another type: one line.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: {table!r} is not a table")
    known = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known)
            meant = f"is it {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{where}: no key {key}; {meant}")
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where}: {name} is missing; give it")
    hints = get_type_hints(kind)
    return kind(**{name: _value(value, hints[name], f"{where}: {name}") for name, value in table.items()})


def _value(value: Any, hint: Any, where: str) -> Any:
    """A value as its field's type has it."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        (kind,) = (part for part in parts if part is not type(None))
        return None if value is None else _value(value, kind, where)
    if is_dataclass(hint):
        return structured(hint, value, where=where)  # pyright: ignore[reportArgumentType]
    if origin is dict and isinstance(value, Mapping):
        return {name: _value(entry, parts[1], f"{where}.{name}") for name, entry in value.items()}
    if origin is tuple and isinstance(value, list) and (parts[-1] is ... or len(parts) == len(value)):
        return tuple(_value(entry, parts[0], f"{where}[{place}]") for place, entry in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{where}: {value!r} is not {_words(hint)}")


def _words(hint: Any) -> str:
    """A type as a message names it."""
    parts = get_args(hint)
    if get_origin(hint) is tuple:
        return "a list" if parts[-1] is ... else f"a list of {len(parts)} values"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint, "a table")
