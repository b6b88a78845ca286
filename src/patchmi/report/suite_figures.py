"""The charts of a suite's page as inline SVG: same document, same bytes."""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from patchmi.report.charts import (
    INK,
    MARKERS,
    MUTED,
    RULE,
    SERIES,
    clipped,
    heights_from_zero,
    intervals,
    legend_above,
    rate_axis,
    svg,
)
from patchmi.report.document import Document
from patchmi.report.suite_table import COLUMN_MEANINGS, Line, lines_of, row_name, value_at
from patchmi.report.wording import SCORE_MEANINGS

_LABEL_LENGTH = 24
_POINTS_BETWEEN = 4
_WIDE_RANGE = 20
_OFF_SCALE = ("frechet_distance",)
"""Scores that are no shares and have a chart of their own."""

_Point = tuple[int | float, dict[str, Any]]
"""(setting, what was measured there)."""


@dataclass(frozen=True)
class Curve:
    """Scores over one setting, on one target and with one public set."""

    title: str
    caption: str
    svg: str
    """Empty where there is too little to draw."""


def success_of_rows(document: Document, target: str, *, name: str) -> str:
    """Judge top-1 of every line of a target's table: intervals, controls as ticks, published hollow.

    Args:
        document: a valid suite.
        target: the target's name.
        name: what the chart's ids begin with.

    Returns:
        An `<svg>` element; empty where no row was judged.
    """
    lines = [
        line
        for line in lines_of(document, target)
        if line.kind == "rows" or value_at(document, line, "judge_top1") is not None
    ]
    values = [value_at(document, line, "judge_top1") for line in lines]
    if not any(isinstance(value, dict) for value in values):
        return ""
    controls = [value_at(document, line, "best_control") for line in lines]

    def draw(axes: Axes) -> None:
        places = [place for place, value in enumerate(values) if isinstance(value, dict)]
        legend = {"measured here": intervals(axes, places, [values[place] for place in places], series=0)}
        held = [place for place, control in enumerate(controls) if control]
        if held:
            (legend["best control"],) = axes.plot(
                [controls[place]["value"] for place in held], held,
                linestyle="none", marker="|", markersize=9, markeredgewidth=2, color=MUTED, clip_on=False,
            )  # fmt: skip
        said = [place for place, value in enumerate(values) if isinstance(value, int | float)]
        if said:
            (legend["published"],) = axes.plot(
                [values[place] for place in said], said,
                linestyle="none", marker="D", markersize=5,
                color="none", markeredgecolor=SERIES[1], clip_on=False,
            )  # fmt: skip
        for place, line in enumerate(lines):
            entry = document[line.kind][line.position]
            if entry.get("state", "done") != "done":
                axes.text(0, place, entry["state"], style="italic", color=MUTED, va="center")
            if (
                place
                and entry["attack"] != document[lines[place - 1].kind][lines[place - 1].position]["attack"]
            ):
                axes.axhline(place - 0.5, color=RULE, linewidth=0.6)
        _label_lines(axes, document, lines)
        axes.set_ylim(len(lines) - 0.45, -0.55)
        rate_axis(axes, "judge top-1: share of images given the class they stand for")
        legend_above(axes, legend, column_count=3)

    return svg(name, f"Judge top-1 of each row on {target}, with intervals", 0.9 + 0.36 * len(lines), draw)


