"""The options of a command in a TOML file: read with `--config`, written with comments by `--init`."""

import ast
import inspect
import json
import tomllib
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from patchmi.structured import alternatives, structured

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
    return structured(kind, given, where=f"--config {path}", entry="option", hidden=_NOT_IN_FILES)


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


def _example(hint: Any) -> str:
    """A value that shows the form, for an option that is not set."""
    (kind,) = alternatives(hint)
    if get_origin(kind) is tuple:
        return "[]"
    if choices := get_args(kind):
        return json.dumps(choices[0])
    return {int: "0", float: "0.0"}.get(kind, '""')
