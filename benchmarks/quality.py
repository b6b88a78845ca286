"""How near `default` comes to the private images: the suites `suites/quality-*.toml`, three seeds each.

Their folders are kept in `runs/`, and what is there is not computed again: it takes hours on two cores.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.other_digits import write_other_digits
from patchmi.suite import run_suite

SUITES = ("mnist", "letters", "cifar10")
WANTED = {
    "mnist": {
        "judge_top1": 0.99,
        "worst_class_top1": 0.97,
        "recall": 0.5,
        "coverage": 0.5,
        "student_accuracy": 0.93,
        "disjoint_top1": 0.93,
    },
    "letters": {
        "judge_top1": 0.95,
        "worst_class_top1": 0.80,
        "recall": 0.35,
        "coverage": 0.35,
        "student_accuracy": 0.80,
    },
    "cifar10/tiny-imagenet": {
        "judge_top1": 0.97,
        "worst_class_top1": 0.90,
        "recall": 0.40,
        "coverage": 0.60,
        "student_accuracy": 0.45,
    },
    "cifar10/leaves": {
        "judge_top1": 0.95,
        "worst_class_top1": 0.85,
        "recall": 0.15,
        "coverage": 0.35,
        "student_accuracy": 0.35,
    },
}
"""What is asked of a target's rows, or of those with one public set."""
ROOT = Path(__file__).parent.parent


def measure(data: Path | None) -> dict[str, Any]:
    """Run what is missing of the suites, and gather their rows beside what is asked of them."""
    if data is None:
        raise ValueError("quality needs --data FOLDER with mnist, devanagari, latin-letters, cifar10, …")
    write_other_digits(ROOT / "runs" / "other-digits.safetensors")
    rows = []
    for name in SUITES:
        out = ROOT / "runs" / f"quality-{name}"
        if failed := run_suite(ROOT / "suites" / f"quality-{name}.toml", out, data=data):
            raise RuntimeError(f"{name}: {', '.join(failed)} failed; their logs are in {out}/logs")
        document = json.loads((out / "suite.json").read_text())
        rows += [_row(row) for row in document["rows"]]
    return {"rows": rows, "table": [_line(row) for row in rows]}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """One row of the table: its scores with their intervals, and what is asked of them."""
    wanted = WANTED.get(row["target"]) or WANTED[f"{row['target']}/{row['public']}"]
    return {
        **{name: row[name] for name in ("target", "public", "attack", "seconds")},
        "scores": {name: {**row["scores"][name], "wanted_at_least": limit} for name, limit in wanted.items()},
    }


def _line(row: dict[str, Any]) -> str:
    """One row as a line of a Markdown table."""
    scores = [
        f"{name} {one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}] ≥ {one['wanted_at_least']:.2f}"
        for name, one in row["scores"].items()
    ]
    name = f"{row['target']} from {row['public']}, {row['attack']}, {row['seconds']:.0f} s"
    return f"| {name} | {' | '.join(scores)} |"
