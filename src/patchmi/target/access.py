"""The doors to a target: all that an attack ever gets of it. They count every question."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from patchmi import machine
from patchmi.losses import Moments
from patchmi.target.penultimate import recorded_features
from patchmi.types import Access, Features, Images, Logits

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class AccessDenied(ValueError):  # noqa: N818 - what happened, not that it is an error
    """A target grants less than an attack asks for: one line with the remedy."""


@dataclass(frozen=True)
class Target:
    """A classifier under attack: a module, and what stands between it and N×C×H×W images in [0, 1].

    Args:
        model: The module. It answers N×classes logits, alone, first in a tuple or list, or as `logits` of an
            object or dictionary.
        class_names: One name a class, in the order of the logits.
        image_shape: Channels, height and width of its images.
        name: What the report calls it.
        architecture: What kind of network it is.
        mean: Subtracted from each channel of an image in [0, 1]; empty where the model does this itself.
        std: What each channel is divided by then; given if and only if `mean` is.
        gives_probabilities: Whether the module ends in a softmax: its logarithm is taken then.
        access: The most that it grants: `score` for a module through which no gradient flows, `label` for one
            that answers nothing else.
        address: Where it is asked, if it is not at hand: what it is shown then leaves this machine.
        sees_private: Whether an auditor may show it private images.

    Raises:
        ValueError: If mean and std do not have one positive number a channel each.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    name: str = "target"
    architecture: str = "unknown"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    gives_probabilities: bool = False
    access: Access = "white-box"
    address: str | None = None
    sees_private: bool = True

    def __post_init__(self) -> None:
        lengths = {len(self.mean), len(self.std)}
        if lengths not in ({0}, {self.image_shape[0]}):
            raise ValueError(
                f"mean {self.mean} and std {self.std}: give both, with one number for each of "
                f"{self.image_shape[0]} channels, or neither"
            )
        if not all(math.isfinite(number) for number in self.mean) or not all(
            0 < number < math.inf for number in self.std
        ):
            raise ValueError(f"mean {self.mean} and std {self.std}: give finite numbers, std above 0")

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def batch_norm_layer_count(self) -> int:
        """Batch-norm layers that remember statistics of the training images."""
        return sum(1 for _ in _batch_norms(self.model))


class AsClassifier(nn.Module):
    """A target as an ordinary module: images in [0, 1] in, N×classes logits out.

    Args:
        target: Its model is used as it is, not copied.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.model = target.model
        self.gives_probabilities = target.gives_probabilities
        self.normalises = bool(target.mean)
        for name, numbers in (("mean", target.mean), ("std", target.std)):
            self.register_buffer(name, torch.tensor(numbers).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Images) -> Logits:
        """Logits for images in [0, 1]."""
        if self.normalises:
            images = (images - self.mean) / self.std
        logits = unwrap(self.model(images))
        return logits.clamp_min(torch.finfo(logits.dtype).tiny).log() if self.gives_probabilities else logits


def unwrap(answer: Any) -> torch.Tensor:
    """The logits in what a model answers: a tensor, a tuple that begins with them, or an object's `logits`.

    Raises:
        TypeError: If there are none.
    """
    if isinstance(answer, Mapping):
        answer = answer.get("logits")
    elif isinstance(answer, tuple | list) and answer:
        answer = answer[0]
    elif not isinstance(answer, torch.Tensor):
        answer = getattr(answer, "logits", answer)
    if not isinstance(answer, torch.Tensor):
        raise TypeError(f"the model answers {type(answer).__name__}: it must answer logits, N×classes")
    return answer


def answers(target: Target, images: Images, batch_size: int = 256) -> Logits:
    """The target's logits for many images, on the CPU: the auditor's question, which no query count holds.

    Args:
        target: The classifier; it is left as it came.
        images: Pixels in [0, 1].
        batch_size: Images a forward call.
    """
    module = _frozen(target)
    with torch.no_grad():
        batches = [module(batch.to(machine.device())).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(batches)


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

    Raises:
        AccessDenied: If the target grants less.
    """

    access: ClassVar[Access] = "white-box"

    def __init__(self, target: Target) -> None:
        self.class_count = target.class_count
        self.class_names = target.class_names
        self.image_shape = target.image_shape
        self.queries = Queries()
        if target.access != "white-box":
            raise AccessDenied(
                f"{target.name} grants {target.access} access only, this attack needs white-box access: "
                "give the model's weights, or --access score"
            )
        self._model = _frozen(target)
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

    def logits_and_features(self, images: Images) -> tuple[Logits, Features]:
        """Logits, and what enters the linear layer that makes them.

        Raises:
            ValueError: If no linear layer makes them.
        """
        with recorded_features(self._model) as features_behind:
            logits = self.logits(images)
            return logits, features_behind(logits)

    def _count_backward(self, _: torch.Tensor) -> None:
        self.queries.backward += 1


def _frozen(target: Target) -> nn.Module:
    """A copy in evaluation mode, so that nothing that is asked can change the target."""
    return machine.place(AsClassifier(copy.deepcopy(target))).eval().requires_grad_(False)


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
