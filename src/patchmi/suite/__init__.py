"""Many audits from one file: targets × attacks × public sets × defences × seeds, here or on a cluster."""

from patchmi.suite.cells import run_job
from patchmi.suite.defend import Bench, defence_suite
from patchmi.suite.file import load_suite, read_suite
from patchmi.suite.jobs import Job, plan_jobs
from patchmi.suite.run import report_suite, run_read, run_suite
from patchmi.suite.tables import Suite

__all__ = [
    "Bench",
    "Job",
    "Suite",
    "defence_suite",
    "load_suite",
    "plan_jobs",
    "read_suite",
    "report_suite",
    "run_job",
    "run_read",
    "run_suite",
]
