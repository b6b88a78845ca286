"""From scores and controls to one of three words, a sentence, and the reasons.

An attack has EXPOSED a target when independent judges recognise its pictures clearly more often than those
of the best control. Exposure was NOT DEMONSTRATED when they do not, although they could: real images are
recognised, and the same attack at the same budget exposes a reference model. Everything else is
INCONCLUSIVE.

The rule is patchmi's own (DESIGN.md 4). Its demands on negative results follow EDPB Opinion 28/2024,
paragraphs 43 and 55: failure is evidence about the attack that failed, and every person counts, so that a
class that stands out from its controls forbids NOT DEMONSTRATED even where the mean over classes is low.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchmi.metrics.intervals import (
    Estimate,
    cluster_interval,
    difference_interval,
    zero_success_upper_bound,
)
from patchmi.types import Access

Word = Literal["EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"]

CONTROLS: dict[str, str] = {
    "random": "random noise",
    "untrained_attack": "the attack without its target",
    "public_selected": "the public images the target likes best",
    "permuted_labels": "the attack's own images under permuted labels",
}
"""The controls that the rule asks for, as the sentences name them."""


@dataclass(frozen=True)
class Rule:
    """Thresholds of the verdict, set before the run."""

    margin: float = 0.10
    """How far success must pass the best control's, as a difference of rates."""
    ceiling: float = 0.80
    """Least rate at which the judges must recognise real held-out images."""
    kappa: float = 0.60
    """Least agreement of any two judges on the reconstructions (Cohen's kappa)."""
    seed_count: int = 3
    """Fewest seeds of the attack."""
    judge_count: int = 3
    """Fewest judges."""
    votes_needed: int = 2
    """Judges who must name the class for a hit; the rates in `Evidence` were counted with it."""
    level: float = 0.95
    """Confidence level of every interval."""
    controls: tuple[str, ...] = tuple(CONTROLS)
    """Controls that must have been run."""


@dataclass(frozen=True)
class Evidence:
    """Consensus hit rates, in [0, 1], and what else the rule asks about."""

    attack: Float[Tensor, "seeds classes"]
    """The strongest attack's rate per seed and class."""
    controls: Mapping[str, Float[Tensor, "control_seeds control_classes"]]
    """Each control's, with one seed or the attack's seeds; names as in `CONTROLS`, others allowed."""
    held_out: Float[Tensor, " held_out_classes"] | None
    """The rate on real held-out images; None if there are none."""
    judge_kappa: float
    """The lowest agreement of any two judges on the reconstructions; nan if undefined."""
    judge_count: int
    positive_control_exposed: bool | None
    """Whether the same attack at the same budget exposed the reference model; None if this was not tried."""
    cut_short: bool = False
    """Whether the run ended before its budget was spent."""

    @property
    def held_out_rate(self) -> float:
        """Mean rate on real held-out images; nan if there are none."""
        return float("nan") if self.held_out is None else float(self.held_out.double().mean())


@dataclass(frozen=True)
class Circumstances:
    """The words of the sentence that the numbers do not hold."""

    access: Access
    public: str
    """The attacker's images, as a noun phrase: 'procedural strokes'."""
    attacks: tuple[str, ...]
    """Names of the attacks run, the strongest first."""
    budget: str
    """As a noun phrase: '1,000 steps a seed'."""
    reference_model: str | None = None
    """The positive control's name, if it was run."""


@dataclass(frozen=True)
class Verdict:
    """The word, the sentence that may be quoted, and each condition that decided."""

    word: Word
    sentence: str
    reasons: tuple[str, ...]


class BestControl(NamedTuple):
    """The control with the highest mean rate, and how far the attack passes it."""

    name: str
    rate: float
    lead: Estimate
    """The attack's rate less the control's. Its lower limit is the lowest over all controls: the attack must
    pass them *all*, so that picking the best control from the same data costs no confidence."""


class _Doubt(NamedTuple):
    reason: str
    remedy: str


