"""The command line: parse, call, print. Torch is imported only when there is work to do."""

import os
import sys
import traceback
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any

import tyro

from patchmi.cli.commands import run_command
from patchmi.cli.config import read_options
from patchmi.cli.options import Attack, Audit, Options, Score, Suite
from patchmi.cli.screen import say

USAGE, UNSAFE, RESOURCES, BUG, INTERRUPTED = 2, 4, 5, 70, 130
"""Exit codes of the contract, and one for what must not happen; 0, 1 and 3 are what a command returns."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except BrokenPipeError:
        # Whoever reads, as `| head` does, has read enough; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 - Python itself would end with 1, which a gate reads as EXPOSED
        traceback.print_exc()
        say("error: this is a mistake of patchmi's own; please report it with the lines above")
        return BUG


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"patchmi {version('patchmi')}")  # noqa: T201 - what was asked for
        return 0
    try:
        options = _parse(arguments)
    except ValueError as error:
        say(f"error: {error}")
        return USAGE
    from patchmi.errors import UnsafeInput
    from patchmi.runs import OutOfResources, RunError, terminate_as_interrupt

    try:
        with terminate_as_interrupt():
            return run_command(options, arguments)
    except KeyboardInterrupt:
        again = "the same command" if isinstance(options, Suite) else "the same command with --resume"
        say(f"interrupted; {again} goes on")
        return INTERRUPTED
    except (OutOfResources, MemoryError) as error:
        say(f"out of resources: {error}")
        return RESOURCES
    except UnsafeInput as error:
        say(f"refused: {error}")
        return UNSAFE
    except BrokenPipeError:
        raise
    except (RunError, ValueError, OSError) as error:
        say(f"error: {error}")
        return USAGE


def _parse(arguments: list[str]) -> Options:
    """The command's options; what the parser says of a mistake, in a box of many lines, becomes one."""
    box = StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(
                Options,  # pyright: ignore[reportArgumentType] - a union of dataclasses
                prog="patchmi",
                description="How much does an image classifier give away about what it was trained on? "
                "`patchmi --version` tells the version.",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
                **_defaults(arguments),
            )
    except SystemExit as end:
        lines = [line.strip("│ ") for line in box.getvalue().splitlines()[1:]]
        first_section = takewhile(lambda line: not line.startswith("─"), lines)
        if message := " ".join(first_section).removesuffix("."):
            say(f"error: {message}; `patchmi --help` shows what can be asked for")
        raise SystemExit(end.code) from None


def _defaults(arguments: list[str]) -> dict[str, Any]:
    """The options of `--config`, which those on the command line then replace."""
    kind = {"audit": Audit, "attack": Attack, "score": Score}.get(arguments[0] if arguments else "")
    if kind is None or "--init" in arguments:
        return {}
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config" and (equals or place + 1 < len(arguments)):
            return {"default": read_options(kind, Path(value if equals else arguments[place + 1]))}
    return {}
