"""What the cells of a suite hold, in one document and one file of pictures, for its page."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchmi.attacks import ATTACKS
from patchmi.audit.document import describe, describe_environment
from patchmi.audit.stages import RECONSTRUCTIONS
from patchmi.report.suite_result import SUITE_SCHEMA, suite_bytes
from patchmi.runs import atomic_write
from patchmi.runs.files import pack_tensors, unpack_tensors
from patchmi.suite.cells import EXTRA
from patchmi.suite.jobs import DONE, cell_folder, failure_of, is_done, plan_jobs, read_json, run_cells
from patchmi.suite.planes import planes_of
from patchmi.suite.tables import Suite
from patchmi.suite.targets import ABOUT, ABOUT_JUDGES
from patchmi.types import Labels

DOCUMENT, PICTURES = "suite.json", "suite-pictures.safetensors"
SHOWN_CLASSES, SHOWN_PICTURES = 10, 4
"""Classes in the file of pictures at most, and pictures of each."""


def gather(folder: Path, suite: Suite) -> None:
    """Write `suite.json` and `suite-pictures.safetensors` from what is done so far. No cell is touched.

    Args:
        folder: The suite's.
        suite: What was read.

    Raises:
        SuiteInvalid: What the cells hold makes no valid document.
        OutOfResources: The disk is full.
    """
    rows = [_describe_row(folder, suite, parts) for parts in suite.rows()]
    done = [row for row in rows if row["state"] == "done"]
    document = {
        "schema": SUITE_SCHEMA,
        "title": suite.title,
        "description": suite.description,
        "small_note": suite.origin.small_note,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "patchmi_version": version("patchmi"),
        "command": suite.origin.command,
        "environment": _environment(folder, done),
        "seeds": list(range(suite.seeds)),
        "count_per_class": suite.count_per_class,
        "wall_seconds": _busy_seconds(folder, suite),
        "missing": sum(row["state"] == "missing" for row in rows),
        "targets": [_describe_target(folder, suite, name) for name in suite.targets],
        "rows": rows,
        "planes": planes_of(folder, suite, dict(zip(suite.rows(), rows, strict=True))),
        "published": [dict(vars(entry)) for entry in suite.published],
        "curves": [
            {
                "title": curve.title,
                "along": curve.along,
                "scores": list(curve.scores),
                "points": [
                    {"row": row["id"], "x": suite.attacks[row["attack"]].number(curve.along)}
                    for row in rows
                    if row["attack"] in curve.attacks
                ],
            }
            for curve in suite.curves
        ],
    }
    atomic_write(folder / PICTURES, pack_tensors(_pictures(folder, suite, done), {}))
    atomic_write(folder / DOCUMENT, suite_bytes(document))


def _describe_row(folder: Path, suite: Suite, parts: tuple[str, str, str, str]) -> dict[str, Any]:
    """A row with its scores if it is done, else with the reason why not, if one is known."""
    target, attack, public, defence = parts
    name = "/".join(parts)
    described = {
        "id": name,
        "target": target,
        "attack": attack,
        "public": public,
        "defence": defence,
        "uses_public": ATTACKS[suite.attacks[attack].attack].uses_public,
        "state": "missing",
        "error": None,
        "folder": None,
        "settings": describe(suite.attacks[attack].made()),
    }
    if not is_done(folder, suite, f"row/{name}"):
        error = failure_of(folder, f"row/{name}")
        if error is None:
            return described
        # The page is handed on: where this machine keeps things is nobody's business.
        for place, name_of_it in ((folder, ""), (suite.origin.data, "data:"), (suite.origin.folder, "")):
            error = error.replace(f"{place}/", name_of_it)
        return described | {"state": "failed", "error": error}
    cell = cell_folder(folder, f"row/{name}")
    result = read_json(cell / "result.json")
    cells = [cell for seed in suite.seeds_of(target) for cell in run_cells(suite, name, seed)]
    return described | {
        "state": "done",
        "folder": cell.relative_to(folder).as_posix(),
        "scores": {**result["scores"], **read_json(cell / EXTRA)},
        "controls": result["controls"],
        "verdict": result["verdict"]["word"],
        "seconds": result["attack"]["seconds"],
        "queries": result["attack"]["queries"],
        "steps": result["attack"]["steps"],
        "peak_memory_bytes": max(
            (one["peak_memory_bytes"] for one in _done(folder, cells)),
            default=result["environment"]["peak_memory_bytes"],
        ),
    }


def _describe_target(folder: Path, suite: Suite, name: str) -> dict[str, Any]:
    """A target as its cell has it; before it is done, as the file has it."""
    target = suite.targets[name]
    described = {
        "name": name,
        "architecture": target.architecture or target.model,
        "private": target.private,
        "class_count": None,
        "accuracy": None,
        "judges": [],
        "disjoint_judge": None,
    }
    if is_done(folder, suite, f"target/{name}"):
        about = read_json(cell_folder(folder, f"target/{name}") / ABOUT)
        wanted = ("architecture", "private", "class_count", "accuracy")
        shown = [about["class_names"][label] for label in _shown_classes(about["class_count"])]
        described |= {key: about[key] for key in wanted} | {"shown_classes": shown}
    if is_done(folder, suite, f"judges/{name}"):
        described |= read_json(cell_folder(folder, f"judges/{name}") / ABOUT_JUDGES)
    return described


def _environment(folder: Path, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the first row that is done was counted; before there is one, where this process runs."""
    if not done:
        return describe_environment()
    return read_json(folder / done[0]["folder"] / "result.json")["environment"]


def _busy_seconds(folder: Path, suite: Suite) -> float:
    """Seconds in which one cell or more was being done, in its last attempt."""
    names = [job.name for job in plan_jobs(suite)]
    busy, end = 0.0, 0.0
    for began, ended in sorted((one["began"], one["ended"]) for one in _done(folder, names)):
        busy += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return busy


def _done(folder: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """What cells say of their work, as far as they are done."""
    files = (cell_folder(folder, name) / DONE for name in names)
    return [read_json(file) for file in files if file.is_file()]


def _pictures(folder: Path, suite: Suite, done: Iterable[dict[str, Any]]) -> dict[str, Tensor]:
    """The first pictures of each row, and of each target that may show them, held-out ones."""
    pictures: dict[str, Tensor] = {}
    for row in done:
        cell = folder / row["folder"]
        made = _tensors(cell / RECONSTRUCTIONS)
        pictures[row["id"]] = _first(made["images"], made["labels"])
        held_out = f"{row['target']}/held_out"
        if suite.targets[row["target"]].show_private and held_out not in pictures:
            strips = _tensors(cell / "evidence.safetensors")["held_out"]
            pictures[held_out] = strips[_shown_classes(len(strips))]
    return pictures


def _tensors(path: Path) -> dict[str, Tensor]:
    return unpack_tensors(path.read_bytes())[0]


def _first(images: Tensor, labels: Labels) -> Tensor:
    """The first pictures of each class that is shown, as they were drawn and not as they were judged."""
    classes = _shown_classes(int(labels.max()) + 1)
    return torch.stack([images[labels == label][:SHOWN_PICTURES] for label in classes])


def _shown_classes(class_count: int) -> list[int]:
    """All classes, or as many as are shown, evenly chosen."""
    count = min(class_count, SHOWN_CLASSES)
    return [round(place) for place in torch.linspace(0, class_count - 1, count).tolist()]