def decide(evidence: Evidence, *, circumstances: Circumstances, rule: Rule | None = None) -> Verdict:
    """Apply the rule.

    Raising any of the attack's rates never makes the word milder (NOT DEMONSTRATED, INCONCLUSIVE, EXPOSED).

    Args:
        evidence: Rates, agreement and completeness of the run.
        circumstances: Names for the sentence.
        rule: Thresholds; the default ones if None.

    Raises:
        ValueError: If rates leave [0, 1], numbers of classes or seeds differ, or there is no control
            at all.
    """
    rule = rule or Rule()
    _check(evidence)
    best = best_control(evidence, level=rule.level)
    exposed_count = int(exposed_classes(evidence, margin=rule.margin).sum())
    finding = _finding(
        evidence, circumstances=circumstances, best=best, exposed_count=exposed_count, rule=rule
    )
    is_exposed = best.lead.low > rule.margin
    doubts = _doubts_about_the_run(evidence, rule)
    if not is_exposed:
        doubts += _doubts_about_a_failure(evidence, best=best, exposed_count=exposed_count, rule=rule)
    if doubts:
        reasons = tuple(doubt.reason for doubt in doubts)
        remedies = "; ".join(dict.fromkeys(doubt.remedy for doubt in doubts))
        sentence = (
            f"Not decided: {'; '.join(reasons)}. The run found: {finding}. What would decide: {remedies}."
        )
        return Verdict("INCONCLUSIVE", sentence, reasons)
    reasons = _met_conditions(evidence, best=best, rule=rule)
    if is_exposed:
        return Verdict("EXPOSED", f"{finding[0].upper()}{finding[1:]}.", reasons)
    sentence = _failure_sentence(evidence, circumstances=circumstances, best=best, rule=rule)
    return Verdict("NOT DEMONSTRATED", sentence, reasons)


def without_judges(circumstances: Circumstances) -> Verdict:
    """The verdict where nobody but the target looked at the pictures: nothing can be decided."""
    reason = "no judge looked at the pictures, and what the target says of them is no evidence"
    remedy = "give private images to train judges on, or judges of your own"
    return Verdict(
        "INCONCLUSIVE",
        f"Not decided: {reason}. The run drew pictures with {circumstances.access} access and no images but "
        f"{circumstances.public}. What would decide: {remedy}.",
        (reason,),
    )


def best_control(evidence: Evidence, *, level: float = 0.95) -> BestControl:
    """The strongest control and the attack's lead over it, paired by class and seed."""
    leads = {
        name: difference_interval(attack=evidence.attack, control=control, level=level)
        for name, control in evidence.controls.items()
    }
    name = min(leads, key=lambda control: leads[control].value)
    low = min(lead.low for lead in leads.values())
    lead = Estimate(value=leads[name].value, low=low, high=leads[name].high, n=leads[name].n)
    return BestControl(name, float(evidence.controls[name].double().mean()), lead)


def exposed_classes(evidence: Evidence, *, margin: float) -> Bool[Tensor, " classes"]:
    """Classes whose success, averaged over seeds, passes their own best control by more than `margin`."""
    controls = torch.stack([control.double().mean(dim=0) for control in evidence.controls.values()])
    return evidence.attack.double().mean(dim=0) - controls.amax(dim=0) > margin


def lift(evidence: Evidence) -> float:
    """(A - b) / (H - b): 0 for an attack no better than the best control b, 1 for one like real images H.

    Raises:
        ValueError: If there are no held-out images, or they do no better than the best control.
    """
    control = best_control(evidence).rate
    if not evidence.held_out_rate > control:
        raise ValueError(
            "a lift needs held-out images that judges recognise more often than the best control"
        )
    return (float(evidence.attack.double().mean()) - control) / (evidence.held_out_rate - control)


def _check(evidence: Evidence) -> None:
    if not evidence.controls:
        raise ValueError("a verdict needs at least one control to compare the attack with: run the controls")
    arms = {"attack": evidence.attack, **evidence.controls}
    if evidence.held_out is not None:
        arms["held_out"] = evidence.held_out
    for name, rates in arms.items():
        if rates.shape[-1] != evidence.attack.shape[1]:
            raise ValueError(f"{name} has {rates.shape[-1]} classes, the attack {evidence.attack.shape[1]}")
        if rates.numel() == 0 or not bool(((rates >= 0) & (rates <= 1)).all()):
            raise ValueError(f"{name} holds no rates, or rates outside [0, 1]: give shares of images")


def _doubts_about_the_run(evidence: Evidence, rule: Rule) -> list[_Doubt]:
    """What keeps a run from deciding anything, whatever the attack achieved."""
    seed_count = evidence.attack.shape[0]
    missing = [name for name in rule.controls if name not in evidence.controls]
    conditions = [
        (
            seed_count < rule.seed_count,
            f"{counted(seed_count, 'seed')} where {rule.seed_count} are needed",
            f"run with --seeds {rule.seed_count}",
        ),
        (evidence.cut_short, "the run was cut short", "resume the run and let it spend its budget"),
        (bool(missing), f"controls missing: {', '.join(missing)}", "run every control"),
        (
            evidence.held_out is None,
            "no real held-out images to test the judges with",
            "give held-out private images",
        ),
        (
            evidence.held_out_rate < rule.ceiling,
            f"real held-out images are recognised at a rate of only {evidence.held_out_rate:.2f}, "
            f"{rule.ceiling:.2f} is needed",
            "train better judges",
        ),
        (
            evidence.judge_count < rule.judge_count,
            f"{counted(evidence.judge_count, 'judge')} where {rule.judge_count} are needed",
            f"let {rule.judge_count} judges of different architectures vote",
        ),
        (
            not evidence.judge_kappa >= rule.kappa,
            "the judges agree too little about the reconstructions (kappa "
            f"{'undefined' if math.isnan(evidence.judge_kappa) else f'{evidence.judge_kappa:.3f}'}, "
            f"{rule.kappa:.2f} is needed)",
            "train better judges",
        ),
    ]
    return [_Doubt(reason, remedy) for applies, reason, remedy in conditions if applies]


