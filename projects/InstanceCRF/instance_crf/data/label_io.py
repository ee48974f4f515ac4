"""Reading and writing label maps.

Legend: H, W image size in pixels.

A part map is uint8 (0 background, 255 ignored). An object map on disk is uint8 (255 ignored) or
uint16 (65535 ignored); in memory it is int32 with 0 for no object and -1 for ignored.
Palette images are read as ids, never as colours.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_path
from ..taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from .image_io import exif_orientation, open_picture

__all__ = [
    "IGNORED_COLOR",
    "IGNORED_OBJECT",
    "check_kept",
    "object_ids",
    "palette_image",
    "palette_of",
    "read_label_png",
    "read_object_map",
    "read_part_map",
    "read_rgb_png",
    "write_object_map",
    "write_part_map",
]

#: Value of ignored pixels in an object map in memory.
IGNORED_OBJECT = -1
#: The grey of ignored pixels, and of what is no object's, in pictures.
IGNORED_COLOR = (150, 150, 150)
_ID_MODES = ("L", "P", "1", "I;16", "I")
#: Formats of Pillow, and compressions in a TIFF, that do not keep every pixel.
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "jpeg", "webp")


def read_label_png(path: str | os.PathLike, *, of_colors: Sequence[str] = ()) -> np.ndarray:
    """(H, W) ids as stored: uint8, or uint16 for 16-bit files.

    Args:
        path: the file.
        of_colors: Pillow's modes of colour pictures that hold the ids in their first channel.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not an image, more than 16 bits, or a colour picture in place of ids.
    """
    array, mode, content = _read_pixels(path)
    if mode in of_colors:
        return array[..., 0]
    if mode not in _ID_MODES:
        raise ValueError(
            f"{path} is a colour picture (mode {mode}); label maps must be single-channel "
            "or palette PNGs that hold ids. Colour renderings (e.g. CIHP's Categories and "
            "Humans folders) are not the label maps (Category_ids, Human_ids)."
        )
    if mode == "L":
        array = _without_stretch(array, content)
    if mode == "I":  # 32 bits, as some versions of Pillow hold 16
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        if low < 0 or high > 65535:
            raise ValueError(f"{path} has ids {low}..{high}; a label map holds 0..65535.")
        array = array.astype(np.uint16)
    return array.astype(np.uint8) if mode == "1" else array


def read_rgb_png(path: str | os.PathLike, meaning: str) -> np.ndarray:
    """(H, W, 3) uint8, three numbers a pixel.

    Args:
        path: the file.
        meaning: of the channels, for the message.

    Raises:
        FileNotFoundError, ValueError: no such file; not an image, or without three channels.
    """
    array, mode, _ = _read_pixels(path)
    if mode != "RGB":
        raise ValueError(f"{path} has mode {mode}; expected three 8-bit channels: {meaning}.")
    return array


def _read_pixels(path: str | os.PathLike) -> tuple[np.ndarray, str, bytes]:
    """The pixels, Pillow's mode, and the file."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"Label map not found: {path}") from None
    with open_picture(path, "label map", io.BytesIO(content)) as image:
        array = np.array(image)
    check_kept(image, str(path))
    return array, image.mode, content


def check_kept(image: Image.Image, source: str) -> None:
    """Refuse pictures whose pixels are not the numbers that were drawn.

    Raises:
        ValueError: fractions, a lossy format, a rotation by an EXIF tag.
    """
    if image.mode == "F":
        raise ValueError(f"{source} has floating-point numbers; label maps hold whole ids.")
    lossy = image.format if image.format in _LOSSY else image.info.get("compression")
    if lossy in _LOSSY:
        raise ValueError(
            f"{source} is a {lossy.upper()}, whatever its name: such files change ids. Take the "
            "original label map, or save it as PNG where it is made."
        )
    if exif_orientation(image) != 1:
        raise ValueError(
            f"{source} has an EXIF orientation, but label maps are read as stored: save it "
            "upright, without the tag."
        )


def palette_image(part_map: np.ndarray, taxonomy: PartTaxonomy) -> Image.Image:
    """A palette PNG of part ids: viewers show the parts' colours, readers get the ids.

    Args:
        part_map: (H, W) integers, 0 background, 1..P, 255 ignored.
        taxonomy: gives the palette.
    """
    picture = Image.fromarray(part_map.astype(np.uint8), mode="L")
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[1 : taxonomy.num_parts + 1] = taxonomy.part_colors
    palette[IGNORE_LABEL] = IGNORED_COLOR
    picture.putpalette(palette.tobytes())
    return picture


def palette_of(path: str | os.PathLike) -> bytes:
    """The RGB palette of a picture, 3 bytes a colour; empty if it has none. Reads the header."""
    with open_picture(path, "label map") as image:
        return bytes(image.palette.palette) if image.mode == "P" and image.palette else b""


def _without_stretch(array: np.ndarray, content: bytes) -> np.ndarray:
    """Ids as stored in a grey PNG of 2 or 4 bits, as optimisers of PNGs make them.

    Pillow stretches such values to 0..255, which would turn id 1 into 85 or 17.
    """
    is_png = content[:8] == b"\x89PNG\r\n\x1a\n"
    bits, color_type = content[24:26] if is_png else (8, 0)
    return array // (255 // (2**bits - 1)) if color_type == 0 and bits in (2, 4) else array


def read_part_map(path: str | os.PathLike) -> np.ndarray:
    """(H, W) uint8 part ids; 0 background, 255 ignored. ValueError if ids exceed 8 bits."""
    array = read_label_png(path)
    if array.dtype != np.uint8:
        if array.max(initial=0) > 255:
            raise ValueError(
                f"{path} has part id {array.max()}; part ids are 0..254, 255 is ignored."
            )
        array = array.astype(np.uint8)
    return array


def read_object_map(path: str | os.PathLike) -> np.ndarray:
    """(H, W) int32 object ids; 0 none, -1 ignored (255 in an 8-bit file, 65535 in a 16-bit one)."""
    return object_ids(read_label_png(path))


def object_ids(stored: np.ndarray) -> np.ndarray:
    """(H, W) int32 ids, -1 ignored, from a uint8 or uint16 map as stored on disk."""
    objects = stored.astype(np.int32)
    objects[stored == np.iinfo(stored.dtype).max] = IGNORED_OBJECT
    return objects


def write_part_map(path: str | os.PathLike, parts: np.ndarray) -> None:
    """Write (H, W) part ids 0..255 as an 8-bit PNG; the file appears complete or not at all."""
    _check_range(path, parts, 0, 255, "part")
    _write_png(path, np.ascontiguousarray(parts, dtype=np.uint8))


def write_object_map(path: str | os.PathLike, objects: np.ndarray) -> None:
    """Write (H, W) object ids (-1 ignored): 8 bits if every id is below 255, else 16 bits."""
    _check_range(path, objects, IGNORED_OBJECT, 65534, "object")
    wide = objects.size > 0 and int(objects.max()) >= 255
    dtype, ignored = (np.uint16, 65535) if wide else (np.uint8, 255)
    _write_png(path, np.where(objects == IGNORED_OBJECT, ignored, objects).astype(dtype))


def _check_range(path, array: np.ndarray, low: int, high: int, kind: str) -> None:
    if array.ndim != 2:
        raise ValueError(f"{path}: a {kind} map has shape (H, W); got {array.shape}.")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise ValueError(
            f"{path}: {kind} ids {int(array.min())}..{int(array.max())} are outside {low}..{high}."
        )


def _write_png(path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
