"""The command line: parse, call, print. Torch is imported only when there is work to do."""

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from patchmi.attacks import PatchMI

DONE, USAGE, RESOURCES, INTERRUPTED = 0, 2, 5, 130
"""Exit codes of the contract (1 and 3 belong to gates, 4 to model files)."""

RecipeName = Literal["default", "paper-mnist", "paper-emnist", "paper-cifar10", "paper-celeba"]
Count = Annotated[int, tyro.conf.arg(metavar="COUNT")]


@dataclass(frozen=True)
class Demo:
    """Audit a classifier of handwritten digits that is trained on the spot, in a few minutes.

    5,000 real digits of MNIST train a target and three judges; the attack sees the target and random strokes.

    Example: patchmi demo --out runs/demo --seeds 3
    """

    out: Path = Path("runs/demo")
    """Run folder; what is in it already is not computed again with --resume."""
    public: str = "strokes"
    """What the attacker has: strokes, glyphs, leaves, or a path to images."""
    seeds: Count = 1
    """Runs of the attack; a firm verdict needs 3."""
    recipe: RecipeName = "default"
    """Recipe of Patch-MI."""
    step_count: int | None = None
    """Steps of the attack, instead of the recipe's."""
    count_per_class: Count = 200
    """Reconstructions of each class."""
    public_count: Count = 15_000
    """Public images."""
    resume: bool = False
    """Go on with the run in the folder; harmless where there is none."""


@dataclass(frozen=True)
class Report:
    """Write report.html of a run folder again, from its result.json.

    Example: patchmi report runs/demo
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""


@dataclass(frozen=True)
class Data:
    """Draw procedural public images into a folder of PNG files.

    Example: patchmi data strokes --count 100 --out strokes
    """

    source: tyro.conf.Positional[Literal["strokes", "glyphs", "leaves"]]
    """What to draw."""
    out: Path
    """Folder to write to."""
    count: Count = 6000
    """How many."""
    image_size: Count = 32
    """Side in pixels."""
    seed: int = 0
    """Seed of the draw."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    from patchmi.runs import OutOfResources, RunError, terminate_as_interrupt

    try:
        with terminate_as_interrupt():
            return _run(options, arguments)
    except KeyboardInterrupt:
        _say("interrupted; the same command with --resume goes on")
        return INTERRUPTED
    except (OutOfResources, MemoryError) as error:
        _say(f"out of resources: {error}")
        return RESOURCES
    except (RunError, ValueError, OSError) as error:
        _say(f"error: {error}")
        return USAGE


def _parse(arguments: list[str]) -> Demo | Report | Data:
    """The command's options; what the parser says of a mistake, in a box of many lines, becomes one."""
    box = StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(
                Demo | Report | Data,
                prog="patchmi",
                description="How much does an image classifier give away about what it was trained on?",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as end:
        lines = [line.strip("│ ") for line in box.getvalue().splitlines()[1:]]
        first_section = takewhile(lambda line: not line.startswith("─"), lines)
        if message := " ".join(first_section).removesuffix("."):
            _say(f"error: {message}; `patchmi --help` shows what can be asked for")
        raise SystemExit(end.code) from None


def _run(options: Demo | Report | Data, arguments: list[str]) -> int:
    match options:
        case Demo():
            _demo(options, command=shlex.join(["patchmi", *arguments]))
        case Report():
            from patchmi.report import write_report

            _print_path(write_report(options.run))
        case Data():
            _draw(options)
    return DONE


def _demo(options: Demo, *, command: str) -> None:
    _check_counts(options, "seeds", "public_count", "step_count")
    _check_counts(options, "count_per_class", least=4)  # a measure of variety looks at 3 neighbours
    from patchmi.data import load_public
    from patchmi.demo import DIGIT_SHAPE, run_demo
    from patchmi.runs import open_run

    # Before the folder is taken: a source that is not there must leave nothing behind.
    public = load_public(options.public, image_shape=DIGIT_SHAPE, count=options.public_count)
    config = {**asdict(options), "out": None, "resume": None}
    with open_run(options.out, config=config, resume=options.resume) as run:
        path = run_demo(
            run,
            attack=_attack(options),
            public=public,
            seeds=tuple(range(options.seeds)),
            count_per_class=options.count_per_class,
            command=command,
            progress=_show_progress,
        )
        verdict = run.read_json("result.json")["verdict"]
    print(f"{verdict['word']}: {verdict['sentence']}")  # noqa: T201 - what the command is for
    _print_path(path)


def _check_counts(options: Demo | Data, *names: str, least: int = 1) -> None:
    for name in names:
        count = getattr(options, name)
        if count is not None and count < least:
            raise ValueError(f"--{name.replace('_', '-')} {count}: give {least} or more")


def _attack(options: Demo) -> "PatchMI":
    from patchmi.attacks import PatchMI

    return PatchMI(recipe=options.recipe, step_count=options.step_count)


def _draw(options: Data) -> None:
    _check_counts(options, "count", "image_size")
    from PIL import Image

    from patchmi.data import PROCEDURAL

    options.out.mkdir(parents=True, exist_ok=True)
    images = PROCEDURAL[options.source](options.count, image_size=options.image_size, seed=options.seed)
    for number, image in enumerate((images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image.squeeze()).save(options.out / f"{number:06}.png")
    _print_path(options.out)


def _show_progress(steps: Iterable[int], description: str) -> Iterable[int]:
    """A bar with the time left, on stderr."""
    from rich.console import Console
    from rich.progress import track

    return track(steps, description=f"{description:<44}", console=Console(stderr=True))


def _print_path(path: Path) -> None:
    print(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path)  # noqa: T201 - for pipes


def _say(message: str) -> None:
    print(f"patchmi: {message}", file=sys.stderr)  # noqa: T201 - one line on stderr
