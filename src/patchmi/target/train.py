"""Train a classifier: a target, a judge, or a student."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.types import Images, Labels, Progress, silent
from patchmi.views import training_views


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


def train_classifier(
    model: nn.Module,
    *,
    images: Images,
    labels: Labels,
    training: Training,
    seed: int,
    progress: Progress = silent,
    description: str = "Training",
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
    """
    model = machine.place(model).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    # at 5 steps the rise would take none, and OneCycleLR divides by its length
    total_steps = max(6, training.step_count)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=total_steps, pct_start=0.2
    )
    images, labels = images.to(machine.device()), labels.to(machine.device())
    views = training_views(flips=training.flips, sides=(images.shape[2], images.shape[3]))
    with machine.seeded(seed):
        epoch_steps = math.ceil(len(images) / training.batch_size)
        order = torch.empty(0)
        for step in progress(range(training.step_count), description):
            if step % epoch_steps == 0:
                order = torch.randperm(len(images))
            start = step % epoch_steps * training.batch_size
            index = order[start : start + training.batch_size]
            with machine.mixed_precision(training.precision):
                logits = model(views(images[index]))
            loss = F.cross_entropy(logits.float(), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()