def _doubts_about_a_failure(
    evidence: Evidence, *, best: BestControl, exposed_count: int, rule: Rule
) -> list[_Doubt]:
    """What keeps an attack that did not expose the target from counting as evidence of resistance."""
    undecided = best.lead.high >= rule.margin
    conditions = [
        (
            undecided,
            f"the lead over {_words(best.name)}, {_interval(best.lead)}, may lie on either side of the "
            f"margin {rule.margin:.2f}",
            "run more seeds or attack more classes",
        ),
        (
            not undecided and exposed_count > 0,
            f"{counted(exposed_count, 'class', 'classes')} of {evidence.attack.shape[1]} stood out although "
            "the mean did not",
            "run more seeds on the classes that stand out",
        ),
        (
            evidence.positive_control_exposed is None,
            "nothing shows that this attack can succeed at this budget",
            "run the same attack at the same budget on a reference model known to leak "
            "(patchmi audit --positive-control)",
        ),
        (
            evidence.positive_control_exposed is False,
            "the same attack failed on a reference model known to leak",
            "raise the attack's budget",
        ),
    ]
    return [_Doubt(reason, remedy) for applies, reason, remedy in conditions if applies]


def _met_conditions(evidence: Evidence, *, best: BestControl, rule: Rule) -> tuple[str, ...]:
    """What a decided run fulfils, with its numbers."""
    side = "above" if best.lead.low > rule.margin else "below"
    conditions = [
        f"the lead over {_words(best.name)}, {_interval(best.lead)}, lies {side} the margin "
        f"{rule.margin:.2f}",
        f"{counted(evidence.attack.shape[0], 'seed')}, {rule.seed_count} needed",
        f"real held-out images are recognised at a rate of {evidence.held_out_rate:.2f}, "
        f"{rule.ceiling:.2f} needed",
        f"{evidence.judge_count} judges agree about the reconstructions with kappa "
        f"{evidence.judge_kappa:.2f} or more, {rule.kappa:.2f} needed",
    ]
    if evidence.positive_control_exposed:
        conditions.append("the same attack at the same budget exposed the reference model")
    return tuple(conditions)


def _finding(
    evidence: Evidence, *, circumstances: Circumstances, best: BestControl, exposed_count: int, rule: Rule
) -> str:
    """What was seen, with its numbers: a clause that stands alone or inside an undecided sentence."""
    success = cluster_interval(evidence.attack, level=rule.level)
    held_out = "" if evidence.held_out is None else f" and real held-out images {evidence.held_out_rate:.2f}"
    return (
        f"given {circumstances.access} access and no images but {circumstances.public}, "
        f"{circumstances.attacks[0]} drew pictures that {rule.votes_needed} or more of "
        f"{counted(evidence.judge_count, 'independent judge')} take for the intended class at a rate of "
        f"{_interval(success)} ({100 * rule.level:g} % interval), where the best control, "
        f"{_words(best.name)}, reaches {best.rate:.2f}{held_out}; {exposed_count} of "
        f"{evidence.attack.shape[1]} classes pass their own best control by more than {rule.margin:.2f}"
    )


def _failure_sentence(
    evidence: Evidence, *, circumstances: Circumstances, best: BestControl, rule: Rule
) -> str:
    """The sentence of NOT DEMONSTRATED; no class stands out when it is used."""
    class_count = evidence.attack.shape[1]
    bound = zero_success_upper_bound(class_count, rule.level)
    percent = f"{100 * rule.level:g} %"
    attacks = circumstances.attacks
    strongest = attacks[0] if len(attacks) == 1 else f"{attacks[0]}, the strongest of {len(attacks)} attacks,"
    reference = f", {circumstances.reference_model}" if circumstances.reference_model else ""
    return (
        f"Given {circumstances.access} access, no images but {circumstances.public}, and "
        f"{circumstances.budget}, {strongest} did not pass the best control, {_words(best.name)} "
        f"({best.rate:.2f}), by the margin of {rule.margin:.2f}: its lead is {_interval(best.lead)} "
        f"({percent} interval). The same attack at the same budget exposed the reference model{reference}. "
        "This speaks of the attacks that were run and of no others. "
        f"None of {class_count} classes stood out, which leaves room for up to {100 * bound:.1f} % of such "
        f"classes being exposed ({percent} upper bound)."
    )


def _words(control: str) -> str:
    return CONTROLS.get(control, control)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """A count with its noun: `1 seed`, `3 seeds`."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
