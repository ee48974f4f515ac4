"""A result as labelme's JSON: polygons around the regions of every part, to correct by hand.

labelme's polygons have no holes: a region with holes is cut into pieces that have none. Vertices
lie a quarter of a pixel inside the region. So they mean the same where a pixel is a cell (on
labelme's canvas) and where it is a point (labelme's conversion to masks drops the fractions and
fills the border, too), and a region one pixel wide is still one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..extras import require
from .names import taxonomy_of

if TYPE_CHECKING:
    from ..structures import PartInstances

__all__ = ["polygons_of", "to_labelme"]

_VERSION = "5.5.0"  # labelme's, whose keys these are


def to_labelme(
    result: PartInstances, image_path: str | os.PathLike | None = None, *, tolerance: float = 0.3
) -> dict:
    """See :meth:`PartInstances.to_labelme`."""
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}; it is a distance in pixels, at least 0.")
    height, width = result.image_size
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": list(_shapes(result, tolerance)),
        "imagePath": "" if image_path is None else os.fspath(image_path),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shapes(result: PartInstances, tolerance: float) -> Iterator[dict]:
    from scipy.ndimage import find_objects

    names = taxonomy_of(result).part_names
    base = len(names) + 1
    codes = (result.object_map * base + result.part_map).cpu().numpy()  # 0: background of nobody
    for code, window in enumerate(find_objects(codes), start=1):
        owner, part = divmod(code, base)
        if window is None or part == 0:
            continue
        corner = [window[1].start, window[0].start]
        for polygon in polygons_of(codes[window] == code, tolerance):
            yield {
                "label": names[part - 1],
                "points": (polygon + corner).tolist(),
                "group_id": owner or None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }


def polygons_of(mask: np.ndarray, tolerance: float = 0.0) -> list[np.ndarray]:
    """Polygons without holes that cover a mask together.

    Args:
        mask: (H, W) bool.
        tolerance: how far, in pixels, outlines may be off in order to have fewer vertices.

    Returns:
        (m, 2) x, y each, m at least 3; the first pixel goes from 0 to 1.
    """
    cv2 = require("cv2", "viz")
    count, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    polygons = []
    for index in range(1, count):
        x, y, width, height, _ = stats[index].tolist()
        region = regions[y : y + height, x : x + width] == index
        polygons += [polygon + [x, y] for polygon in _cover(region, tolerance)]
    return polygons


def _cover(region: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """The polygons of one connected region."""
    cv2 = require("cv2", "viz")
    # A contour passes through the centres of pixels: here, of quarters of the region's.
    quarters = region.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(quarters, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer, *holes = sorted(contours, key=cv2.contourArea, reverse=True)
    if holes:
        boxes = [cv2.boundingRect(hole) for hole in holes]
        rows = [(2 * top + height) // 4 for _, top, _, height in boxes]
        cut = min(rows, key=lambda row: abs(2 * row - len(region)))
        below = [polygon + [0, cut] for polygon in polygons_of(region[cut:], tolerance)]
        return polygons_of(region[:cut], tolerance) + below
    simple = cv2.approxPolyDP(outer, 2 * tolerance, True)
    return [(simple if len(simple) > 2 else outer)[:, 0] / 2 + 0.25]
