"""torch's global random generators: kept in checkpoints, and lent out seeded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


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
