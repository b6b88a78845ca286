"""What does not depend on the target is computed once: tensors kept under a digest of all they depend on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchmi import machine
from patchmi.runs.checkpoint import NO_CHECKPOINT, Checkpoint
from patchmi.runs.errors import RunError
from patchmi.runs.files import atomic_write, make_folder, pack_tensors, unpack_tensors

Make = Callable[[Checkpoint], Mapping[str, Tensor]]
"""Computes what is not kept yet; it may be killed and go on from the checkpoint it is handed."""


class Cache:
    """A folder of computed tensors, which processes may share: what one computes, another waits for.

    Args:
        folder: Where they are kept, or None for a cache that keeps nothing.
        every_seconds: Time between checkpoints of what is being computed.
    """

    def __init__(self, folder: Path | None, *, every_seconds: float = 15.0) -> None:
        self._folder = folder
        self._every_seconds = every_seconds

    def tensors(self, name: str, key: Mapping[str, Any], make: Make) -> dict[str, Tensor]:
        """What `make` gives, from the folder if it has been made there before.

        Args:
            name: What it is, the first part of the file's name.
            key: All that it depends on: JSON-able values and tensors. The versions and the number of threads
                that decide the last bits of sums are added.
            make: Called if nothing is kept under this name and key.

        Returns:
            Tensors on the CPU, laid out the same whether they were just made or read.

        Raises:
            OutOfResources: The disk or a quota is full.
            RunError: The kept file is damaged.
        """
        if self._folder is None:
            return unpack_tensors(pack_tensors(make(NO_CHECKPOINT), {}))[0]
        stem = f"{name}-{_digest(key)[:20]}"
        file = self._folder / f"{stem}.safetensors"
        with _waited_for(self._folder / f"{stem}.lock"):
            if not file.exists():
                generations = (self._folder / f"{stem}.checkpoint.{number}" for number in (0, 1))
                checkpoint = Checkpoint(
                    (next(generations), next(generations)), every_seconds=self._every_seconds
                )
                atomic_write(file, pack_tensors(make(checkpoint), {}))
                checkpoint.clear()
        try:
            return unpack_tensors(file.read_bytes())[0]
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}; remove it, then --resume") from error


NO_CACHE = Cache(None)
"""Keeps nothing."""


def _digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key and of what decides the last bits."""
    digest = hashlib.sha256()
    plain: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": machine.processor_name(),
    }
    for name, value in key.items():
        if isinstance(value, Tensor):
            plain[name] = [str(value.dtype), list(value.shape)]
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        else:
            plain[name] = value
    digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def _waited_for(lock: Path) -> Iterator[None]:
    """Hold a lock, once other processes have let it go."""
    # Not known on Windows, where the rest of the package must still import.
    import fcntl

    make_folder(lock.parent)
    with FileIO(lock, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
