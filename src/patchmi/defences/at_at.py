"""AT-AT: the network learns to be fooled, so that its gradients lead an attacker to no class's looks.

R. Torp, S. Smith, A. Breuer, "Reducing information dependency does not cause training data privacy.
Adversarially non-robust features do", ICLR 2026.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier, in_evaluation
from patchmi.target import Batch, Hooks, cross_entropy
from patchmi.types import Images, Labels

RADIUS = 1 / 255
"""Of the ball, in images in [0, 1]. The paper's is 2.5e-4, of larger images."""
STEP_SIZE = RADIUS / 4
STEP_COUNT = 5
"""The paper's."""


def other_classes(labels: Labels, *, class_count: int) -> Labels:
    """For each label one of the others, all of them equally likely."""
    return (labels + torch.randint_like(labels, 1, class_count)) % class_count


def perturb_towards(model: nn.Module, images: Images, targets: Labels) -> Images:
    """Images moved towards other classes by projected gradient descent, each pixel by at most `RADIUS`.

    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018; from a random
    point of the ball.

    Args:
        model: As it answers; neither its weights nor its statistics change.
        images: In [0, 1].
        targets: The classes to move towards.
    """
    low, high = (images - RADIUS).clamp_min(0), (images + RADIUS).clamp_max(1)
    perturbed = low + (high - low) * torch.rand_like(images)
    with in_evaluation(model):
        for _ in range(STEP_COUNT):
            perturbed.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(perturbed), targets), perturbed)
            perturbed = (perturbed.detach() - STEP_SIZE * gradient.sign()).clamp(low, high)
    return perturbed


@dataclass(frozen=True)
class AtAt(AbstractDefence):
    """Cross-entropy, and `strength` times the cross-entropy of perturbed images and the wrong classes.

    L = CE(F(x), y) + strength · CE(F(x + d), y'), y' ≠ y uniform, d what moves x towards y'.

    Args:
        strength: The second term's weight, above 0.

    Differs from the published code: perturbed images are looked for in evaluation mode, lest batch norm learn
    their statistics; y' is uniform, where there the class after y has twice the chance.
    """

    strength: float = 0.08

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"at-at, strength {self.strength:g}: give a weight above 0")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """The loss alone is another one."""
        del network

        def loss(batch: Batch) -> Float[Tensor, ""]:
            targets = other_classes(batch.labels, class_count=lesson.class_count)
            with machine.mixed_precision("float32"):  # bfloat16 would round the perturbation away
                perturbed = perturb_towards(batch.model, batch.images, targets)
                fooled = F.cross_entropy(batch.model(perturbed), targets)
            return cross_entropy(batch) + self.strength * fooled

        yield Hooks(loss=loss)
