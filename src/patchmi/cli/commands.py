"""What each command does, once its options are known."""

import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmi.cli import suites
from patchmi.cli.checks import (
    check_address,
    check_attack,
    check_counts,
    check_rate,
    check_shares,
)
from patchmi.cli.config import write_options
from patchmi.cli.given import chosen_attack, grant_of, private_files, run_config, target_file
from patchmi.cli.images import draw, inspect
from patchmi.cli.options import (
    Attack,
    Audit,
    Data,
    Defend,
    Demo,
    Inspect,
    Make,
    Options,
    Report,
    Score,
    Suite,
    Train,
)
from patchmi.cli.screen import DONE, print_path, print_verdict, say, show_progress

if TYPE_CHECKING:
    from patchmi.audit import Judge, Plan, Private
    from patchmi.case import Case
    from patchmi.runs import RunFolder


def run_command(options: Options, arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Args:
        options: The command.
        arguments: The command line as typed, for the report.
    """
    command = shlex.join(["patchmi", *(argument for argument in arguments if argument != "--resume")])
    match options:
        case Demo():
            return _demo(options, command=command)
        case Audit():
            return _audit(options, command=command)
        case Attack():
            return _attack_only(options)
        case Score():
            return _score(options, command=command)
        case Train():
            return _train(options)
        case Report():
            from patchmi.report import write_report

            print_path(write_report(options.run))
        case Data(action=Inspect() as action):
            inspect(action)
        case Data(action=Make() as action):
            draw(action)
        case Defend() | Suite():
            suites.act(options, command=command)
    return DONE


def _demo(options: Demo, *, command: str) -> int:
    check_attack(options)
    attack, grant = chosen_attack(options), grant_of(options)
    from patchmi.data import load_public
    from patchmi.demo import DIGIT_SHAPE, run_demo
    from patchmi.runs import open_run

    # Before the folder is taken: a source that is not there must leave nothing behind.
    public = load_public(options.public, image_shape=DIGIT_SHAPE, count=options.public_count)
    with open_run(options.out, config=run_config(options), resume=options.resume) as run:
        path = run_demo(
            run,
            attack=attack,
            public=public,
            seeds=tuple(range(options.seeds)),
            count_per_class=options.count_per_class,
            command=command,
            progress=show_progress,
            grant=grant,
        )
        print_verdict(run, path)
    return DONE


def _audit(options: Audit, *, command: str) -> int:
    if options.init:
        return _init(options)
    check_attack(options)
    check_counts(options, "judge_steps")
    check_shares(options, "held_out_share", "max_bad", "declared_accuracy")
    attack = chosen_attack(options)
    check_address(options)
    from patchmi.audit import Plan, audit, audit_inputs, check_votes, open_door
    from patchmi.case import open_case, open_judges, open_public
    from patchmi.runs import open_run

    case = open_case(
        target_file(options),
        private_files(options),
        declared_accuracy=options.declared_accuracy,
    )
    public, public_notes = open_public(
        options.public,
        case.private,
        image_shape=case.target.image_shape,
        count=options.public_count,
        max_bad_share=options.max_bad,
    )
    given, judge_findings = open_judges(
        options.judge,
        case.private,
        class_names=case.target.class_names,
        image_shape=case.target.image_shape,
    )
    for judge in given:
        if judge.sha256 == case.target_digest:
            raise ValueError(f"--judge {judge.name}: is the target itself; give judges that are not")
    findings = replace(
        case.findings,
        target=(*case.findings.target, *judge_findings),
        images=(*case.findings.images, *public_notes),
    )
    for finding in (*findings.target, *findings.images):
        say(finding)
    plan = Plan(
        attack,
        public,
        seeds=tuple(range(options.seeds)),
        count_per_class=options.count_per_class,
        release_context=options.release_context,
        command=command,
        grant=grant_of(options),
    )
    open_door(case.target, plan)  # refuses now what an attack would refuse after the judges were trained
    check_votes(given, plan.rule)
    if options.dry_run:
        return _estimate(options, case, plan, given=given)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(options.out, config=run_config(options), resume=options.resume))
        # Before anything is trained: what is taken from the folder must have been made of the same.
        run.pin_inputs(audit_inputs(case.target_digest, case.private, given, public))
        observe, finish = _tracking(options, run, stack)
        judges = given or _trained_judges(run, case.private, options.judge_steps)
        if options.positive_control and case.private is not None:
            plan = replace(plan, reference=_reference(run, case.private, options.judge_steps))
        path = audit(
            run,
            target=case.target,
            target_digest=case.target_digest,
            private=case.private,
            judges=judges,
            plan=plan,
            findings=findings,
            progress=show_progress,
            observe=observe,
        )
        finish(run)
        return print_verdict(run, path, gate=options.gate)


def _attack_only(options: Attack) -> int:
    check_attack(options)
    attack = chosen_attack(options)
    check_address(options)
    from patchmi.audit import Plan, attack_only, open_door
    from patchmi.case import open_case, open_public
    from patchmi.runs import open_run

    case = open_case(target_file(options), None)
    public, notes = open_public(
        options.public, None, image_shape=case.target.image_shape, count=options.public_count
    )
    for finding in (*case.findings.target, *notes):
        say(finding)
    plan = Plan(
        attack,
        public,
        seeds=tuple(range(options.seeds)),
        count_per_class=options.count_per_class,
        grant=grant_of(options),
    )
    open_door(case.target, plan)  # refuses now what the attack would refuse
    with ExitStack() as stack:
        run = stack.enter_context(open_run(options.out, config=run_config(options), resume=options.resume))
        observe, _ = _tracking(options, run, stack)
        path = attack_only(
            run,
            target=case.target,
            target_digest=case.target_digest,
            plan=plan,
            progress=show_progress,
            observe=observe,
        )
    print_path(path)
    return DONE


def _score(options: Score, *, command: str) -> int:
    check_counts(options, "public_count", "judge_steps")
    check_shares(options, "held_out_share", "max_bad")
    check_rate(options.rate)
    check_address(options)
    from patchmi.audit import Findings, check_votes, score, score_inputs
    from patchmi.case import in_order_of, open_case, open_judges, open_pictures, open_private
    from patchmi.runs import open_run
    from patchmi.target import is_address

    if options.reconstructions is None:
        raise ValueError("score: name the pictures, as in `patchmi score theirs.npz --private data/train`")
    if not options.made_by.strip():
        raise ValueError("--made-by: give the attack a name")
    files = private_files(options)
    pictures, notes = open_pictures(
        options.reconstructions,
        untrained=options.untrained,
        public=options.public,
        public_count=options.public_count,
        max_bad_share=options.max_bad,
    )
    if options.image_shape not in (None, pictures.image_shape):
        raise ValueError(
            f"--image-shape {options.image_shape}: the pictures are {pictures.image_shape}; leave it out"
        )
    target = digest = private = None
    target_findings: tuple[str, ...] = ()
    if options.target is not None:
        file = replace(target_file(options), image_shape=pictures.image_shape)
        if is_address(file.source) and files is None and not file.class_names:
            file = replace(file, class_count=file.class_count or len(pictures.class_names))
        case = open_case(file, files)
        target, digest, private = case.target, case.target_digest, case.private
        target_findings, notes = case.findings.target, (*notes, *case.findings.images)
    elif files is not None:
        private, seen = open_private(files, image_shape=pictures.image_shape)
        notes = (*notes, *seen)
    if known := private or target:
        pictures, matched = in_order_of(known.class_names, pictures)
        notes = (*notes, *matched)
    given, judge_findings = open_judges(
        options.judge,
        private,
        class_names=pictures.class_names,
        image_shape=pictures.image_shape,
    )
    findings = Findings((*target_findings, *judge_findings), notes)
    for finding in (*findings.target, *findings.images):
        say(finding)
    check_votes(given, pictures.rule)
    with open_run(options.out, config=run_config(options), resume=options.resume) as run:
        run.pin_inputs(score_inputs(pictures, digest, private, given))
        path = score(
            run,
            replace(
                pictures,
                made_by=options.made_by,
                access=options.access,
                release_context=options.release_context,
                command=command,
            ),
            private=private,
            judges=given or _trained_judges(run, private, options.judge_steps),
            target=target,
            target_digest=digest,
            findings=findings,
            progress=show_progress,
        )
        return print_verdict(run, path, gate=options.gate)


def _train(options: Train) -> int:
    check_counts(options, "step_count")
    check_shares(options, "max_bad", "validation_share")
    from patchmi.case import Course, train_target
    from patchmi.defences import choose_defence

    trained = train_target(
        options.private,
        options.out,
        Course(
            architecture=options.architecture,
            defence=choose_defence(options.defence, options.strength),
            step_count=options.step_count,
            seed=options.seed,
            validation_share=options.validation_share,
            pretraining=options.pretraining,
        ),
        image_shape=options.image_shape,
        max_bad_share=options.max_bad,
        progress=show_progress,
    )
    for note in trained.notes:
        say(note)
    if trained.accuracy is not None:
        say(f"accuracy {trained.accuracy:.3f} on the part that was not trained on")
    print_path(options.out)
    return DONE


def _init(options: Audit) -> int:
    path = options.config or Path("audit.toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(write_options(options))
    except FileExistsError:
        raise ValueError(f"{path} is there already: move it away, or name another with --config") from None
    print_path(path)
    return DONE


def _estimate(options: Audit, case: "Case", plan: "Plan", *, given: "list[Judge]") -> int:
    """What the audit will take, a line a stage."""
    from patchmi.audit.estimate import estimate_cost
    from patchmi.case import judge_trainings, reference_training

    trained = {} if given or case.private is None else judge_trainings(options.judge_steps)
    if options.positive_control and case.private is not None:
        trained |= reference_training(options.judge_steps)
        plan = replace(plan, reference=case.target)
    cost = estimate_cost(case.target, case.private, plan, judges=trained)
    for stage, seconds in (
        ("judges", cost.judges_seconds),
        ("attack", cost.attack_seconds),
        ("control", cost.control_seconds),
        ("scores", cost.scores_seconds),
        *([] if cost.waiting_seconds is None else [("rate", cost.waiting_seconds)]),
        ("all", cost.seconds),
    ):
        print(f"{stage:8} {seconds:8.0f} s")  # noqa: T201 - what was asked for
    print(f"{'memory':8} {cost.peak_memory_bytes / 1e9:8.1f} GB")  # noqa: T201
    if case.target.address is not None:
        sent = {"the attack": len(plan.seeds) * plan.grant.budget, **cost.questions}
        for what, count in sent.items():
            print(f"{'sent':8} {count:8,} images at most, for {what}")  # noqa: T201
    return DONE


def _tracking(options: Audit | Attack, run: "RunFolder", stack: ExitStack) -> Any:
    """Where the attack's losses go, and what is called with the finished run."""
    from patchmi.types import unobserved

    if options.track is None:
        return unobserved, lambda run: None
    from patchmi.tracking import open_tracker

    tracker = stack.enter_context(open_tracker(options.track, run.folder, run_name=options.out.name))

    def finish(finished: "RunFolder") -> None:
        result = finished.read_json("result.json")
        scores = {f"scores/{name}": one["value"] for name, one in result["scores"].items() if one}
        tracker.log(scores, step=result["attack"]["steps"])

    return lambda step, losses: tracker.log(losses, step=step), finish


def _trained_judges(run: "RunFolder", private: "Private | None", step_count: int) -> "list[Judge]":
    from patchmi.case import train_judges

    if private is None:
        return []
    return train_judges(run, private, step_count=step_count, progress=show_progress)


def _reference(run: "RunFolder", private: "Private", step_count: int) -> Any:
    from patchmi.case import train_reference

    return train_reference(run, private, step_count=step_count, progress=show_progress)
