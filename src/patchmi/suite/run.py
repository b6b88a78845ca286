"""A suite from its file to its page: what is missing is done, here or on a cluster, and then gathered."""

from pathlib import Path

from patchmi.runs import open_run
from patchmi.runs.files import make_folder
from patchmi.suite.display import Display
from patchmi.suite.file import load_suite, read_suite, save_suite
from patchmi.suite.gather import gather
from patchmi.suite.jobs import forget_failure, is_done, plan_jobs
from patchmi.suite.schedule import local_bounds, run_locally
from patchmi.suite.tables import Origin, Suite


def run_suite(
    file: Path | str,
    out: Path | str,
    *,
    small: bool = False,
    data: Path | str | None = None,
    jobs: int | None = None,
    memory_gb: float | None = None,
    cluster: str | None = None,
    command: str = Origin.command,
) -> tuple[str, ...]:
    """Do what is missing of a suite, and write its page.

    Killed at any moment, the same call goes on. A cell that fails is reported and takes only those that need
    it with it; the next call tries it again. Entries may be added to the file at any time.

    Args:
        file: The suite file.
        out: Its folder: `cells/`, `logs/`, `failures/`, `suite.json`, `suite.html`.
        small: Take the file's small form.
        data: The folder that `data:` sources lie in.
        jobs: Cells at the same time on this machine; None: as many as its processors have threads for.
        memory_gb: What they may need together; None: 80 % of what is free now.
        cluster: Address of a Ray cluster whose nodes all see `out`; None: this machine.
        command: The command line, for the pages.

    Returns:
        The names of the cells that failed; those not begun for it are not among them.

    Raises:
        ValueError: The file or a bound is wrong: one line.
        RunLocked: Another process runs the suite in this folder.
        KeyboardInterrupt: Interrupted; every cell has saved its state.
    """
    suite = read_suite(file, small=small, data=data, command=command)
    return run_read(suite, out, jobs=jobs, memory_gb=memory_gb, cluster=cluster)


def run_read(
    suite: Suite,
    out: Path | str,
    *,
    jobs: int | None = None,
    memory_gb: float | None = None,
    cluster: str | None = None,
) -> tuple[str, ...]:
    """Do what is missing of a suite that was read, or made, and write its page: as `run_suite`."""
    bounds = local_bounds(threads=suite.threads, jobs=jobs, memory_gb=memory_gb)
    if cluster is not None:
        from patchmi.suite.cluster import check_cluster

        check_cluster(cluster)  # before the folder is taken: a wrong address must leave nothing behind
    folder = Path(out).resolve()
    make_folder(folder)
    with open_run(folder / "scheduler", config={}, resume=True):
        save_suite(folder, suite)
        planned = plan_jobs(suite)
        todo = [job for job in planned if not is_done(folder, suite, job.name)]
        for job in todo:
            forget_failure(folder, job.name)
        with Display(job_count=len(planned), done_count=len(planned) - len(todo)) as display:
            if cluster is None:
                failed = run_locally(folder, todo, bounds=bounds, display=display)
            else:
                from patchmi.suite.cluster import run_on_cluster

                failed = run_on_cluster(folder, todo, address=cluster, display=display)
    report_suite(folder)
    return failed


def report_suite(folder: Path | str) -> Path:
    """Gather what a suite's cells hold, also while it runs, and write its page.

    Returns:
        The path of `suite.html`.

    Raises:
        ValueError: The folder holds no suite.
    """
    from patchmi.report.suite_page import write_suite_page

    folder = Path(folder)
    gather(folder, load_suite(folder))
    return write_suite_page(folder)
