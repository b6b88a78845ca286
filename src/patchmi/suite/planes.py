"""What defences cost and whether they hold: accuracy against the strongest attack's success, as one document.

Every network that was trained with one defence at one strength, and every attack on it, is a point. The
undefended network and those that were stopped early are the line that a defence must get below.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmi.defences import DEFENCES, AbstractDefence, OutputDefence, is_bypassed
from patchmi.metrics import Estimate, cluster_interval, maximum_interval
from patchmi.suite.cells import ANSWERED
from patchmi.suite.jobs import cell_folder, is_done, read_json, target_of
from patchmi.suite.plane_words import Compared, bench_power, conclusion
from patchmi.suite.tables import Suite, SuiteTarget
from patchmi.suite.targets import ABOUT

REFERENCE = ("none", "early-stopping")
"""Defences that are none: the line that others are compared with."""
Rows = Mapping[tuple[str, str, str, str], dict[str, Any]]
"""What is known of a row, by target, attack, public set and defence."""


def planes_of(folder: Path, suite: Suite, rows: Rows) -> list[dict[str, Any]]:
    """A plane for each kind of target and each public set; none where nothing is defended.

    Args:
        folder: The suite's.
        suite: What was read.
        rows: As `gather` describes them.
    """
    if len(suite.defences) < 2:
        return []
    groups: dict[SuiteTarget, list[str]] = defaultdict(list)
    for name, target in suite.targets.items():
        groups[replace(target, seed=0)].append(name)
    sets = dict.fromkeys(parts[2] for parts in suite.rows())
    return [
        _plane(folder, suite, rows, names, public, is_one_of_many=len(sets) > 1)
        for names in groups.values()
        for public in sets
    ]


def _plane(
    folder: Path, suite: Suite, rows: Rows, names: list[str], public: str, *, is_one_of_many: bool
) -> dict[str, Any]:
    attacks = list(dict.fromkeys(parts[1] for parts in suite.rows() if parts[2] == public))
    points = []
    for entry in suite.defences:
        own = {
            attack: [rows[name, attack, public, entry] for name in names]
            for attack in attacks
            if (names[0], attack, public, entry) in rows
        }
        points.append(_measured(folder, suite, names, entry, own))
    line = sorted(
        (point.accuracy.value, point.strongest[1].value)
        for point in points
        if point.defence in REFERENCE and point.accuracy and point.strongest
    )
    compared = [point.compared(_leakage_of_line(line, point.accuracy)) for point in points]
    power = bench_power(compared, _best_control(rows[key] for key in rows if key[0] in names))
    title = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    return {
        "title": f"{title}, {public}" if is_one_of_many else title,
        "plain_attack": attacks[0],
        "attacks": attacks,
        "points": [
            {
                **point.described(),
                "leakage": point.leakage(attacks, suite),
                "early_stopped_leakage": one.early_stopped_leakage,
            }
            for point, one in zip(points, compared, strict=True)
        ],
        "power": asdict(power),
        "sentence": conclusion(compared, power),
    }


@dataclass(frozen=True)
class _Measured:
    """One defence at one strength: its networks, and how the attacks fared against them.

    Args:
        defence: Its name.
        made: The defence.
        about: What the cell of each network that is there says of it.
        rows: By attack, those of all networks.
        rates: By attack that is done on all networks: judge top-1 of each network and class.
        adaptive: What the attacks that are done are meant to get past.
        cost: Seconds of its training, in those of the same network without a defence.
    """

    defence: str
    made: AbstractDefence
    about: list[dict[str, Any]]
    rows: dict[str, list[dict[str, Any]]]
    rates: dict[str, Tensor]
    adaptive: list[str]
    cost: float | None

    @property
    def name(self) -> str:
        """Defence and strength, `mid 0.01`."""
        return self.defence if self.made.strength == 0 else f"{self.defence} {self.made.strength:g}"

    @property
    def accuracy(self) -> Estimate | None:
        """Of its networks, on held-out images."""
        known = [one["class_accuracy"] for one in self.about if one["class_accuracy"]]
        return _interval_of(known) if known else None

    @property
    def strongest(self) -> tuple[str, Estimate] | None:
        """The attack that got most, and the interval of the most that any of them got."""
        if not self.rates:
            return None
        place, estimate = maximum_interval(torch.stack([*self.rates.values()]))
        return [*self.rates][place], estimate

    @property
    def wanted(self) -> list[str]:
        """Kinds of attacks that are meant to get past it."""
        return list(DEFENCES[self.defence].adaptive)

    @property
    def is_adaptively_tested(self) -> bool:
        """Whether one of these was run; true where there is nothing to get past."""
        return not self.wanted or any(kind in self.adaptive for kind in self.wanted)

    def compared(self, early_stopped_leakage: float | None) -> Compared:
        """What a conclusion needs of it."""
        best = self.strongest
        return Compared(
            self.name,
            self.defence,
            self.accuracy,
            None if best is None else best[1],
            None if best is None else self.rates[best[0]],
            early_stopped_leakage,
            self.is_adaptively_tested,
        )

    def leakage(self, attacks: list[str], suite: Suite) -> dict[str, Any]:
        """By attack: judge top-1, None before it is done, or that it never meets this defence."""
        found: dict[str, Any] = {
            attack: asdict(cluster_interval(self.rates[attack])) if attack in self.rates else None
            for attack in self.rows
        }
        for attack in attacks:
            if is_bypassed(self.made, suite.attacks[attack].grant().access):
                found[attack] = "bypassed"
        return found

    def described(self) -> dict[str, Any]:
        """As the document has it, but for what the other points decide."""
        all_rows = [row for own in self.rows.values() for row in own]
        best, accuracy = self.strongest, self.accuracy
        error = next((row["error"] for row in all_rows if row["error"]), None)
        return {
            "defence": self.defence,
            "strength": None if self.defence == "none" else self.made.strength,
            "name": self.name,
            "state": "failed" if error else _state_of({row["state"] for row in all_rows}),
            "error": error,
            "replicate_count": len(self.about),
            "accuracy": None if accuracy is None else asdict(accuracy),
            "strongest": None if best is None else {"attack": best[0], "leakage": asdict(best[1])},
            "robust_accuracy": self._robust_accuracy(),
            "cost": self.cost,
            "adaptive": {"wanted": self.wanted, "done": self.adaptive},
            "is_adaptively_tested": self.is_adaptively_tested,
            "notes": self._notes(),
        }

    def _robust_accuracy(self) -> dict[str, Any]:
        measured = [one["robust_accuracy"] for one in self.about if one.get("robust_accuracy")]
        radii = measured[0] if measured else {}
        return {radius: asdict(_interval_of([one[radius] for one in measured])) for radius in radii}

    def _notes(self) -> list[str]:
        """What the defence says of its first network."""
        training = self.about[0].get("training") if self.about else None
        return [] if training is None else list(training["notes"])


def _measured(
    folder: Path, suite: Suite, names: list[str], entry: str, rows: dict[str, list[dict[str, Any]]]
) -> _Measured:
    """What the cells of a defence hold by now."""
    listed = suite.defences[entry]
    made, trained = listed.made(), {}
    for place, name in enumerate(names):
        cell = target_of(suite, name, entry)
        if is_done(folder, suite, cell):
            trained[name] = read_json(cell_folder(folder, cell) / ABOUT)
            if isinstance(made, OutputDefence):
                trained[name]["class_accuracy"] = _answered([own[place] for own in rows.values()], folder)
    rates = {
        attack: _class_rates(folder, own)
        for attack, own in rows.items()
        if all(row["state"] == "done" for row in own)
    }
    kinds = [suite.attacks[attack].adaptive for attack in rates]
    return _Measured(
        listed.defence,
        made,
        list(trained.values()),
        rows,
        rates,
        [kind for kind in kinds if kind is not None],
        _cost(folder, suite, trained) if listed.changes_training() else 1.0,
    )


def _state_of(states: set[str]) -> str:
    """Of a point, by those of its rows, none of which failed."""
    if states == {"done"}:
        return "done"
    return "partial" if "done" in states else "missing"


def _answered(rows: list[dict[str, Any]], folder: Path) -> list[float] | None:
    """Accuracy of a network's changed answers, of each class; None before a row is done."""
    done = next((row for row in rows if row["state"] == "done"), None)
    return None if done is None else read_json(folder / done["folder"] / ANSWERED)["class_accuracy"]


