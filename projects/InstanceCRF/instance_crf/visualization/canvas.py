"""What pictures are drawn with: enlarged canvases, smooth borders, outlines, text plates.

A canvas is a picture drawn :data:`SMOOTH` times too large; :func:`reduce` brings it to its size,
which makes every edge smooth. Legend of shapes: H, W image size in pixels; P parts.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.image_io import at_most
from ..data.label_io import IGNORED_COLOR
from ..extras import require
from ..taxonomies.schema import IGNORE_LABEL, PartTaxonomy

cv2 = require("cv2", "viz")

__all__: list[str] = []  # used by drawing.py and sheets.py

Color = tuple[int, int, int]
INK = (25, 25, 25)
LUMA = (0.299, 0.587, 0.114)
SMOOTH = 2  # pictures are drawn this much larger, then reduced: smooth edges
LARGEST = 1600
"""Pixels of the longer side: larger images are reduced to it, where no scale is said."""


def object_color(index: int) -> Color:
    """RGB outline colour of object ``index`` (1, 2, ...): bright, neighbours far apart in hue.
    Grey for 0, no object."""
    if index == 0:
        return IGNORED_COLOR
    hue = (0.14 + (index - 1) * 0.381966) % 1.0
    saturation = (1.0, 0.55)[(index - 1) // 5 % 2]
    return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, saturation, 1.0))


def drawing_scale(height: int, width: int, target: int = 420) -> int:
    """The whole factor that brings the longer side of an image nearest to ``target`` pixels."""
    return max(1, round(target / max(height, width, 1)))


@lru_cache(maxsize=8)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def fit(
    scale: int | None, image: np.ndarray, *label_maps: np.ndarray, target: int = 420
) -> tuple[int, np.ndarray, tuple[np.ndarray, ...]]:
    """The scale of a drawing, its image and maps of ids.

    Where ``scale`` is None, small images are enlarged by :func:`drawing_scale`, and large ones
    reduced to ``LARGEST`` pixels.
    """
    if scale is None:
        image, *label_maps = at_most(LARGEST, image, *label_maps)
    return scale or drawing_scale(*image.shape[:2], target), image, tuple(label_maps)


def enlarge_image(image: np.ndarray, factor: int) -> np.ndarray:
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def enlarge_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge a label map with smooth borders: each pixel takes the label that linear
    interpolation of the labels' masks gives the most weight."""
    height, width = labels.shape
    best = np.full((height * factor, width * factor), -1.0, dtype=np.float32)
    enlarged = np.zeros(best.shape, dtype=np.int32)
    for label in np.unique(labels):
        mask = labels == label
        rows, columns = window_of(mask)
        cut = mask[rows, columns].astype(np.float32)
        size = (cut.shape[1] * factor, cut.shape[0] * factor)
        weight = cv2.resize(cut, size, interpolation=cv2.INTER_LINEAR)
        window = tuple(slice(s.start * factor, s.stop * factor) for s in (rows, columns))
        better = weight > best[window]
        best[window][better], enlarged[window][better] = weight[better], label
    return enlarged


def window_of(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a mask (that is not empty) with one pixel around it, within the image."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - 1), min(mask.shape[0], int(rows[-1]) + 2)),
        slice(max(0, int(columns[0]) - 1), min(mask.shape[1], int(columns[-1]) + 2)),
    )


def reduce(canvas: np.ndarray) -> np.ndarray:
    """Bring a canvas drawn ``SMOOTH`` times too large to its size, as uint8."""
    size = (canvas.shape[1] // SMOOTH, canvas.shape[0] // SMOOTH)
    reduced = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(reduced), 0, 255).astype(np.uint8)


def fade(canvas: np.ndarray, amount: float = 0.5) -> None:
    """Take colour out of a float canvas, in place: what is drawn over it stands out."""
    grey = np.tile(LUMA, (3, 1))
    cv2.transform(canvas, (1 - amount) * np.eye(3) + amount * grey, dst=canvas)


