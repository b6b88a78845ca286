"""Networks to put weights into: timm's, patchmi's own, and those of a user's function."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patchmi.networks import ARCHITECTURES, build_classifier
from patchmi.target.reading import TargetInvalid, in_one_line, listed
from patchmi.target.state_dict import Weights, fit_weights
from patchmi.target.torchvision_import import make_torchvision_importable


def build_network(architecture: str, weights: Weights, *, class_count: int | None) -> nn.Module:
    """The network of an architecture, sized as its weights are; the weights are not yet in it.

    Args:
        architecture: `timm:NAME`, `patchmi:NAME` or `package.module:function`.
        weights: Its state dict, perhaps with prefixes.
        class_count: How many classes there are, for a function that asks; None if nobody said.

    Raises:
        TargetInvalid: If there is no such architecture, or it cannot be made.
    """
    origin, _, name = architecture.partition(":")
    if not re.fullmatch(r"[\w.]+:[\w.+-]+", architecture):
        raise TargetInvalid(
            f"--architecture {architecture}: give timm:NAME, patchmi:NAME or package.module:function"
        )
    if origin == "timm":
        return _timm_network(name, weights)
    if origin == "patchmi":
        return _own_network(name, weights)
    return _call_function(origin, name, class_count=class_count)


def timm_configuration(name: str) -> Any:
    """What timm says of a model: `mean`, `std`, `input_size`, and how its first and last layer are called.

    Raises:
        TargetInvalid: If timm is not there or knows no such model.
    """
    make_torchvision_importable()
    try:
        import timm
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise TargetInvalid(
            f"timm:{name}: timm cannot be imported ({in_one_line(error)}): "
            "pip install 'patchmi[hub]' torchvision"
        ) from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models())
        raise TargetInvalid(
            f"timm:{name}: timm has no such model" + (f"; is it {' or '.join(near)}?" if near else "")
        )
    try:
        return get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise TargetInvalid(f"timm:{name}: {in_one_line(error)}; leave out what follows the dot") from None


def _timm_network(name: str, weights: Weights) -> nn.Module:
    configuration = timm_configuration(name)
    import timm

    classifier = _layer(weights, configuration.classifier, "weight")
    first = _layer(weights, configuration.first_conv, "weight")
    if classifier is None:
        raise TargetInvalid(
            f"timm:{name}: the weights have no {configuration.classifier}.weight; give the --architecture "
            "that they were trained in"
        )
    channel_count = first.shape[1] if first is not None and first.ndim == 4 else 3
    try:
        return timm.create_model(name, pretrained=False, num_classes=len(classifier), in_chans=channel_count)
    except Exception as error:  # noqa: BLE001 - a model's own code may raise anything
        raise TargetInvalid(f"timm:{name}: cannot be made ({in_one_line(error)})") from None


def _own_network(name: str, weights: Weights) -> nn.Module:
    base, *changes = name.split("+")
    if base not in ARCHITECTURES:
        raise TargetInvalid(f"patchmi:{name}: no such architecture; give one of {', '.join(ARCHITECTURES)}")
    first = _layer(weights, "trunk.2" if base == "mlp" else "trunk.0", "weight")
    head = _layer(weights, "head.decision" if "bottleneck" in changes else "head", "weight")
    if first is None or head is None or first.ndim < 2:
        raise TargetInvalid(f"patchmi:{name}: these are not its weights ({listed(list(weights))})")
    width, channel_count = first.shape[:2]
    if base == "mlp":
        width, channel_count = width // 16, channel_count // 1024
    sizes = {"class_count": len(head), "channel_count": channel_count, "width": width}
    try:
        with torch.device("meta"):  # a file that lies about a width must not cost memory
            fit_weights(weights, build_classifier(name, **sizes), source=f"patchmi:{name}")
        return build_classifier(name, **sizes)
    except TargetInvalid:
        raise
    except (RuntimeError, ZeroDivisionError, ValueError) as error:
        raise TargetInvalid(f"patchmi:{name}: cannot be made with {sizes} ({in_one_line(error)})") from None


def _call_function(module_name: str, function_name: str, *, class_count: int | None) -> nn.Module:
    where = f"--architecture {module_name}:{function_name}"
    with _working_directory_importable():
        try:
            function = getattr(importlib.import_module(module_name), function_name, None)
        except Exception as error:
            raise TargetInvalid(
                f"{where}: {module_name} cannot be imported ({in_one_line(error)}); run where Python finds it"
            ) from error
        if not callable(function):
            raise TargetInvalid(f"{where}: {module_name} has no function {function_name}")
        taken = inspect.signature(function).parameters
        words = [word for word in ("class_count", "num_classes") if word in taken]
        options = {words[0]: class_count} if words and class_count is not None else {}
        try:
            network = function(**options)
        except Exception as error:
            advice = "; give --class-names" if words and not options else ""
            raise TargetInvalid(f"{where}: the function failed ({in_one_line(error)}){advice}") from error
    if not isinstance(network, nn.Module):
        raise TargetInvalid(
            f"{where}: the function gave {type(network).__name__}; it must give a torch.nn.Module"
        )
    return network


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """What lies in the working directory can be imported, as with `python -m`."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _layer(weights: Weights, layer: str | tuple[str, ...] | None, part: str) -> Tensor | None:
    """A part of a layer (of several: the first), under whatever prefix; None where there is none."""
    name = layer[0] if isinstance(layer, tuple) else layer
    if not name:
        return None
    wanted = f"{name}.{part}"
    return next(
        (value for key, value in weights.items() if key == wanted or key.endswith(f".{wanted}")), None
    )
