"""A training state as bytes without pickle: tensors as safetensors, the tree around them as JSON metadata."""

import hashlib
import json
import re
from typing import Any

import torch
from torch import Tensor

from patchmi.runs.files import pack_tensors, unpack_tensors

_FORMAT = "patchmi.checkpoint/1"
_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def pack_state(state: dict[Any, Any], *, serial: int) -> bytes:
    """Serialise a nested state, sealed with its SHA-256.

    Args:
        state: Dicts, lists and tuples of tensors, numbers, strings, booleans and None. Keys of dicts are
            strings, numbers, booleans or None. Subclasses (OrderedDict, named tuples, parameters) come back
            as their plain kind, and tensors that shared memory come back apart.
        serial: Which save this is, counted from 1.

    Raises:
        TypeError: Something else stands in the state; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(state, tensors, "state"), separators=(",", ":"))
    metadata = {"format": _FORMAT, "serial": str(serial), "sha256": _NO_DIGEST, "tree": tree}
    data = pack_tensors(tensors, metadata)
    digest = hashlib.sha256(data).hexdigest()
    # Quotes inside the tree are escaped, so the first match is the digest's own field.
    return data.replace(f'"sha256":"{_NO_DIGEST}"'.encode(), f'"sha256":"{digest}"'.encode(), 1)


def unpack_state(data: bytes) -> tuple[int, dict[Any, Any]]:
    """Read what `pack_state` wrote.

    Returns:
        The serial and the state. Tensors are on the CPU, with the strides they had.

    Raises:
        ValueError: The bytes are damaged, or of another format.
    """
    found = _DIGEST.search(data)
    if found is None:
        raise ValueError("no digest found")
    content = hashlib.sha256(data[: found.start(1)])
    content.update(_NO_DIGEST.encode())
    content.update(memoryview(data)[found.end(1) :])
    if content.hexdigest() != found.group(1).decode():
        raise ValueError("its SHA-256 does not match")
    tensors, metadata = unpack_tensors(data)
    if metadata["format"] != _FORMAT:
        raise ValueError(f"its format is {metadata['format']}, not {_FORMAT}")
    return int(metadata["serial"]), _decode(json.loads(metadata["tree"]), tensors)


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """Turn `value` into JSON, and put its tensors into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name, "strides": _strides(value)}
    if isinstance(value, dict):
        # Pairs rather than a JSON object, whose keys would all become strings.
        keys = [_scalar(key, f"a key of {where}") for key in value]
        return {"dict": [(key, _encode(value[key], tensors, f"{where}[{key!r}]")) for key in keys]}
    if isinstance(value, list | tuple):
        items = [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise TypeError(f"{where} is a {kind}: checkpoints hold tensors, numbers, text, dicts, lists, tuples")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    match node:
        case list():
            return [_decode(item, tensors) for item in node]
        case {"tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case {"dict": pairs}:
            return {key: _decode(item, tensors) for key, item in pairs}
        case {"tensor": name, "strides": None}:
            return tensors[name]
        case {"tensor": name, "strides": strides}:
            stored = tensors[name]
            return torch.empty_strided(stored.shape, strides, dtype=stored.dtype).copy_(stored)
        case _:
            return node


def _strides(tensor: Tensor) -> list[int] | None:
    """The strides of a tensor that fills its memory in whatever order (channels-last, transposed), else None.

    Kernels choose their order of summation by them, and a resumed run must sum in the same order.
    """
    by_stride = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    is_dense = tensor.permute(by_stride).is_contiguous()
    return list(tensor.stride()) if is_dense else None
