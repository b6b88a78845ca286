"""What defences cost and what they leave to the attacks: one plane of accuracy and leakage as inline SVG."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from patchmi.report.charts import MUTED, SERIES, clipped, heights_from_zero, svg

REFERENCE = ("none", "early-stopping")
"""Plain training, whole and cut short: the line on which accuracy costs nothing but less training."""

_SHAPES = ("o", "s", "D", "P", "X", "p", "*", "v")
"""Of the defences: none that could be taken for the head of an arrow upwards."""
_ENLARGED = {"*": 1.5, "P": 1.25, "X": 1.15}
"""Thin shapes, which look smaller than they are."""
_SMALLEST, _LARGEST = 5.0, 8.0
_REFERENCE_COLOUR = "#c9d0d9"
_COLUMN_COUNT = 3
_WIDE_RANGE = 0.15
_STRETCH = 0.02
"""Accuracy lost, from which on a wide axis is more nearly logarithmic than even."""
_TICKS = ((0.2, 0.07), (0.1, 0.07), (0.05, 0.07), (0.01, 0.1), (0.005, 0.1))
"""Steps between labelled accuracies, the roundest first, and the share of the axis each label needs."""

_Placed = tuple[dict[str, Any], dict[str, Any], float]
"""(point, the leakage it is drawn at, size of its mark)."""


def utility_leakage_plane(plane: dict[str, Any], *, name: str) -> str:
    """Leakage to the strongest attack against accuracy: a cross of intervals for each defence and strength.

    A colour and shape is a defence, whose strengths are joined, larger marks for greater ones. Plain
    training, whole and stopped early, is the thick grey line. An arrow comes from what the plain attack got.
    A hollow mark was not adaptively tested. Points without an accuracy or a leakage are left out.

    Args:
        plane: one of a valid suite's `planes`.
        name: what the chart's ids begin with.

    Returns:
        An `<svg>` element; empty where no point has both numbers.
    """
    defences = {point["defence"]: [] for point in plane["points"]}
    for point in plane["points"]:
        defences[point["defence"]].append(point)
    placed = {defence: found for defence, points in defences.items() if (found := _placed(points, plane))}
    if not placed:
        return ""
    everything = [dot for dots in placed.values() for dot in dots]
    looks = _looks(list(defences))
    has_hollow = any(not point["is_adaptively_tested"] for point, _, _ in everything)

    def draw(axes: Axes) -> None:
        _accuracy_axis(axes, [point["accuracy"] for point, _, _ in everything])
        heights_from_zero(axes, [leakage for _, leakage, _ in everything])
        axes.set_ylabel("judge top-1 of the strongest attack")
        reference = sorted(
            (point["accuracy"]["value"], leakage["value"])
            for defence in REFERENCE
            for point, leakage, _ in placed.get(defence, [])
        )
        across, up = [x for x, _ in reference], [y for _, y in reference]
        axes.plot(across, up, color=_REFERENCE_COLOUR, linewidth=5, zorder=1)
        for defence, dots in placed.items():
            _draw_defence(
                axes, dots, plane["plain_attack"], *looks[defence], is_joined=defence not in REFERENCE
            )
        legend = {defence: _mark(*looks[defence]) for defence in placed}
        if has_hollow:
            legend["not adaptively tested"] = _mark(MUTED, "o", is_hollow=True)
        axes.figure.legend(
            list(legend.values()), [clipped(label, length=22) for label in legend],
            loc="outside lower left", ncols=_COLUMN_COUNT, handletextpad=0.3, columnspacing=1.2, borderpad=0,
        )  # fmt: skip

    height = 4.2 + 0.17 * -(-(len(placed) + has_hollow) // _COLUMN_COUNT)
    return svg(name, f"{plane['title']}: leakage against accuracy of each defence", height, draw)


def leakage_shown(point: dict[str, Any], plane: dict[str, Any]) -> dict[str, Any] | None:
    """What a point is drawn at: its strongest attack, or the plain one where no maximum was taken."""
    if point["strongest"] is not None:
        return point["strongest"]["leakage"]
    plain = point["leakage"].get(plane["plain_attack"])
    return plain if isinstance(plain, dict) else None


def _placed(points: list[dict[str, Any]], plane: dict[str, Any]) -> list[_Placed]:
    """A defence's points that have both numbers; sizes grow over all of its strengths, weakest first."""
    sizes = np.linspace(_SMALLEST, _LARGEST, len(points)) if len(points) > 1 else [5.5]
    return [
        (point, leakage, float(size))
        for point, size in zip(points, sizes, strict=True)
        if point["accuracy"] is not None and (leakage := leakage_shown(point, plane)) is not None
    ]


