"""Every attack by its name, and its settings by theirs, as files and command lines give them."""

from collections.abc import Mapping
from typing import Any

from patchmi.attacks.base import AbstractAttack
from patchmi.attacks.brep_mi import BrepMI
from patchmi.attacks.cma_mi import CmaMI
from patchmi.attacks.deep_inversion import DeepInversion
from patchmi.attacks.general import GeneralMI
from patchmi.attacks.generative import GenerativeMI
from patchmi.attacks.lokt import Lokt
from patchmi.attacks.mirror import MirrorMI
from patchmi.attacks.patch_mi import PatchMI
from patchmi.attacks.patch_transfer import PatchTransfer
from patchmi.attacks.plg_mi import PlgMI
from patchmi.attacks.variational import VariationalMI
from patchmi.structured import structured

ATTACKS: dict[str, type[AbstractAttack]] = {
    "patch-mi": PatchMI,
    "general": GeneralMI,
    "generative": GenerativeMI,
    "variational": VariationalMI,
    "plg-mi": PlgMI,
    "deep-inversion": DeepInversion,
    "patch-transfer": PatchTransfer,
    "brep-mi": BrepMI,
    "lokt": Lokt,
    "mirror": MirrorMI,
    "cma-es": CmaMI,
}
"""Every attack by its name on the command line."""

_NO_SETTINGS = ("uses_target", "shard")
"""Fields that an audit sets for its control, and a suite for its cells."""


def choose_attack(name: str, settings: Mapping[str, Any]) -> AbstractAttack:
    """The attack of this name with these settings, the others at their defaults.

    Args:
        name: A row of `ATTACKS`.
        settings: Values by field; a mapping for a field that is a group of settings, such as `identity`.

    Raises:
        ValueError: There is no such attack or setting, or a value does not fit: one line.
    """
    if name not in ATTACKS:
        raise ValueError(f"attack {name}: there is none of this name; give one of {', '.join(ATTACKS)}")
    given = {key: value for key, value in settings.items() if value is not None}
    return structured(ATTACKS[name], given, where=f"attack {name}", entry="setting", hidden=_NO_SETTINGS)
