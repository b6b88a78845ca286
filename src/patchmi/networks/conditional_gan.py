"""A class-conditional GAN: residual blocks, class-conditional batch norm, and two ways to judge a class.

T. Miyato, M. Koyama, "cGANs with Projection Discriminator", ICLR 2018, with the spectral norm of T. Miyato et
al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018: the pair that PLG-MI trains
(X. Yuan et al., AAAI 2023). LOKT (N.-B. Nguyen et al., NeurIPS 2023) trains the same generator against a
discriminator that names classes.

Differs from the paper: as many blocks as the side of the images asks for; nearest-neighbour doubling instead
of bilinear.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from patchmi.networks.generator import Doubling, DoublingConvolution
from patchmi.types import Images, Labels, Latents, Logits


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are the class's own; mean and variance are those of all classes.

    Args:
        class_count: Number of classes.
        channel_count: Channels of its maps.
    """

    def __init__(self, *, class_count: int, channel_count: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channel_count, affine=False)
        self.scales = nn.Embedding(class_count, channel_count)
        self.shifts = nn.Embedding(class_count, channel_count)
        nn.init.ones_(self.scales.weight)
        nn.init.zeros_(self.shifts.weight)

    def forward(
        self, maps: Float[Tensor, "n channels height width"], labels: Labels
    ) -> Float[Tensor, "n channels height width"]:
        scales, shifts = self.scales(labels), self.shifts(labels)
        return self.normalise(maps) * scales[:, :, None, None] + shifts[:, :, None, None]


