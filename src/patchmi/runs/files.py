"""Files that are whole or absent: a temporary file beside them, fsync, rename, fsync of the folder."""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from patchmi.runs.errors import OutOfResources

_TEMPORARY = ".patchmi-"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Lend a temporary path, which takes its final name when the block ends well and is removed otherwise.

    Args:
        path: The final name. Its folder is made if it is missing.

    Yields:
        A path in the same folder and with the same suffix.

    Raises:
        OutOfResources: The disk or a quota is full.
        OSError: The folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}{path.suffix}")
    try:
        make_folder(path.parent)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if is_exhausted(error):
            reason = error.strerror
            raise OutOfResources(f"cannot write {path}: {reason}; make room, then --resume") from error
        raise


def atomic_write(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, so that a reader finds the old content or the new one and nothing between.

    Args:
        path: The final name. Its folder is made if it is missing.
        data: The whole content.

    Raises:
        OutOfResources: The disk or a quota is full.
        OSError: The folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def is_exhausted(error: OSError) -> bool:
    """Whether the disk, a quota or a file-size limit is the cause."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents, each on the disk before the next.

    Raises:
        OSError: It cannot be made, or a file is in the way.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left anywhere below `folder`."""
    for leftover in folder.rglob(f"{_TEMPORARY}*"):
        leftover.unlink()


def _sync(path: Path) -> None:
    """Wait until the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise as safetensors: equal content gives equal bytes.

    Args:
        tensors: Dense tensors of any shape and device; views and shared memory are stored as copies.
        metadata: Free text.
    """
    # A fresh contiguous copy on the CPU: safetensors refuses views and shared memory.
    copies = {name: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for name, t in tensors.items()}
    # None for no metadata: without tensors either, the library writes a header that is no JSON.
    data = safetensors.torch.save(copies, dict(metadata) or None)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    # The library keeps metadata in a hash map, whose order differs from run to run.
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def unpack_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read safetensors bytes.

    Returns:
        The tensors, on the CPU, and the metadata.

    Raises:
        ValueError: The bytes are not a whole safetensors file.
    """
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    # The library's tensors start anywhere in `data`; arithmetic may depend on alignment, so copy them.
    return {name: tensor.clone() for name, tensor in tensors.items()}, header.get("__metadata__", {})
