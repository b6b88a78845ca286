"""The public images that the target gives each class most surely: what stands in for pictures of the class.

Top-n selection of X. Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative
Adversarial Network" (PLG-MI), AAAI 2023, section "Top-n selection".
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi import machine
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress

BATCH_SIZE = 256
"""Public images a question."""


def best_public(door: WhiteBox, public: Images, *, n: int, progress: Progress) -> Int[Tensor, "classes best"]:
    """For each class, the public images that the target is surest show it.

    An image may speak for several classes. By log-probability, which still orders what a softmax rounds to 0;
    of equals the one that comes first.

    Args:
        door: Access to the target, asked once about every public image.
        public: What the attacker has, in [0, 1].
        n: Images of each class; of fewer public images, all of them.
        progress: How to show how far it is.

    Returns:
        Indices into `public`, surest first, min(n, len(public)) a class, on the CPU.

    Raises:
        ValueError: If n is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give 1 or more public images of each class")
    # Filled in place, as in `public_prior`: small tensors kept between large ones leave the heap in holes.
    sureness = torch.empty(len(public), door.class_count)
    for start in progress(range(0, len(public), BATCH_SIZE), "The target names the public images"):
        batch = public[start : start + BATCH_SIZE].to(machine.device())
        with torch.no_grad():
            sureness[start : start + len(batch)] = door.logits(batch).float().log_softmax(dim=1)
    return _surest(sureness, n)


def _surest(sureness: Float[Tensor, "n classes"], count: int) -> Int[Tensor, "classes best"]:
    """The `count` largest of each column, by index, of equals the first."""
    order = sureness.argsort(dim=0, descending=True, stable=True)
    return order[:count].T.contiguous()