def coverage_over_success(document: Document, target: str, *, name: str) -> str:
    """Coverage against judge top-1, one cross of intervals a row: colour the attack, shape the public set.

    Args:
        document: a valid suite.
        target: the target's name.
        name: what the chart's ids begin with.

    Returns:
        An `<svg>` element; empty with fewer than two rows that have both.
    """
    rows = [row for row in document["rows"] if row["target"] == target]
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    arms = list(dict.fromkeys(row_name(row) for row in rows))
    placed = [
        (row, row["scores"]["judge_top1"], row["scores"]["coverage"])
        for row in rows
        if row["state"] == "done" and row["scores"]["judge_top1"] and row["scores"]["coverage"]
    ]
    if len(placed) < 2:
        return ""
    column_count = 1 if max(len(_legend_name(row)) for row, _, _ in placed) > _LABEL_LENGTH else 2

    def draw(axes: Axes) -> None:
        marks = []
        for row, success, coverage in placed:
            attack = attacks.index(row["attack"])
            colour = SERIES[attack % len(SERIES)]
            # Beyond as many attacks as there are colours, shapes tell them apart too.
            marker = MARKERS[(arms.index(row_name(row)) + attack // len(SERIES) * len(arms)) % len(MARKERS)]
            axes.hlines(coverage["value"], success["low"], success["high"], color=colour, linewidth=1.2)
            axes.vlines(success["value"], coverage["low"], coverage["high"], color=colour, linewidth=1.2)
            marks += axes.plot(
                success["value"], coverage["value"], linestyle="none", marker=marker, markersize=6,
                color=colour, markeredgecolor="white", markeredgewidth=0.5, clip_on=False,
            )  # fmt: skip
        rate_axis(axes, "judge top-1")
        heights_from_zero(axes, [coverage for _, _, coverage in placed])
        axes.set_ylabel("coverage")
        axes.figure.legend(
            marks, [_legend_name(row) for row, _, _ in placed], loc="outside lower left", ncols=column_count,
            handletextpad=0.3, columnspacing=1.2, borderpad=0,
        )  # fmt: skip

    height = 2.75 + 0.17 * -(-len(placed) // column_count)
    return svg(name, f"Coverage against judge top-1 on {target}", height, draw)


def curves_of(document: Document) -> list[Curve]:
    """The curves that the suite asks for: one chart a target, a public set and a scale.

    Points without a result are left out, which the caption says.

    Args:
        document: a valid suite.
    """
    rows = {row["id"]: row for row in document["rows"]}
    drawn = []
    for position, curve in enumerate(document["curves"]):
        places = [(rows[dot["row"]]["target"], row_name(rows[dot["row"]])) for dot in curve["points"]]
        for place, where in enumerate(dict.fromkeys(places)):
            dots = [dot for dot, own in zip(curve["points"], places, strict=True) if own == where]
            name = f"curve-{position}-{place}"
            drawn += _curves(curve, [(dot["x"], rows[dot["row"]]) for dot in dots], name=name, where=where)
    return drawn


def _curves(curve: dict[str, Any], dots: list[_Point], *, name: str, where: tuple[str, str]) -> list[Curve]:
    """The charts of a curve in one place, or the words that there are too few points for one."""
    done = sorted(((x, row["scores"]) for x, row in dots if row["state"] == "done"), key=lambda dot: dot[0])
    absent = len(dots) - len(done)
    caption = f"{', '.join(where)}." + (f" {absent} of {len(dots)} points have no result." if absent else "")
    off_scale = [score for score in curve["scores"] if score in _OFF_SCALE]
    charts = []
    for scores in ([score for score in curve["scores"] if score not in _OFF_SCALE], off_scale):
        found = {score: [(x, value) for x, own in done if (value := own[score])] for score in scores}
        series = {score: points for score, points in found.items() if len(points) > 1}
        if series:
            chart = _curve(series, curve["along"], name=f"{name}-{len(charts)}", title=curve["title"])
            charts.append(Curve(curve["title"], caption, chart))
    return charts or [Curve(curve["title"], f"{caption} Too few points to draw.", "")]


def _curve(series: dict[str, list[_Point]], along: str, *, name: str, title: str) -> str:
    def draw(axes: Axes) -> None:
        legend = {}
        for place, (score, points) in enumerate(series.items()):
            colour = SERIES[place % len(SERIES)]
            # Side by side, since intervals at one setting would cover each other.
            shift = _POINTS_BETWEEN * (place - (len(series) - 1) / 2)
            beside = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
            ends = [x for x, _ in points], [v["low"] for _, v in points], [v["high"] for _, v in points]
            axes.vlines(*ends, color=colour, linewidth=1.2, transform=beside)
            (legend[_score_name(score)],) = axes.plot(
                ends[0], [v["value"] for _, v in points], color=colour, linewidth=1.6, transform=beside,
                marker=MARKERS[place % len(MARKERS)], markersize=5,
                markeredgecolor="white", markeredgewidth=0.5,
            )  # fmt: skip
        settings = sorted({x for points in series.values() for x, _ in points})
        low, high = settings[0], settings[-1]
        if low > 0 and high / low >= _WIDE_RANGE:
            axes.set_xscale("log")
            axes.set_xlim(low * (low / high) ** 0.06, high * (high / low) ** 0.06)
        else:
            margin = 0.06 * (high - low) or 1
            axes.set_xlim(low - margin, high + margin)
        if len(settings) <= 8:
            axes.set_xticks(settings, [f"{x:g}" for x in settings])
            axes.minorticks_off()
        heights_from_zero(axes, [value for points in series.values() for _, value in points])
        axes.set_xlabel(along)
        legend_above(axes, legend, column_count=3)

    return svg(name, f"{title}: {', '.join(map(_score_name, series))} over {along}", 2.5, draw)


def _legend_name(row: dict[str, Any]) -> str:
    return clipped(f"{row['attack']}, {row_name(row)}", length=2 * _LABEL_LENGTH)


def _score_name(score: str) -> str:
    return (COLUMN_MEANINGS.get(score) or SCORE_MEANINGS[score])[0]


def _label_lines(axes: Axes, document: Document, lines: list[Line]) -> None:
    """To the left of each line its attack, and in smaller type its public set or that it was published."""
    axes.set_yticks([])
    for place, line in enumerate(lines):
        entry = document[line.kind][line.position]
        beneath = "published" if line.kind == "published" else row_name(entry)
        for text, colour, size, shift in ((entry["attack"], INK, 8.5, -0.17), (beneath, MUTED, 7.5, 0.22)):
            axes.text(
                -0.02, place + shift, clipped(text, length=_LABEL_LENGTH), color=colour, fontsize=size,
                ha="right", va="center", transform=axes.get_yaxis_transform(),
            )  # fmt: skip