def _looks(defences: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each defence; where the colours begin anew the shapes go on differently."""
    others = [defence for defence in defences if defence not in REFERENCE]
    looks = {
        defence: (SERIES[place % len(SERIES)], _SHAPES[(place + place // len(SERIES)) % len(_SHAPES)])
        for place, defence in enumerate(others)
    }
    return looks | {"none": (MUTED, "*"), "early-stopping": (MUTED, "o")}


def _draw_defence(
    axes: Axes, dots: list[_Placed], plain_attack: str, colour: str, marker: str, *, is_joined: bool
) -> None:
    across = [point["accuracy"] for point, _, _ in dots]
    up = [leakage for _, leakage, _ in dots]
    middle_x, middle_y = [x["value"] for x in across], [y["value"] for y in up]
    axes.hlines(
        middle_y, [x["low"] for x in across], [x["high"] for x in across], color=colour, linewidth=0.7
    )
    axes.vlines(middle_x, [y["low"] for y in up], [y["high"] for y in up], color=colour, linewidth=0.7)
    if is_joined:
        axes.plot(middle_x, middle_y, color=colour, linewidth=0.8, alpha=0.5)
    for point, leakage, size in dots:
        x, y = point["accuracy"]["value"], leakage["value"]
        plain = point["leakage"].get(plain_attack)
        if isinstance(plain, dict) and plain["value"] != y:
            axes.annotate(
                "", (x, y), (x, plain["value"]),
                arrowprops={
                    "arrowstyle": "->,head_length=3,head_width=1.5", "mutation_scale": 1, "color": colour,
                    "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": size / 2 + 0.5,
                },
            )  # fmt: skip
        mark = _mark(colour, marker, size=size, is_hollow=not point["is_adaptively_tested"])
        mark.set_data([x], [y])
        axes.add_line(mark)


def _mark(colour: str, marker: str, *, size: float = 5.5, is_hollow: bool = False) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=marker, markersize=size * _ENLARGED.get(marker, 1.0),
        markerfacecolor="white" if is_hollow else colour, markeredgecolor=colour if is_hollow else "white",
        markeredgewidth=1.1 if is_hollow else 0.5, clip_on=False, zorder=3,
    )  # fmt: skip


def _accuracy_axis(axes: Axes, accuracies: list[dict[str, Any]]) -> None:
    """Accuracies from left to right; over a wide range the axis is stretched near the best of them."""
    best, least = (choose(value["value"] for value in accuracies) for choose in (max, min))
    if best - least > _WIDE_RANGE:
        place, accuracy = partial(_stretched, best=best), partial(_accuracy_at, best=best)
        axes.set_xscale("function", functions=(place, accuracy))
    else:
        place = accuracy = _even
    left = place(min(value["low"] for value in accuracies))
    right = place(max(value["high"] for value in accuracies))
    margin = 0.04 * (right - left) or 0.01
    limits = left - margin, right + margin
    if place is _even:
        regular = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*limits)
        ticks = [tick for tick in regular if max(0, limits[0]) <= tick <= min(1, limits[1])]
    else:
        ticks = _round_accuracies(place, limits)
    axes.set_xlim(*map(accuracy, limits))
    axes.set_xticks(ticks, [f"{tick:.3f}".removesuffix("0").removeprefix("0") for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x")
    axes.set_xlabel("accuracy on held-out images")


def _even(value: Any) -> Any:
    return value


def _stretched(accuracy: Any, *, best: float) -> Any:
    """Where accuracies, numbers or arrays, stand on an axis that has most room just below the best."""
    return -np.arcsinh((best - accuracy) / _STRETCH)


def _accuracy_at(place: Any, *, best: float) -> Any:
    """The inverse of `_stretched`."""
    return best + _STRETCH * np.sinh(place)


def _round_accuracies(place: Callable[[float], float], limits: tuple[float, float]) -> list[float]:
    """Round accuracies within the limits, the roundest first, as long as there is room between them."""
    taken: list[float] = []
    for step, share in _TICKS:
        room = share * (limits[1] - limits[0])
        for count in range(round(1 / step), -1, -1):
            tick = count * step
            within = limits[0] <= place(tick) <= limits[1]
            if within and all(abs(place(tick) - place(other)) >= room for other in taken):
                taken.append(tick)
    return sorted(taken)
