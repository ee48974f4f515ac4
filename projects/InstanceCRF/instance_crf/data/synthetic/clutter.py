"""Backgrounds, and things a weak detector takes for a person. All of it is labelled background.

Sizes are pixels; `unit` is the height of the picture.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from ...taxonomies.schema import BACKGROUND
from .materials import (
    hair_color,
    pick,
    plain_material,
    random_color,
    random_material,
    skin_color,
)
from .shapes import FLAT, ROUND, SOFT, Layer, Shape


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A cluttered scene (3, height, width) float32: wall, floor, furniture-like rubbish."""
    canvas = np.empty((height, width, 3), np.float32)
    horizon = int(height * rng.uniform(0.35, 0.95))
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    for rows in (slice(0, horizon), slice(horizon, height)):
        if rows.stop > rows.start:
            material = replace(random_material(rng, height * 1.5), fold=0.03)
            colors = material.colors(ys[rows], xs[rows], height)
            canvas[rows] = colors.transpose(1, 2, 0)
    for _ in range(int(rng.integers(4, 15))):
        _draw_rubbish(rng, canvas)
    cells = int(rng.integers(3, 9))
    blotches = rng.normal(1.0, rng.uniform(0.04, 0.2), (cells, cells)).astype(np.float32)
    planes = np.ascontiguousarray(canvas.transpose(2, 0, 1))
    planes *= cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return planes


