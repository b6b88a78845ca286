"""Attacks: one paper, one file; none of them can import a measure, a judge or a private image."""

from patchmi.attacks.base import AbstractAttack, Task, merge_snapshots
from patchmi.attacks.brep_mi import BrepMI
from patchmi.attacks.cma_mi import CmaMI
from patchmi.attacks.deep_inversion import DeepInversion
from patchmi.attacks.general import GeneralMI
from patchmi.attacks.generative import GenerativeMI
from patchmi.attacks.identity import IdentityTerm
from patchmi.attacks.lokt import Lokt
from patchmi.attacks.mirror import MirrorMI
from patchmi.attacks.patch_mi import PatchMI
from patchmi.attacks.patch_mi_recipes import RECIPES, ClassPatchScale, PatchScale, PublicWeights, Recipe
from patchmi.attacks.patch_transfer import PatchTransfer
from patchmi.attacks.plg_mi import PlgMI
from patchmi.attacks.public_gan import GanTraining
from patchmi.attacks.table import ATTACKS, choose_attack
from patchmi.attacks.variational import VariationalMI

__all__ = [
    "ATTACKS",
    "RECIPES",
    "AbstractAttack",
    "BrepMI",
    "ClassPatchScale",
    "CmaMI",
    "DeepInversion",
    "GanTraining",
    "GeneralMI",
    "GenerativeMI",
    "IdentityTerm",
    "Lokt",
    "MirrorMI",
    "PatchMI",
    "PatchScale",
    "PatchTransfer",
    "PlgMI",
    "PublicWeights",
    "Recipe",
    "Task",
    "VariationalMI",
    "choose_attack",
    "merge_snapshots",
]
