"""`patchmi suite` and `patchmi defend`: many audits, one table."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from patchmi.cli.checks import check_counts, check_shares
from patchmi.cli.options import Defend, Suite, SuiteRun
from patchmi.cli.screen import print_path, say

if TYPE_CHECKING:
    from patchmi.suite import Suite as SuiteTables


def act(options: Suite | Defend, *, command: str) -> None:
    """Do what is missing of a suite, or only write its page again, and say where that is."""
    match options:
        case Defend():
            _defend(options, command=command)
        case Suite(action=SuiteRun() as action):
            _run(action, command=command)
            print_path(action.out / "suite.html")
        case Suite(action=action):
            from patchmi.suite import report_suite

            print_path(report_suite(action.out))


def _run(options: SuiteRun, *, command: str) -> None:
    """Cells that fail are named in the end."""
    _check_bounds(options)
    from patchmi.suite import run_suite

    failed = run_suite(
        options.file,
        options.out,
        small=options.small,
        data=options.data,
        jobs=options.jobs,
        memory_gb=options.memory,
        cluster=options.cluster,
        command=command,
    )
    _say_failed(failed, options.out)


def _defend(options: Defend, *, command: str) -> None:
    """Do what is missing of the suite of defences, and say where its page is."""
    counts = ("strengths", "seeds", "step_count", "judge_steps", "public_count", "attack_steps", "budget")
    check_counts(options, *counts)
    check_counts(options, "count_per_class", least=4)
    check_shares(options, "validation_share")
    _check_bounds(options)
    from patchmi.data import PROCEDURAL, shape_of
    from patchmi.suite import Bench, defence_suite, run_read

    for source in (options.public, options.pretraining):
        if source is not None and source not in PROCEDURAL:
            shape_of(source)  # its cells would find out too, but late
    asked = tuple(name for name in options.defences if name != "all")
    bench = Bench(
        private=options.target_data,
        image_shape=options.image_shape or shape_of(options.target_data),
        architecture=options.architecture,
        defences=() if "all" in options.defences else asked,
        strength_count=options.strengths,
        network_count=options.seeds,
        step_count=options.step_count,
        judge_steps=options.judge_steps,
        flips=options.flips,
        validation_share=options.validation_share,
        public=options.public,
        public_count=options.public_count,
        pretraining=options.pretraining,
        attack_step_count=options.attack_steps,
        adaptive=options.adaptive,
        budget=options.budget,
        count_per_class=options.count_per_class,
    )
    suite = defence_suite(bench, command=command)
    _say_size(suite)
    if options.dry_run:
        return
    failed = run_read(
        suite, options.out, jobs=options.jobs, memory_gb=options.memory, cluster=options.cluster
    )
    _say_failed(failed, options.out)
    print_path(options.out / "suite.html")


def _check_bounds(options: SuiteRun | Defend) -> None:
    check_counts(options, "jobs")
    if options.memory is not None and not options.memory > 0:
        raise ValueError(f"--memory {options.memory:g}: give GB above 0")


def _say_size(suite: "SuiteTables") -> None:
    """What the suite of defences holds, before it takes its time."""
    from patchmi.suite import plan_jobs

    kinds = Counter(job.name.partition("/")[0] for job in plan_jobs(suite))
    say(
        f"{len(suite.defences)} settings of defences, "
        f"{kinds['target'] + kinds['defended']} networks to train, "
        f"{kinds['attack']} runs of {len(suite.attacks)} attacks, {kinds['row']} rows"
    )


def _say_failed(failed: tuple[str, ...], out: Path) -> None:
    if failed:
        say(
            f"{len(failed)} cells failed: {', '.join(failed)}; their logs are in {out / 'logs'}, the same "
            "command tries them again"
        )
