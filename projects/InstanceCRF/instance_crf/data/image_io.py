"""Reading photos, by Pillow: as Detectron2 reads them, for training, prediction and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    "check_depth",
    "exif_orientation",
    "image_size",
    "open_picture",
    "read_image",
    "reduced_size",
    "upright_size",
]

_EXIF_ORIENTATION = 0x0112
#: Where Pillow finds an orientation; of other pictures nothing needs to be parsed.
_HOLD_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}


@contextmanager
def open_picture(
    path: str | os.PathLike, kind: str = "image", file: BinaryIO | None = None
) -> Iterator[Image.Image]:
    """Open a picture by Pillow; whatever Pillow finds wrong with it is an error that names it.

    Args:
        path: the picture, read from ``file`` if that is given.
        kind: what it is, in messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable image, or of more pixels than Pillow's limit.
    """
    try:
        with Image.open(path if file is None else file) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"{kind.capitalize()} not found: {path}") from None
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's
        raise ValueError(f"{path} has more than {most:,} pixels: reduce it first.") from None
    except Exception as error:  # of broken files Pillow's readers raise whatever they stumble over
        reason = error or type(error).__name__
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else reason
        raise ValueError(f"Cannot read the {kind} {path}: {reason}. Copy it again.") from error


def read_image(file_name: str | os.PathLike, format: str = "RGB") -> np.ndarray:
    """(H, W, 3) uint8 photo, rotated as its EXIF tag says; read-only.

    Args:
        file_name: any format that Pillow reads.
        format: order of the channels, ``"RGB"`` or ``"BGR"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable image, more than 8 bits, an unknown format; names the file.
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"{file_name} is wanted as {format!r}; the format is 'RGB' or 'BGR'.")
    with open_picture(file_name) as image:
        mode = image.mode
        ImageOps.exif_transpose(image, in_place=True)
        image = image.convert("RGB")
        pixels = np.frombuffer(image.tobytes("raw", format), dtype=np.uint8)
    check_depth(mode, str(file_name))
    return pixels.reshape(image.height, image.width, 3)


def check_depth(mode: str, source: str) -> None:
    """ValueError, if a picture of this mode of Pillow has more than 8 bits, which it would cut."""
    if mode.startswith(("I", "F")):
        raise ValueError(
            f"{source} has more than 8 bits (mode {mode}): scale it to 0-255 first, in grey or RGB."
        )


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of a photo as it will be read, that is after its EXIF rotation. Reads the header only.

    Raises:
        FileNotFoundError, ValueError: no such file; not a photo, see :func:`read_image`.
    """
    return upright_size(path)[0]


def upright_size(path: str | os.PathLike) -> tuple[tuple[int, int], int]:
    """What `image_size` gives, and the EXIF orientation of the photo as stored."""
    with open_picture(path) as image:
        size, mode, orientation = image.size, image.mode, exif_orientation(image)
    check_depth(mode, str(path))
    return (size if orientation >= 5 else size[::-1]), orientation


def exif_orientation(image: Image.Image) -> int:
    """1..8; 1 is upright and 5..8 swap height and width."""
    if _HOLD_ORIENTATION.isdisjoint(image.info):
        return 1
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(h, w) of an image of (H, W) whose longer side shall have ``longest`` pixels at most."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
