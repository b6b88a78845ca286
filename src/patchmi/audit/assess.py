"""What judges, features and students say of an attack's pictures and of the controls, as a result has it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from patchmi import verdict
from patchmi.audit import controls, document
from patchmi.audit.plan import Judge, Private, check_votes
from patchmi.audit.questions import HELD_OUT, RECONSTRUCTED, Questions
from patchmi.audit.scores import (
    SCORES,
    Arm,
    JudgedArm,
    Rates,
    arm_scores,
    attack_scores,
    class_scores,
    confidence_floors,
    find_extractor,
    judge_arm,
    measure_fidelity,
    measure_students,
    nearest_ratio_interval,
    unselected_scores,
)
from patchmi.metrics import Estimate, cluster_interval, judge_agreement, lowest_agreement, top_k_hits
from patchmi.types import Progress

CONTROLS = ("random", "untrained_attack", "public_selected", "held_out", "permuted_labels")
"""The contract's controls, in the order in which a result holds them."""


@dataclass(frozen=True)
class Assessment:
    """Every number of a result, and what the verdict asks about."""

    judged: dict[str, JudgedArm]
    """The arms that were judged; empty without judges."""
    evidence: verdict.Evidence | None
    """None without judges."""
    target_accuracy: Estimate | None
    """The target's on held-out images."""
    numbers: dict[str, Any]
    """The parts of a result that are named as here."""


def assess(
    arms: dict[str, Arm],
    *,
    judges: list[Judge],
    private: Private | None,
    questions: Questions | None,
    class_names: tuple[str, ...],
    rule: verdict.Rule,
    neighbours: int,
    progress: Progress,
) -> Assessment:
    """Judge the arms.

    Args:
        arms: `attack`, the controls that were run, and `unselected` where the attack chose its pictures.
        judges: None or more; none gives target-only numbers.
        private: Real images; None leaves out what compares with them.
        questions: To the target, for its own opinion; None leaves that out.
        class_names: One a class.
        rule: Thresholds of the verdict.
        neighbours: k of precision, recall, density and coverage.
        progress: How to show how far each stage is.

    Raises:
        ValueError: There are judges, but fewer than the rule wants votes.
    """
    check_votes(judges, rule)
    judged = judge_arms(arms, judges, private=private, rule=rule) if judges else {}
    attacked = judged.get("attack")
    extractor = find_extractor(judges, arms["attack"].images)
    fidelity = None
    if private is not None and extractor is not None and attacked is not None:
        fidelity = measure_fidelity(attacked, private, extractor, neighbours=neighbours)
    students = None if private is None else measure_students(arms["attack"], private, progress=progress)
    target_rates = (
        None if questions is None else _target_rates(questions, arms["attack"], stage=RECONSTRUCTED)
    )
    evidence = gather_rates(judged) if judged else None
    scores = attack_scores(attacked, target_rates, fidelity, students)
    exposed = None if evidence is None else verdict.exposed_classes(evidence, margin=rule.margin).tolist()
    image_count = len(arms["attack"].labels) // len(class_names)
    ratio = None if fidelity is None else nearest_ratio_interval(fidelity.nearest_ratio)
    numbers = {
        "judges": _describe_judges(judges, judged),
        "agreement": {
            "judges": [judge.name for judge in judges],
            "kappa": [] if attacked is None else _agreement(attacked),
        },
        "extractor": f"penultimate features of the judge {extractor.name}" if extractor else "no judge",
        "neighbours": neighbours,
        "scores": plain(scores),
        **({"unselected": plain(unselected_scores(judged["unselected"]))} if "unselected" in judged else {}),
        "controls": {name: plain(arm_scores(judged[name])) if name in judged else None for name in CONTROLS},
        "judge_scores": [
            {"judge": judge.name, "arm": name, "top1": asdict(cluster_interval(top1))}
            for name, one in judged.items()
            for judge, top1 in zip(judges, one.top_k(), strict=True)
        ],
        "classes": [
            {
                "label": label,
                "name": name,
                **plain(class_scores(attacked, target_rates, fidelity, label=label, image_count=image_count)),
                **({} if exposed is None else {"exposed": exposed[label]}),
            }
            for label, name in enumerate(class_names)
        ],
        "neighbours_ratio": None if ratio is None else asdict(ratio),
        "notes": _why_missing(scores, judged),
    }
    return Assessment(judged, evidence, _accuracy(questions, private), numbers)


