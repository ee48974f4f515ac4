"""Reading photos."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps

__all__ = ["read_image"]


def read_image(file_name: str | os.PathLike, format: str = "RGB") -> np.ndarray:
    """(H, W, 3) uint8 photo, rotated as its EXIF tag says.

    Args:
        file_name: any format that Pillow reads.
        format: order of the channels, ``"RGB"`` or ``"BGR"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable image, or an unknown format. Both messages name the file.
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"{file_name} is wanted as {format!r}; the format is 'RGB' or 'BGR'.")
    try:
        with Image.open(file_name) as image:
            array = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise FileNotFoundError(f"Image not found: {file_name}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Cannot read the image {file_name}: {error}") from error
    return array if format == "RGB" else np.ascontiguousarray(array[:, :, ::-1])
