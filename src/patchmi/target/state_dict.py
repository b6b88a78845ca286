"""State dicts: read without running code, found among a checkpoint's other things, fitted to a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchmi.errors import UnsafeInput
from patchmi.target.file_kinds import REMEDY, FileKind
from patchmi.target.reading import TargetInvalid, in_one_line, listed

Weights = dict[str, Tensor]
"""Dense tensors on the CPU, by name."""

# In timm's order: averaged weights are those that were reported on.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")


def read_weights(path: Path, kind: FileKind) -> tuple[Weights, tuple[str, ...]]:
    """The tensors of a state dict, and what was found on the way to them.

    Args:
        path: The file.
        kind: `safetensors` or `state dict`, as `kind_of` has it.

    Raises:
        UnsafeInput: If the file asks for more than tensors.
        TargetInvalid: If it is of another kind, damaged, or holds no tensor that a network could have.
    """
    if kind not in ("safetensors", "state dict"):
        raise TargetInvalid(
            f"{path}: {kind} holds a network of its own; give it alone, without --architecture"
        )
    try:
        if kind == "safetensors":
            from safetensors.torch import load_file

            return _checked(path, load_file(path)), ()
        if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(str(path)):
            raise UnsafeInput(
                f"{path} asks for {listed(sorted(unsafe))}: a whole model, or more than tensors, which can "
                f"run code; nothing was run; {REMEDY}"
            )
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        tensors, findings = _without_company(loaded)
        return _checked(path, tensors), findings
    except (UnsafeInput, TargetInvalid):
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise errors of many kinds
        if type(error).__name__ == "UnpicklingError":
            raise UnsafeInput(
                f"{path} holds other things than tensors ({in_one_line(error)}); nothing was run; {REMEDY}"
            ) from None
        raise TargetInvalid(
            f"{path}: cannot be read as {kind} ({in_one_line(error)}); save it again"
        ) from None


def fit_weights(weights: Weights, model: nn.Module, *, source: str) -> tuple[Weights, tuple[str, ...]]:
    """The weights under the names that `model` has for them, and what had to be done for it.

    Args:
        weights: Tensors under names that may share a wrapper's prefix.
        model: The network; only its names, shapes and number formats are looked at.
        source: File and architecture, for the message.

    Raises:
        TargetInvalid: If a name or a shape differs.
    """
    findings = []
    expected = model.state_dict()
    if "n_averaged" in weights:
        weights = {name: tensor for name, tensor in weights.items() if name != "n_averaged"}
        findings.append("The weights are an average over training steps; their counter was left out.")
    while prefix := _shared_prefix(weights, expected):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        findings.append(f"The prefix {prefix} was taken off every name of the weights.")
    # Checkpoints from before torch 0.4.1 do not count batches, and nothing depends on it.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    shared = [name for name in expected if name in weights]
    formats = {str(weights[name].dtype).removeprefix("torch.") for name in shared if name not in counters}
    complaints = {
        "missing": [name for name in expected if name not in weights and name not in counters],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {_shape(weights[name])} instead of {_shape(expected[name])}"
            for name in shared
            if weights[name].shape != expected[name].shape
        ],
        "of another kind of number": [
            f"{name} {weights[name].dtype}"
            for name in shared
            if weights[name].is_floating_point() != expected[name].is_floating_point()
        ],
    }
    if any(complaints.values()):
        said = "; ".join(f"{what}: {listed(names)}" for what, names in complaints.items() if names)
        raise TargetInvalid(
            f"{source}: the weights do not fit: {said}; give the --architecture they were trained in"
        )
    if others := sorted(formats - {"float32", "int64"}):
        findings.append(f"The weights are stored as {', '.join(others)} and used as float32.")
    return weights, tuple(findings)


def refuse_non_finite(model: nn.Module, *, source: str) -> None:
    """Refuse a network of which a weight or a statistic is NaN or infinite.

    Raises:
        TargetInvalid: Naming the tensors.
    """
    names = [
        name
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if names:
        raise TargetInvalid(
            f"{source}: NaN or infinity in {listed(names)}; give weights of a training that ended well"
        )


def _without_company(loaded: Any) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The innermost state dict of a checkpoint."""
    findings = []
    while isinstance(loaded, Mapping):
        there = [key for key in _NESTED if isinstance(loaded.get(key), Mapping)]
        if not there:
            break
        passed_over = f", not from {' or '.join(there[1:])}" if there[1:] else ""
        findings.append(f"The weights were taken from {there[0]} in the checkpoint{passed_over}.")
        loaded = loaded[there[0]]
    tensors = dict(loaded) if isinstance(loaded, Mapping) else {}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}, tuple(findings)


def _checked(path: Path, tensors: Mapping[Any, Tensor]) -> Weights:
    """Plain tensors under names, each with all its numbers in the file."""
    file_bytes = path.stat().st_size
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not isinstance(name, str) or not plain or 0 in tensor.shape:
            raise TargetInvalid(
                f"{path}: {name} is no plain tensor with numbers in it; save model.state_dict()"
            )
        # A view repeats numbers without storing them: small in the file, of any size in memory.
        if tensor.numel() * tensor.element_size() > file_bytes:
            raise TargetInvalid(f"{path}: {name} claims {_shape(tensor)} numbers, more than the file holds")
    if not tensors:
        raise TargetInvalid(f"{path}: holds no tensors; save model.state_dict()")
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _shared_prefix(weights: Weights, expected: Mapping[str, Tensor]) -> str:
    """What every name begins with up to its first dot, unless the network's names begin with it too."""
    prefixes = {first + dot for first, dot, _ in (name.partition(".") for name in weights)}
    if len(prefixes) != 1:
        return ""
    (prefix,) = prefixes
    if not prefix.endswith(".") or any(name.startswith(prefix) for name in expected):
        return ""
    return prefix


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "1"
