"""What a safetensors file of `patchmi train` says of its network."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

OWN = "patchmi:"
"""The only architectures that a file may choose by itself: any other could make it choose code to run."""


@dataclass(frozen=True)
class Description:
    """A network's architecture, `patchmi:NAME`, its classes, and channels, height and width of its images."""

    architecture: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def metadata(self) -> dict[str, str]:
        """As the header of a safetensors file holds it."""
        return {
            "architecture": self.architecture,
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "image_shape": json.dumps(self.image_shape),
        }


def read_description(path: Path) -> Description | None:
    """What the file says of its network; None where it does not, or not as `patchmi train` does."""
    try:
        with safe_open(path, framework="numpy") as file:
            said = file.metadata() or {}
        names, shape = json.loads(said["class_names"]), json.loads(said["image_shape"])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError):
        return None
    architecture = said.get("architecture", "")
    if not architecture.startswith(OWN) or not _all(names, str) or not _all(shape, int) or len(shape) != 3:
        return None
    return Description(architecture, tuple(names), (shape[0], shape[1], shape[2]))


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
