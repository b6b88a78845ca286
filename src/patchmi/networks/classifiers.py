"""Classifiers at 32 pixels or so: a target, and judges that share little with it but their data.

All take images in [0, 1], normalise inside, and split into `features` and `head`.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from patchmi.types import Features, Images, Logits


class Classifier(nn.Module):
    """A trunk of layers that ends in one vector an image, and a linear head.

    Args:
        trunk: Layers from N×C×H×W in [-1, 1] to N×features.
        feature_count: Length of the trunk's vector.
        class_count: Number of classes.
    """

    def __init__(self, trunk: nn.Module, *, feature_count: int, class_count: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(feature_count, class_count)

    def features(self, images: Images) -> Features:
        """Penultimate activations."""
        return self.trunk(images * 2 - 1)

    def forward(self, images: Images) -> Logits:
        return self.head(self.features(images))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm beside an identity or 1×1 path (K. He et al., CVPR 2016)."""

    def __init__(self, *, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.skip_scale = 1.0
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        # A 1×1 convolution of stride 2, written so that oneDNN does not see it as one: the gradient of fewer
        # than 8 channels, channels last, overruns its buffer on processors with AVX2 alone (torch 2.13).
        beside = maps[..., :: self.stride, :: self.stride]
        return F.relu(self.main(maps) + self.skip_scale * self.shortcut(beside))


class MixerBlock(nn.Module):
    """A depthwise 5×5 convolution beside the identity, then a 1×1 one (A. Trockman, J. Z. Kolter, 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width), nn.GELU(), nn.GroupNorm(8, width)
        )
        self.channels = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.GroupNorm(8, width))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.channels(maps + self.space(maps))


def resnet10(*, class_count: int, channel_count: int, width: int = 16) -> Classifier:
    """A residual network of four stages with one block each."""
    channels = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = [
        ResidualBlock(before=before, after=after, stride=1 if stage == 0 else 2)
        for stage, (before, after) in enumerate(pairwise(channels))
    ]
    stem = [nn.Conv2d(channel_count, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    trunk = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(trunk, feature_count=8 * width, class_count=class_count)


def vgg6(*, class_count: int, channel_count: int, width: int = 24) -> Classifier:
    """Plain 3×3 convolutions with batch norm and max-pooling, after K. Simonyan, A. Zisserman, ICLR 2015."""
    layers: list[nn.Module] = []
    before = channel_count
    for after in (width, 2 * width, 4 * width):
        for inputs in (before, after):
            layers += [nn.Conv2d(inputs, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = after
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Classifier(trunk, feature_count=before * 4, class_count=class_count)


def convmixer(*, class_count: int, channel_count: int, width: int = 64, depth: int = 4) -> Classifier:
    """Patches of 4 pixels, depthwise and 1×1 convolutions, group norm: no batch statistics at all."""
    stem = [nn.Conv2d(channel_count, width, 4, 4), nn.GELU(), nn.GroupNorm(8, width)]
    pool = [nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    trunk = nn.Sequential(*stem, *(MixerBlock(width) for _ in range(depth)), *pool)
    return Classifier(trunk, feature_count=width * 16, class_count=class_count)


def lenet(*, class_count: int, channel_count: int, width: int = 16) -> Classifier:
    """Large 5×5 filters, average pooling, dense layers, no norm: after Y. LeCun et al., 1998."""
    trunk = nn.Sequential(
        nn.Conv2d(channel_count, width, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(2 * width * 49, 128),
        nn.ReLU(),
    )
    return Classifier(trunk, feature_count=128, class_count=class_count)


def allconv(*, class_count: int, channel_count: int, width: int = 24) -> Classifier:
    """Strides instead of pooling, and a mean over the last maps: after J. T. Springenberg et al., 2015."""
    layers: list[nn.Module] = []
    before = channel_count
    for after in (width, 2 * width, 4 * width):
        for stride in (1, 2):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(trunk, feature_count=before, class_count=class_count)


def mlp(*, class_count: int, channel_count: int, width: int = 24) -> Classifier:
    """Two dense layers of 16 × `width` on 32×32 pixels: no convolution, a judge of another kind."""
    trunk = nn.Sequential(
        nn.AdaptiveAvgPool2d(32),
        nn.Flatten(),
        nn.Linear(1024 * channel_count, 16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 16 * width),
        nn.ReLU(),
    )
    return Classifier(trunk, feature_count=16 * width, class_count=class_count)


ARCHITECTURES = {
    "resnet10": resnet10,
    "vgg6": vgg6,
    "lenet": lenet,
    "allconv": allconv,
    "convmixer": convmixer,
    "mlp": mlp,
}
"""Every classifier by name; what `patchmi:NAME` stands for."""
