"""Tapered capsules, the one primitive everything is drawn with, and the layer they are drawn on.

Coordinates are pixels, x to the right and y down; a pixel's centre has whole coordinates. A layer
has its own colours and coverage, so that it is drawn once and put anywhere behind or before others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .materials import Material, to_unit

ROUND, SOFT, FLAT = 1.0, 2.6, 24.0
"""How an end is capped: a half disc, a flattened one, straight."""

Painter = Callable[[np.ndarray, np.ndarray, np.ndarray, float], None]


@dataclass
class Shape:
    """A capsule from `start` to `end` whose half-width runs through `widths`, evenly spaced.

    Beyond `cut` (a fraction of the length) `cut_material` replaces `material`. `part` is the id
    it writes into the part map, `depth` grows towards the viewer. `paint`, if given, edits the
    colours (3, h, w) in place, given the offsets along and across the axis and the axis' length.
    """

    start: np.ndarray
    end: np.ndarray
    widths: tuple[float, ...]
    part: int
    material: Material
    depth: float = 0.0
    start_cap: float = ROUND
    end_cap: float = ROUND
    cut: float | None = None
    cut_material: Material | None = None
    light: float = 0.0
    paint: Painter | None = None

    def bounds(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 that hold every pixel the shape may touch."""
        reach = max(self.widths) + 1.0
        low = np.minimum(self.start, self.end) - reach
        high = np.maximum(self.start, self.end) + reach
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class Layer:
    """A drawing with coverage: `rgb` (3, h, w) premultiplied, `alpha` and `part` (h, w).

    `left` and `top` place it in the picture. `part` is -1 where nothing is.
    """

    def __init__(self, shapes: list[Shape]) -> None:
        boxes = np.array([shape.bounds() for shape in shapes])
        self.left, self.top = (int(np.floor(v)) for v in boxes[:, :2].min(axis=0))
        right, bottom = (int(np.ceil(v)) + 1 for v in boxes[:, 2:].max(axis=0))
        size = (bottom - self.top, right - self.left)
        self.rgb = np.zeros((3, *size), np.float32)
        self.alpha = np.zeros(size, np.float32)
        self.part = np.full(size, -1, np.int8)
        for shape in sorted(shapes, key=lambda shape: shape.depth):
            self._draw(shape)

    @property
    def mask(self) -> np.ndarray:
        """(h, w) bool: where the layer covers what is behind it."""
        return self.part >= 0

    def window(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Slices of a picture and of this layer that show the same pixels (may be empty)."""
        rows = slice(max(self.top, 0), max(min(self.top + self.part.shape[0], height), 0))
        columns = slice(max(self.left, 0), max(min(self.left + self.part.shape[1], width), 0))
        own = (
            slice(rows.start - self.top, max(rows.stop - self.top, 0)),
            slice(columns.start - self.left, max(columns.stop - self.left, 0)),
        )
        return (rows, columns), own

    def _draw(self, shape: Shape) -> None:
        x0, y0, x1, y1 = shape.bounds()
        left, top = int(np.floor(x0)) - self.left, int(np.floor(y0)) - self.top
        right, bottom = int(np.ceil(x1)) + 1 - self.left, int(np.ceil(y1)) + 1 - self.top
        xs = np.arange(left, right, dtype=np.float32) + np.float32(self.left - shape.start[0])
        ys = np.arange(top, bottom, dtype=np.float32) + np.float32(self.top - shape.start[1])
        along, across, distance, half_width, length = _capsule(shape, xs[None], ys[:, None])

        colors = shape.material.colors(along, across, length)
        if shape.cut is not None and shape.cut_material is not None:
            beyond = along > np.float32(shape.cut * length)
            if beyond.any():
                colors = np.where(beyond, shape.cut_material.colors(along, across, length), colors)
        if shape.paint is not None:
            shape.paint(colors, along, across, length)
        offset = across / half_width
        colors *= 1.0 + offset * (np.float32(shape.light) - np.float32(0.2) * offset)

        here = slice(top, bottom), slice(left, right)
        opacity = to_unit(0.5 - distance)
        under = self.rgb[:, here[0], here[1]]
        colors -= under
        colors *= opacity
        under += colors
        self.alpha[here] += opacity * (1 - self.alpha[here])
        self.part[here][distance < 0] = shape.part


def _capsule(
    shape: Shape, xs: np.ndarray, ys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Offsets along and across the axis, signed distance to the outline, half-width; the length.

    `xs` (1, w) and `ys` (h, 1) are relative to the shape's start; all results are (h, w) pixels.
    """
    axis = np.asarray(shape.end - shape.start, np.float32)
    length = float(np.hypot(axis[0], axis[1]))
    axis = axis / np.float32(length) if length > 1e-3 else np.array([0.0, 1.0], np.float32)
    length = max(length, 1e-3)
    along = xs * axis[0] + ys * axis[1]
    across = ys * axis[0] - xs * axis[1]
    place = np.minimum(np.maximum(along, 0), np.float32(length))
    if len(shape.widths) == 2:
        first, last = shape.widths
        half_width = np.float32(first) + np.float32((last - first) / length) * place
    else:
        knots = np.linspace(0, length, len(shape.widths))
        half_width = np.interp(place, knots, shape.widths).astype(np.float32)
    beyond = along - place
    if shape.start_cap != ROUND or shape.end_cap != ROUND:
        beyond *= np.where(along < 0, np.float32(shape.start_cap), np.float32(shape.end_cap))
    distance = np.sqrt(beyond * beyond + across * across) - half_width
    return along, across, distance, half_width, length
