"""The audit itself, from the attack to the report, in a run folder; and scoring what was made elsewhere."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchmi import report, verdict
from patchmi.audit import controls, document
from patchmi.audit.assess import Assessment, assess, gather_rates, judge_arms
from patchmi.audit.evidence import gather_evidence
from patchmi.audit.inputs import audit_inputs, score_inputs
from patchmi.audit.plan import NO_FINDINGS, Findings, Judge, Pictures, Plan, Private, check_votes
from patchmi.audit.questions import PUBLIC, SNAPSHOTS, Questions
from patchmi.audit.scores import Arm, snapshot_scores
from patchmi.audit.stages import (
    RECONSTRUCTIONS,
    Attacked,
    attack_reference,
    attack_target,
    draw_without_target,
    to_bytes,
    write_reconstructions,
)
from patchmi.metrics import cluster_interval
from patchmi.runs import RunFolder, atomic_write
from patchmi.target import Target, answers
from patchmi.types import Images, Observer, Progress, silent, unobserved

RESULT, EVIDENCE = "result.json", "evidence.safetensors"


def audit(
    run: RunFolder,
    *,
    target: Target,
    target_digest: str,
    private: Private | None,
    judges: list[Judge],
    plan: Plan,
    findings: Findings = NO_FINDINGS,
    progress: Progress = silent,
    observe: Observer = unobserved,
) -> Path:
    """Attack a target, judge what comes out beside the controls, and write result and report.

    Stages whose files are in the run folder are taken from there.

    Args:
        run: Where everything is kept.
        target: The classifier under attack.
        target_digest: SHA-256 of its file, or of its address.
        private: Its training images, and held-out ones; no attack sees them. None: nothing is compared with
            them, and the verdict is INCONCLUSIVE at most.
        judges: No attack sees them. None of them: target-only numbers, INCONCLUSIVE.
        plan: The attack, what it may use, and the rule of the verdict.
        findings: What was noticed when the files were opened.
        progress: How to show how far each stage is.
        observe: Is told the losses of the attack on the target, named by run.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigChanged: The folder's run stands on another target, or on other images or judges.
        ValueError: There are judges, but fewer than the rule wants votes.
    """
    run.pin_inputs(audit_inputs(target_digest, private, judges, plan.public))
    check_votes(judges, plan.rule)
    runs = attack_target(run, target, plan, progress=progress, observe=observe)
    untrained = draw_without_target(run, target, plan, progress=progress)
    questions = Questions(target, run, progress)
    arms = {
        "attack": _joined(runs),
        "random": controls.random_arm(target.class_count, target.image_shape),
        "untrained_attack": _joined([untrained]),
        "public_selected": _selected(questions, plan.public.images),
    }
    unselected = _unselected(runs)
    assessed = assess(
        arms if unselected is None else {**arms, "unselected": unselected},
        judges=judges,
        private=private,
        questions=questions,
        class_names=target.class_names,
        rule=plan.rule,
        neighbours=plan.neighbours,
        progress=progress,
    )
    arrays, metadata = gather_evidence(
        arms,
        order=_order(assessed, arms["attack"]),
        class_count=target.class_count,
        public=plan.public.images,
        private=private,
        snapshots=runs[0].reconstructions.snapshots,
    )
    run.write_tensors(EVIDENCE, arrays, metadata)
    decided, positive_control = _decide(
        run, assessed, target, private=private, judges=judges, plan=plan, arms=arms, progress=progress
    )
    return _publish(
        run,
        {
            **document.header(plan.command),
            "target": document.describe_target(target, target_digest, assessed.target_accuracy),
            "threat": document.describe_threat(
                plan.public, private, access=plan.grant.access, release_context=plan.release_context
            ),
            "attack": document.describe_attack(plan, runs),
            **assessed.numbers,
            "history": _history(runs, judges, questions, plan),
            **questions.described(),
            "findings": document.describe_findings(findings),
            "positive_control": positive_control,
            "verdict": document.describe_verdict(decided),
            "not_tested": document.not_tested(plan.grant.access),
        },
    )


def attack_only(
    run: RunFolder,
    *,
    target: Target,
    target_digest: str,
    plan: Plan,
    progress: Progress = silent,
    observe: Observer = unobserved,
) -> Path:
    """Attack a target and leave the judging to others.

    Args:
        run: Where everything is kept; seeds that are there already are not run again.
        target: The classifier under attack.
        target_digest: SHA-256 of its file, or of its address.
        plan: The attack and what it may use.
        progress: How to show how far each seed is.
        observe: Is told the losses of the attack, named by run.

    Returns:
        The path of `reconstructions.safetensors`.

    Raises:
        ConfigChanged: The folder's run stands on another target, or on other public images.
    """
    run.pin_inputs(audit_inputs(target_digest, None, [], plan.public))
    attack_target(run, target, plan, progress=progress, observe=observe)
    return run.path(RECONSTRUCTIONS)


def score(
    run: RunFolder,
    pictures: Pictures,
    *,
    private: Private | None,
    judges: list[Judge],
    target: Target | None = None,
    target_digest: str | None = None,
    findings: Findings = NO_FINDINGS,
    progress: Progress = silent,
) -> Path:
    """Judge pictures that another tool made, and write result and report.

    Controls that need the attack itself are there only if their pictures were given; the verdict says so.

    Args:
        run: Where everything is kept.
        pictures: The reconstructions, what is known of how they were made, and the rule of the verdict.
        private: What the target was trained on, and held-out images.
        judges: None or more, as in an audit.
        target: For its own opinion and for the public images it likes best.
        target_digest: SHA-256 of its file, or of its address.
        findings: What was noticed when the files were opened.
        progress: How to show how far each stage is.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigChanged: The folder's run stands on other pictures, images or judges.
        ValueError: There are judges, but fewer than the rule wants votes.
    """
    run.pin_inputs(score_inputs(pictures, target_digest, private, judges))
    class_count = len(pictures.class_names)
    arms = {
        "attack": Arm(pictures.images, pictures.labels, pictures.seeds),
        "random": controls.random_arm(class_count, pictures.images.shape[1:]),
    }
    if pictures.untrained is not None:
        images, labels = pictures.untrained
        arms["untrained_attack"] = Arm(images, labels, torch.zeros_like(labels))
    questions = None if target is None else Questions(target, run, progress)
    if questions is not None and pictures.public is not None:
        arms["public_selected"] = _selected(questions, pictures.public.images)
    assessed = assess(
        arms,
        judges=judges,
        private=private,
        questions=questions,
        class_names=pictures.class_names,
        rule=pictures.rule,
        neighbours=pictures.neighbours,
        progress=progress,
    )
    tensors = {"images": to_bytes(pictures.images), "labels": pictures.labels, "seeds": pictures.seeds}
    write_reconstructions(run, tensors, pictures.class_names)
    arrays, metadata = gather_evidence(
        arms,
        order=_order(assessed, arms["attack"]),
        class_count=class_count,
        public=None if pictures.public is None else pictures.public.images,
        private=private,
        snapshots=(),
    )
    run.write_tensors(EVIDENCE, arrays, metadata)
    circumstances = verdict.Circumstances(
        access=pictures.access,
        public=document.UNKNOWN_PUBLIC if pictures.public is None else pictures.public.description,
        attacks=(pictures.made_by,),
        budget="a budget that is not known",
    )
    return _publish(
        run,
        {
            **document.header(pictures.command),
            "target": document.describe_unknown_target(pictures.class_names, pictures.images)
            if target is None or target_digest is None
            else document.describe_target(target, target_digest, assessed.target_accuracy),
            "threat": document.describe_threat(
                pictures.public, private, access=pictures.access, release_context=pictures.release_context
            ),
            "attack": document.describe_pictures(pictures),
            **assessed.numbers,
            **({} if questions is None else questions.described()),
            "history": [],
            "findings": document.describe_findings(findings),
            "positive_control": None,
            "verdict": document.describe_verdict(_opinion(assessed.evidence, circumstances, pictures.rule)),
            "not_tested": document.not_tested(pictures.access),
        },
    )


def _decide(
    run: RunFolder,
    assessed: Assessment,
    target: Target,
    *,
    private: Private | None,
    judges: list[Judge],
    plan: Plan,
    arms: dict[str, Arm],
    progress: Progress,
) -> tuple[verdict.Verdict, dict[str, Any] | None]:
    """The verdict; and the positive control, which is run only where it can change it."""
    unused = "" if plan.attack.uses_public else ", unused by this attack"
    circumstances = verdict.Circumstances(
        access=plan.grant.access,
        public=f"{plan.public.description}{unused}",
        attacks=(type(plan.attack).__name__,),
        budget=_budget(plan, target),
        reference_model=None if plan.reference is None else plan.reference.name,
    )
    decided = _opinion(assessed.evidence, circumstances, plan.rule)
    if plan.reference is None or assessed.evidence is None or decided.word == "EXPOSED":
        return decided, None
    runs = attack_reference(run, plan, progress=progress)
    arms = {
        **arms,
        "attack": _joined(runs),
        "public_selected": controls.public_selected_arm(
            answers(plan.reference, plan.public.images), plan.public.images
        ),
    }
    reference = gather_rates(judge_arms(arms, judges, private=private, rule=plan.rule))
    exposed = _opinion(reference, circumstances, plan.rule).word == "EXPOSED"
    evidence = replace(assessed.evidence, positive_control_exposed=exposed)
    described = {
        "name": plan.reference.name,
        "exposed": exposed,
        "consensus_top1": asdict(cluster_interval(reference.attack)),
    }
    return verdict.decide(evidence, circumstances=circumstances, rule=plan.rule), described


def _selected(questions: Questions, public: Images) -> Arm:
    """The control of public images that the target likes best."""
    return controls.public_selected_arm(questions.answers(public, stage=PUBLIC), public)


def _opinion(
    evidence: verdict.Evidence | None, circumstances: verdict.Circumstances, rule: verdict.Rule
) -> verdict.Verdict:
    if evidence is None:
        return verdict.without_judges(circumstances)
    return verdict.decide(evidence, circumstances=circumstances, rule=rule)


def _order(assessed: Assessment, attack: Arm) -> Tensor:
    """What the shown pictures are ranked by: the judges' mean confidence; without judges, their order."""
    if "attack" in assessed.judged:
        return assessed.judged["attack"].confidence()
    return torch.arange(len(attack.labels), 0, -1).double()


