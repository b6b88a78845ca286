"""Penultimate activations of a classifier: the space in which reconstructions are compared with reality."""

from collections.abc import Iterator

import torch
from torch import nn

from patchmi.networks import in_evaluation
from patchmi.target.penultimate import recorded_features
from patchmi.types import Features, Images, Logits


def extract_features(model: nn.Module, images: Images, batch_size: int = 256) -> tuple[Features, Logits]:
    """Features and logits of every image, on the CPU in float32.

    The features are what enters the last `nn.Linear` that a forward pass runs through (for patchmi's own
    classifiers the output of `features`, before `head`). The model runs on its own device in evaluation
    mode without gradients, and is left in the mode, with the hooks, that it came with.

    Args:
        model: A classifier: images to logits.
        images: Pixels in [0, 1]; the model normalises inside.
        batch_size: Images per forward pass.

    Raises:
        ValueError: If there is no image, or no linear layer makes the logits.
    """
    if images.shape[0] == 0:
        raise ValueError("features need at least one image")
    features, logits = [], []
    with recorded_features(model) as features_behind:
        for batch_logits in _answers(model, images, batch_size):
            features.append(features_behind(batch_logits).float().cpu())
            logits.append(batch_logits.float().cpu())
    return torch.cat(features), torch.cat(logits)


def predict_logits(model: nn.Module, images: Images, batch_size: int = 256) -> Logits:
    """Logits of every image, on the CPU in float32, asked for as `extract_features` asks.

    Args:
        model: A classifier: images to logits.
        images: Pixels in [0, 1]; at least one.
        batch_size: Images per forward pass.
    """
    return torch.cat([logits.float().cpu() for logits in _answers(model, images, batch_size)])


def has_features(model: nn.Module, images: Images) -> bool:
    """Whether `extract_features` finds the linear layer that makes the logits; asked with the first image."""
    try:
        extract_features(model, images[:1])
    except ValueError:
        return False
    return True


def device_of(model: nn.Module, images: Images) -> torch.device:
    """Where the model's weights are; of one without weights, where the images are."""
    return next((parameter.device for parameter in model.parameters()), images.device)


def _answers(model: nn.Module, images: Images, batch_size: int) -> Iterator[Logits]:
    """Logits of each batch in evaluation mode, without gradients."""
    device = device_of(model, images)
    with in_evaluation(model):
        for batch in images.split(batch_size):
            with torch.no_grad():
                yield model(batch.to(device))
