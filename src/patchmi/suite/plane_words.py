"""What may be said of defences that were compared: no more than the intervals bear out."""

from dataclasses import dataclass

from torch import Tensor

from patchmi.metrics import Estimate, difference_interval
from patchmi.verdict import Rule

UNDEFENDED, POSITIVE_CONTROL = "none", "label-smoothing"
NOT_COMPARED = (UNDEFENDED, POSITIVE_CONTROL, "early-stopping")
"""What is no defence that anybody would ship."""

FEWEST_NETWORKS = 3
"""Of each kind, before a defence is recommended: of how networks differ one says nothing, and two little."""
TOO_FEW = (
    f"But fewer than {FEWEST_NETWORKS} networks of each were trained, and the intervals know too little of "
    "how networks differ: nothing is recommended yet. "
)


@dataclass(frozen=True)
class Compared:
    """A defence at one strength.

    Args:
        name: With its strength.
        defence: Its name alone.
        accuracy: Of its networks on held-out images.
        leakage: Judge top-1 of the strongest attack.
        values: The same for each network and class.
        early_stopped_leakage: What stopping early gives away at this accuracy; None: it reaches none as low.
        is_adaptively_tested: Whether an attack was run that is meant to get past it.
    """

    name: str
    defence: str
    accuracy: Estimate | None
    leakage: Estimate | None
    values: Tensor | None
    early_stopped_leakage: float | None
    is_adaptively_tested: bool

    def holds_against(self, undefended: "Compared") -> bool:
        """Whether it gives away less, beyond the intervals, than no defence and than stopping early."""
        if self.leakage is None or undefended.leakage is None or self.early_stopped_leakage is None:
            return False
        limit = min(undefended.leakage.low, self.early_stopped_leakage)
        return self.is_adaptively_tested and self.leakage.high < limit


@dataclass(frozen=True)
class Power:
    """Whether a difference between defences could be seen at all; None: not known."""

    has_power: bool | None
    sentence: str


def bench_power(points: list[Compared], best_control: float, *, margin: float = Rule().margin) -> Power:
    """Ask the two that are known: no defence must be exposed, and label smoothing must not give away less.

    Positive label smoothing raises leakage (L. Struppek, D. Hintersdorf, K. Kersting, "Be Careful What You
    Smooth For", ICLR 2024). A bench that cannot tell so much cannot tell defences apart.

    Args:
        points: All that were measured.
        best_control: Judge top-1 of the best control.
        margin: What counts as a difference.
    """
    undefended = next((point for point in points if point.defence == UNDEFENDED), None)
    if undefended is None or undefended.leakage is None or undefended.values is None:
        return Power(None, "The undefended network has not been attacked yet.")
    if undefended.leakage.low <= best_control + margin:
        return Power(
            False,
            f"This bench has no power: judges know {_share(undefended.leakage)} of what the attacks made of "
            f"the undefended network, and {best_control:.2f} of the best control's images. Where nothing is "
            "seen to come out, no defence can be seen to hold it back.",
        )
    smoothed = [point for point in points if point.defence == POSITIVE_CONTROL and point.values is not None]
    if not smoothed:
        return Power(
            None,
            "Whether this bench has power was not tested: label-smoothing, its positive control, is missing.",
        )
    differences = {
        point.name: difference_interval(attack=point.values, control=undefended.values)
        for point in smoothed
        if point.values is not None
    }
    name, difference = max(differences.items(), key=lambda pair: pair[1].value)
    if difference.low < -margin:
        return Power(
            False,
            f"This bench has no power: {name}, which is known to raise leakage, changed judge top-1 by "
            f"{_signed(difference)}, and a fall by {margin:g} cannot be told from none.",
        )
    return Power(
        True,
        f"Positive control: {name} did not lower judge top-1 by {margin:g} or more "
        f"({_signed(difference)} against no defence), as it should be.",
    )


def conclusion(points: list[Compared], power: Power) -> str:
    """One sentence, or one for each defence that held: nothing that intervals do not bear out.

    Args:
        points: All that were measured.
        power: Of the bench.
    """
    undefended = next((point for point in points if point.defence == UNDEFENDED), None)
    tried = [point for point in points if point.defence not in NOT_COMPARED and point.leakage is not None]
    if undefended is None or undefended.leakage is None or not tried:
        return "Nothing can be said yet: no defence has been attacked beside the undefended network."
    if power.has_power is False:
        return "No defence is recommended and none is rejected: this bench has no power to tell them apart."
    held = [point for point in tried if point.holds_against(undefended)]
    if not held:
        nothing, whose = (
            ("The defended setting did not lower", "its")
            if len(tried) == 1
            else (f"None of the {len(tried)} defended settings lowered", "their")
        )
        return (
            f"{nothing} the success of the strongest attack beyond the intervals and beyond what stopping "
            f"the training early gives up at {whose} accuracy; nothing is recommended."
        )
    said = [
        f"{point.name}, at accuracy {_share(point.accuracy)} against {_share(undefended.accuracy)} without "
        f"it, lowered the strongest attack's judge top-1 from {_share(undefended.leakage)} to "
        f"{_share(point.leakage)}, beyond what stopping early gives up at that accuracy "
        f"({point.early_stopped_leakage:.2f})."
        for point in held
    ]
    left = len(tried) - len(held)
    rest = "" if not left else f" Of the other {left} settings the intervals do not bear this out."
    compared = [point.values for point in (undefended, *held) if point.values is not None]
    are_too_few = any(len(values) < FEWEST_NETWORKS for values in compared)
    return (
        f"{' '.join(said)}{rest} {TOO_FEW if are_too_few else ''}"
        "This speaks of the attacks that were run, and of no others."
    )


def _share(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _signed(estimate: Estimate) -> str:
    # 0 is added for it makes 0.0 of a rounded -0.0.
    value, low, high = (f"{round(one, 2) + 0:+.2f}" for one in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