class GrowingBlock(nn.Module):
    """A residual block of the generator: doubles the side of its maps.

    Args:
        before: Channels that come in.
        after: Channels that go out.
        class_count: Number of classes.
    """

    def __init__(self, before: int, after: int, *, class_count: int) -> None:
        super().__init__()
        self.enlarge = Doubling()
        self.first_norm = ConditionalBatchNorm(class_count=class_count, channel_count=before)
        self.first = DoublingConvolution(before, after)
        self.second_norm = ConditionalBatchNorm(class_count=class_count, channel_count=after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(
        self, maps: Float[Tensor, "n before height width"], labels: Labels
    ) -> Float[Tensor, "n after 2*height 2*width"]:
        residual = self.first(F.relu(self.first_norm(maps, labels)))
        residual = self.second(F.relu(self.second_norm(residual, labels)))
        return self.enlarge(self.shortcut(maps)) + residual


class ConditionalResNetGenerator(nn.Module):
    """Latents and class in, images in [-1, 1] out; a side that is no multiple of its steps is cropped.

    Args:
        class_count: Number of classes.
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels, at least 4.
        latent_size: Length of the latent vector.
        width: Channels of the last block; each before it has twice as many, up to 16 × width.
    """

    def __init__(
        self,
        *,
        class_count: int,
        channel_count: int,
        image_size: int,
        latent_size: int = 128,
        width: int = 32,
    ) -> None:
        super().__init__()
        doublings = _doublings(image_size)
        channels = [width * min(16, 2**level) for level in range(doublings, -1, -1)]
        self.image_size = image_size
        self.latent_size = latent_size
        self.first_size = math.ceil(image_size / 2**doublings)
        self.project = nn.Linear(latent_size, channels[0] * self.first_size**2)
        self.blocks = nn.ModuleList(
            GrowingBlock(before, after, class_count=class_count) for before, after in pairwise(channels)
        )
        self.normalise = nn.BatchNorm2d(channels[-1])
        self.paint = nn.Conv2d(channels[-1], channel_count, 1)

    def forward(self, latents: Latents, labels: Labels) -> Images:
        maps = self.project(latents).unflatten(1, (-1, self.first_size, self.first_size))
        maps = maps.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            maps = block(maps, labels)
        images = torch.tanh(self.paint(F.relu(self.normalise(maps))).float())
        return images[..., : self.image_size, : self.image_size]


class ShrinkingBlock(nn.Module):
    """A residual block of the discriminator: halves the side of its maps; every layer has spectral norm.

    Args:
        before: Channels that come in.
        after: Channels that go out.
        is_first: It sees the pixels, which no ReLU may cut.
    """

    def __init__(self, before: int, after: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        hidden = after if is_first else before
        self.first = _normalised(nn.Conv2d(before, hidden, 3, padding=1), gain=math.sqrt(2))
        self.second = _normalised(nn.Conv2d(hidden, after, 3, padding=1), gain=math.sqrt(2))
        self.shortcut = _normalised(nn.Conv2d(before, after, 1))

    def forward(
        self, maps: Float[Tensor, "n before height width"]
    ) -> Float[Tensor, "n after half_height half_width"]:
        residual = self.first(maps if self.is_first else F.relu(maps))
        residual = F.avg_pool2d(self.second(F.relu(residual)), 2)
        return self.shortcut(F.avg_pool2d(maps, 2)) + residual


class ProjectionDiscriminator(nn.Module):
    """Judges images for a class: w·f(x) + b + v_y·f(x), large for public images of the class.

    Args:
        class_count: Number of classes.
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels, at least 4.
        width: Channels of the first block; each after it has twice as many, up to 16 × width.
    """

    def __init__(self, *, class_count: int, channel_count: int, image_size: int, width: int = 32) -> None:
        super().__init__()
        channels = _shrinking_channels(channel_count, image_size=image_size, width=width)
        self.blocks = _shrinking_blocks(channels)
        self.judge = _normalised(nn.Linear(channels[-1], 1))
        self.class_directions = _normalised(nn.Embedding(class_count, channels[-1]))

    def features(self, images: Images) -> Float[Tensor, "n features"]:
        """f(x), summed over positions, for images in [-1, 1]."""
        return _summed_features(self.blocks, images)

    def forward(self, images: Images, labels: Labels) -> Float[Tensor, " n"]:
        with _weights_once(self, images.device):
            features = self.features(images)
            of_class = (self.class_directions(labels) * features).sum(dim=1)
            return self.judge(features)[:, 0].float() + of_class.float()


class AuxiliaryClassifierDiscriminator(nn.Module):
    """Judges images, and names their class: w·f(x) + b, large for public images, and a line for each class.

    A. Odena, C. Olah, J. Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs", ICML 2017.

    Args:
        class_count: Number of classes.
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels, at least 4.
        width: Channels of the first block; each after it has twice as many, up to 16 × width.
    """

    def __init__(self, *, class_count: int, channel_count: int, image_size: int, width: int = 32) -> None:
        super().__init__()
        channels = _shrinking_channels(channel_count, image_size=image_size, width=width)
        self.blocks = _shrinking_blocks(channels)
        self.judge = _normalised(nn.Linear(channels[-1], 1))
        self.classify = _normalised(nn.Linear(channels[-1], class_count))

    def forward(self, images: Images) -> tuple[Float[Tensor, " n"], Logits]:
        with _weights_once(self, images.device):
            features = _summed_features(self.blocks, images)
            return self.judge(features)[:, 0].float(), self.classify(features).float()


def _shrinking_channels(channel_count: int, *, image_size: int, width: int) -> list[int]:
    """Channels of an image, and after each block of a discriminator."""
    return [channel_count] + [width * min(16, 2**level) for level in range(_doublings(image_size) + 1)]


def _shrinking_blocks(channels: list[int]) -> nn.ModuleList:
    """The blocks of a discriminator."""
    return nn.ModuleList(
        ShrinkingBlock(before, after, is_first=number == 0)
        for number, (before, after) in enumerate(pairwise(channels))
    )


def _summed_features(blocks: nn.ModuleList, images: Images) -> Float[Tensor, "n features"]:
    """f(x): what is above zero after the last block, summed over positions."""
    maps = images
    for block in blocks:
        maps = block(maps)
    return F.relu(maps).sum(dim=(2, 3))


@contextmanager
def _weights_once(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Norm weights once a call, in float32: in bfloat16 the power iteration would not settle."""
    with parametrize.cached():
        with torch.autocast(device.type, enabled=False):
            for layer in network.modules():
                if parametrize.is_parametrized(layer):
                    _ = layer.weight
        yield


def _doublings(image_size: int) -> int:
    """Blocks from about 4 pixels a side to `image_size`."""
    return max(1, round(math.log2(image_size / 4)))


def _normalised(layer: nn.Conv2d | nn.Linear | nn.Embedding, *, gain: float = 1.0) -> nn.Module:
    """A layer of Xavier's weights with spectral norm."""
    nn.init.xavier_uniform_(layer.weight, gain)
    return spectral_norm(layer)
