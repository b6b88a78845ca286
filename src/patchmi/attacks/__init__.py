"""Attacks: one paper, one file; none of them can import a measure, a judge or a private image."""

from patchmi.attacks.base import AbstractAttack
from patchmi.attacks.patch_mi import PatchMI
from patchmi.attacks.patch_mi_recipes import RECIPES, ClassPatchScale, PatchScale, PublicWeights, Recipe

ATTACKS = {"patch-mi": PatchMI}
"""Every attack by its name on the command line."""

__all__ = [
    "ATTACKS",
    "RECIPES",
    "AbstractAttack",
    "ClassPatchScale",
    "PatchMI",
    "PatchScale",
    "PublicWeights",
    "Recipe",
]
