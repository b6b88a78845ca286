"""Digits that are not MNIST's: drawn from the fonts that ship with matplotlib, and UCI's handwritten ones.

A judge trained on them knows digits from elsewhere: what only MNIST's classifiers take for a digit, it
does not.

python -m benchmarks.other_digits runs/other-digits.safetensors
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from fontTools.ttLib import TTFont
from kornia import augmentation
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch.nn import functional as F

from patchmi import machine
from patchmi.runs import atomic_write
from patchmi.runs.files import pack_tensors
from patchmi.types import Images, Labels

SIDE = 128
"""Digits are drawn this large, then shrunk."""
UCI_REPEATS = 4
"""How often each of UCI's 1,797 digits stands among those of the fonts."""


def other_digits(count: int = 24_000, *, seed: int = 7) -> tuple[Images, Labels]:
    """Digits of every font, varied in size, slant, weight and place, and UCI's, all 32 pixels a side.

    Args:
        count: How many are drawn from fonts.
        seed: Of the draw.
    """
    random = np.random.default_rng(seed)
    fonts = [
        path for path in sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf")) if _has_digits(path)
    ]
    labels = torch.arange(count) % 10
    drawn = torch.stack([_draw(random, fonts[random.integers(len(fonts))], int(digit)) for digit in labels])
    slant = augmentation.RandomAffine(
        12.0, translate=(0.05, 0.05), scale=(0.75, 1.1), shear=(-20.0, 20.0), p=1.0
    )
    with machine.seeded(seed):
        drawn = F.avg_pool2d(slant(drawn), SIDE // 32)
    pixels, digits = (torch.from_numpy(np.asarray(part)) for part in load_digits(return_X_y=True))
    written = F.interpolate(pixels.float().reshape(-1, 1, 8, 8) / 16, size=22, mode="bicubic").clamp(0, 1)
    written = F.pad(written, (5, 5, 5, 5)).repeat(UCI_REPEATS, 1, 1, 1)
    return torch.cat([drawn, written]), torch.cat([labels, digits.repeat(UCI_REPEATS)])


def _has_digits(path: Path) -> bool:
    """Whether a font draws ten digits as such; a font of last resort draws boxes."""
    with TTFont(path, lazy=True) as font:
        characters = font.getBestCmap() or {}
    is_special = path.name.startswith(("LastResort", "cmex", "cmsy", "cmmi", "STIXSiz", "STIXNonUni"))
    return not is_special and all(ord(digit) in characters for digit in "0123456789")


def _draw(random: np.random.Generator, font: Path, digit: int) -> torch.Tensor:
    """One digit, 1×SIDE×SIDE in [0, 1]."""
    canvas = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(canvas).text(
        (SIDE / 2, SIDE / 2),
        str(digit),
        fill=255,
        font=ImageFont.truetype(str(font), round(SIDE * random.uniform(0.65, 0.95))),
        anchor="mm",
        stroke_width=int(random.integers(0, 5)),
    )
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255)[None]


def write_other_digits(path: Path) -> None:
    """Write them where a suite's `disjoint` finds them, unless they are there."""
    if path.exists():
        return
    images, labels = other_digits()
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"images": (images * 255).round().clamp(0, 255).byte(), "labels": labels}
    metadata = {"class_names": json.dumps([str(digit) for digit in range(10)])}
    atomic_write(path, pack_tensors(tensors, metadata))


if __name__ == "__main__":
    write_other_digits(Path(sys.argv[1]))
