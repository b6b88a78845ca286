"""A torchvision whose compiled half does not load, made to import."""

import importlib

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def make_torchvision_importable() -> None:
    """Let timm and transformers import torchvision although its compiled operators do not fit this torch.

    Their model definitions use torchvision's Python half only, but importing that stops at two operators of
    object detection which nobody declared. Declared here, without code behind them, they let it pass; a call
    of one would still fail. Does nothing where torchvision is absent or imports as it is.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in _OPERATORS:
            torch.library.define(f"torchvision::{name}", _SCHEMA)
        importlib.import_module("torchvision")
