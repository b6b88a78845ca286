"""How much does an image classifier give away about its training images? patchmi answers by attacking it.

Names are loaded when they are first used, so that `import patchmi` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmi.attacks import (
        ATTACKS,
        BrepMI,
        CmaMI,
        DeepInversion,
        GeneralMI,
        GenerativeMI,
        Lokt,
        MirrorMI,
        PatchMI,
        PatchTransfer,
        PlgMI,
        VariationalMI,
        choose_attack,
    )
    from patchmi.data import glyphs, leaves, strokes
    from patchmi.target import LabelAccess, ScoreAccess, Target, WhiteBox
    from patchmi.types import Reconstructions

__version__ = "0.1.0"

__all__ = [
    "ATTACKS",
    "BrepMI",
    "CmaMI",
    "DeepInversion",
    "GeneralMI",
    "GenerativeMI",
    "LabelAccess",
    "Lokt",
    "MirrorMI",
    "PatchMI",
    "PatchTransfer",
    "PlgMI",
    "Reconstructions",
    "ScoreAccess",
    "Target",
    "VariationalMI",
    "WhiteBox",
    "__version__",
    "choose_attack",
    "glyphs",
    "leaves",
    "strokes",
]

_ROOMS = {
    "ATTACKS": "patchmi.attacks",
    "BrepMI": "patchmi.attacks",
    "CmaMI": "patchmi.attacks",
    "DeepInversion": "patchmi.attacks",
    "GeneralMI": "patchmi.attacks",
    "GenerativeMI": "patchmi.attacks",
    "Lokt": "patchmi.attacks",
    "MirrorMI": "patchmi.attacks",
    "PatchMI": "patchmi.attacks",
    "PatchTransfer": "patchmi.attacks",
    "PlgMI": "patchmi.attacks",
    "VariationalMI": "patchmi.attacks",
    "choose_attack": "patchmi.attacks",
    "Reconstructions": "patchmi.types",
    "LabelAccess": "patchmi.target",
    "ScoreAccess": "patchmi.target",
    "Target": "patchmi.target",
    "WhiteBox": "patchmi.target",
    "glyphs": "patchmi.data",
    "leaves": "patchmi.data",
    "strokes": "patchmi.data",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'patchmi' has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
