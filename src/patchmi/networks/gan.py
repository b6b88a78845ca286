"""Unconditional GANs of public images: the Patch-MI comparison's DCGAN, and GMI's Wasserstein GAN.

A. Radford, L. Metz, S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016; Y. Zhang et al., "The Secret Revealer" (GMI), CVPR 2020. Each stage of a
generator doubles the side and each stage of a discriminator halves it; there are as many as lead from about 4
pixels to the image's side: 3 for 32 pixels and 4 for 64, as published.

Differs from the papers: a generator crops from the next multiple, so that any side can be drawn; no stage has
more than 8 × width channels; the Wasserstein generator's images lie in [-1, 1] instead of [0, 1].
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchmi.networks.generator import initialise_as_dcgan
from patchmi.types import Images, Latents


class DcganGenerator(nn.Module):
    """Transposed convolutions with batch norm: latents in, images in [-1, 1] out.

    Args:
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels.
        latent_size: Length of the latent vector.
        width: Half the channels of the last hidden stage; each stage before it has twice as many.
    """

    def __init__(self, *, channel_count: int, image_size: int, latent_size: int, width: int) -> None:
        super().__init__()
        self.image_size = image_size
        level_count = _level_count(image_size)
        channels = [width * min(8, 2**level) for level in range(level_count, 0, -1)]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent_size, channels[0], _first_size(image_size), bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.LeakyReLU(0.2),
        ]
        for before, after in pairwise(channels):
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.ConvTranspose2d(channels[-1], channel_count, 4, stride=2, padding=1))
        self.grow = nn.Sequential(*layers)
        self.apply(initialise_as_dcgan)

    def forward(self, latents: Latents) -> Images:
        images = torch.tanh(self.grow(latents[..., None, None]).float())
        return images[..., : self.image_size, : self.image_size]


class DcganDiscriminator(nn.Module):
    """Strided convolutions with batch norm: images in [-1, 1] in, log-odds of being public out.

    Args:
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels.
        width: Channels of the first stage; each further stage has twice as many.
    """

    def __init__(self, *, channel_count: int, image_size: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, size = channel_count, image_size
        for level in range(_level_count(image_size)):
            after = width * min(8, 2**level)
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False))
            if level > 0:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2))
            before, size = after, size // 2
        self.judge = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * size**2, 1))
        self.apply(initialise_as_dcgan)

    def forward(self, images: Images) -> Float[Tensor, " n"]:
        return self.judge(images)[:, 0]


class WganGenerator(nn.Module):
    """GMI's generator: a linear layer, then transposed convolutions of 5×5 pixels with batch norm.

    Args:
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels.
        latent_size: Length of the latent vector.
        width: Channels of the last hidden stage; each stage before it has twice as many.
    """

    def __init__(self, *, channel_count: int, image_size: int, latent_size: int, width: int) -> None:
        super().__init__()
        self.image_size = image_size
        channels = [width * min(8, 2**level) for level in range(_level_count(image_size) - 1, -1, -1)]
        size = _first_size(image_size)
        feature_count = channels[0] * size**2
        layers: list[nn.Module] = [
            nn.Linear(latent_size, feature_count, bias=False),
            nn.BatchNorm1d(feature_count),
            nn.ReLU(),
            nn.Unflatten(1, (channels[0], size, size)),
        ]
        for before, after in pairwise(channels):
            layers += [_doubling(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.grow = nn.Sequential(*layers, _doubling(channels[-1], channel_count, bias=True))

    def forward(self, latents: Latents) -> Images:
        images = torch.tanh(self.grow(latents).float())
        return images[..., : self.image_size, : self.image_size]


class WganCritic(nn.Module):
    """GMI's critic: strided convolutions of 5×5 pixels with instance norm, which keeps images independent.

    Args:
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels.
        width: Channels of the first stage; each further stage has twice as many.
    """

    def __init__(self, *, channel_count: int, image_size: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, size = channel_count, image_size
        for level in range(_level_count(image_size)):
            after = width * min(8, 2**level)
            layers.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
            if level > 0:
                layers.append(nn.InstanceNorm2d(after, affine=True))
            layers.append(nn.LeakyReLU(0.2))
            before, size = after, math.ceil(size / 2)
        self.judge = nn.Sequential(*layers, nn.Conv2d(before, 1, size), nn.Flatten())

    def forward(self, images: Images) -> Float[Tensor, " n"]:
        return self.judge(images)[:, 0]


def _level_count(image_size: int) -> int:
    """Doublings from about 4 pixels to the image's side."""
    return max(1, round(math.log2(image_size / 4)))


def _first_size(image_size: int) -> int:
    """Side in pixels of a generator's first maps."""
    return math.ceil(image_size / 2 ** _level_count(image_size))


def _doubling(before: int, after: int, *, bias: bool) -> nn.ConvTranspose2d:
    """A transposed convolution of 5×5 pixels that doubles the side exactly."""
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=bias)
