"""The doors to a target: all that an attack ever gets of it. They count every question."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from patchmi import machine
from patchmi.losses import Moments
from patchmi.types import Images, Logits

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Target:
    """A classifier under attack: a module from N×C×H×W images in [0, 1] to N×classes logits.

    Args:
        model: The module; it normalises its input itself.
        class_names: One name a class, in the order of the logits.
        image_shape: Channels, height and width of its images.
        name: What the report calls it.
        architecture: What kind of network it is.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    name: str = "target"
    architecture: str = "unknown"

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def batch_norm_layer_count(self) -> int:
        """Batch-norm layers that remember statistics of the training images."""
        return sum(1 for _ in _batch_norms(self.model))


@dataclass
class Queries:
    """How often a target was asked: calls forward and backward, and images in the forward calls."""

    forward: int = 0
    backward: int = 0
    images: int = 0


class WhiteBox:
    """White-box access: logits, their gradient with respect to the images, and batch-norm statistics.

    The door works on a frozen copy in evaluation mode, so that the target itself leaves unchanged and no time
    is spent on gradients of its weights.

    Args:
        target: The classifier under attack.
    """

    def __init__(self, target: Target) -> None:
        self.class_count = target.class_count
        self.class_names = target.class_names
        self.image_shape = target.image_shape
        self.queries = Queries()
        self._model = machine.place(copy.deepcopy(target.model)).eval().requires_grad_(False)
        self.has_batch_norm = target.batch_norm_layer_count > 0

    def logits(self, images: Images) -> Logits:
        """The target's logits for images in [0, 1], differentiable with respect to them."""
        self.queries.forward += 1
        self.queries.images += len(images)
        logits = self._model(images)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def logits_and_moments(self, images: Images, *, wanted: bool = True) -> tuple[Logits, list[Moments]]:
        """Logits, and what each batch-norm layer saw of this batch beside what it remembers.

        Args:
            images: Images in [0, 1].
            wanted: Off: no moments, an empty list.
        """
        if not wanted:
            return self.logits(images), []
        with _recorded_moments(self._model) as moments:
            return self.logits(images), moments

    def logits_and_image_moments(self, images: Images) -> tuple[Logits, list[Moments]]:
        """Logits, and what each batch-norm layer saw of every single image, over its positions."""
        with _recorded_moments(self._model, of_images=True) as moments:
            return self.logits(images), moments

    def _count_backward(self, _: torch.Tensor) -> None:
        self.queries.backward += 1


def _batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    return (
        layer
        for layer in model.modules()
        if isinstance(layer, BATCH_NORMS) and layer.running_mean is not None
    )


@contextmanager
def _recorded_moments(model: nn.Module, *, of_images: bool = False) -> Iterator[list[Moments]]:
    moments: list[Moments] = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        # Channels last and flat, means run over contiguous rows: far faster than torch.var_mean.
        maps = inputs[0].movedim(1, -1).float()
        values = maps.reshape(len(maps), -1, maps.shape[-1]) if of_images else maps.flatten(0, -2)
        mean = values.mean(dim=-2)
        variance = (values.square().mean(dim=-2) - mean.square()).clamp_min(0)
        moments.append(Moments(mean, variance, layer.running_mean, layer.running_var))  # pyright: ignore[reportArgumentType]

    handles = [layer.register_forward_pre_hook(record) for layer in _batch_norms(model)]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
