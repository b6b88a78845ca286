"""What this machine has: the only room that names a device or a number format."""

from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]
Network = TypeVar("Network", bound=nn.Module)


def device() -> torch.device:
    """The fastest device present: CUDA where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 is computed by the hardware; emulated, it is slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN takes bfloat16 wherever there is AVX-512, and emulates it where AVX-512 cannot compute it
    emulates = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    return (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported() and not emulates
    )


def number_format(precision: Precision = "auto") -> Literal["float32", "bfloat16"]:
    """The format that the networks compute in, `auto` resolved by asking the machine."""
    if precision == "auto":
        return "bfloat16" if has_fast_bfloat16() else "float32"
    return precision


def mixed_precision(precision: Precision = "auto") -> torch.autocast:
    """A context in which convolutions and products run in the chosen format, sums in float32."""
    return torch.autocast(
        device().type,
        dtype=torch.bfloat16,
        enabled=number_format(precision) == "bfloat16",
        cache_enabled=False,
    )


def place(network: Network) -> Network:
    """Move a network to the device, channels last: the layout its convolutions are fastest in."""
    return network.to(device(), memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
