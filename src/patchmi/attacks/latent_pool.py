"""The best latents that each class has had, by the target's scores: where searches by scores begin."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi.attacks.latent_rounds import ClassLatents
from patchmi.target import BlackBox
from patchmi.types import Scores

FLOOR = 1e-7
"""The least share that has a logarithm: rounded or cut, scores are often 0."""
POOLED = "pool"
"""What latents of no class are sent for, in the account."""

ClassValues = Float[Tensor, "classes each"]
"""What each class thinks of latents: the higher the better."""


class BestLatents:
    """The best latents of each class so far, best first.

    Args:
        class_count: Classes.
        latent_size: Length of the latent vector.
        kept_count: How many are kept of each class.
    """

    def __init__(self, *, class_count: int, latent_size: int, kept_count: int) -> None:
        self.kept_count = kept_count
        self.latents: ClassLatents = torch.empty(class_count, 0, latent_size)
        self.values: ClassValues = torch.empty(class_count, 0)

    def add(self, latents: ClassLatents, values: ClassValues) -> None:
        """Keep what is better than the worst so far; of equals the earlier."""
        latents, values = torch.cat([self.latents, latents], dim=1), torch.cat([self.values, values], dim=1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.kept_count]
        self.values = values.gather(1, order)
        self.latents = latents.gather(1, order[:, :, None].expand(-1, -1, latents.shape[2]))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"latents": self.latents, "values": self.values}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.latents, self.values = state["latents"], state["values"]


def own_values(values: Scores) -> ClassValues:
    """What each class thinks of its own latents, where every class judged all: as many of each, in order."""
    class_count = values.shape[1]
    return values.unflatten(0, (class_count, -1)).diagonal(dim1=0, dim2=2).T


def unnamed_note(door: BlackBox) -> tuple[str, ...]:
    """A note on classes that the target never named, if there are any."""
    lost = door.account.answered.count(0)
    if lost == 0:
        return ()
    return (
        f"Of {lost} of {door.class_count} classes the target never answered the name: their pictures are "
        "only the likeliest that were found.",
    )
