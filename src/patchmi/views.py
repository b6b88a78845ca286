"""The random transformation block: what an image must survive to count as its class.

Every image gets its own draw, and gradients pass through (kornia). Images are in [0, 1]; what a transform
leaves uncovered becomes 0, the paper's -1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from kornia import augmentation
from torch import Tensor, nn

from patchmi.types import Images, Logits


@dataclass(frozen=True)
class Views:
    """How an image is shown to the target.

    Differs from the paper: parameters are drawn per image instead of once a batch, and rotation is bilinear
    instead of nearest-neighbour, which passes no gradient to its parameters' neighbours.
    """

    transform: nn.Module
    """A random, differentiable map of N×C×H×W images onto themselves."""
    draw_count: int
    """Transformed copies of each image."""
    keeps_original: bool
    """Whether the untransformed image is a view too."""
    averages_logits: bool = False
    """Whether the target's logits are averaged over the views of an image before the loss."""

    @property
    def count(self) -> int:
        """Views of each image."""
        return self.draw_count + self.keeps_original

    def vary(self, images: Images) -> Images:
        """One transformed copy of each image."""
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round the angles and shifts
            return self.transform(images)

    def draw(self, images: Images) -> Float[Tensor, "views channels height width"]:
        """All views of all images, (count·N)×C×H×W, ordered by view, then image."""
        copies = self.vary(images.repeat(self.draw_count, 1, 1, 1))
        return torch.cat([images, copies]) if self.keeps_original else copies

    def pool(self, logits: Logits) -> Float[Tensor, "judged classes"]:
        """The logits that the loss sees: those of each view, or their mean for each image."""
        return logits.unflatten(0, (self.count, -1)).mean(dim=0) if self.averages_logits else logits


IDENTITY = Views(nn.Identity(), draw_count=0, keeps_original=True)
"""No views: the ablation, each image shown as it is."""


def affine_views(*, degrees: float = 20.0, flips: bool = False, draw_count: int = 3) -> Views:
    """The default recipe's: the image and copies turned, scaled by .85-1.15 and shifted by up to 10 %."""
    affine = augmentation.RandomAffine(degrees, translate=(0.1, 0.1), scale=(0.85, 1.15), p=1.0)
    transform = nn.Sequential(affine, augmentation.RandomHorizontalFlip(p=0.5)) if flips else affine
    return Views(transform, draw_count=draw_count, keeps_original=True)


def blurred_views() -> Views:
    """Against networks that answer to fine texture: six varied copies, half of them blurred.

    Blurred by 0.5 to 1 pixel.
    """
    transform = nn.Sequential(
        augmentation.RandomAffine(20.0, translate=(0.1, 0.1), scale=(0.85, 1.15), p=1.0),
        augmentation.RandomGaussianBlur((5, 5), (0.5, 1.0), p=0.5),
    )
    return Views(transform, draw_count=6, keeps_original=False)


def paper_digit_views(image_size: int) -> Views:
    """The published block for MNIST and EMNIST: the image and one copy, turned by ±20° and re-cropped.

    Differs from the paper: the canvas does not grow before the crop.
    """
    transform = nn.Sequential(
        augmentation.RandomRotation(20.0, p=1.0),
        augmentation.RandomResizedCrop((image_size, image_size), scale=(0.85, 1.0), ratio=(0.9, 1.1)),
    )
    return Views(transform, draw_count=1, keeps_original=True)


def paper_cifar10_views(image_size: int) -> Views:
    """The published block for CIFAR-10: the image and three copies, their logits averaged.

    Padded by 4, turned by ±22.5° twice, flipped, cropped.

    Differs from the paper: what is uncovered is black, there mid-grey.
    """
    transform = nn.Sequential(
        nn.ZeroPad2d(4),
        augmentation.RandomRotation(22.5, p=1.0),
        augmentation.RandomRotation(22.5, p=1.0),
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.RandomCrop((image_size, image_size)),
    )
    return Views(transform, draw_count=3, keeps_original=True, averages_logits=True)


def paper_celeba_views(image_size: int) -> Views:
    """The published block for CelebA: one copy, slightly turned, re-cropped, flipped and shifted."""
    transform = nn.Sequential(
        augmentation.RandomRotation(5.0, p=1.0),
        augmentation.RandomResizedCrop((image_size, image_size), scale=(0.9, 1.0), ratio=(0.95, 1.05)),
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.RandomAffine(0.0, translate=(0.1, 0.1), p=1.0),
    )
    return Views(transform, draw_count=1, keeps_original=False)


def paper_public_views(image_size: int) -> nn.Module:
    """How the published code varies its public handwriting: turned by ±90°, half cropped, mirrored.

    Differs from the paper: drawn anew for each batch, as there, but for each image alone.
    """
    return nn.Sequential(
        augmentation.RandomRotation(90.0, p=1.0),
        augmentation.RandomResizedCrop((image_size, image_size), scale=(0.5, 1.0), ratio=(1.0, 1.0)),
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.RandomVerticalFlip(p=0.5),
    )