def _publish(run: RunFolder, result: dict[str, Any]) -> Path:
    """Write the result with the digests of what it stands on, and the report."""
    result["artefacts"] = {name: run.digest(name) for name in _artefacts(run)}
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


def _unselected(runs: list[Attacked]) -> Arm | None:
    """What was drawn before the attack chose, of all seeds; None where it chose nothing."""
    made = [one.reconstructions for one in runs]
    images = [one.unselected for one in made if one.unselected is not None]
    if len(images) < len(made):
        return None
    return Arm(
        torch.cat(images), torch.cat([one.labels for one in made]), torch.cat([one.seeds for one in made])
    )


def _budget(plan: Plan, target: Target) -> str:
    """What the attack could spend, for the verdict's sentence."""
    seeds = f"{verdict.counted(len(plan.seeds), 'seed')} on {target.class_count} classes"
    return (
        seeds
        if plan.grant.access == "white-box"
        else f"{seeds}, {plan.grant.budget:,} images sent in each at most"
    )


def _history(
    runs: list[Attacked], judges: list[Judge], questions: Questions, plan: Plan
) -> list[dict[str, float | int | None]]:
    return [
        {
            "seed": seed,
            "step": snapshot.step,
            "seconds": snapshot.seconds,
            "queries": snapshot.queries,
            **snapshot_scores(snapshot, judges, questions.answers(snapshot.images, stage=SNAPSHOTS)),
        }
        for seed, one in zip(plan.seeds, runs, strict=True)
        for snapshot in one.reconstructions.snapshots
    ]


def _artefacts(run: RunFolder) -> list[str]:
    """Every file of the run that its result stands on."""
    files = (path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.safetensors"))
    return sorted(name for name in files if not name.startswith("checkpoint/"))
