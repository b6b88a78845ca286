"""`suite.json` and its pictures as one HTML page that needs no network and no script."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from patchmi.report import numbers, suite_figures
from patchmi.report.document import Document
from patchmi.report.evidence import read_evidence
from patchmi.report.page import embedded, measure_of, pointer, style, templates
from patchmi.report.plane import leakage_shown, utility_leakage_plane
from patchmi.report.suite_pictures import Gallery, check_pictures, gallery_of
from patchmi.report.suite_result import read_suite, validate_suite
from patchmi.report.suite_table import (
    COLUMN_MEANINGS,
    Column,
    Line,
    Table,
    path_of,
    row_name,
    table_of,
    value_at,
)
from patchmi.report.wording import SCORE_MEANINGS
from patchmi.runs import atomic_write

_CLEAR = Markup('<span class="clear" role="img" aria-label="clear of all other rows">▲</span>')


@dataclass(frozen=True)
class Part:
    """What the page says of one target."""

    target: dict[str, Any]
    table: Table
    gallery: Gallery | None
    success: Markup
    spread: Markup


@dataclass(frozen=True)
class PlanePart:
    """What the page says of one comparison of defences."""

    plane: dict[str, Any]
    figure: Markup
    left_out_count: int
    """Points that the figure has no place for."""
    changes: list[str]
    """For which robust accuracies are there, the smallest first."""
    is_bypassed: bool
    """Whether the plain attack never meets one of the defences."""


def write_suite_page(folder: Path) -> Path:
    """Turn a suite's `suite.json` and `suite-pictures.safetensors` into its `suite.html`.

    The same two files give the same bytes. The page appears under its name only when it is complete.

    Args:
        folder: with `suite.json`, and `suite-pictures.safetensors` where pictures are to be shown.

    Returns:
        The path of `suite.html`.

    Raises:
        SuiteInvalid: `suite.json` is missing or does not keep to its schema.
        EvidenceInvalid: the pictures do not fit the suite.
    """
    document = read_suite(folder / "suite.json")
    path = folder / "suite-pictures.safetensors"
    remedy = "gather again with `patchmi suite report`"
    pictures = read_evidence(path, remedy=remedy)[0] if path.exists() else {}
    page = folder / "suite.html"
    atomic_write(page, render_suite(document, pictures).encode())
    return page


def render_suite(document: Document, pictures: Mapping[str, np.ndarray] | None = None) -> str:
    """What a suite measured as one HTML page.

    Args:
        document: a document that keeps to `patchmi.suite/1`.
        pictures: uint8 arrays as `patchmi.report.suite_pictures` describes them; None for no pictures.

    Returns:
        The page; the same text for the same arguments.

    Raises:
        SuiteInvalid: the document does not keep to its schema.
        EvidenceInvalid: the pictures do not fit the suite.
    """
    validate_suite(document)
    pictures = pictures or {}
    check_pictures(document, pictures)
    parts = [_part(document, pictures, position) for position in range(len(document["targets"]))]
    shown = {column.name for part in parts for column in part.table.columns}
    return (
        templates()
        .get_template("suite.html.j2")
        .render(
            suite=document,
            parts=parts,
            planes=[_plane(plane, position) for position, plane in enumerate(document.get("planes", []))],
            curves=suite_figures.curves_of(document),
            measure=measure_of(document),
            known=_known_of(document),
            cell=_cell_of(document),
            row_name=row_name,
            others=_others,
            states=_states(document),
            meanings={name: meaning for name, meaning in COLUMN_MEANINGS.items() if name in shown},
            settings=_settings(document),
            has_private_pictures=any(name.endswith("/held_out") for name in pictures),
            style=style("style.css") + style("suite.css"),
            document=embedded(document),
        )
    )


def _part(document: Document, pictures: Mapping[str, np.ndarray], position: int) -> Part:
    target = document["targets"][position]
    name = target["name"]
    return Part(
        target=target,
        table=table_of(document, name),
        gallery=gallery_of(document, pictures, name),
        success=Markup(suite_figures.success_of_rows(document, name, name=f"success-{position}")),
        spread=Markup(suite_figures.coverage_over_success(document, name, name=f"spread-{position}")),
    )


def _plane(plane: dict[str, Any], position: int) -> PlanePart:
    points = plane["points"]
    changes = {change for point in points for change in point["robust_accuracy"]}
    return PlanePart(
        plane=plane,
        figure=Markup(utility_leakage_plane(plane, name=f"plane-{position}")),
        left_out_count=sum(
            point["accuracy"] is None or leakage_shown(point, plane) is None for point in points
        ),
        changes=sorted(changes, key=float),
        is_bypassed=any(point["leakage"].get(plane["plain_attack"]) == "bypassed" for point in points),
    )


def _known_of(document: Document) -> Callable[..., Markup]:
    """A function for the template that prints a number of a plane's point; a dash where there is none."""
    measure = measure_of(document)

    def known(point: tuple[str | int, ...], *path: str) -> Markup:
        value: Any = document
        for step in point:
            value = value[step]
        for step in path:
            value = None if value is None else value.get(step)
        if value is None or value == "bypassed":
            return Markup('<span class="none">{}</span>').format(value or "–")
        # Defences compete in the third decimal of accuracy.
        return measure(*point, *path, decimals=3 if "accuracy" in path[0] else 2)

    return known


def _cell_of(document: Document) -> Callable[[Table, Line, Column], Markup]:
    """A function for the template that prints a cell of a table, and where its number comes from."""

    def cell(table: Table, line: Line, column: Column) -> Markup:
        path, value = path_of(document, line, column.name), value_at(document, line, column.name)
        if path is None or value is None:
            return Markup('<span class="none">–</span>')
        start = Markup('<span class="measure" data-path="{}">').format(pointer(path))
        if not isinstance(value, dict):
            text = numbers.duration(value) if column.name == "seconds" else numbers.number(value)
            return start + Markup("<b>{}</b></span>").format(text)
        count = "" if column.name in table.shared_n else f"n = {numbers.number(value['n'])}"
        mark = _CLEAR if line == Line("rows", table.clear.get(column.name, -1)) else ""
        return start + Markup(
            '<b>{}</b>{} <span class="uncertainty">{}</span> <span class="uncertainty">{}</span></span>'
        ).format(numbers.number(float(value["value"])), mark, numbers.interval(value), count)

    return cell


def _others(entry: dict[str, Any], table: Table) -> str:
    """Published scores that have no column of their own, as text."""
    columns = {column.name for column in table.columns}
    left = {name: value for name, value in entry["scores"].items() if name not in columns}
    return ", ".join(f"{SCORE_MEANINGS[name][0]} {numbers.number(value)}" for name, value in left.items())


def _states(document: Document) -> dict[str, int]:
    states = [row["state"] for row in document["rows"]]
    return {state: states.count(state) for state in ("done", "failed", "missing")}


def _settings(document: Document) -> list[tuple[str, list[str], dict[str, Any]]]:
    """(attack, targets, settings), once where an attack has the same settings on several targets."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in document["rows"]:
        targets = found.setdefault((row["attack"], json.dumps(row["settings"])), [])
        if row["target"] not in targets:
            targets.append(row["target"])
    return [(attack, targets, json.loads(settings)) for (attack, settings), targets in found.items()]
