"""What a defence changes in a classifier's shape: written behind its name, as in `resnet10+bottleneck`."""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi.networks.classifiers import ARCHITECTURES, Classifier, ResidualBlock
from patchmi.types import Features, Logits

LEAST_DEVIATION = 1e-6
"""Of a code: the logarithm of less would not be finite."""
CODE_SHIFT = 5.0
"""What makes a fresh bottleneck's deviations small, as in the published code."""


class Bottleneck(nn.Module):
    """A head behind a noisy code: z ~ N(mean, deviation²), logits from z.

    T. Wang, Y. Zhang, R. Jia, "Improving Robustness to Model Inversion Attacks via Mutual Information
    Regularization", AAAI 2021.

    Args:
        feature_count: Length of the trunk's vector; the code has half of it.
        class_count: Number of classes.

    Differs from the published code: in evaluation mode z is the mean, so that answers do not change from one
    question to the next.
    """

    def __init__(self, *, feature_count: int, class_count: int) -> None:
        super().__init__()
        code_count = max(1, feature_count // 2)
        self.code = nn.Linear(feature_count, 2 * code_count)
        self.decision = nn.Linear(code_count, class_count)

    def encode(self, features: Features) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the code, each N×code."""
        mean, raw = self.code(features).float().chunk(2, dim=1)
        return mean, F.softplus(raw - CODE_SHIFT).clamp_min(LEAST_DEVIATION)

    def decide(self, mean: Tensor, deviation: Tensor) -> Logits:
        """Logits of a code: drawn in training, its mean otherwise."""
        return self.decision(mean + deviation * torch.randn_like(mean) if self.training else mean)

    def forward(self, features: Features) -> Logits:
        return self.decide(*self.encode(features))


def with_bottleneck(network: Classifier) -> Classifier:
    """The network with a bottleneck for its head."""
    sizes = {"feature_count": network.head.in_features, "class_count": network.head.out_features}
    setattr(network, "head", Bottleneck(**sizes))  # noqa: B010 - no linear layer, as other heads are
    return network


def with_group_norm(network: Classifier) -> Classifier:
    """The network with group norm for batch norm: no image's answer depends on others, as DP-SGD needs."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(gcd(8, layer.num_features), layer.num_features))
    return network


def with_skip_scale(network: Classifier, scale: float) -> Classifier:
    """The network with the shortcut of its last stage scaled.

    Raises:
        ValueError: It has no shortcut, or the scale is not in [0, 1].
    """
    blocks = [layer for layer in network.modules() if isinstance(layer, ResidualBlock)]
    if not blocks or not 0 <= scale <= 1:
        raise ValueError(f"skip-{scale:g}: give a residual network, as resnet10, and a scale from 0 to 1")
    blocks[-1].skip_scale = scale
    return network


VARIANTS: dict[str, Callable[[Classifier], Classifier]] = {
    "bottleneck": with_bottleneck,
    "group-norm": with_group_norm,
}
"""Changes that take no number; `skip-0.2` is the one that does."""


def build_classifier(
    name: str, *, class_count: int, channel_count: int, width: int | None = None
) -> Classifier:
    """A fresh classifier.

    Args:
        name: One of `ARCHITECTURES`, with what is changed in it, as `resnet10+bottleneck` or
            `resnet10+skip-0.2`.
        class_count: Number of classes.
        channel_count: Channels of its images.
        width: Of its layers; None: the architecture's own.

    Raises:
        ValueError: There is none of this name, or a change does not fit: one line.
    """
    base, *changes = name.split("+")
    if base not in ARCHITECTURES:
        raise ValueError(f"{name}: no such architecture; give one of {', '.join(ARCHITECTURES)}")
    sizes = {"class_count": class_count, "channel_count": channel_count}
    network = ARCHITECTURES[base](**sizes, **({} if width is None else {"width": width}))
    for change in changes:
        network = _changed(network, change, name=name)
    return network


def _changed(network: Classifier, change: str, *, name: str) -> Classifier:
    if change in VARIANTS:
        return VARIANTS[change](network)
    kind, _, number = change.partition("-")
    try:
        scale = float(number) if kind == "skip" else None
    except ValueError:
        scale = None
    if scale is None:
        raise ValueError(f"{name}: no change {change!r}; give {', '.join(VARIANTS)} or skip-0.2")
    return with_skip_scale(network, scale)


def stages(network: Classifier) -> list[nn.Module]:
    """The trunk's parts that have weights, from the image on; what follows one up to the next belongs to it.

    Args:
        network: One of `ARCHITECTURES`, changed or not.
    """
    return [part for part in network.trunk.children() if any(True for _ in part.parameters())]
