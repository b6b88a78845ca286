"""A network as it answers, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each part is in the mode that it came in.

    Args:
        network: In training, all of it or a part: what is frozen stays so.
    """
    was_training = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, training in was_training.items():
            part.training = training
