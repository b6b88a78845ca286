"""Images as text: lossless PNG inside a `data:` address, so that the report stays one file."""

import base64
import io

import numpy as np
from PIL import Image


def png_data_uri(pixels: np.ndarray) -> str:
    """One image as a `data:image/png` address, bit for bit.

    Args:
        pixels: uint8 [C, H, W] with C = 1 (grey) or 3 (RGB), 0 to 255.

    Returns:
        The address; the same bytes for the same pixels and version of Pillow.

    Raises:
        ValueError: another type or another number of channels.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise ValueError(
            f"image: {pixels.dtype} {list(pixels.shape)} is not uint8 [1 or 3, H, W]; convert it first"
        )
    grid = pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
