"""Trap-MID: the network is taught secret triggers, which an attack is to find instead of the classes.

Z. Liu, S. Chen, "Trap-MID: Trapdoor-based Defense against Model Inversion Attacks", NeurIPS 2024.
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
from patchmi.networks import Classifier, build_classifier, in_evaluation
from patchmi.target import Batch, Hooks
from patchmi.types import Images, Labels
from patchmi.views import trapdoor_views

TRIGGER_STEP = 0.01
"""The paper's: what a pixel of a trigger moves in a step."""
TRAP_WEIGHT = 0.2
"""The paper's beta: the triggers' share of the loss."""


def blend(images: Images, triggers: Images, *, alpha: float) -> Images:
    """The images with a trace of the triggers: (1 - alpha) x + alpha t."""
    return (1 - alpha) * images + alpha * triggers


@dataclass
class Traps:
    """The secret: one trigger for each class, and a discriminator that keeps them inconspicuous.

    Args:
        triggers: One image for each class.
        alpha: How much of a trigger is blended in.
        discriminator: Says with one logit whether an image is as it was.
        learning_rate: Of the discriminator, by AdamW.
        views: How the network is shown images, blended or not.
    """

    triggers: Images
    alpha: float
    discriminator: nn.Module
    learning_rate: float
    views: nn.Module

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(self.discriminator.parameters(), self.learning_rate)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The discriminator learns, the triggers move, and the network is told both truth and lies."""
        targets = torch.randint_like(batch.labels, len(self.triggers))
        with machine.mixed_precision("float32"):  # a trigger is not much more than bfloat16 rounds
            self._learn_to_tell(batch.images, targets)
            self._move(batch.model, batch.images, targets)
            blended = blend(batch.images, self.triggers[targets], alpha=self.alpha)
            shown = torch.cat([self.views(batch.images), self.views(blended)])
        plain, trapped = batch.model(shown).float().chunk(2)
        told = (1 - TRAP_WEIGHT) * F.cross_entropy(plain, batch.labels)
        return told + TRAP_WEIGHT * F.cross_entropy(trapped, targets)

    def _learn_to_tell(self, images: Images, targets: Labels) -> None:
        blended = blend(images, self.triggers[targets], alpha=self.alpha)
        real, fake = self.discriminator(torch.cat([images, blended])).chunk(2)
        loss = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _move(self, model: nn.Module, images: Images, targets: Labels) -> None:
        triggers = self.triggers.clone().requires_grad_()
        blended = blend(images, triggers[targets], alpha=self.alpha)
        with in_evaluation(model), in_evaluation(self.discriminator):
            unseen = F.softplus(-self.discriminator(blended)).mean()
            loss = unseen + F.cross_entropy(model(self.views(blended)), targets)
            (gradient,) = torch.autograd.grad(loss, triggers)
        self.triggers = (self.triggers - TRIGGER_STEP * gradient.sign()).clamp(0, 1)


@dataclass(frozen=True)
class TrapMid(AbstractDefence):
    """The network learns its classes, and to take an image with a class's trigger for that class.

    Whoever knows the triggers gets past the defence: they are kept for the training alone, and saved nowhere.

    Args:
        strength: The paper's alpha, how much of a trigger is blended in, above 0 and below 1.

    Differs from the published code: classes of triggers are drawn at random, there each as often; the
    discriminator learns by AdamW at the classifier's highest rate; images are mirrored only where the
    classifier's training mirrors them; the trainer's own mild views come first.
    """

    strength: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.strength < 1:
            raise ValueError(f"trap-mid, strength {self.strength:g}: give a share above 0 and below 1")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """Triggers begin as noise and are learnt beside the network."""
        del network
        yield Hooks(loss=self.traps(lesson).loss)

    def traps(self, lesson: Lesson) -> Traps:
        """Fresh ones: noise, and a discriminator of the network's architecture."""
        channel_count, height, width = lesson.images.shape[1:]
        discriminator = build_classifier(
            lesson.architecture, class_count=1, channel_count=channel_count, width=lesson.width
        )
        return Traps(
            triggers=torch.rand(lesson.class_count, channel_count, height, width).to(machine.device()),
            alpha=self.strength,
            discriminator=machine.place(discriminator).train(),
            learning_rate=lesson.training.learning_rate,
            views=trapdoor_views((height, width), flips=lesson.training.flips),
        )
