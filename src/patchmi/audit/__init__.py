"""One audit: attack → reconstructions → scores and controls → verdict → report."""

from patchmi.audit.plan import Findings, Judge, Pictures, Plan, Private
from patchmi.audit.run import attack_only, audit, score
from patchmi.audit.stages import fit_judge, fit_target

__all__ = [
    "Findings",
    "Judge",
    "Pictures",
    "Plan",
    "Private",
    "attack_only",
    "audit",
    "fit_judge",
    "fit_target",
    "score",
]
