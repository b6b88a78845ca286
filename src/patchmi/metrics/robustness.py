"""Accuracy under tiny changes of the images, made to deceive the classifier.

A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018. It stands beside what a defence gives away, since some defences buy the one with the
other.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from patchmi.losses import max_margin_loss
from patchmi.metrics.features import device_of
from patchmi.networks import in_evaluation
from patchmi.types import Images, Labels

REACH = 2.5
"""Sum of all steps, in radii: from a random start any corner of the ball can be reached (Madry et al., 5)."""


def robust_hits(
    model: nn.Module,
    *,
    images: Images,
    labels: Labels,
    epsilons_255: Sequence[float] = (0.25, 1.0),
    step_count: int = 20,
    batch_size: int = 256,
    seed: int = 0,
) -> Bool[Tensor, "epsilons n"]:
    """Whether each image is known as its class as it is, and wherever projected gradient descent went.

    The attack is untargeted, in the l-infinity ball, from one random start. What falls in a ball has fallen
    in every larger one, so that accuracy never rises with ε. It bounds robust accuracy from above: a better
    attack may find more. The model runs in float32 on its own device, and is left as it came.

    Args:
        model: A classifier: images to logits.
        images: Pixels in [0, 1], and so are the changed ones; the model normalises inside.
        labels: Their classes.
        epsilons_255: Radii of the balls, in 255ths; a row of the answer each, in this order.
        step_count: Steps of the attack, each of 2.5 radii / `step_count`.
        batch_size: Images per pass.
        seed: Of the starts.

    Raises:
        ValueError: If there is no image, no radius, or a radius that is not above 0.

    Differs from the paper: the margin is descended instead of cross-entropy, whose gradient vanishes for a
    network that is very sure; an image that was mistaken on the way has fallen, not at the end alone.
    """
    if images.shape[0] == 0 or not epsilons_255 or min(epsilons_255) <= 0:
        raise ValueError(
            f"robust accuracy needs images, and radii above 0: got {len(images)}, {epsilons_255}"
        )
    # drawn at once: the batch size changes nothing
    starts = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    device = device_of(model, images)
    hits = torch.zeros(len(epsilons_255), len(images), dtype=torch.bool)
    by_size = sorted(range(len(epsilons_255)), key=lambda place: epsilons_255[place])
    with in_evaluation(model), torch.autocast(device.type, enabled=False):
        for some in torch.arange(len(images)).split(batch_size):
            shown, truth = images[some].to(device), labels[some].to(device)
            with torch.no_grad():
                stands = model(shown).argmax(dim=1) == truth
            for place in by_size:
                stands = stands & _withstood(
                    model,
                    images=shown,
                    labels=truth,
                    starts=starts[some].to(device),
                    epsilon=epsilons_255[place] / 255,
                    step_count=step_count,
                )
                hits[place, some] = stands.cpu()
    return hits


def _withstood(
    model: nn.Module,
    *,
    images: Images,
    labels: Labels,
    starts: Float[Tensor, "n channels height width"],
    epsilon: float,
    step_count: int,
) -> Bool[Tensor, " n"]:
    """Whether each image was known at every step of projected gradient descent in its ball."""
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    moved = (images + epsilon * starts).clamp(0, 1)
    stands = torch.ones_like(labels, dtype=torch.bool)
    for _ in range(step_count):
        with torch.enable_grad():
            logits = model(moved.requires_grad_())
            (gradient,) = torch.autograd.grad(max_margin_loss(logits, labels), moved)
        stands &= logits.argmax(dim=1) == labels
        step = REACH * epsilon / step_count * gradient.sign()
        moved = (moved.detach() + step).clamp(low, high)
    with torch.no_grad():
        return stands & (model(moved).argmax(dim=1) == labels)