def judge_arms(
    arms: dict[str, Arm], judges: list[Judge], *, private: Private | None, rule: verdict.Rule
) -> dict[str, JudgedArm]:
    """Every arm judged, with permuted labels and, where there are private images, held-out ones beside them.

    A vote counts if the judge is at least as sure as it is of 95 % of the held-out images.
    """
    arms = {**arms, "permuted_labels": controls.permuted_arm(arms["attack"])}
    needed = rule.votes_needed
    floors = None
    if private is not None:
        arms["held_out"] = controls.held_out_arm(private)
        floors = confidence_floors(judge_arm(arms["held_out"], judges, votes_needed=needed))
    return {name: judge_arm(arm, judges, votes_needed=needed, floors=floors) for name, arm in arms.items()}


def gather_rates(judged: dict[str, JudgedArm]) -> verdict.Evidence:
    """What the verdict's rule asks about."""
    predictions = judged["attack"].logits.argmax(dim=2)
    judge_count = len(predictions)
    return verdict.Evidence(
        attack=judged["attack"].consensus(),
        controls={name: judged[name].consensus() for name in verdict.CONTROLS if name in judged},
        held_out=judged["held_out"].consensus().mean(dim=0) if "held_out" in judged else None,
        judge_kappa=lowest_agreement(predictions) if judge_count > 1 else float("nan"),
        judge_count=judge_count,
        positive_control_exposed=None,
    )


def plain(scores: Mapping[str, Estimate | float | None]) -> dict[str, Any]:
    """Scores as JSON."""
    return {name: asdict(score) if isinstance(score, Estimate) else score for name, score in scores.items()}


def _agreement(attacked: JudgedArm) -> list[list[float | None]]:
    """Cohen's kappa of each pair of judges; None where both give every picture the same one class."""
    kappa = judge_agreement(attacked.logits.argmax(dim=2)).tolist()
    return [[value if math.isfinite(value) else None for value in row] for row in kappa]


def _target_rates(questions: Questions, arm: Arm, *, stage: str) -> Rates:
    """Share of an arm's images that the target takes for their class."""
    logits = questions.answers(arm.images, stage=stage)
    return arm.rates(top_k_hits(logits, arm.labels), logits.shape[1])


def _accuracy(questions: Questions | None, private: Private | None) -> Estimate | None:
    """The target's on held-out images; None where there are none, or where it must not see them."""
    if questions is None or private is None or not questions.target.sees_private:
        return None
    return cluster_interval(_target_rates(questions, controls.held_out_arm(private), stage=HELD_OUT))


def _describe_judges(judges: list[Judge], judged: dict[str, JudgedArm]) -> list[dict[str, Any]]:
    held_out = judged.get("held_out")
    accuracies = [None] * len(judges) if held_out is None else map(cluster_interval, held_out.top_k())
    return [
        document.describe_judge(judge, accuracy) for judge, accuracy in zip(judges, accuracies, strict=True)
    ]


def _why_missing(scores: Mapping[str, Estimate | None], judged: dict[str, JudgedArm]) -> list[str]:
    """A sentence for what is null in the result."""
    missing = [name.replace("_", " ") for name in SCORES if scores[name] is None]
    controls_missing = [name.replace("_", " ") for name in CONTROLS if name not in judged]
    notes = []
    if missing:
        notes.append(
            f"Not computed for want of judges, of private images or of the target: {', '.join(missing)}."
        )
    if controls_missing:
        notes.append(f"Controls that no judge saw: {', '.join(controls_missing)}.")
    return notes
