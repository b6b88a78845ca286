"""Files that run code when they are opened: read for users who say that they trust them, and nowhere else."""

import warnings
from pathlib import Path
from typing import Literal

import torch

from patchmi.errors import UnsafeInput
from patchmi.target.reading import Reading, TargetInvalid, in_one_line


def read_trusted(path: Path, kind: Literal["TorchScript", "torch.export"], *, trust_model: bool) -> Reading:
    """A network that brings its own program.

    Args:
        path: The file.
        kind: What it is.
        trust_model: Whether the user said that it may run code.

    Raises:
        UnsafeInput: If it may not.
        TargetInvalid: If it cannot be opened.
    """
    if not trust_model:
        raise UnsafeInput(
            f"{path} is a {kind} program, which can run code when it is opened; nothing was opened; give "
            "--trust-model if you made it yourself, or a state dict with --architecture"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises against TorchScript altogether
            if kind == "TorchScript":
                model = torch.jit.load(path, map_location="cpu").eval()
            else:
                model = torch.export.load(path).module()
    except Exception as error:  # noqa: BLE001 - programs raise errors of many kinds
        raise TargetInvalid(f"{path}: cannot be opened as {kind} ({in_one_line(error)})") from None
    # An exported program has one mode, and refuses to be told.
    for layer in model.modules():
        layer.training = False
    # Of weights that ask for gradients, TorchScript makes copies that hang on the originals.
    for weight in model.parameters():
        weight.requires_grad_(False)
    return Reading(
        model, (path,), kind, findings=(f"The model is a {kind} program, trusted by --trust-model.",)
    )