def _draw_rubbish(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A box, a blob, a bar or a triangle, in place."""
    height, width = canvas.shape[:2]
    unit = min(height, width)
    color = random_color(rng).tolist()
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    size = unit * rng.uniform(0.04, 0.3, 2)
    kind = rng.integers(4)
    centre = (int(x), int(y))
    if kind == 0:
        corner = (int(x + size[0]), int(y + size[1]))
        cv2.rectangle(canvas, centre, corner, color, -1 if rng.random() < 0.7 else 2)
    elif kind == 1:
        axes = (int(size[0] / 2) + 1, int(size[1] / 2) + 1)
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
    elif kind == 2:
        angle, length = rng.uniform(0, 6.28), unit * rng.uniform(0.2, 0.8)
        other = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        cv2.line(canvas, centre, other, color, int(unit * rng.uniform(0.01, 0.05)) + 1)
    else:
        corners = np.array([x, y]) + rng.uniform(-0.2, 0.2, (3, 2)) * unit
        cv2.fillPoly(canvas, [corners.astype(np.int32)], color)


def distractor(rng: np.random.Generator, height: int, width: int) -> Layer:
    """Something that looks like a person, or a piece of one, anywhere in the picture."""
    unit = float(height)
    at = np.array([rng.uniform(0, width), rng.uniform(0.05, 0.95) * height])
    build = pick(rng, _DISTRACTORS, _DISTRACTOR_ODDS)
    return Layer(build(rng, at, unit))


def post(rng: np.random.Generator, height: int, width: int) -> Layer:
    """An upright post, rail or tree trunk that stands in front of everybody."""
    x = rng.uniform(0.03, 0.97) * width
    top = rng.uniform(-0.1, 0.55) * height
    at = np.array([x, top])
    return Layer(_post(rng, at, float(height), reach=1.15 * height - top))


def _post(
    rng: np.random.Generator, at: np.ndarray, unit: float, reach: float | None = None
) -> list[Shape]:
    reach = unit * rng.uniform(0.3, 0.9) if reach is None else reach
    half_width = unit * rng.uniform(0.014, 0.042)
    foot = at + np.array([rng.normal(0, 0.05) * reach, reach])
    shapes = [
        Shape(
            at,
            foot,
            (half_width, half_width * rng.uniform(0.9, 1.3)),
            BACKGROUND,
            random_material(rng, unit),
            start_cap=SOFT,
            light=rng.uniform(-0.25, 0.25),
        )
    ]
    if rng.random() < 0.4:
        knob = half_width * rng.uniform(1.2, 2.2)
        shapes.append(Shape(at, at + 0.1, (knob, knob), BACKGROUND, random_material(rng, unit)))
    return shapes


def _bowl(rng: np.random.Generator, at: np.ndarray, unit: float) -> list[Shape]:
    radius = unit * rng.uniform(0.04, 0.12)
    down = at + np.array([0.0, radius * rng.uniform(0.2, 0.8)])
    return [
        Shape(
            at,
            down,
            (radius, radius * 0.85),
            BACKGROUND,
            random_material(rng, unit),
            start_cap=FLAT,
            light=rng.uniform(-0.25, 0.25),
        )
    ]


def _head_blob(rng: np.random.Generator, at: np.ndarray, unit: float) -> list[Shape]:
    """A ball on something: skin-coloured, with or without a cap of hair."""
    radius = unit * rng.uniform(0.03, 0.06)
    skin = plain_material(rng, skin_color(rng))
    hair = plain_material(rng, hair_color(rng))
    end = at + np.array([rng.normal(0, 0.2), 1.0]) * radius * rng.uniform(0.3, 0.9)
    shapes = [Shape(at, end, (radius, radius * 0.92), BACKGROUND, skin, depth=1)]
    if rng.random() < 0.6:
        shapes.append(
            Shape(
                at - [0, radius * 0.3],
                at,
                (radius, radius),
                BACKGROUND,
                hair,
                depth=2,
                end_cap=FLAT,
            )
        )
    if rng.random() < 0.5:
        shapes += _post(rng, end, unit)
    return shapes


def _lone_limb(rng: np.random.Generator, at: np.ndarray, unit: float) -> list[Shape]:
    """A bent limb with nobody attached."""
    scale = unit * rng.uniform(0.5, 1.0)
    width = scale * rng.uniform(0.03, 0.06)
    angle = rng.uniform(0, 6.28)
    bent = angle + rng.uniform(-1.8, 1.8)
    middle = at + scale * rng.uniform(0.12, 0.24) * np.array([np.cos(angle), np.sin(angle)])
    end = middle + scale * rng.uniform(0.12, 0.24) * np.array([np.cos(bent), np.sin(bent)])
    skin = plain_material(rng, skin_color(rng))
    cloth = random_material(rng, scale)
    light = rng.uniform(-0.2, 0.2)
    lower = skin if rng.random() < 0.5 else cloth
    return [
        Shape(at, middle, (width, width * 0.85), BACKGROUND, cloth, light=light),
        Shape(middle, end, (width * 0.85, width * 0.6), BACKGROUND, lower, depth=1, light=light),
        Shape(
            end,
            end + (end - middle) * 0.2,
            (width * 0.65, width * 0.5),
            BACKGROUND,
            skin,
            light=light,
            start_cap=ROUND,
        ),
    ]


def _limb_bundle(rng: np.random.Generator, at: np.ndarray, unit: float) -> list[Shape]:
    """Limbs thrown together: locally a person, as a whole not."""
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(2, 5))):
        limb = _lone_limb(rng, at + rng.normal(0, 0.05, 2) * unit, unit)
        for shape in limb:
            shape.depth += len(shapes)
        shapes += limb
    return shapes


def _clothes(rng: np.random.Generator, at: np.ndarray, unit: float) -> list[Shape]:
    """A shirt or a sack: a torso with nothing on it."""
    size = unit * rng.uniform(0.15, 0.3)
    down = at + np.array([rng.normal(0, 0.1), 1.0]) * size
    widths = tuple(float(size * v) for v in rng.uniform(0.2, 0.42, 3))
    return [
        Shape(
            at,
            down,
            widths,
            BACKGROUND,
            random_material(rng, unit),
            start_cap=SOFT,
            end_cap=4.0,
            light=rng.uniform(-0.2, 0.2),
        )
    ]


_DISTRACTORS = (_post, _bowl, _head_blob, _lone_limb, _limb_bundle, _clothes)
_DISTRACTOR_ODDS = (0.16, 0.12, 0.2, 0.24, 0.16, 0.12)
