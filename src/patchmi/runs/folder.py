"""One folder for one run: its configuration, its lock, its checkpoints and its artefacts."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from patchmi.runs.cache import Cache
from patchmi.runs.checkpoint import Checkpoint
from patchmi.runs.errors import ConfigChanged, OutOfResources, RunError, RunExists, RunLocked
from patchmi.runs.files import atomic_write, is_exhausted, make_folder, pack_tensors, sweep, unpack_tensors

_CONFIG = "config.json"
_INPUTS = "inputs.json"
_CHECKPOINTS = "checkpoint"
_CACHE = "cache"
_LOCK = "lock"
_ABSENT = object()

_held_locks: set[FileIO] = set()


def open_run(path: Path | str, *, config: Mapping[str, Any], resume: bool) -> "RunFolder":
    """Take a run folder for this process alone, new or to be resumed.

    What a killed process left half-written is removed.

    Args:
        path: The folder; made if it is missing.
        config: All that the run's results depend on, as JSON-able values.
        resume: Go on with the run that the folder holds; harmless if it holds none.

    Raises:
        RunLocked: Another process is working in the folder.
        RunExists: The folder holds a run and `resume` is false.
        ConfigChanged: The folder's run was started with another configuration.
        OutOfResources: The disk or a quota is full.
        RunError: The folder cannot be written, or is damaged.
        TypeError: `config` holds something that is not JSON.
        ValueError: `config` holds a NaN or an infinity.
    """
    folder = Path(path)
    wanted = json.loads(_json_bytes(config))
    try:
        make_folder(folder)
        lock = _lock(folder)
        try:
            sweep(folder)
            resumed = _holds_run(folder, wanted, resume=resume)
            if not resumed:
                atomic_write(folder / _CONFIG, _json_bytes(wanted))
        except BaseException:
            _unlock(lock)
            raise
    except OSError as error:
        kind = OutOfResources if is_exhausted(error) else RunError
        reason = error.strerror or str(error)
        raise kind(f"cannot write the run folder {folder}: {reason}; choose another --out") from error
    return RunFolder(folder, config=wanted, resumed=resumed, lock=lock)


class RunFolder:
    """An open run folder; `open_run` makes it, and leaving its `with` block lets the folder go.

    Names of artefacts are relative, with `/` between folders: `judges/a.safetensors`. All writes are atomic.

    Attributes:
        folder: Where it is.
        config: The run's configuration, after a round trip through JSON.
        resumed: Whether the folder held this run before.
    """

    def __init__(self, folder: Path, *, config: dict[str, Any], resumed: bool, lock: FileIO) -> None:
        self.folder = folder
        self.config = config
        self.resumed = resumed
        self._lock = lock

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go, so that another process may take it."""
        _unlock(self._lock)

    def path(self, name: str) -> Path:
        """Where the artefact `name` is or will be.

        Raises:
            ValueError: The name would lead out of the folder, or is empty.
        """
        if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is no name for an artefact: give a relative path without '..'")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the artefact has been written."""
        return self.path(name).is_file()

    def write_json(self, name: str, value: Any) -> None:
        """Write `value`, its keys in their order.

        Raises:
            TypeError: `value` is not JSON-able.
            ValueError: `value` holds a NaN or an infinity, which JSON does not know.
            OutOfResources: The disk or a quota is full.
        """
        atomic_write(self.path(name), _json_bytes(value))

    def read_json(self, name: str) -> Any:
        """Read an artefact that `write_json` wrote.

        Raises:
            RunError: The file is missing or damaged.
        """
        path = self.path(name)
        return _parsed(path, _content(path))

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file; equal content gives equal bytes.

        Args:
            name: The artefact.
            tensors: Dense tensors of any shape and device.
            metadata: Free text beside them.

        Raises:
            OutOfResources: The disk or a quota is full.
        """
        atomic_write(self.path(name), pack_tensors(tensors, metadata))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read an artefact that `write_tensors` wrote.

        Returns:
            The tensors, on the CPU, and the metadata.

        Raises:
            RunError: The file is missing or damaged.
        """
        path = self.path(name)
        try:
            return unpack_tensors(_content(path))
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}; remove it, then --resume") from error

    def digest(self, name: str) -> str:
        """The SHA-256 of the artefact's bytes, 64 hexadecimal digits.

        Raises:
            RunError: The file is missing.
        """
        return hashlib.sha256(_content(self.path(name))).hexdigest()

    def pin_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Write what the run stands on and only a running audit knows, or check that it is as it was.

        Args:
            inputs: JSON-able values, such as the target's digest, kept in `inputs.json`.

        Raises:
            ConfigChanged: The folder's results were computed from other inputs.
        """
        if not self.has(_INPUTS):
            self.write_json(_INPUTS, inputs)
        differences = tuple(_differences(self.read_json(_INPUTS), dict(inputs)))
        if differences:
            raise ConfigChanged(str(self.folder), differences)

    def checkpoint(self, name: str, every_seconds: float = 15.0) -> Checkpoint:
        """The checkpoint of one training loop, in `checkpoint/NAME.0.safetensors` and `.1`.

        Args:
            name: The loop, unlike any other in this run.
            every_seconds: Time between saves; 0 saves at every step.
        """
        files = (self.path(f"{_CHECKPOINTS}/{name}.{generation}.safetensors") for generation in (0, 1))
        return Checkpoint((next(files), next(files)), every_seconds=every_seconds)

    def cache(self, every_seconds: float = 15.0) -> Cache:
        """What this run computes that does not depend on the target, in `cache/`.

        Args:
            every_seconds: Time between checkpoints of what is being computed.
        """
        return Cache(self.path(_CACHE), every_seconds=every_seconds)


def _holds_run(folder: Path, wanted: dict[str, Any], *, resume: bool) -> bool:
    """Whether the folder holds the wanted run; raises where it must not be touched."""
    config = folder / _CONFIG
    if not config.exists():
        if any((folder / _CHECKPOINTS).glob("**/*.safetensors")):
            raise RunError(f"{folder} holds checkpoints but no {_CONFIG} to tell whose: choose another --out")
        return False
    if not resume:
        raise RunExists(f"{folder} already holds a run: give --resume to go on with it, or another --out")
    differences = tuple(_differences(_parsed(config, _content(config)), wanted))
    if differences:
        raise ConfigChanged(str(folder), differences)
    return True


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """The leaves of two JSON values that differ, as `dotted.path: old -> new`."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            below = f"{where}.{key}" if where else str(key)
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), below)
        return
    old_text, new_text = (
        "(absent)" if side is _ABSENT else json.dumps(side, sort_keys=True) for side in (old, new)
    )
    if old_text != new_text:
        yield f"{where or 'all'}: {_short(old_text)} -> {_short(new_text)}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _json_bytes(value: Any) -> bytes:
    """UTF-8 whatever the locale; keys in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _parsed(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}; restore it, or choose another --out") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error


def _lock(folder: Path) -> FileIO:
    """Lock the folder until the returned file is closed or the process dies."""
    # Not known on Windows, where the rest of the package must still import.
    import fcntl

    lock = FileIO(folder / _LOCK, "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n".encode())
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().decode().strip() or "unknown"
        lock.close()
        raise RunLocked(
            f"{folder} is in use by process {owner}: wait until it ends, stop it, or choose another --out"
        ) from None
    except BaseException:
        lock.close()
        raise
    _held_locks.add(lock)
    return lock


def _unlock(lock: FileIO) -> None:
    _held_locks.discard(lock)
    lock.close()


def _forget_locks() -> None:
    """In a forked child: let go of the parent's locks, which else would outlive the parent in it."""
    for lock in _held_locks:
        lock.close()
    _held_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
