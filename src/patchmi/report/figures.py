"""The charts of a report as inline SVG: same result, same bytes; text stays text; no outside reference."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from patchmi.report.charts import INK, RULE, SERIES, clipped, intervals, legend_above, rate_axis, svg
from patchmi.report.numbers import number, point
from patchmi.report.result import Result
from patchmi.report.wording import ARM_NAMES

_ROWS_NAMED = 40


def control_ladder(result: Result) -> str:
    """Success of each arm, judge by judge: dots with intervals, the ceiling on top, noise at the bottom.

    Args:
        result: a valid result.

    Returns:
        An `<svg>` element; empty without judge scores.
    """
    scores = result["judge_scores"]
    if not scores:
        return ""
    named = [arm for arm in ARM_NAMES if any(score["arm"] == arm for score in scores)]
    arms = named + sorted({score["arm"] for score in scores} - set(named))
    judges = list(dict.fromkeys(score["judge"] for score in scores))
    spread = 0.62 / max(1, len(judges) - 1)

    def draw(axes: Axes) -> None:
        lines = {}
        for column, judge in enumerate(judges):
            own = [score for score in scores if score["judge"] == judge]
            shift = (column - (len(judges) - 1) / 2) * spread
            rows = [arms.index(score["arm"]) + shift for score in own]
            lines[judge] = intervals(axes, rows, [score["top1"] for score in own], series=column)
        axes.set_yticks(range(len(arms)), [_wrapped(ARM_NAMES.get(arm, arm)) for arm in arms])
        axes.set_ylim(len(arms) - 0.45, -0.55)
        for boundary in range(1, len(arms)):
            axes.axhline(boundary - 0.5, color=RULE, linewidth=0.6)
        if "attack" in arms:
            place = arms.index("attack")
            axes.axhspan(place - 0.5, place + 0.5, color="#eef3f9", zorder=0)
        rate_axis(axes, "judge top-1: share of images given the class they stand for")
        legend_above(axes, lines, column_count=min(3, len(judges)))

    return svg("ladder", "Judge top-1 of each arm and judge, with intervals", 0.9 + 0.46 * len(arms), draw)


def class_forest(result: Result) -> str:
    """Judge top-1 of every class with its interval, sorted by the lower bound.

    Args:
        result: a valid result.

    Returns:
        An `<svg>` element; empty where no judge looked.
    """
    judged = [entry for entry in result["classes"] if entry["judge_top1"]]
    if not judged:
        return ""
    classes = sorted(judged, key=lambda entry: (-entry["judge_top1"]["low"], entry["label"]))
    named = len(classes) <= _ROWS_NAMED
    height = 0.7 + (0.2 if named else 0.045) * len(classes)

    def draw(axes: Axes) -> None:
        intervals(axes, range(len(classes)), [entry["judge_top1"] for entry in classes], series=0)
        axes.set_yticks(
            range(len(classes)),
            [clipped(entry["name"]) for entry in classes] if named else [""] * len(classes),
        )
        axes.set_ylim(len(classes) - 0.4, -0.6)
        rate_axis(axes, "judge top-1")

    return svg("forest", "Judge top-1 of each class, with intervals", min(height, 9.0), draw)


def success_over_steps(result: Result) -> str:
    """Judge top-1 while the attack ran: thin lines the seeds, thick ones their mean; the lowest class dashed.

    Along the steps, or, where the target only answers, along the images that were sent to it.

    Args:
        result: a valid result.

    Returns:
        An `<svg>` element; empty without history.
    """
    kinds = (
        ("judge_top1", "judge top-1, mean of classes", "-"),
        ("worst_class_top1", "lowest class", (0, (4, 2))),
    )
    history = [entry for entry in result["history"] if point(entry["judge_top1"]) is not None]
    if not history:
        return ""
    seeds = list(dict.fromkeys(entry["seed"] for entry in history))
    is_black_box = "black_box" in result["attack"]
    along = "queries" if is_black_box else "step"

    def draw(axes: Axes) -> None:
        lines = {}
        for series, (kind, label, dashes) in enumerate(kinds):
            by_step: dict[int, list[tuple[float, float]]] = {}
            for seed in seeds:
                own = [(e["step"], e[along], point(e[kind])) for e in history if e["seed"] == seed]
                known = sorted((step, float(x), float(value)) for step, x, value in own if value is not None)
                for step, x, value in known:
                    by_step.setdefault(step, []).append((x, value))
                if len(seeds) > 1:
                    axes.plot(
                        *_columns([(x, value) for _, x, value in known]),
                        color=SERIES[series],
                        linewidth=0.7,
                        alpha=0.55,
                        linestyle=dashes,
                    )
            # Seeds send other numbers of images by the same step: the mean of these, too.
            complete = sorted(
                (fmean(x for x, _ in all_), fmean(value for _, value in all_))
                for all_ in by_step.values()
                if len(all_) == len(seeds)
            )
            marker = "o" if len(complete) < 20 else None
            (lines[label],) = axes.plot(
                *_columns(complete),
                color=SERIES[series],
                linewidth=2.0,
                linestyle=dashes,
                marker=marker,
                markersize=3,
            )
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
        axes.xaxis.set_major_formatter(lambda value, _: number(round(value)))
        axes.grid(axis="y")
        axes.set_xlabel("images sent to the model" if is_black_box else "step of the attack")
        legend_above(axes, lines, column_count=2)

    return svg("steps", "Judge top-1 as the attack went on", 2.5, draw)


def nearest_ratios(result: Result) -> str:
    """The nearest-neighbour ratio ρ of the classes as dots, the overall one with its interval, a line at 1.

    Args:
        result: a valid result.

    Returns:
        An `<svg>` element; empty where no ratio was computed.
    """
    overall = result["neighbours_ratio"]
    ratios = [value for entry in result["classes"] if (value := point(entry["nearest_ratio"])) is not None]
    if overall is None and not ratios:
        return ""

    def draw(axes: Axes) -> None:
        axes.axvline(1, color=INK, linewidth=1)
        axes.plot(
            ratios,
            [1] * len(ratios),
            linestyle="none",
            marker="o",
            markersize=5,
            color=SERIES[0],
            alpha=0.55,
        )
        if overall is not None:
            intervals(axes, [0], [overall], series=1)
        ends = [1.0, *ratios, *([overall["low"], overall["high"]] if overall else [])]
        margin = max(0.05, 0.12 * (max(ends) - min(ends)))
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
        axes.set_yticks([0, 1], ["all classes", "each class"])
        axes.set_ylim(-0.6, 1.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: number(float(value)))
        axes.grid(axis="x")
        axes.set_xlabel("ρ: left of 1 = nearer to the training images")

    return svg("ratio", "Nearest-neighbour ratio of each class and overall", 1.35, draw)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [value for _, value in pairs]


def _wrapped(name: str) -> str:
    """An arm's name on two lines, broken near its middle."""
    words = name.split()
    if len(name) <= 18 or len(words) < 2:
        return name
    cut = min(range(1, len(words)), key=lambda at: abs(len(" ".join(words[:at])) - len(" ".join(words[at:]))))
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])
