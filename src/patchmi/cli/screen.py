"""What is said to people and to pipes: data to stdout, all else to stderr."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchmi.runs import RunFolder

DONE, EXPOSED, UNDECIDED = 0, 1, 3
GATE = {"EXPOSED": EXPOSED, "INCONCLUSIVE": UNDECIDED, "NOT DEMONSTRATED": DONE}
"""Exit codes of a gate, by the verdict's word."""


def show_progress(steps: Iterable[int], description: str) -> Iterable[int]:
    """A bar with the time left, on stderr."""
    from rich.console import Console
    from rich.progress import track

    return track(steps, description=f"{description:<44}", console=Console(stderr=True))


def print_verdict(run: "RunFolder", path: Path, *, gate: bool = False) -> int:
    """Print verdict and report; the exit code of the gate, 0 without one."""
    verdict = run.read_json("result.json")["verdict"]
    print(f"{verdict['word']}: {verdict['sentence']}")  # noqa: T201 - what the command is for
    print_path(path)
    return GATE[verdict["word"]] if gate else DONE


def print_path(path: Path) -> None:
    """A path as it is reached from the working folder, if it lies below it."""
    print(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path)  # noqa: T201 - for pipes


def say(message: str) -> None:
    """One line on stderr."""
    print(f"patchmi: {message}", file=sys.stderr)  # noqa: T201
