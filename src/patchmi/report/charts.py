"""Drawing charts as inline SVG, clean for a place inside an HTML page.

Drawn at phone width (372 points), so that the lettering stays readable there and is enlarged elsewhere.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from patchmi.report.numbers import number

INK, MUTED, RULE = "#1c2430", "#566170", "#d5dae1"
SERIES = ("#1d5a96", "#a8481c", "#2b7350", "#7a4a93", "#6b6413", "#9c2f5b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_WIDTH_INCHES = 372 / 72

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "patchmi",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


def svg(name: str, title: str, height_inches: float, draw: Callable[[Axes], None]) -> str:
    """Draw one chart and clean it for a place inside an HTML page.

    Args:
        name: what the chart's ids begin with; no two charts of a page share it.
        title: what stands for the chart where it cannot be seen.
        height_inches: height; the width is fixed.
        draw: draws into the axes it is given.

    Returns:
        An `<svg>` element.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        # The browser has its own fonts: a script that DejaVu lacks only makes the layout a guess.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        buffer = StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}" class="chart"', 1).strip()


def intervals(
    axes: Axes, rows: Sequence[int | float], values: Sequence[dict[str, Any]], *, series: int
) -> Line2D:
    """Dots at the values and bars from low to high, one row each; gives back the dots."""
    colour = SERIES[series % len(SERIES)]
    axes.hlines(rows, [v["low"] for v in values], [v["high"] for v in values], color=colour, linewidth=1.6)
    (dots,) = axes.plot(
        [v["value"] for v in values], rows, linestyle="none",
        marker=MARKERS[series % len(MARKERS)], markersize=5,
        color=colour, markeredgecolor="white", markeredgewidth=0.5, clip_on=False,
    )  # fmt: skip
    return dots


def rate_axis(axes: Axes, label: str) -> None:
    """From left to right the rates 0 to 1."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    axes.grid(axis="x")
    axes.set_xlabel(label)


def heights_from_zero(axes: Axes, values: Sequence[dict[str, Any]]) -> None:
    """A vertical axis from 0 that holds all intervals; the whole of 0 to 1 where they fill half of it."""
    top = max(value["high"] for value in values)
    axes.set_ylim(0, 1.03 if 0.5 < top <= 1 else 1.08 * top or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: number(float(value)))
    axes.grid(axis="y")


def legend_above(axes: Axes, lines: dict[str, Line2D], *, column_count: int) -> None:
    """Name the lines above the chart."""
    # Handed over by name: matplotlib leaves labels that begin with "_" out of a legend it gathers itself.
    axes.legend(
        list(lines.values()), list(lines), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
        ncols=column_count, handletextpad=0.3, columnspacing=1.2, borderpad=0,
    )  # fmt: skip


def clipped(name: str, *, length: int = 18) -> str:
    """A name of at most `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"
