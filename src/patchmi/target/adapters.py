"""Targets from Python objects: a torch module, or what ART and foolbox wrap around one.

Both keep pixel range, mean and standard deviation outside the module. Here they become the mean and standard
deviation of images in [0, 1]. Neither package is imported: an object is known by what it has.
"""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from patchmi.target.access import Target, answers
from patchmi.target.reading import TargetInvalid, in_one_line
from patchmi.types import Images

Shape = tuple[int, int, int]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel; both empty where there is nothing to do."""


def as_target(
    thing: Any, *, class_names: tuple[str, ...] = (), image_shape: Shape | None = None, name: str = "target"
) -> tuple[Target, tuple[str, ...]]:
    """Make a target of a torch module, an ART `PyTorchClassifier` or a foolbox `PyTorchModel`.

    The module is used as it is, not copied. What it answers is for `probe_target` to find out.

    Args:
        thing: The object.
        class_names: One name a class, in the order of the scores; numbers if empty.
        image_shape: Channels, height and width of its images; an ART classifier knows its own.
        name: What the report calls the target.

    Returns:
        The target, and sentences for the report.

    Raises:
        TargetInvalid: The object is of another kind, or its preprocessing is more than a mean and a standard
            deviation a channel.
    """
    findings = ()
    if isinstance(thing, nn.Module):
        model, shape, normalisation = thing, _known(image_shape), ((), ())
    elif hasattr(thing, "preprocessing_defences") and isinstance(getattr(thing, "model", None), nn.Module):
        model, shape, normalisation = _from_art(thing, image_shape)
        findings = _bypassed_defences(thing)
    elif any(base.__module__ == "foolbox.models.pytorch" for base in type(thing).__mro__):
        shape = _known(image_shape)
        model, normalisation = _from_foolbox(thing, shape)
    else:
        raise TargetInvalid(
            f"{name}: no target can be made of a {type(thing).__name__}: give a torch.nn.Module, an ART "
            "PyTorchClassifier or a foolbox PyTorchModel"
        )
    mean, std = normalisation
    try:
        target = Target(model, class_names, shape, name, type(model).__name__, mean, std)
    except ValueError as error:
        raise TargetInvalid(f"{name}: {error}") from None
    if not class_names:
        numbers = tuple(str(label) for label in range(_class_count(target)))
        target = replace(target, class_names=numbers)
        findings += ("The classes have no names: they are numbered.",)
    return target, findings


class _Flipped(nn.Module):
    """A model that sees its images mirrored along one axis."""

    def __init__(self, model: nn.Module, axis: int) -> None:
        super().__init__()
        self.model, self.axis = model, axis

    def forward(self, images: Images) -> Any:
        """What the model answers to the mirrored images."""
        return self.model(images.flip(self.axis))


def _known(image_shape: Shape | None) -> Shape:
    if image_shape is None:
        raise TargetInvalid("image_shape is missing: give channels, height and width of the model's images")
    return image_shape


def _from_art(classifier: Any, image_shape: Shape | None) -> tuple[nn.Module, Shape, Normalisation]:
    """Model, shape and normalisation of an ART classifier."""
    if len(classifier.input_shape) != 3 or not classifier.channels_first:
        raise TargetInvalid(
            f"input_shape {tuple(classifier.input_shape)}, channels_first={classifier.channels_first}: give "
            "a classifier of images with channels, height and width, in this order"
        )
    if classifier.clip_values is None:
        raise TargetInvalid("clip_values is None: give the classifier its pixel range, as (0, 1) or (0, 255)")
    shape = image_shape or tuple(classifier.input_shape)
    mean, std = np.zeros(1), np.ones(1)
    if classifier.preprocessing is not None:
        if not hasattr(classifier.preprocessing, "mean"):
            kind = type(classifier.preprocessing).__name__
            raise TargetInvalid(f"preprocessing {kind}: give a mean and a standard deviation instead")
        mean, std = (_as_art_spreads(getattr(classifier.preprocessing, of), shape) for of in ("mean", "std"))
    return classifier.model, shape, _on_unit_pixels(mean, std, classifier.clip_values, shape)


def _as_art_spreads(numbers: np.ndarray, image_shape: Shape) -> np.ndarray:
    """Plain numbers are one a channel, unless there are as many as columns: ART then takes one a column."""
    is_by_channel = numbers.ndim == 1 and len(numbers) not in (1, image_shape[2])
    return numbers.reshape(-1, 1, 1) if is_by_channel else numbers


def _bypassed_defences(classifier: Any) -> tuple[str, ...]:
    """A sentence for each defence around an ART classifier's model."""
    return tuple(
        f"The {place} defence {type(defence).__name__} is bypassed: the model behind it was attacked."
        for place in ("preprocessing", "postprocessing")
        for defence in getattr(classifier, f"{place}_defences") or ()
    )


def _from_foolbox(wrapper: Any, image_shape: Shape) -> tuple[nn.Module, Normalisation]:
    """Model and normalisation of a foolbox model, which keeps the module in a closure."""
    model = inspect.getclosurevars(wrapper._model).nonlocals["model"]
    mean, std, flip_axis = wrapper._preprocess_args
    mean = np.zeros(1) if mean is None else mean.numpy()
    std = np.ones(1) if std is None else std.numpy()
    if flip_axis is not None:
        axis = flip_axis if flip_axis < 0 else flip_axis - 4
        if axis not in (-3, -2, -1):
            raise TargetInvalid(f"flip_axis {flip_axis}: give an axis of the image, -3, -2 or -1")
        # foolbox mirrors first and normalises then, a target the other way round
        mean, std = (np.flip(_for_each_pixel(numbers, image_shape), axis) for numbers in (mean, std))
        model = _Flipped(model, axis)
    return model, _on_unit_pixels(mean, std, wrapper.bounds, image_shape)


def _on_unit_pixels(mean: np.ndarray, std: np.ndarray, bounds: Any, image_shape: Shape) -> Normalisation:
    """The normalisation of pixels within `bounds`, for pixels in [0, 1]."""
    low, high = (_for_each_channel(np.asarray(bound), image_shape, "pixel range") for bound in bounds)
    mean = (_for_each_channel(mean, image_shape, "mean") - low) / (high - low)
    std = _for_each_channel(std, image_shape, "std") / (high - low)
    if (mean == 0).all() and (std == 1).all():
        return (), ()
    return tuple(mean.tolist()), tuple(std.tolist())


def _for_each_channel(numbers: np.ndarray, image_shape: Shape, what: str) -> np.ndarray:
    pixels = _for_each_pixel(numbers, image_shape)
    if (pixels != pixels[:, :1, :1]).any():
        raise TargetInvalid(f"{what} differs from pixel to pixel: give one number for each channel")
    return pixels[:, 0, 0]


def _for_each_pixel(numbers: np.ndarray, image_shape: Shape) -> np.ndarray:
    """Numbers as numpy spreads them over a batch of one image."""
    try:
        return np.broadcast_to(numbers.astype(np.float64), (1, *image_shape))[0]
    except ValueError:
        raise TargetInvalid(
            f"numbers of shape {numbers.shape} do not fit images of {image_shape}: give one for each channel"
        ) from None


def _class_count(target: Target) -> int:
    """How many scores a copy of the target gives for a black image."""
    try:
        return answers(target, torch.zeros(2, *target.image_shape)).shape[1]
    except (RuntimeError, TypeError) as error:
        raise TargetInvalid(
            f"{target.name}: fails on images of {target.image_shape} ({in_one_line(error)}): give the "
            "image_shape it was trained on"
        ) from None
