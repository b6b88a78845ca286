"""One audit: attack → reconstructions → scores and controls → verdict → report."""

from patchmi.audit.inputs import audit_inputs, score_inputs
from patchmi.audit.plan import WHITE_BOX, Findings, Grant, Judge, Pictures, Plan, Private, check_votes
from patchmi.audit.run import attack_only, audit, score
from patchmi.audit.stages import fit_judge, fit_target, open_door

__all__ = [
    "WHITE_BOX",
    "Findings",
    "Grant",
    "Judge",
    "Pictures",
    "Plan",
    "Private",
    "attack_only",
    "audit",
    "audit_inputs",
    "check_votes",
    "fit_judge",
    "fit_target",
    "open_door",
    "score",
    "score_inputs",
]
