"""`patchmi suite`: many audits, one table."""

from patchmi.cli.checks import check_counts
from patchmi.cli.options import SuiteReport, SuiteRun
from patchmi.cli.screen import print_path, say


def act(options: SuiteRun | SuiteReport, *, command: str) -> None:
    """Do what is missing of a suite, or only write its page again, and say where that is."""
    from patchmi.suite import report_suite

    if isinstance(options, SuiteRun):
        _run(options, command=command)
        print_path(options.out / "suite.html")
    else:
        print_path(report_suite(options.out))


def _run(options: SuiteRun, *, command: str) -> None:
    """Cells that fail are named in the end."""
    check_counts(options, "jobs")
    if options.memory is not None and not options.memory > 0:
        raise ValueError(f"--memory {options.memory:g}: give GB above 0")
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
    if failed:
        say(
            f"{len(failed)} cells failed: {', '.join(failed)}; their logs are in {options.out / 'logs'}, the "
            "same command tries them again"
        )
