"""From a picture's file or array to 8 bits in the target's shape, with a record of all that was adapted."""

import math
import warnings
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from patchmi.data.contents import Broken, Raw, short_reason
from patchmi.data.names import images_were

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""What is decoded. Other formats that Pillow knows start programs or run long scripts (EPS, PDF)."""

MAX_PIXELS = 50_000_000
"""A picture of more pixels is not decoded."""

RANGE_TOLERANCE = 1e-4
"""How far a float pixel may miss [0, 1] by rounding; it is clipped."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright again, by its EXIF orientation."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright, 8 bits, grey (`L`) or `RGB`.

    Attributes:
        image: The pixels.
        mode: What they were in the file, in Pillow's word.
        adapted: What was done to them, as ends of sentences that begin with "were".
    """

    image: Image.Image
    mode: str
    adapted: tuple[str, ...] = ()


def decode(name: str, raw: Raw) -> Picture | Broken:
    """Decode one picture, whatever its format says or whatever is wrong with it."""
    if isinstance(raw, Broken):
        return raw
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(raw, np.ndarray):
                return _to_eight_bits(Image.fromarray(_array_bytes(raw)))
            with Image.open(BytesIO(raw) if isinstance(raw, bytes) else raw, formats=FORMATS) as file:
                return _decode_file(file)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError:
        return Broken(name, "no image" if _size(raw) else "empty file")
    except Image.DecompressionBombError:
        return Broken(name, f"more than {MAX_PIXELS:,} pixels, not decoded")
    except Exception as error:  # noqa: BLE001 - decoders raise errors of many kinds for damaged files
        return Broken(name, short_reason(error))


def fit(picture: Picture, image_shape: tuple[int, int, int]) -> np.ndarray:
    """The whole picture in the target's shape, C×H×W, 8 bits; other proportions are squeezed, not cropped."""
    channel_count, height, width = image_shape
    image = picture.image.convert("L" if channel_count == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channel_count).transpose(2, 0, 1)


def range_problem(low: float, high: float) -> str:
    """What is wrong with float pixels from `low` to `high`, and the remedy; empty if they are in [0, 1]."""
    if not math.isfinite(low) or not math.isfinite(high):
        return "NaN or infinite pixels; replace them before saving"
    if -RANGE_TOLERANCE <= low and high <= 1 + RANGE_TOLERANCE:
        return ""
    found = f"float pixels from {low:.4g} to {high:.4g}"
    if low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE:
        return f"{found}; save (images + 1) / 2, which is in [0, 1]"
    if low >= 0 and high <= 255:
        return f"{found}; save images / 255, or uint8"
    return f"{found}; undo the normalisation, and save [0, 1] or uint8"


@dataclass
class Tally:
    """Counts of what the pictures were and what was done to them."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Height and width."""
    modes: Counter[str] = field(default_factory=Counter)
    adapted: Counter[str] = field(default_factory=Counter)
    grey_count: int = 0

    def add(self, picture: Picture) -> None:
        """Count one more."""
        width, height = picture.image.size
        self.sizes[height, width] += 1
        self.modes[picture.mode] += 1
        self.adapted.update(picture.adapted)
        self.grey_count += picture.image.mode == "L"

    def notes(self) -> list[str]:
        """What was done to pictures whatever the target, in sentences."""
        return [f"{images_were(count)} {what}" for what, count in sorted(self.adapted.items())]

    def fitting_notes(self, image_shape: tuple[int, int, int]) -> list[str]:
        """What `fit` did, in sentences."""
        channel_count, height, width = image_shape
        other = {size: count for size, count in self.sizes.items() if size != (height, width)}
        squeezed = sum(count for (h, w), count in other.items() if h * width != w * height)
        colour_count = self.sizes.total() - self.grey_count
        notes = []
        if other:
            least, most = min(other, key=math.prod), max(other, key=math.prod)
            sizes = f"{least[0]}×{least[1]}"
            if len(other) > 1:
                sizes = f"{len(other):,} sizes from {sizes} to {most[0]}×{most[1]}"
            notes.append(
                f"{images_were(sum(other.values()))} resized from {sizes} pixels to {height}×{width}"
            )
        if squeezed:
            notes.append(f"{images_were(squeezed)} squeezed from other proportions, not cropped")
        if channel_count == 1 and colour_count:
            notes.append(f"{images_were(colour_count)} made grey from colour (ITU-R 601 brightness)")
        if channel_count == 3 and self.grey_count:
            notes.append(f"{images_were(self.grey_count)} repeated from grey in three channels")
        return notes


def _decode_file(file: Image.Image) -> Picture:
    if math.prod(file.size) > MAX_PIXELS:
        raise Image.DecompressionBombError
    first_frame = ("of several frames or pages, of which the first was taken",) * getattr(
        file, "is_animated", False
    )
    file.load()
    picture = _to_eight_bits(file)
    turn = TURNS.get(_orientation(file))
    if turn is None:
        return Picture(picture.image, file.mode, picture.adapted + first_frame)
    turned = (*picture.adapted, *first_frame, "turned upright, as EXIF says")
    return Picture(picture.image.transpose(turn), file.mode, turned)


def _to_eight_bits(image: Image.Image) -> Picture:
    """Grey or RGB of 8 bits; what is transparent shows black."""
    mode, adapted = image.mode, ()
    if image.size == (1, 1):
        adapted = ("of a single pixel",)
    if mode.startswith(("I", "F")):
        deep = Image.fromarray(_rescale(image))
        return Picture(deep, mode, (*adapted, "scaled from more bits to 8"))
    grey = mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image)
            adapted = (*adapted, "laid on black where transparent")
    return Picture(image.convert("L" if grey else "RGB"), mode, adapted)


def _rescale(image: Image.Image) -> np.ndarray:
    """Deep grey, its whole range brought to 0 to 255."""
    pixels = np.asarray(image)
    if image.mode == "F":
        return _array_bytes(pixels)
    bits, kind = 16, 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits, kind = image.tag_v2[258][0], image.tag_v2.get(339, (1,))[0]
    if bits == 32 and kind == 1:
        pixels = pixels.view(np.uint32)  # Pillow keeps unsigned numbers in signed ones
    top = 2 ** (bits - (kind == 2)) - 1
    if pixels.min() < 0 or pixels.max() > top:
        raise ValueError(f"grey levels from {pixels.min()} to {pixels.max()}, not 0 to {top}")
    return np.rint(pixels * (255 / top)).astype(np.uint8)


def _array_bytes(pixels: np.ndarray) -> np.ndarray:
    """An array's picture as contiguous uint8; one channel without its axis."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8:
        if problem := range_problem(float(pixels.min()), float(pixels.max())):
            raise ValueError(problem)
        pixels = np.rint(pixels.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _orientation(file: Image.Image) -> int:
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a damaged EXIF block spoils no pixel
        return 1


def _size(raw: bytes | Path | np.ndarray) -> int:
    return raw.stat().st_size if isinstance(raw, Path) else len(raw)
