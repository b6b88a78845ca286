"""Generators: latents and a condition (class or code) in, images in [-1, 1] out."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi.types import Images, Labels, Latents


class Doubling(nn.Module):
    """Nearest-neighbour upsampling by two: each pixel becomes four, by a copy that keeps channels last."""

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
        count, channels, height, width = maps.shape
        rows = maps.permute(0, 2, 3, 1)[:, :, None, :, None]
        doubled = rows.expand(count, height, 2, width, 2, channels).reshape(
            count, 2 * height, 2 * width, channels
        )
        return doubled.permute(0, 3, 1, 2)


class DoublingConvolution(nn.Conv2d):
    """`Doubling` and a 3×3 convolution in one pass, with four ninths of the products.

    To double is to convolve, transposed, with ones; so both together are one transposed convolution, whose
    4×4 kernel sums each 2×2 square of the 3×3 one.
    """

    def __init__(self, before: int, after: int, *, bias: bool = True) -> None:
        super().__init__(before, after, 3, padding=1, bias=bias)

    def forward(self, input: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after 2*h 2*w"]:
        kernel = F.pad(self.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        squares = F.avg_pool2d(kernel, 2, stride=1, divisor_override=1)
        return F.conv_transpose2d(input, squares, self.bias, stride=2, padding=1)


class ConditionalGenerator(nn.Module):
    """One generator for all classes: the default recipe's.

    The class enters as an embedding beside the latents. Images grow by nearest-neighbour doubling and 3×3
    convolutions, which leave none of the grid that transposed convolutions print.

    Args:
        class_count: How many classes it can be asked for.
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels, at least 8.
        latent_size: Length of the latent vector.
        embedding_size: Length of the class embedding.
        width: Channels of the last stage; each stage before it has twice as many, up to 8 × width.
    """

    def __init__(
        self,
        *,
        class_count: int,
        channel_count: int,
        image_size: int,
        latent_size: int = 100,
        embedding_size: int = 32,
        width: int = 32,
    ) -> None:
        super().__init__()
        doublings = max(1, round(math.log2(image_size / 4)))
        self.image_size = image_size
        self.latent_size = latent_size
        self.first_size = math.ceil(image_size / 2**doublings)
        channels = [width * min(8, 2**level) for level in range(doublings, -1, -1)]
        self.embedding = nn.Embedding(class_count, embedding_size)
        self.project = nn.Linear(latent_size + embedding_size, channels[0] * self.first_size**2)
        self.normalise = nn.BatchNorm2d(channels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                DoublingConvolution(before, after, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for before, after in pairwise(channels)
        )
        self.paint = nn.Conv2d(channels[-1], channel_count, 3, padding=1)

    def forward(self, latents: Latents, labels: Labels) -> Images:
        maps = self.project(torch.cat([latents, self.embedding(labels)], dim=1))
        maps = maps.unflatten(1, (-1, self.first_size, self.first_size))
        maps = F.leaky_relu(self.normalise(maps.contiguous(memory_format=torch.channels_last)), 0.2)
        for stage in self.stages:
            maps = stage(maps)
        return torch.tanh(self.paint(maps).float())[..., : self.image_size, : self.image_size]


class CodeGenerator(nn.Module):
    """The published generator: one class each, conditioned on an InfoGAN code.

    Embedding and latents become 1 and width·2^L - 1 maps, L transposed convolutions double the side. With the
    published sizes it has 3,444,069 parameters (one channel, one code).

    Args:
        code_count: Values of the InfoGAN code.
        channel_count: 1 grey, 3 colour.
        image_size: Side of the images in pixels, a multiple of 2^level_count.
        latent_size: Length of the latent vector.
        width: n_gf of the published code.
        level_count: L, the number of doublings.
    """

    def __init__(
        self,
        *,
        code_count: int,
        channel_count: int,
        image_size: int,
        latent_size: int = 100,
        width: int = 64,
        level_count: int = 3,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        first_size = image_size // 2**level_count
        channels = width * 2**level_count
        self.code_embedding = nn.Embedding(code_count, 100)
        self.code_maps = nn.ConvTranspose2d(100, 1, first_size)
        self.latent_maps = nn.ConvTranspose2d(latent_size, channels - 1, first_size)
        layers: list[nn.Module] = []
        for _ in range(level_count - 1):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.LeakyReLU(0.2),
            ]
            channels //= 2
        layers += [nn.ConvTranspose2d(channels, channel_count, 4, stride=2, padding=1), nn.Tanh()]
        self.grow = nn.Sequential(*layers)
        self.apply(initialise_as_dcgan)

    def forward(self, latents: Latents, codes: Labels) -> Images:
        code = self.code_maps(self.code_embedding(codes)[..., None, None])
        latent = F.leaky_relu(self.latent_maps(latents[..., None, None]), 0.2)
        return self.grow(torch.cat([code, latent], dim=1)).float()


def initialise_as_dcgan(module: nn.Module) -> None:
    """Draw weights from N(0, .02), batch-norm scales from N(1, .02), as the published code does."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
