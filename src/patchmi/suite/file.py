"""The suite file: read from TOML, and kept beside what was run."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from patchmi.runs import atomic_write
from patchmi.structured import structured
from patchmi.suite.checks import suite_faults
from patchmi.suite.tables import DATA, Origin, Published, Suite, SuiteAttack

SAVED = "suite.toml.json"
"""What was read, in the suite's folder."""


def read_suite(
    path: Path | str, *, small: bool = False, data: Path | str | None = None, command: str = Origin.command
) -> Suite:
    """Read a suite file.

    Args:
        path: The TOML file.
        small: Let its table `small` replace what stands in both.
        data: The folder that `data:` sources lie in; None: hubs are taken instead.
        command: The command line, for the pages.

    Raises:
        ValueError: It cannot be read, or a key, a type, a name or a number is wrong: one line.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such suite file; give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as TOML ({error})") from None
    if data is not None and not Path(data).is_dir():
        raise ValueError(f"--data {data}: no such folder; give the one that holds the suite's images")
    changes = given.pop("small", None)
    folders = {"folder": str(Path.cwd()), "data": None if data is None else str(Path(data).resolve())}
    full = _suite(given, Origin(**folders, command=command), where=str(path))
    if changes is None:
        if small:
            raise ValueError(f"{path}: has no table [small]; leave out --small")
        return full
    # Checked even if it is not asked for: a mistake in it should not wait for the day that it is.
    where = f"{path}: with [small]"
    if not isinstance(changes, dict) or not isinstance(changes.get("note", ""), str):
        raise ValueError(f"{path}: small: is a table, and its note a text")
    origin = Origin(**folders, command=command, small_note=changes.pop("note", "") or "the small form")
    reduced = _suite(_merged(given, changes), origin, where=where)
    return reduced if small else full


def save_suite(folder: Path, suite: Suite) -> None:
    """Keep what was read in the suite's folder, for its workers and its report."""
    atomic_write(folder / SAVED, (json.dumps(asdict(suite), indent=2) + "\n").encode())


def load_suite(folder: Path) -> Suite:
    """What `save_suite` kept.

    Raises:
        ValueError: The folder holds no suite, or one that another version wrote: one line.
    """
    try:
        saved = json.loads((folder / SAVED).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: holds no suite ({error}); `patchmi suite run` makes one") from None
    return structured(Suite, saved, where=str(folder / SAVED))


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the changes in it, tables within tables likewise."""
    merged = dict(table)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _suite(given: Mapping[str, Any], origin: Origin, *, where: str) -> Suite:
    table = dict(given)
    if "origin" in table:
        raise ValueError(f"{where}: no key origin; patchmi writes it itself")
    table["attacks"] = _apart(table.get("attacks"), SuiteAttack, "settings")
    table["defences"] = _named(table.get("defences"))
    published = table.get("published", [])
    if isinstance(published, list):
        table["published"] = list(_apart(dict(enumerate(published)), Published, "scores").values())
    suite = structured(Suite, {key: value for key, value in table.items() if value is not None}, where=where)
    if origin.data is None:
        suite = _from_hubs(suite)
    suite = replace(suite, origin=origin)
    for fault in suite_faults(suite):
        raise ValueError(f"{where}: {fault}")
    return suite


def _named(defences: Any) -> Any:
    """Each defence under the name of its entry, where it has no other."""
    if not isinstance(defences, dict):
        return defences
    return {
        name: {"defence": name, **entry} if isinstance(entry, dict) else entry
        for name, entry in defences.items()
    }


def _apart(entries: Any, kind: type, rest: str) -> Any:
    """In each entry, keys that are no fields of `kind` put into a table of their own."""
    if not isinstance(entries, dict):
        return entries
    own = {one.name for one in fields(kind)} - {rest}
    return {
        name: {
            **{key: value for key, value in entry.items() if key in own},
            rest: {key: value for key, value in entry.items() if key not in own},
        }
        if isinstance(entry, dict)
        else entry
        for name, entry in entries.items()
    }


def _from_hubs(suite: Suite) -> Suite:
    """The suite with hubs for `data:` sources."""

    def reachable(source: str, hub: str | None) -> str:
        return hub if hub is not None and source.startswith(DATA) else source

    return replace(
        suite,
        targets={
            name: replace(target, private=reachable(target.private, target.hub))
            for name, target in suite.targets.items()
        },
        public={
            name: replace(public, source=reachable(public.source, public.hub))
            for name, public in suite.public.items()
        },
    )
