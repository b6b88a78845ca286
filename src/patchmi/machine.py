"""What this machine has: the only room that names a device, a number format, or a generator of randomness."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

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


def processor_name() -> str:
    """What computes: the accelerator's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def work_seconds() -> float:
    """A clock to compare costs by: on a processor it stands while others compute, and counts all threads.

    A GPU's time is the wall's.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def random_state() -> dict[str, Tensor]:
    """The state of torch's global generators: `cpu`, and `cuda.0`, `cuda.1` … where they exist."""
    state = {"cpu": torch.get_rng_state()}
    for device in _devices():
        state[f"cuda.{device}"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Put torch's global generators back into a state that `random_state` gave.

    Args:
        state: uint8 tensors by generator. Those of devices that this machine lacks are passed over.
    """
    torch.set_rng_state(state["cpu"])
    for device in _devices():
        if f"cuda.{device}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{device}"], device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block; afterwards they go on as if nothing had been drawn.

    Args:
        seed: Any 64-bit integer.
    """
    with torch.random.fork_rng(devices=_devices()):
        torch.manual_seed(seed)
        yield


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
