"""Every defence by its name, the strengths that are tried, and the attacks that are meant to get past it."""

from dataclasses import dataclass

from patchmi.defences.at_at import AtAt
from patchmi.defences.base import AbstractDefence
from patchmi.defences.bido import BidoCoco, BidoHsic
from patchmi.defences.dp_sgd import DpSgd
from patchmi.defences.label_smoothing import LabelSmoothing
from patchmi.defences.mid import Mid
from patchmi.defences.midre import Midre
from patchmi.defences.none import EarlyStopping, NoDefence
from patchmi.defences.output import LabelOnly, Noise, Rounding, Temperature, TopK
from patchmi.defences.rolss import Rolss
from patchmi.defences.tl_dmi import TlDmi
from patchmi.defences.trap_mid import TrapMid


@dataclass(frozen=True)
class Listed:
    """A defence as commands and suites know it.

    Args:
        kind: Its class.
        start: The strength that is taken where none is given.
        strengths: Five strengths to compare, the weakest first.
        adaptive: Attacks (`ADAPTIVE_ATTACKS`) of which one at least must have been tried before its row means
            anything; () where there is nothing to get past.
        source: The paper.
    """

    kind: type[AbstractDefence]
    start: float
    strengths: tuple[float, ...]
    adaptive: tuple[str, ...] = ()
    source: str = ""


ADAPTIVE_ATTACKS = {
    "margin": "the best other class is pushed below the wanted one, where the softmax has flattened",
    "logit": "the class's own logit is raised, whatever the others do",
    "student": "a student learns the target's answers, and is attacked in its place",
    "views": "the target's word is averaged over many slightly changed and blurred copies",
    "no-batch-norm": "nothing is asked of the statistics that the target remembers",
    "ten-times": "the same attack with ten times the steps",
}
"""Ways past a defence that its plain attack does not know, and what each does."""
_STRUPPEK, _PENG = "Struppek, Hintersdorf, Kersting, ICLR 2024", "Peng et al. (BiDO), KDD 2022"
_SHOKRI = "Shokri et al., S&P 2017"

DEFENCES: dict[str, Listed] = {
    "none": Listed(NoDefence, 0.0, (0.0,)),
    "early-stopping": Listed(EarlyStopping, 0.8, (0.5, 0.7, 0.8, 0.9, 0.95)),
    "label-smoothing": Listed(LabelSmoothing, 0.1, (0.05, 0.1, 0.2, 0.3, 0.4), source=_STRUPPEK),
    "negative-smoothing": Listed(
        LabelSmoothing, -0.05, (-0.01, -0.02, -0.05, -0.1, -0.2), ("margin", "logit", "student"), _STRUPPEK
    ),
    "mid": Listed(
        Mid,
        0.01,
        (0.001, 0.01, 0.05, 0.2, 1.0),
        ("no-batch-norm", "ten-times"),
        "Wang, Zhang, Jia, AAAI 2021",
    ),
    "bido-hsic": Listed(BidoHsic, 0.05, (0.01, 0.05, 0.1, 0.3, 1.0), ("ten-times",), _PENG),
    "bido-coco": Listed(BidoCoco, 1.0, (0.1, 0.3, 1.0, 3.0, 10.0), ("ten-times",), _PENG),
    "tl-dmi": Listed(TlDmi, 0.5, (0.2, 0.4, 0.6, 0.8, 1.0), ("ten-times",), "Ho et al., CVPR 2024"),
    "rolss": Listed(Rolss, 0.8, (0.2, 0.4, 0.6, 0.8, 1.0), ("student",), "Koh et al., ECCV 2024"),
    "midre": Listed(Midre, 0.4, (0.2, 0.3, 0.4, 0.6, 0.8), ("ten-times",), "Tran et al., TMLR 2025"),
    "at-at": Listed(
        AtAt, 0.08, (0.02, 0.08, 0.2, 0.5, 1.0), ("margin", "logit", "student"), "Torp et al., ICLR 2026"
    ),
    "trap-mid": Listed(
        TrapMid, 0.05, (0.02, 0.05, 0.1, 0.15, 0.2), ("views", "student"), "Liu, Chen, NeurIPS 2024"
    ),
    "dp-sgd": Listed(DpSgd, 1.1, (0.5, 0.7, 1.1, 1.5, 2.0), ("ten-times",), "Abadi et al., CCS 2016"),
    "rounding": Listed(Rounding, 1.0, (4.0, 3.0, 2.0, 1.0, 0.0), ("student",), _SHOKRI),
    "top-k": Listed(TopK, 1.0, (5.0, 4.0, 3.0, 2.0, 1.0), ("student",), _SHOKRI),
    "temperature": Listed(Temperature, 4.0, (2.0, 4.0, 8.0, 16.0, 32.0), ("student",), _SHOKRI),
    "noise": Listed(Noise, 0.2, (0.05, 0.1, 0.2, 0.5, 1.0), ("student",)),
    "label-only": Listed(LabelOnly, 1.0, (1.0,), ("student",), _SHOKRI),
}
"""Every defence by its name on the command line."""


def choose_defence(name: str, strength: float | None = None) -> AbstractDefence:
    """The defence of this name at this strength; None: where it starts.

    Raises:
        ValueError: There is none, or the strength is out of its range: one line.
    """
    if name not in DEFENCES:
        raise ValueError(f"defence {name}: there is none of this name; give one of {', '.join(DEFENCES)}")
    listed = DEFENCES[name]
    if strength is None:
        return listed.kind(listed.start)
    if listed.kind is LabelSmoothing and strength * listed.start < 0:  # it has a name for each sign
        side = "above" if listed.start > 0 else "below"
        raise ValueError(f"{name}, strength {strength:g}: give one {side} 0")
    return listed.kind(strength)
