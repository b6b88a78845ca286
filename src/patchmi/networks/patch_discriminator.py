"""The patch prior: a discriminator that gives each patch of an image its own log-odds of being public."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchmi.networks.generator import initialise_as_dcgan
from patchmi.types import Images, Labels, Logits, PatchLogits


class PatchDiscriminator(nn.Module):
    """Cuts an image into patches (one strided convolution) and judges each by 1×1 convolutions.

    Instance norm runs over the grid of patches, so patches of one image are weakly coupled, as published.

    Args:
        channel_count: 1 grey, 3 colour.
        patch_size: Side of a patch in pixels.
        stride: Pixels from one patch to the next.
        padding: Pixels of zeros around the image.
        width: Channels of every layer.
        level_count: Layers before the last.
        normalises: Whether hidden layers use instance norm; a single patch cannot be normalised.
    """

    def __init__(
        self,
        *,
        channel_count: int,
        patch_size: int,
        stride: int,
        padding: int,
        width: int,
        level_count: int = 3,
        normalises: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channel_count, width, patch_size, stride, padding),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(level_count - 1):
            layers.append(nn.Conv2d(width, width, 1))
            if normalises:
                layers.append(nn.InstanceNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv2d(width, 1, 1))
        self.judge_patches = nn.Sequential(*layers)
        self.apply(initialise_as_dcgan)

    def forward(self, images: Images, labels: Labels | None = None) -> PatchLogits:
        del labels  # the published prior is the same for all classes
        return self.judge_patches(images)


class ClassPatchDiscriminator(nn.Module):
    """Judges patches of 18 pixels, one every 4 pixels, by convolutions, for a class.

    Each patch is shown with the mean of its whole image: by patches alone an empty image passes for any whose
    patches are mostly empty.

    A grid of judgements by one convolutional network: P. Isola et al., "PatchGAN", CVPR 2017. The class has
    its word by a projection: T. Miyato, M. Koyama, "cGANs with Projection Discriminator", ICLR 2018.

    Args:
        channel_count: 1 grey, 3 colour.
        class_count: Number of classes.
        width: Channels of the first layer; the others have twice as many.
        sees_coordinates: Whether each pixel's row and column, in [-1, 1], are two further channels: the prior
            then also knows where in the picture a patch may stand.
    """

    def __init__(
        self, *, channel_count: int, class_count: int, width: int, sees_coordinates: bool = True
    ) -> None:
        super().__init__()
        self.sees_coordinates = sees_coordinates
        inputs = 2 * channel_count + 2 * sees_coordinates
        self.describe_patches = nn.Sequential(
            nn.Conv2d(inputs, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.judge_patches = nn.Conv2d(2 * width, 1, 1)
        self.class_directions = nn.Embedding(class_count, 2 * width)
        nn.init.normal_(self.class_directions.weight, 0.0, 0.1)

    def forward(self, images: Images, labels: Labels) -> PatchLogits:
        means = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
        context = [means, coordinates_like(images)] if self.sees_coordinates else [means]
        patches = self.describe_patches(torch.cat([images, *context], dim=1))
        directions = self.class_directions(labels)[:, :, None, None]
        return self.judge_patches(patches) + (patches * directions).sum(dim=1, keepdim=True)


class CodeClassifier(nn.Module):
    """InfoGAN's learnt Q: which code made this image? Convolutions of stride 2, batch norm after the first.

    Args:
        channel_count: 1 grey, 3 colour.
        code_count: Values of the code.
        image_size: Side of the images in pixels.
        width: Channels of the first layer, doubled at each level.
        level_count: Number of convolutions.
    """

    def __init__(
        self, *, channel_count: int, code_count: int, image_size: int, width: int = 64, level_count: int = 3
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channel_count
        size = image_size
        for level in range(level_count):
            after = width * 2**level
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            if level > 0:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2))
            before, size = after, (size + 1) // 2
        self.classify = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * size**2, code_count))
        self.apply(initialise_as_dcgan)

    def forward(self, images: Images) -> Logits:
        return self.classify(images)


def coordinates_like(images: Images) -> Float[Tensor, "n 2 height width"]:
    """Row and column of every pixel, each from -1 to 1, as two channels for a batch of images."""
    rows = torch.linspace(-1, 1, images.shape[2], device=images.device)
    columns = torch.linspace(-1, 1, images.shape[3], device=images.device)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(images.dtype)
    return grid.expand(len(images), -1, -1, -1)
