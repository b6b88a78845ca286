"""Pictures drawn by rule, for an attacker who has seen no image at all.

`strokes` are random curves, `glyphs` characters of scripts that ship with matplotlib's fonts, `leaves` the
dead-leaves model of natural images (A. B. Lee, D. Mumford, J. Huang, IJCV 2001; M. Baradad et al., "Learning
to See by Looking at Noise", NeurIPS 2021). The same seed draws the same pictures.
"""

import unicodedata
from pathlib import Path

import numpy as np
import torch
from fontTools.ttLib import TTFont
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from patchmi.types import Images

OVERSAMPLING = 4
"""Strokes and glyphs are drawn at this many times the size, then shrunk."""

SCRIPTS = ("GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "GEORGIAN", "ARABIC", "CANADIAN SYLLABICS")
FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSans-Oblique.ttf")


def strokes(count: int, *, image_size: int = 32, seed: int = 0) -> Images:
    """Draw 1 to 3 Catmull-Rom curves through 3 to 5 random points on each picture.

    Width 6 to 12 % of the side, light blur. White on black, one channel.

    Args:
        count: Number of pictures.
        image_size: Side in pixels.
        seed: Seed of the draw.
    """
    random = np.random.default_rng(seed)
    return _stack([_draw_strokes(random, image_size) for _ in range(count)], image_size)


def glyphs(count: int, *, image_size: int = 32, seed: int = 0, scripts: tuple[str, ...] = SCRIPTS) -> Images:
    """Draw one character a picture: random script, face, size, blur, turn (±15°) and place.

    Mathematical operators are always among them; digits and Latin letters never are.

    Args:
        count: Number of pictures.
        image_size: Side in pixels.
        seed: Seed of the draw.
        scripts: Some of `SCRIPTS`; leave out the script that the target was trained on.

    Raises:
        ValueError: A script is not one of `SCRIPTS`.
    """
    if unknown := [script for script in scripts if script not in SCRIPTS]:
        raise ValueError(f"scripts: {', '.join(unknown)} cannot be drawn; choose from {', '.join(SCRIPTS)}")
    random = np.random.default_rng(seed)
    faces = [_face_characters(name, scripts) for name in FACES]
    pictures = [_draw_glyph(random, image_size, *faces[random.integers(len(faces))]) for _ in range(count)]
    return _stack(pictures, image_size)


def leaves(count: int, *, image_size: int = 32, seed: int = 0, channel_count: int = 3) -> Images:
    """Cover each picture with discs, boxes and triangles, nearer ones hiding farther ones.

    Radii from 4 to 50 % of the side with density r⁻³, colours uniform, shaded by 1/f noise.

    Args:
        count: Number of pictures.
        image_size: Side in pixels.
        seed: Seed of the draw.
        channel_count: 1 grey, 3 colour.
    """
    random = np.random.default_rng(seed)
    batches = [
        _draw_leaves(random, min(500, count - first), image_size, channel_count)
        for first in range(0, count, 500)
    ]
    empty = np.zeros((0, channel_count, image_size, image_size), np.float32)
    return torch.from_numpy(np.concatenate([empty, *batches]))


PROCEDURAL = {"strokes": strokes, "glyphs": glyphs, "leaves": leaves}
"""Every procedural source by name."""


def _stack(pictures: list[Image.Image], image_size: int) -> Images:
    pixels = np.array([np.asarray(picture) for picture in pictures], np.float32) / 255
    return torch.from_numpy(pixels.reshape(-1, 1, image_size, image_size))


def _shrink(canvas: Image.Image, image_size: int, blur_pixels: float) -> Image.Image:
    blurred = canvas.filter(ImageFilter.GaussianBlur(blur_pixels * OVERSAMPLING))
    return blurred.resize((image_size, image_size), Image.Resampling.BOX)


def catmull_rom(points: np.ndarray, samples_per_span: int = 12) -> np.ndarray:
    """The uniform Catmull-Rom spline through `points` (k×2), end points doubled, as ((k-1)·samples)×2."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, samples_per_span)[:, None]
    spans = [
        (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3) / 2
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate(spans)


def _draw_strokes(random: np.random.Generator, image_size: int) -> Image.Image:
    side = image_size * OVERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    width = random.uniform(0.06, 0.12) * side
    for _ in range(random.integers(1, 4)):
        curve = catmull_rom(random.uniform(0.14, 0.86, (random.integers(3, 6), 2)) * side)
        pen.line([tuple(point) for point in curve], fill=255, width=round(width), joint="curve")
        for x, y in (curve[0], curve[-1]):
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return _shrink(canvas, image_size, random.uniform(0.2, 0.7))


def _face_characters(face: str, scripts: tuple[str, ...]) -> tuple[Path, str]:
    path = Path(get_data_path(), "fonts", "ttf", face)
    with TTFont(path, lazy=True) as font:
        present = sorted(font.getBestCmap() or {})
    chosen = [
        chr(code)
        for code in present
        if (
            unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo")
            and unicodedata.name(chr(code), "").startswith(scripts)
        )
        or 0x2200 <= code < 0x2300
    ]
    return path, "".join(chosen)


def _draw_glyph(random: np.random.Generator, image_size: int, face: Path, characters: str) -> Image.Image:
    side = image_size * OVERSAMPLING
    font = ImageFont.truetype(str(face), round(side * random.uniform(0.6, 0.9)))
    character = characters[random.integers(len(characters))]
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).text(
        (side / 2, side / 2),
        character,
        fill=255,
        font=font,
        anchor="mm",
        stroke_width=int(random.integers(0, 4)),
    )
    box = canvas.getbbox() or (0, 0, side, side)
    shift = (
        random.uniform(-0.06, 0.06, 2) * side
        - np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        + side / 2
    )
    turned = canvas.rotate(
        random.uniform(-15, 15), Image.Resampling.BILINEAR, translate=(round(shift[0]), round(shift[1]))
    )
    return _shrink(turned, image_size, random.uniform(0.2, 0.7))


def _draw_leaves(random: np.random.Generator, count: int, side: int, channel_count: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    pictures = np.zeros((count, channel_count, side, side), np.float32)
    bare = np.ones((count, side, side), bool)
    smallest, largest = 0.04 * side, 0.5 * side
    for layer in range(400):
        uncovered = np.flatnonzero(bare.any(axis=(1, 2)))
        if len(uncovered) == 0:
            break
        n = (len(uncovered), 1, 1)
        if layer < 399:
            draw = random.uniform(0, 1, n)
            radius = 1 / np.sqrt(draw / largest**2 + (1 - draw) / smallest**2)
        else:
            radius = np.full(n, 4.0 * side)
        x, y, angle = random.uniform(0, side, n), random.uniform(0, side, n), random.uniform(0, 2 * np.pi, n)
        u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        aspect = random.uniform(0.5, 1, n)
        disc = u**2 + v**2 < radius**2
        box = (abs(u) < radius) & (abs(v) < radius * aspect)
        triangle = (v > -radius / 2) & (v + 1.732 * abs(u) < radius)
        kind = random.integers(0, 3, n)
        visible = np.where(kind == 0, disc, np.where(kind == 1, box, triangle)) & bare[uncovered]
        colour = random.uniform(0, 1, (len(uncovered), channel_count, 1, 1)).astype(np.float32)
        pictures[uncovered] += visible[:, None] * colour
        bare[uncovered] &= ~visible
    return np.clip(pictures + _pink_noise(random, count, side)[:, None], 0, 1).astype(np.float32)


def _pink_noise(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Noise whose amplitude falls as 1/f, standard deviation .08 a picture, N×side×side."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((count, side, side))) / frequency
    noise = np.fft.irfft2(spectrum, s=(side, side))
    return 0.08 * noise / noise.std(axis=(1, 2), keepdims=True)
