"""One audit: attack → reconstructions → scores and controls → verdict → report."""

from patchmi.audit.plan import Judge, Plan, Private
from patchmi.audit.run import audit
from patchmi.audit.stages import fit_judge, fit_target

__all__ = ["Judge", "Plan", "Private", "audit", "fit_judge", "fit_target"]
