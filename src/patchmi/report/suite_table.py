"""Which lines, columns and marks the table of a target has in a suite's page."""

from dataclasses import dataclass
from typing import Any, Literal

from patchmi.report.document import Document
from patchmi.report.wording import SCORE_MEANINGS


@dataclass(frozen=True)
class Column:
    """One column of numbers."""

    name: str
    """Of the score; `best_control`, `seconds` and `images` are no scores."""
    head: str
    group: str
    better: Literal["high", "low"] | None = None
    """Which end is the attack's success; None where neither is plainly so."""


COLUMNS = (
    Column("judge_top1", "Top-1", "What judges see", "high"),
    Column("best_control", "Best control", "What judges see"),
    Column("judge_top5", "Top-5", "What judges see", "high"),
    Column("confidence", "Confi\N{SOFT HYPHEN}dence", "What judges see", "high"),
    Column("worst_class_top1", "Lowest class", "What judges see", "high"),
    Column("disjoint_top1", "Disjoint judge", "What judges see", "high"),
    Column("precision", "Preci\N{SOFT HYPHEN}sion", "Likeness to real images", "high"),
    Column("recall", "Recall", "Likeness to real images", "high"),
    Column("density", "Density", "Likeness to real images"),
    Column("coverage", "Cover\N{SOFT HYPHEN}age", "Likeness to real images", "high"),
    Column("frechet_distance", "Fréchet distance", "Likeness to real images", "low"),
    Column("student_accuracy", "Student", "Likeness to real images", "high"),
    Column("seconds", "Time", "Cost"),
    Column("images", "Images asked", "Cost"),
)
"""All columns of numbers, in their order; the verdict stands before them."""

COLUMN_MEANINGS = {
    "judge_top1": (
        "Judge top-1",
        "Share of reconstructions to which a judge gives the class the attack aimed at, averaged over the "
        "judges: classifiers that no attack ever saw.",
    ),
    "best_control": (
        "Best control",
        "Judge top-1 of the images that could not have come out of the target and that the judges accept "
        "most often. Only what lies above it is a leak.",
    ),
    "judge_top5": (
        "Judge top-5",
        "As judge top-1, but it is enough that the class is among a judge's first five. Of use with many "
        "classes only.",
    ),
    "confidence": SCORE_MEANINGS["confidence"],
    "worst_class_top1": SCORE_MEANINGS["worst_class_top1"],
    "disjoint_top1": (
        "Disjoint judge",
        "Top-1 of one more judge, trained on private images that neither the target nor the other judges "
        "saw. Far below top-1: the pictures please what was trained on the same images.",
    ),
    **{
        name: SCORE_MEANINGS[name]
        for name in ("precision", "recall", "density", "coverage", "frechet_distance", "student_accuracy")
    },
    "seconds": ("Time", "Of the attack on the machine named below, all seeds together."),
    "images": ("Images asked", "Images that went through the target, all seeds together."),
}
"""Column → (its name, what it says)."""


@dataclass(frozen=True)
class Line:
    """One line of a table: what was run here, or what somebody published."""

    kind: Literal["rows", "published"]
    position: int
    """Where it stands in that list of the document."""


@dataclass(frozen=True)
class Table:
    """The table of one target."""

    lines: list[Line]
    columns: list[Column]
    shared_n: dict[str, int]
    """The n of a column where all rows have the same; it stands in the head then."""
    clear: dict[str, int]
    """Column → the row whose interval is better than those of all others; absent where none is."""


def table_of(document: Document, target: str) -> Table:
    """The table of a target; columns without any number are left out.

    Args:
        document: a valid suite.
        target: the target's name.
    """
    lines = lines_of(document, target)
    columns = [
        column
        for column in COLUMNS
        if any(value_at(document, line, column.name) is not None for line in lines)
    ]
    measured = {
        column.name: {
            line.position: value
            for line in lines
            if line.kind == "rows" and isinstance(value := value_at(document, line, column.name), dict)
        }
        for column in columns
    }
    counts = {name: {value["n"] for value in values.values()} for name, values in measured.items()}
    clear = {column.name: _clear_row(measured[column.name], column.better) for column in columns}
    return Table(
        lines=lines,
        columns=columns,
        shared_n={name: own.pop() for name, own in counts.items() if len(own) == 1},
        clear={name: row for name, row in clear.items() if row is not None},
    )


def lines_of(document: Document, target: str) -> list[Line]:
    """Rows grouped by attack, in the attacks' own order; published numbers right under what they meet.

    Numbers published with a public set of the suite stand under its row, others under the attack's last row,
    and those of an attack that has no row at the end.
    """
    rows = _of_target(document, "rows", target)
    published = _of_target(document, "published", target)
    lines = []
    for attack in dict.fromkeys(entry["attack"] for _, entry in [*rows, *published]):
        own = [(position, row) for position, row in rows if row["attack"] == attack]
        waiting = [(position, entry) for position, entry in published if entry["attack"] == attack]
        for place, (position, row) in enumerate(own):
            lines.append(Line("rows", position))
            if row["public"] not in {later["public"] for _, later in own[place + 1 :]}:
                met = [entry for entry in waiting if entry[1]["public"] == row["public"]]
                lines += [Line("published", position) for position, _ in met]
                waiting = [entry for entry in waiting if entry not in met]
        lines += [Line("published", position) for position, _ in waiting]
    return lines


def value_at(document: Document, line: Line, column: str) -> Any:
    """What stands in a cell: `{value, low, high, n}`, a bare number, or None."""
    value: Any = document
    for step in path_of(document, line, column) or ():
        value = value[step]
    return None if value is document else value


def path_of(document: Document, line: Line, column: str) -> tuple[str | int, ...] | None:
    """Where the number of a cell stands in the document; None where there is none."""
    entry = document[line.kind][line.position]
    if line.kind == "published":
        inside = ("scores", column) if column in entry["scores"] else None
    elif entry["state"] != "done":
        inside = None
    elif column == "best_control":
        arm = _best_control(entry["controls"])
        inside = ("controls", arm, "judge_top1") if arm else None
    elif column == "images":
        inside = ("queries", "images")
    else:
        inside = (column,) if column == "seconds" else ("scores", column)
    return inside and (line.kind, line.position, *inside)


def row_name(row: dict[str, Any]) -> str:
    """What tells the row from others of its attack: public images, and the defence where there is one."""
    public = row["public"] if row.get("uses_public", True) else "no public images"
    return public if row["defence"] == "none" else f"{public}, {row['defence']}"


def _of_target(document: Document, part: str, target: str) -> list[tuple[int, dict[str, Any]]]:
    return [(position, entry) for position, entry in enumerate(document[part]) if entry["target"] == target]


def _best_control(controls: dict[str, Any]) -> str | None:
    """The control, the ceiling aside, with the highest judge top-1: what the column beside top-1 needs."""
    known = {name: arm["judge_top1"]["value"] for name, arm in controls.items() if arm and name != "held_out"}
    return max(known, key=lambda name: known[name]) if known else None


def _clear_row(values: dict[int, dict[str, Any]], better: str | None) -> int | None:
    """The row whose interval lies beyond all others, among two or more."""
    if better is None or len(values) < 2:
        return None
    near, far, sign = ("low", "high", 1) if better == "high" else ("high", "low", -1)
    best = max(values, key=lambda row: sign * values[row]["value"])
    others = [sign * value[far] for row, value in values.items() if row != best]
    return best if sign * values[best][near] > max(others) else None
