"""`result.json` and its pictures as one HTML page that needs no network and no script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from patchmi.report import figures, numbers, wording
from patchmi.report.evidence import check_evidence, read_evidence, strips, time_line
from patchmi.report.junit import junit_bytes
from patchmi.report.outcomes import best_control
from patchmi.report.page import embedded, measure_of, style, templates
from patchmi.report.result import Result, read_result, validate_result
from patchmi.report.sarif import sarif_bytes
from patchmi.runs import atomic_write

FIRM_SEED_COUNT = 3
"""Seeds below which a verdict is called provisional."""


def write_report(run_folder: Path) -> Path:
    """Turn a run folder's `result.json` and `evidence.safetensors` into its `report.html`.

    Beside it, for machines, `report.sarif` and `junit.xml`. The same two files give the same bytes. Each file
    appears under its name only when it is complete, the page last.

    Args:
        run_folder: a folder with `result.json`, and `evidence.safetensors` where pictures are to be shown.

    Returns:
        The path of `report.html`.

    Raises:
        ResultInvalid: `result.json` is missing or does not keep to its schema.
        EvidenceInvalid: the pictures do not fit the result.
    """
    result = read_result(run_folder / "result.json")
    evidence_path = run_folder / "evidence.safetensors"
    evidence, metadata = read_evidence(evidence_path) if evidence_path.exists() else (None, {})
    page = render_report(result, evidence, metadata=metadata).encode()
    atomic_write(run_folder / "report.sarif", sarif_bytes(result))
    atomic_write(run_folder / "junit.xml", junit_bytes(result))
    path = run_folder / "report.html"
    atomic_write(path, page)
    return path


def render_report(
    result: Result,
    evidence: Mapping[str, np.ndarray] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """The report as one HTML page.

    Args:
        result: a document that keeps to `patchmi.result/1`.
        evidence: uint8 arrays as `patchmi.report.evidence` describes them; None for no pictures.
        metadata: `ranks` and `history_steps` of the arrays, as JSON texts.

    Returns:
        The page; the same text for the same arguments.

    Raises:
        ResultInvalid: the document does not keep to its schema.
        EvidenceInvalid: the pictures do not fit the result.
    """
    validate_result(result)
    arrays, metadata = evidence or {}, metadata or {}
    check_evidence(result, arrays, metadata)
    page = templates().get_template("template.html.j2")
    return page.render(
        **{part: getattr(wording, part) for part in dir(wording) if part.isupper()},
        result=result,
        measure=measure_of(result),
        style=style("style.css"),
        charts={
            "ladder": Markup(figures.control_ladder(result)),
            "forest": Markup(figures.class_forest(result)),
            "steps": Markup(figures.success_over_steps(result)),
            "ratio": Markup(figures.nearest_ratios(result)),
        },
        strips=strips(result, arrays, metadata),
        time_line=time_line(arrays, metadata),
        has_private_pictures="held_out" in arrays,
        tile=_tile_width(result["target"]["image_shape"]),
        firm_seed_count=FIRM_SEED_COUNT,
        best_control=best_control(result["controls"]),
        reached=_reached(result["classes"]),
        lowest=_lowest(result["classes"]),
        ratio_reading=_ratio_reading(result["neighbours_ratio"]),
        document=embedded(result),
    )


def _reached(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """How many classes the verdict counts as exposed; without its word, those that most pictures show."""
    if all("exposed" in entry for entry in classes):
        return {"count": sum(entry["exposed"] for entry in classes), "by_verdict": True}
    shown = [numbers.point(entry["consensus_top1"]) for entry in classes]
    return {"count": sum(value is not None and value > 0.5 for value in shown), "by_verdict": False}


def _lowest(classes: list[dict[str, Any]]) -> int | None:
    """Where the class with the lowest judge top-1 stands; None where all are equal, or none was judged."""
    success = [(one["value"], one["low"]) for entry in classes if (one := entry["judge_top1"])]
    return success.index(min(success)) if len({value for value, _ in success}) > 1 else None


def _ratio_reading(ratio: dict[str, Any] | None) -> str:
    """What the overall nearest-neighbour ratio allows to say."""
    if ratio is None:
        return "The ratio was not computed, so this report says nothing about single images."
    if ratio["high"] < 1:
        return (
            "The whole interval lies below 1: the reconstructions are nearer to the images the target was "
            "trained on "
            "than to others of the same kind. The target gave away more than the look of its classes."
        )
    if ratio["low"] > 1:
        return (
            "The whole interval lies above 1: the reconstructions are no nearer to the training images than "
            "to others "
            "of the same kind. This is evidence about classes, not about single images."
        )
    return (
        "The interval holds 1: the reconstructions are about as near to held-out images as to the training "
        "images. "
        "This is evidence about classes, not about single images."
    )


def _tile_width(image_shape: list[int]) -> int:
    """CSS pixels of one picture: a whole multiple of small images, so that their pixels stay even."""
    width = image_shape[2]
    return width * max(1, 64 // width) if width <= 96 else 96
