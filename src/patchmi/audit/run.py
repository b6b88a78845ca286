"""The audit itself, from the attack to the report, in a run folder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from patchmi import report, verdict
from patchmi.audit import controls, document
from patchmi.audit.evidence import gather_evidence
from patchmi.audit.plan import Judge, Plan, Private
from patchmi.audit.scores import (
    Arm,
    JudgedArm,
    arm_scores,
    attack_scores,
    class_scores,
    confidence_floors,
    judge_arm,
    measure_fidelity,
    nearest_ratio_interval,
    snapshot_scores,
)
from patchmi.audit.stages import Attacked, attack_target, draw_without_target
from patchmi.metrics import Estimate, cluster_interval, judge_agreement, lowest_agreement, top_k_hits
from patchmi.runs import RunFolder, atomic_write
from patchmi.target import Target, answers
from patchmi.types import Progress, silent

RESULT, EVIDENCE = "result.json", "evidence.safetensors"


def audit(
    run: RunFolder,
    *,
    target: Target,
    target_digest: str,
    private: Private,
    judges: list[Judge],
    plan: Plan,
    progress: Progress = silent,
) -> Path:
    """Attack a target, judge what comes out beside the controls, and write result and report.

    Stages whose files are in the run folder are taken from there.

    Args:
        run: Where everything is kept.
        target: The classifier under attack.
        target_digest: SHA-256 of its file.
        private: Its training images, and held-out ones; no attack sees them.
        judges: At least one; the first one's features are compared. No attack sees them.
        plan: The attack, what it may use, and the rule of the verdict.
        progress: How to show how far each stage is.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigChanged: The folder's attack was run on another target.
        ValueError: There are fewer judges than the rule wants votes.
    """
    if len(judges) < plan.rule.votes_needed:
        raise ValueError(
            f"{verdict.counted(len(judges), 'judge')}, but a reconstruction needs the votes of "
            f"{plan.rule.votes_needed}: give more judges"
        )
    run.pin_inputs({"target": {"sha256": target_digest}})
    runs = attack_target(run, target, plan, progress=progress)
    untrained = draw_without_target(run, target, plan, progress=progress)
    arms = {
        "attack": _joined(runs),
        "random": controls.random_arm(target),
        "untrained_attack": _joined([untrained]),
        "public_selected": controls.public_selected_arm(target, plan),
        "held_out": controls.held_out_arm(private),
    }
    arms["permuted_labels"] = controls.permuted_arm(arms["attack"])
    votes_needed = plan.rule.votes_needed
    floors = confidence_floors(judge_arm(arms["held_out"], judges, votes_needed=votes_needed))
    judged = {
        name: judge_arm(arm, judges, votes_needed=votes_needed, floors=floors) for name, arm in arms.items()
    }
    fidelity = measure_fidelity(judged["attack"], private, judges[0], plan, progress=progress)
    target_hits = top_k_hits(answers(target, arms["attack"].images), arms["attack"].labels)
    evidence = _evidence(judged, judges)
    opinion = _decide(evidence, plan)

    arrays, metadata = gather_evidence(
        attacked=judged["attack"],
        first_run=runs[0],
        untrained=arms["untrained_attack"],
        noise=arms["random"],
        private=private,
        plan=plan,
    )
    run.write_tensors(EVIDENCE, arrays, metadata)
    held_out = judged["held_out"]
    target_accuracy = held_out.rates(top_k_hits(answers(target, held_out.arm.images), held_out.arm.labels))
    exposed = verdict.exposed_classes(evidence, margin=plan.rule.margin)
    result: dict[str, Any] = {
        **document.header(plan),
        "target": document.describe_target(target, target_digest, cluster_interval(target_accuracy)),
        "threat": document.describe_threat(plan, private),
        "attack": document.describe_attack(plan, runs),
        "judges": [
            document.describe_judge(judge, cluster_interval(top1))
            for judge, top1 in zip(judges, held_out.top_k(), strict=True)
        ],
        "agreement": {
            "judges": [judge.name for judge in judges],
            "kappa": judge_agreement(judged["attack"].logits.argmax(dim=2)).tolist(),
        },
        "extractor": f"penultimate features of the judge {judges[0].name}",
        "neighbours": plan.neighbours,
        "scores": _plain(attack_scores(judged["attack"], target_hits, fidelity)),
        "controls": {name: _plain(arm_scores(one)) for name, one in judged.items() if name != "attack"},
        "judge_scores": [
            {"judge": judge.name, "arm": name, "top1": asdict(cluster_interval(top1))}
            for name, one in judged.items()
            for judge, top1 in zip(judges, one.top_k(), strict=True)
        ],
        "classes": [
            {
                "label": label,
                "name": name,
                **_plain(class_scores(judged["attack"], target_hits, fidelity, label=label)),
                "exposed": bool(exposed[label]),
            }
            for label, name in enumerate(target.class_names)
        ],
        **_plain({"neighbours_ratio": nearest_ratio_interval(fidelity.nearest_ratio)}),
        "history": _history(runs, judges, target, plan),
        "verdict": {"word": opinion.word, "sentence": opinion.sentence, "reasons": list(opinion.reasons)},
        "not_tested": document.not_tested(),
        "artefacts": {name: run.digest(name) for name in _artefacts(run)},
    }
    atomic_write(run.path(RESULT), report.result_bytes(result))
    return report.write_report(run.folder)


def _joined(runs: list[Attacked]) -> Arm:
    """The reconstructions of all seeds, as they stand in their files."""
    made = [one.reconstructions for one in runs]
    return Arm(
        torch.cat([one.images for one in made]),
        torch.cat([one.labels for one in made]),
        torch.cat([one.seeds for one in made]),
    )


def _evidence(judged: dict[str, JudgedArm], judges: list[Judge]) -> verdict.Evidence:
    """What the verdict's rule asks about."""
    predictions = judged["attack"].logits.argmax(dim=2)
    return verdict.Evidence(
        attack=judged["attack"].consensus(),
        controls={name: judged[name].consensus() for name in verdict.CONTROLS},
        held_out=judged["held_out"].consensus().mean(dim=0),
        judge_kappa=lowest_agreement(predictions) if len(judges) > 1 else float("nan"),
        judge_count=len(judges),
        positive_control_exposed=None,
    )


def _decide(evidence: verdict.Evidence, plan: Plan) -> verdict.Verdict:
    circumstances = verdict.Circumstances(
        access="white-box",
        public=plan.public.description,
        attacks=(type(plan.attack).__name__,),
        budget=f"{verdict.counted(len(plan.seeds), 'seed')} on {evidence.attack.shape[1]} classes",
    )
    return verdict.decide(evidence, circumstances=circumstances, rule=plan.rule)


def _history(
    runs: list[Attacked], judges: list[Judge], target: Target, plan: Plan
) -> list[dict[str, float | int]]:
    return [
        {
            "seed": seed,
            "step": snapshot.step,
            "seconds": snapshot.seconds,
            **snapshot_scores(snapshot, judges, answers(target, snapshot.images)),
        }
        for seed, one in zip(plan.seeds, runs, strict=True)
        for snapshot in one.reconstructions.snapshots
    ]


def _artefacts(run: RunFolder) -> list[str]:
    """Every file of the run that its result stands on."""
    files = (path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.safetensors"))
    return sorted(name for name in files if not name.startswith("checkpoint/"))


def _plain(scores: Mapping[str, Estimate | float | None]) -> dict[str, Any]:
    return {name: asdict(score) if isinstance(score, Estimate) else score for name, score in scores.items()}