def slight_views(image_size: int, *, flips: bool, draw_count: int) -> Views:
    """PLG-MI's and LOKT's: re-cropped from .8 of the area, brightness, contrast, turned by ±5°.

    Args:
        image_size: Side of the images in pixels.
        flips: Whether half of the copies are mirrored.
        draw_count: Transformed copies of each image.
    """
    mirror = (augmentation.RandomHorizontalFlip(p=0.5),) if flips else ()
    transform = nn.Sequential(
        augmentation.RandomResizedCrop((image_size, image_size), scale=(0.8, 1.0), ratio=(1.0, 1.0)),
        augmentation.ColorJitter(brightness=0.2, contrast=0.2, p=0.5),
        *mirror,
        augmentation.RandomRotation(5.0, p=0.5),
    )
    return Views(transform, draw_count=draw_count, keeps_original=False)


def trapdoor_views(sides: tuple[int, int], *, flips: bool) -> nn.Module:
    """Trap-MID's, each half of the times: re-cropped from .8 of the area, mirrored, turned by ±30°.

    Args:
        sides: Height and width of the images in pixels.
        flips: Whether images are mirrored.
    """
    height, width = sides
    mirror = (augmentation.RandomHorizontalFlip(p=0.5),) if flips else ()
    return nn.Sequential(
        augmentation.RandomResizedCrop(
            sides, scale=(0.8, 1.0), ratio=(width / height, width / height), p=0.5
        ),
        *mirror,
        augmentation.RandomRotation(30.0, p=0.5),
    )


def random_parts(images: Images) -> Images:
    """Parts of images: turned by ±30°, .7 to 2 times as large, moved by a quarter, and seen through a window.

    Without the window what is larger than the picture would run over its edge, as few things in pictures do.
    """
    affine = augmentation.RandomAffine(30.0, translate=(0.25, 0.25), scale=(0.7, 2.0), p=1.0)
    return _through_windows(affine(images), least_side=0.35)


def random_children(first: Images, second: Images) -> Images:
    """The first images a little different and trimmed; in half of them a window shows the second ones.

    A little different: turned by ±15°, .8 to 1.25 times as large, moved by an eighth.

    Args:
        first: Images in [0, 1].
        second: As many others, each of which has something in common with the first.
    """
    affine = augmentation.RandomAffine(15.0, translate=(0.12, 0.12), scale=(0.8, 1.25), p=1.0)
    count, _, height, width = first.shape
    openings = random_windows(count, height=height, width=width, least_side=0.3, most_side=0.8).to(first)
    openings = openings * (torch.rand(count, 1, 1, 1) < 0.5).to(first)
    return torch.lerp(_through_windows(affine(first), least_side=0.5), affine(second), openings)


def _through_windows(images: Images, *, least_side: float) -> Images:
    height, width = images.shape[2:]
    return images * random_windows(len(images), height=height, width=width, least_side=least_side).to(images)


def random_windows(
    count: int,
    *,
    height: int,
    width: int,
    least_side: float,
    most_side: float = 1.0,
    blur_pixels: float = 1.5,
) -> Float[Tensor, "count 1 height width"]:
    """1 inside a rectangle somewhere in the picture, 0 outside.

    Args:
        count: How many.
        height: Of the picture in pixels.
        width: Likewise.
        least_side: Of the rectangle, as a share of the picture's side; height and width are drawn apart.
        most_side: Likewise.
        blur_pixels: Width of its soft edges.
    """
    openings = []
    for size in (height, width):
        lengths = torch.empty(count, 1).uniform_(least_side, most_side) * size
        centres = torch.rand(count, 1) * (size - lengths) + lengths / 2
        distances = (torch.arange(size) + 0.5 - centres).abs()
        openings.append(((lengths / 2 - distances) / blur_pixels + 0.5).clamp(0, 1))
    down, across = openings
    return (down[:, :, None] * across[:, None, :])[:, None]


def training_views(*, flips: bool = False, sides: tuple[int, int] = (32, 32)) -> nn.Module:
    """Mild variety for training a classifier on images of about 32 pixels.

    Args:
        flips: For photographs: mirrored, and shifted by whole pixels into their own reflection, for what is
            turned or scaled is blurred too, and a network of blurred photographs knows fewer sharp ones.
        sides: Height and width of the images in pixels.
    """
    if not flips:
        return augmentation.RandomAffine(10.0, translate=(0.08, 0.08), scale=(0.92, 1.08), p=1.0)
    shift = augmentation.RandomCrop(
        sides, padding=min(sides) // 8, padding_mode="reflect", cropping_mode="slice"
    )
    return nn.Sequential(shift, augmentation.RandomHorizontalFlip(p=0.5))
