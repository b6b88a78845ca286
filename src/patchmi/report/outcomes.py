"""What a result comes to, as a whole and class by class, for reports that machines read."""

from typing import Any, Literal, NamedTuple

from patchmi.report.numbers import estimate
from patchmi.report.result import Result
from patchmi.report.wording import ARM_NAMES

Outcome = Literal["exposed", "not demonstrated", "open"]


class Finding(NamedTuple):
    """An outcome and the sentence that explains it."""

    outcome: Outcome
    sentence: str


def verdict_finding(result: Result) -> Finding:
    """The verdict's."""
    outcomes: dict[str, Outcome] = {"EXPOSED": "exposed", "NOT DEMONSTRATED": "not demonstrated"}
    verdict = result["verdict"]
    return Finding(outcomes.get(verdict["word"], "open"), f"{verdict['word']}: {verdict['sentence']}")


def class_finding(entry: dict[str, Any], result: Result) -> Finding:
    """That of a class: an audit that decides nothing as a whole decides nothing about any class.

    Args:
        entry: One of the result's `classes`.
        result: A valid result.
    """
    is_open = result["verdict"]["word"] == "INCONCLUSIVE" or "exposed" not in entry
    stands_out = entry.get("exposed", False)
    outcome: Outcome = "open" if is_open else "exposed" if stands_out else "not demonstrated"
    said = {
        "exposed": "is exposed",
        "not demonstrated": "did not stand out from its controls",
        "open": (
            "stood out from its controls in a run that decides nothing" if stands_out else "is not decided"
        ),
    }[outcome]
    return Finding(
        outcome, f"Class {entry['name']} (label {entry['label']}) {said}: {_numbers(entry, result)}."
    )


def best_control(controls: dict[str, Any]) -> str | None:
    """The name of the control, the ceiling aside, that the judges accept most often."""
    known = {
        name: arm["consensus_top1"]["value"] for name, arm in controls.items() if arm and name != "held_out"
    }
    return max(known, key=lambda name: known[name]) if known else None


def _numbers(entry: dict[str, Any], result: Result) -> str:
    """The rate of a class beside that of the best control."""
    control = best_control(result["controls"])
    if control is None:
        beside = "no control to compare with"
    else:
        rate = estimate(result["controls"][control]["consensus_top1"])
        beside = f"best control over all classes ({ARM_NAMES.get(control, control)}) {rate}"
    return f"consensus top-1 {estimate(entry['consensus_top1'])}; {beside}"
