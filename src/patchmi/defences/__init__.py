"""Defences: one file each, one class, one knob, on one trainer."""

from patchmi.defences.at_at import AtAt
from patchmi.defences.base import AbstractDefence, Labelled, Lesson, missing_package
from patchmi.defences.bido import BidoCoco, BidoHsic
from patchmi.defences.dp_sgd import DpSgd
from patchmi.defences.label_smoothing import LabelSmoothing
from patchmi.defences.mid import Mid
from patchmi.defences.midre import Midre
from patchmi.defences.none import EarlyStopping, NoDefence
from patchmi.defences.output import (
    LabelOnly,
    Noise,
    OutputDefence,
    Rounding,
    Temperature,
    TopK,
    is_bypassed,
)
from patchmi.defences.rolss import Rolss
from patchmi.defences.table import ADAPTIVE_ATTACKS, DEFENCES, Listed, choose_defence
from patchmi.defences.tl_dmi import TlDmi
from patchmi.defences.training import Defended, train_defended
from patchmi.defences.trap_mid import TrapMid

__all__ = [
    "ADAPTIVE_ATTACKS",
    "DEFENCES",
    "AbstractDefence",
    "AtAt",
    "BidoCoco",
    "BidoHsic",
    "Defended",
    "DpSgd",
    "EarlyStopping",
    "LabelOnly",
    "LabelSmoothing",
    "Labelled",
    "Lesson",
    "Listed",
    "Mid",
    "Midre",
    "NoDefence",
    "Noise",
    "OutputDefence",
    "Rolss",
    "Rounding",
    "Temperature",
    "TlDmi",
    "TopK",
    "TrapMid",
    "choose_defence",
    "is_bypassed",
    "missing_package",
    "train_defended",
]