def _class_rates(folder: Path, rows: list[dict[str, Any]]) -> Tensor:
    """Judge top-1 of each network, and of each class."""
    results = [read_json(folder / row["folder"] / "result.json") for row in rows]
    return torch.tensor(
        [[one["judge_top1"]["value"] for one in result["classes"]] for result in results], dtype=torch.float64
    )


def _interval_of(rates: list[list[float]]) -> Estimate:
    """Of the mean over networks and classes."""
    return cluster_interval(torch.tensor(rates, dtype=torch.float64))


def _cost(folder: Path, suite: Suite, trained: dict[str, dict[str, Any]]) -> float | None:
    """Seconds of training, in those of the same network without a defence."""
    ratios = []
    for name, about in trained.items():
        cell = f"target/{name}"
        plain = read_json(cell_folder(folder, cell) / ABOUT) if is_done(folder, suite, cell) else {}
        if about.get("training") and plain.get("training"):
            ratios.append(about["training"]["seconds"] / plain["training"]["seconds"])
    return float(np.mean(ratios)) if ratios else None


def _leakage_of_line(line: list[tuple[float, float]], accuracy: Estimate | None) -> float | None:
    """What stopping early gives away at an accuracy, between its points; None below the lowest."""
    if accuracy is None or not line or accuracy.value < line[0][0]:
        return None
    accuracies, leakages = zip(*line, strict=True)
    return float(np.interp(accuracy.value, accuracies, leakages))


def _best_control(rows: Iterable[dict[str, Any]]) -> float:
    """The highest judge top-1 of images that cannot have come out of a target."""
    found = [
        arm["judge_top1"]["value"]
        for row in rows
        if row["state"] == "done"
        for name, arm in row["controls"].items()
        if arm and name != "held_out"
    ]
    return max(found, default=0.0)
