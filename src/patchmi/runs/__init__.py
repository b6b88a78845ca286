"""The run folder: configuration, checkpoints and artefacts; atomic, locked, resumable to the same bytes."""

from patchmi.runs.cache import NO_CACHE, Cache
from patchmi.runs.checkpoint import NO_CHECKPOINT, Checkpoint, terminate_as_interrupt
from patchmi.runs.errors import ConfigChanged, OutOfResources, RunError, RunExists, RunLocked
from patchmi.runs.files import atomic_path, atomic_write
from patchmi.runs.folder import RunFolder, open_run
from patchmi.runs.journal import Journal

__all__ = [
    "NO_CACHE",
    "NO_CHECKPOINT",
    "Cache",
    "Checkpoint",
    "ConfigChanged",
    "Journal",
    "OutOfResources",
    "RunError",
    "RunExists",
    "RunFolder",
    "RunLocked",
    "atomic_path",
    "atomic_write",
    "open_run",
    "terminate_as_interrupt",
]
