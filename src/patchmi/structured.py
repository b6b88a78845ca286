"""Frozen dataclasses from plain tables, as TOML and JSON give them; a wrong name or value is one line."""

import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


def structured(
    kind: type[Kind],
    table: Mapping[str, Any],
    *,
    where: str,
    entry: str = "key",
    hidden: tuple[str, ...] = (),
) -> Kind:
    """A dataclass from a table of its fields; fields may be dataclasses, tuples and named tables themselves.

    Args:
        kind: The dataclass.
        table: Values by field.
        where: What a message begins with, such as a file and a key.
        entry: What a message calls a field: key, option, setting.
        hidden: Fields that the table cannot set.

    Raises:
        ValueError: A name is unknown or missing, a value has another type, or the dataclass refuses it.
    """
    defaults = {field.name: _default(field) for field in fields(kind) if field.name not in hidden}  # pyright: ignore[reportArgumentType]
    values = _values(kind, table, defaults=defaults, where=where, entry=entry)
    for name, default in defaults.items():
        if name not in table and default is MISSING:
            raise ValueError(f"{where}: {name} is missing; give it")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _values(
    kind: Any, table: Mapping[str, Any], *, defaults: Mapping[str, Any], where: str, entry: str
) -> dict[str, Any]:
    """The fields that a table gives, each as the dataclass wants it; `defaults` are all that it may give."""
    for name in table:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults)
            meant = f"is it {' or '.join(near)}?" if near else f"there are {', '.join(defaults)}"
            raise ValueError(f"{where}: no {entry} {name}; {meant}")
    hints = get_type_hints(kind)
    values = {}
    for name, value in table.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{where}: {name} = {value!r} is not {describe_type(hints[name])}")
        if isinstance(value, Mapping) and is_dataclass(defaults[name]):
            values[name] = _changed(defaults[name], value, where=f"{where}: {name}", entry=entry)
        else:
            values[name] = _cast(value, hints[name], where=f"{where}: {name}", entry=entry)
    return values


def _changed(default: Any, table: Mapping[str, Any], *, where: str, entry: str) -> Any:
    """A dataclass with some of its fields changed; the others may be what no table can hold."""
    values = _values(type(default), table, defaults=vars(default), where=where, entry=entry)
    try:
        return replace(default, **values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _default(field: Field[Any]) -> Any:
    """What a field holds that nobody sets; MISSING if somebody must."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a union is of, without the None that stands for what is not set."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for kind in get_args(hint) if kind is not type(None))
    return (hint,)


def describe_type(hint: Any) -> str:
    """A type as a message names it."""
    words = []
    for kind in alternatives(hint):
        origin, parts = get_origin(kind), get_args(kind)
        if origin is Literal:
            words.append("one of " + ", ".join(map(str, parts)))
        elif origin is tuple:
            count = "a list of" if parts[-1] is Ellipsis else f"a list of {len(parts)}"
            words.append(f"{count} {_PLURALS.get(parts[0], 'tables')}")
        elif origin is Callable:
            words.append("a function")
        elif kind in _SINGULARS:
            words.append(_SINGULARS[kind])
    return " or ".join(words) or "a table"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, at its top; what lies deeper is looked at when it is cast."""
    return (value is None and hint is not Any and type(None) in get_args(hint)) or any(
        _fits_one(value, kind) for kind in alternatives(hint)
    )


def _fits_one(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if is_dataclass(kind) or origin is dict:
        return isinstance(value, Mapping)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple:
        counts = isinstance(value, list | tuple) and (parts[-1] is Ellipsis or len(value) == len(parts))
        return counts and all(_fits(part, parts[0]) for part in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is (str if kind is Path else kind)


def _cast(value: Any, hint: Any, *, where: str, entry: str) -> Any:
    """A value that fits, as its field wants it."""
    if value is None:
        return None
    kind = next(kind for kind in alternatives(hint) if _fits_one(value, kind))
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return structured(kind, value, where=where, entry=entry)
    if origin is dict:
        named = {}
        for name, part in value.items():
            if not _fits(part, parts[1]):
                raise ValueError(f"{where}.{name} = {part!r} is not {describe_type(parts[1])}")
            named[name] = _cast(part, parts[1], where=f"{where}.{name}", entry=entry)
        return named
    if origin is tuple:
        return tuple(
            _cast(part, parts[0], where=f"{where}[{place}]", entry=entry) for place, part in enumerate(value)
        )
    if kind is Path:
        return Path(value)
    return float(value) if kind is float else value


_SINGULARS = {str: "a text", Path: "a path", int: "a whole number", float: "a number", bool: "true or false"}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers"}
