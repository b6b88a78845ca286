"""The options of a command in a TOML file: read with `--config`, written with comments by `--init`."""

import ast
import difflib
import inspect
import json
import tomllib
import types
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Options = TypeVar("Options")

_NOT_IN_FILES = ("config", "init", "dry_run", "resume")
"""Options that say what to do now; a file says what a run is."""


def read_options(kind: type[Options], path: Path) -> Options:
    """The command's options as a TOML file has them, the others at their defaults.

    Args:
        kind: The command's dataclass.
        path: The file. Paths in it count from the working folder, as on the command line.

    Raises:
        ValueError: The file cannot be read, or names an option that the command does not have, or gives one
            a value of another type: one line.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"--config {path}: no such file; `patchmi audit --init` writes one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"--config {path}: cannot be read as TOML ({error})") from None
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.name not in _NOT_IN_FILES]  # pyright: ignore[reportArgumentType]
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known)
            meant = f"is it {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"--config {path}: no option {name}; {meant}")
        if not _fits(value, hints[name]):
            raise ValueError(f"--config {path}: {name} = {value!r} is not {_words(hints[name])}")
    return kind(**{name: _cast(value, hints[name]) for name, value in given.items()})


def write_options(options: Any) -> str:
    """A TOML file of a command's options: each with its help as a comment, unset ones commented out."""
    name = type(options).__name__.lower()
    lines = [f"# patchmi {name} --config THIS_FILE", "# Paths count from the folder you start it in."]
    helps = field_helps(type(options))
    for field in fields(options):
        if field.name in _NOT_IN_FILES:
            continue
        value = getattr(options, field.name)
        default = None if field.default is MISSING else field.default
        lines += ["", f"# {helps[field.name]}"]
        if value is None or value == ():
            lines.append(f"# {field.name} = {_example(get_type_hints(type(options))[field.name])}")
        else:
            text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
            lines.append(f"{field.name} = {text}" + ("  # default" if value == default else ""))
    return "\n".join(lines) + "\n"


def field_helps(kind: type) -> dict[str, str]:
    """The text below each field of a dataclass and of those it extends, which Python itself does not keep."""
    helps: dict[str, str] = {}
    for part in reversed([part for part in kind.mro() if is_dataclass(part)]):
        (body,) = ast.parse(inspect.getsource(part)).body
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                helps[ast.unparse(field.target)] = ast.literal_eval(text.value)
    return helps


def _alternative(hint: Any) -> Any:
    """A type without the None that stands for an option that is not set."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    (kind,) = (one for one in get_args(hint) if one is not type(None))
    return kind


def _fits(value: Any, hint: Any) -> bool:
    kind = _alternative(hint)
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        counts = isinstance(value, list) and (parts[-1] is Ellipsis or len(value) == len(parts))
        return counts and all(_fits(part, parts[0]) for part in value)
    if choices := get_args(kind):
        return value in choices
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is (str if kind is Path else kind)


def _cast(value: Any, hint: Any) -> Any:
    kind = _alternative(hint)
    if kind is Path:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _words(hint: Any) -> str:
    """A type as a message names it."""
    kind = _alternative(hint)
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        count = "a list of" if parts[-1] is Ellipsis else f"a list of {len(parts)}"
        return f"{count} {_PLURALS[parts[0]]}"
    if choices := get_args(kind):
        return "one of " + ", ".join(choices)
    return _SINGULARS[kind]


_SINGULARS = {str: "a text", Path: "a path", int: "a whole number", float: "a number", bool: "true or false"}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers"}


def _example(hint: Any) -> str:
    """A value that shows the form, for an option that is not set."""
    kind = _alternative(hint)
    if get_origin(kind) is tuple:
        return "[]"
    if choices := get_args(kind):
        return json.dumps(choices[0])
    return {int: "0", float: "0.0"}.get(kind, '""')
