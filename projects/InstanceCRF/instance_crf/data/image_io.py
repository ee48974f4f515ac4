"""Reading photos, by Pillow: as Detectron2 reads them, for training, prediction and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

__all__ = ["at_most", "check_depth", "image_size", "read_image", "reduced_size", "sample_labels"]

_EXIF_ORIENTATION = 0x0112


def read_image(file_name: str | os.PathLike, format: str = "RGB") -> np.ndarray:
    """(H, W, 3) uint8 photo, rotated as its EXIF tag says; read-only.

    Args:
        file_name: any format that Pillow reads.
        format: order of the channels, ``"RGB"`` or ``"BGR"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable image, too many pixels, more than 8 bits, an unknown format;
            names the file.
    """
    if format not in ("RGB", "BGR"):
        raise ValueError(f"{file_name} is wanted as {format!r}; the format is 'RGB' or 'BGR'.")
    with _open_image(file_name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        mode = image.mode
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
        FileNotFoundError, ValueError: no such file; not a readable image, too many pixels.
    """
    with _open_image(path) as image:
        width, height = image.size
        # Only formats that carry EXIF pay for parsing it.
        if "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
    return height, width


@contextmanager
def _open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Errors of opening and of decoding name the file."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"Image not found: {path}") from None
    except Image.DecompressionBombError:
        most = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's
        raise ValueError(f"{path} has more than {most:,} pixels: reduce it first.") from None
    except Exception as error:  # of all kinds, at broken files
        raise ValueError(f"Cannot read the image {path}: {error}. Copy it again.") from error


def reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(h, w) of an image of (H, W) whose longer side shall have ``longest`` pixels at most."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def at_most(longest: int, image: np.ndarray, *label_maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """An (H, W, 3) uint8 image and (H, W) maps of ids, reduced so that no side is longer."""
    if max(image.shape[:2]) <= longest:
        return image, *label_maps
    size = reduced_size(image.shape[:2], longest)
    reduced = Image.fromarray(image).resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(reduced), *(sample_labels(each, size) for each in label_maps)


def sample_labels(label_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., H, W) -> (..., h, w): labels at the pixels' centres."""
    rows, columns = (
        ((np.arange(less) + 0.5) * length / less).astype(int)
        for length, less in zip(label_map.shape[-2:], size, strict=True)
    )
    return label_map[..., rows[:, None], columns]
