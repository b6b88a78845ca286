"""Train a classifier: a target, a judge, or a student."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.networks import in_evaluation
from patchmi.types import Images, Labelled, Labels, Progress, silent
from patchmi.views import training_views

CHOICES = 10
"""Moments of a training, evenly spread, of which a validation split chooses the best."""


@dataclass(frozen=True)
class Training:
    """How a classifier is trained: AdamW on cross-entropy, one-cycle learning rate, mild random views.

    Args:
        step_count: Batches seen.
        batch_size: Images a batch.
        learning_rate: Its peak, reached after 20 % of the steps; it ends at 0.
        weight_decay: AdamW's.
        flips: Whether images may be mirrored; they are then shifted instead of turned and scaled.
        precision: Number format of the convolutions.
    """

    step_count: int = 400
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    flips: bool = False
    precision: machine.Precision = "auto"


@dataclass(frozen=True)
class Batch:
    """What a loss is taken of.

    Args:
        model: The network, in training.
        images: Views of a batch of images, in [0, 1].
        labels: Their classes.
        share_done: How far the training is: 0 at its first step, below 1 at its last.
    """

    model: nn.Module
    images: Images
    labels: Labels
    share_done: float


def cross_entropy(batch: Batch) -> Float[Tensor, ""]:
    """Mean of -log p(y | x) over the batch."""
    return F.cross_entropy(batch.model(batch.images).float(), batch.labels)


def in_random_order(image_count: int, batch_size: int) -> Iterator[Int[Tensor, " batch"]]:
    """Places of images, a batch at a time: each image once, in random order, then all of them anew."""
    while True:
        yield from torch.randperm(image_count).split(batch_size)


def _as_it_is(thing: Any) -> Any:
    return thing


@dataclass(frozen=True)
class Hooks:
    """The places at which a defence takes part in a training. As they stand, they leave it as it is.

    Args:
        loss: What is minimised.
        transform: Of a batch, after its random views.
        frozen: Parts of the network that stay as they are to the bit, statistics of batch norm included.
        wrap: What is put around the optimiser.
        draw: Batches of places among so many images, without end.
        stop_share: Share of the steps after which the training ends, as if it had been meant to go on.
    """

    loss: Callable[[Batch], Float[Tensor, ""]] = cross_entropy
    transform: Callable[[Images], Images] = _as_it_is
    frozen: tuple[nn.Module, ...] = ()
    wrap: Callable[[torch.optim.Optimizer], Any] = _as_it_is
    draw: Callable[[int, int], Iterator[Int[Tensor, " batch"]]] = in_random_order
    stop_share: float = 1.0


PLAIN_TRAINING = Hooks()


def train_classifier(
    model: nn.Module,
    *,
    images: Images,
    labels: Labels,
    training: Training,
    seed: int,
    progress: Progress = silent,
    description: str = "Training",
    hooks: Hooks = PLAIN_TRAINING,
    validation: Labelled | None = None,
) -> nn.Module:
    """Train `model` in place and return it in evaluation mode, on the fastest device.

    Args:
        model: Maps images in [0, 1] to logits; its initial weights are used as they are.
        images: Private images (or, for a student, reconstructions).
        labels: Their classes.
        training: How.
        seed: Of batches and views; the same seed gives the same weights.
        progress: How to show how far it is.
        description: What the progress calls it.
        hooks: Where a defence takes part.
        validation: Images and classes that it does not learn from; of `CHOICES` moments the one that knows
            them best is kept, of equally good ones the last. None: the last moment is.
    """
    model = machine.place(model).train()
    for part in hooks.frozen:
        part.eval().requires_grad_(False)
    optimiser = hooks.wrap(
        torch.optim.AdamW(
            [weight for weight in model.parameters() if weight.requires_grad],
            training.learning_rate,
            weight_decay=training.weight_decay,
        )
    )
    # at 5 steps the rise would take none, and OneCycleLR divides by its length
    total_steps = max(6, training.step_count)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=total_steps, pct_start=0.2
    )
    images, labels = images.to(machine.device()), labels.to(machine.device())
    views = training_views(flips=training.flips, sides=(images.shape[2], images.shape[3]))
    stop = max(1, round(hooks.stop_share * training.step_count))
    best = _Best()
    with machine.seeded(seed):
        batches = hooks.draw(len(images), training.batch_size)
        for step in progress(range(stop), description):
            index = next(batches)
            with machine.mixed_precision(training.precision):
                shown = hooks.transform(views(images[index]))
                loss = hooks.loss(Batch(model, shown, labels[index], step / training.step_count))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if validation is not None and (step + 1) * CHOICES // stop > step * CHOICES // stop:
                with in_evaluation(model):
                    best = best.better(model, *validation)
    if best.weights is not None:
        model.load_state_dict(best.weights)
    return model.eval().requires_grad_(True)


@dataclass(frozen=True)
class _Best:
    """The moment of a training that knows the validation images best."""

    accuracy: float = -1.0
    weights: dict[str, Tensor] | None = None

    def better(self, model: nn.Module, images: Images, labels: Labels) -> "_Best":
        """This moment, or the network as it is now."""
        with torch.no_grad():
            hits = [
                model(some.to(machine.device())).argmax(dim=1).cpu() == truth
                for some, truth in zip(images.split(256), labels.split(256), strict=True)
            ]
        accuracy = float(torch.cat(hits).double().mean())
        return _Best(accuracy, copy.deepcopy(model.state_dict())) if accuracy >= self.accuracy else self
