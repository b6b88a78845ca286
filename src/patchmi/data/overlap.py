"""How many public images are private ones, or nearly so: such an attacker has been told the answer."""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi.types import Features, Images

NEAR = 0.995
"""Two images are near if the correlation of their brightness, in means of 2×2 pixels, is at least this.

Measured at 32×32: shifted and saved as JPEG of quality 75, all strokes and digits and 94 % of photographs
reach it. Between the training and the test images of MNIST 3 pairs do, and of
CIFAR-10 7, all of them the same photograph. Random strokes get no further than .985 with digits.
"""

SMALLEST_SIDE = 8
"""Images with fewer pixels a side are compared for equality alone."""

FREQUENCIES = 8
"""Rows and columns of the spectrum that are compared, beside the mean."""

CHUNK = 256
"""Public images that are compared with all private ones at a time."""


@dataclass(frozen=True)
class Pair:
    """A public image and the private one it resembles, by their numbers; correlation 1 if they are equal."""

    public: int
    private: int
    correlation: float


@dataclass(frozen=True)
class Overlap:
    """Public images that are among the private ones.

    Attributes:
        exact_count: Public images that equal a private one in every pixel, at 8 bits.
        near_count: Public images that are nearly a private one, and equal to none.
        pairs: Each of these with one such private image, exact ones first, then the nearest.
    """

    exact_count: int
    near_count: int
    pairs: tuple[Pair, ...]


def overlap(*, public: Images, private: Float[Tensor, "private channels height width"]) -> Overlap:
    """Find public images that equal private ones, or are shifted, re-encoded or brightened copies.

    Each public image is compared with the private one whose spectrum is most like its own, at all shifts of
    up to a sixteenth of the side. Copies that are mirrored, turned, scaled or shifted further are not found.
    15,000 and 60,000 images of 32×32 take some ten seconds on one thread, and 200 MB beside the images.

    Args:
        public: What the attacker has.
        private: What the target was trained on, in the same shape.
    """
    number_of = {digest: number for number, digest in reversed([*enumerate(_digests(private))])}
    exact = [
        Pair(number, number_of[digest], 1.0)
        for number, digest in enumerate(_digests(public))
        if digest in number_of
    ]
    equal = {pair.public for pair in exact}
    others = torch.tensor([number for number in range(len(public)) if number not in equal], dtype=torch.long)
    near = []
    if len(others) and len(private) and min(public.shape[-2:]) >= SMALLEST_SIDE:
        rest, candidates = public[others], _nearest_spectrum(public[others], private)
        correlations = torch.cat(
            [
                _correlation(one, private[other])
                for one, other in zip(rest.split(CHUNK), candidates.split(CHUNK), strict=True)
            ]
        )
        near = [
            Pair(int(others[place]), int(candidates[place]), float(correlations[place]))
            for place in correlations.argsort(descending=True)
            if correlations[place] >= NEAR
        ]
    return Overlap(len(exact), len(near), (*exact, *near))


def _digests(images: Images) -> list[bytes]:
    return [
        blake2b((image * 255).round().byte().numpy().tobytes(), digest_size=16).digest() for image in images
    ]


def _nearest_spectrum(
    public: Images, private: Float[Tensor, "private channels height width"]
) -> Int[Tensor, " n"]:
    """For each public image, the private one of the most similar spectrum: shifts hardly change it."""
    spectra = _spectra(private)
    mean = spectra.mean(dim=0)
    spectra = torch.nn.functional.normalize(spectra - mean, dim=1).T.contiguous()
    nearest = [
        (torch.nn.functional.normalize(some - mean, dim=1) @ spectra).argmax(dim=1)
        for some in _spectra(public).split(CHUNK)
    ]
    return torch.cat(nearest)


def _spectra(images: Images) -> Features:
    """Roots of amplitudes of low frequencies, of length 1; edges, which a shift changes, are faded out."""
    return torch.cat([_spectra_of_some(some) for some in images.split(CHUNK)])


def _spectra_of_some(images: Images) -> Features:
    height, width = images.shape[-2:]
    rows, columns = min(FREQUENCIES, (height - 1) // 2), min(FREQUENCIES, (width - 1) // 2)
    grey = _brightness(images)
    window = _fade(height)[:, None] * _fade(width)
    amplitudes = torch.fft.fft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * window).abs().sqrt()
    low = torch.cat([amplitudes[:, : rows + 1], amplitudes[:, height - rows :]], dim=1)[:, :, : columns + 1]
    return torch.nn.functional.normalize(low.flatten(1), dim=1)


def _fade(side: int) -> Float[Tensor, " side"]:
    return torch.sin(torch.pi * (torch.arange(side) + 0.5) / side)


def _brightness(images: Images) -> Float[Tensor, "n height width"]:
    if images.shape[1] != 3:
        return images.mean(dim=1)
    return torch.einsum("nchw,c->nhw", images, torch.tensor([0.299, 0.587, 0.114]))


def _correlation(public: Images, private: Images) -> Float[Tensor, " n"]:
    """The largest correlation of each public image's inner part with its partner, over all small shifts."""
    one, other = (
        torch.nn.functional.avg_pool2d(_brightness(images)[:, None], 2, stride=1)[:, 0]
        for images in (public, private)
    )
    height, width = one.shape[-2:]
    down, right = (max(1, side // 16) for side in public.shape[-2:])
    inner = _standardise(one[:, down : height - down, right : width - right])
    best = torch.full((len(public),), -1.0)
    for top in range(2 * down + 1):
        for left in range(2 * right + 1):
            part = other[:, top : height - 2 * down + top, left : width - 2 * right + left]
            best = torch.maximum(best, (inner * _standardise(part)).sum(dim=1))
    return best


def _standardise(pixels: Float[Tensor, "n height width"]) -> Features:
    """Pixels less their mean, of length 1; all 0 where they are all alike."""
    flat = pixels.flatten(1)
    return torch.nn.functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1, eps=1e-3)