def check_parts(part_map: np.ndarray, taxonomy: PartTaxonomy) -> None:
    """Raises ValueError if the map holds ids that the taxonomy does not have."""
    unknown = [int(i) for i in np.unique(part_map) if i > taxonomy.num_parts and i != IGNORE_LABEL]
    if unknown or part_map.min(initial=0) < 0:
        found = unknown[0] if unknown else int(part_map.min())
        raise ValueError(
            f"part_map holds part id {found}, but the taxonomy has {taxonomy.num_parts} parts "
            f"(1..{taxonomy.num_parts}); 0 is background and {IGNORE_LABEL} ignored."
        )


def blend_parts(
    canvas: np.ndarray, part_map: np.ndarray, taxonomy: PartTaxonomy, alpha: float
) -> None:
    """Blend the parts' colours into a float canvas, in place."""
    striped = IGNORE_LABEL + 1
    colors = np.zeros((striped + 1, 3), dtype=np.float32)
    colors[1 : taxonomy.num_parts + 1] = taxonomy.part_colors
    colors[striped] = IGNORED_COLOR
    opacity = np.zeros((striped + 1, 1), dtype=np.float32)
    opacity[1 : taxonomy.num_parts + 1] = alpha
    opacity[striped] = 0.8
    ignored = part_map == IGNORE_LABEL
    if ignored.any():
        rows, columns = np.indices(part_map.shape, sparse=True)
        stripes = (rows + columns) // (4 * SMOOTH) % 2 == 0
        part_map = np.where(ignored & stripes, striped, part_map)
    canvas *= (1 - opacity).take(part_map, axis=0)
    canvas += (opacity * colors).take(part_map, axis=0)


def outline(canvas: np.ndarray, mask: np.ndarray, color: Color, factor: int) -> None:
    """Draw a line along the inside of a mask, a thin dark one within it, in place. Where the
    image's border cuts the mask there is no line."""
    window = window_of(mask)  # with one pixel of what is not the mask, but at the image's border
    mask, part = mask[window], canvas[window]
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    line = max(1.5, min(2.2, factor / 2)) * SMOOTH
    part[mask & (depth <= line + 0.6 * SMOOTH)] = INK
    part[mask & (depth <= line)] = color


def tag_text(index: int, scores: Mapping[int, float] | None) -> str:
    return str(index) if scores is None or index not in scores else f"{index} {scores[index]:.2f}"


def top_of(mask: np.ndarray) -> tuple[int, int]:
    """(x, y) of the middle of a mask's topmost row."""
    y = int(mask.any(axis=1).argmax())
    return int(np.flatnonzero(mask[y]).mean()), y


def draw_tags(
    picture: np.ndarray, tags: Sequence[tuple[int, str, tuple[int, int]]], *, above: bool = False
) -> np.ndarray:
    """Write short texts on plates of the objects' colours, moved apart where they would overlap.

    Args:
        picture: (h, w, 3) uint8 RGB.
        tags: (object id, text, (x, y) in the pixels of the canvas).
        above: whether (x, y) is where the middle of the plate's lower edge goes, not its top left
            corner.
    """
    height, width = picture.shape[:2]
    font = load_font(max(11, min(16, max(height, width) // 32)))
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    taken: list[tuple[float, float, float, float]] = []
    for index, text, (x, y) in sorted(tags, key=lambda tag: (tag[2][1], tag[2][0])):
        w, h = font.getlength(text) + 8, font.size * 1.25
        left, top = x / SMOOTH - above * w / 2, y / SMOOTH - above * (h + 2)
        left = float(np.clip(left, 0, max(0, width - w)))
        top = float(np.clip(top, 0, max(0, height - h)))
        while top + 2 * h <= height and any(
            left < x2 and left + w > x1 and top < y2 and top + h > y1 for x1, y1, x2, y2 in taken
        ):
            top += h / 2
        taken.append((left, top, left + w, top + h))
        plate = object_color(index)
        draw.rounded_rectangle(taken[-1], 3, fill=plate, outline=INK)
        letters = INK if np.dot(plate, LUMA) > 90 else (255, 255, 255)
        draw.text((left + w / 2, top + h / 2), text, letters, font, anchor="mm")
    return np.asarray(image)
