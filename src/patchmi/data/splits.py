"""Cut labelled images into what the target is trained on and what is held out."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi.types import Images, Labels

Train = tuple[Float[Tensor, "train channels height width"], Int[Tensor, " train"]]
HeldOut = tuple[Float[Tensor, "held_out channels height width"], Int[Tensor, " held_out"]]


def split_by_class(
    images: Images, labels: Labels, *, held_out_share: float, seed: int
) -> tuple[Train, HeldOut]:
    """Train and held-out images, the same share of every class held out, each in random order.

    Args:
        images: All private images.
        labels: Their classes.
        held_out_share: Share of each class to hold out, in (0, 1).
        seed: Seed of the choice.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = order[labels[order] == label]
        is_held_out[members[: round(held_out_share * len(members))]] = True
    train, held_out = order[~is_held_out[order]], order[is_held_out[order]]
    return (images[train], labels[train]), (images[held_out], labels[held_out])
