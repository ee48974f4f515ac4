"""Colours and textures of synthetic people, their clothes and the clutter around them.

Shapes: (h, w) the pixels of a shape's window; colours are RGB, float32, 0-255. Many colours are
kept planar, (3, h, w), which NumPy works through several times faster than (h, w, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Color = np.ndarray  # (3,) float32 RGB 0-255

_SKIN_TONES = np.array(
    [
        (246, 214, 190),
        (232, 190, 160),
        (214, 164, 126),
        (186, 132, 96),
        (146, 98, 68),
        (104, 68, 48),
        (70, 46, 36),
    ],
    np.float32,
)
_HAIR_TONES = np.array(
    [
        (24, 20, 18),
        (54, 36, 26),
        (96, 62, 38),
        (148, 104, 58),
        (206, 174, 112),
        (150, 148, 146),
        (132, 58, 32),
        (90, 50, 120),
    ],
    np.float32,
)
_PATTERNS = ("plain", "stripes", "checks", "noise", "gradient")
_PATTERN_ODDS = (0.34, 0.24, 0.14, 0.16, 0.12)
_TILE = 64


def _noise_tile() -> np.ndarray:
    """(_TILE, _TILE) float32 in 0..1: coarse and fine noise, the same in every process."""
    rng = np.random.default_rng(20170912)
    coarse = cv2.resize(rng.random((16, 16), np.float32), (_TILE, _TILE))
    tile = 0.6 * coarse + 0.4 * rng.random((_TILE, _TILE), np.float32)
    return ((tile - tile.min()) / (tile.max() - tile.min())).astype(np.float32)


_NOISE = _noise_tile()


@dataclass(frozen=True)
class Material:
    """A surface: `base` and `second` colour mixed by a pattern in the shape's own frame.

    `period` and `fold_period` are pixels, `angle` and `phase` radians; `fold` is the relative
    strength of the soft creases.
    """

    base: Color
    second: Color
    pattern: str = "plain"
    period: float = 8.0
    angle: float = 0.0
    phase: float = 0.0
    fold: float = 0.06
    fold_period: float = 17.0

    def colors(self, along: np.ndarray, across: np.ndarray, length: float) -> np.ndarray:
        """Colours (3, h, w) at the offsets (h, w) along and across an axis of `length` pixels."""
        shade = 1.0 + self.fold * np.sin(
            (along + 0.7 * across) * np.float32(6.2832 / self.fold_period) + np.float32(self.phase)
        )
        if self.pattern == "plain":
            return shade * self.base[:, None, None]
        mix = self._mix(along, across, length)
        colors = mix * (self.second - self.base)[:, None, None]
        colors += self.base[:, None, None]
        colors *= shade
        return colors

    def _mix(self, along: np.ndarray, across: np.ndarray, length: float) -> np.ndarray:
        """The share (h, w) of the second colour, 0..1."""
        if self.pattern == "gradient":
            return to_unit(along / np.float32(max(length, 1.0)))
        if self.pattern == "noise":
            step = np.float32(16.0 / self.period)
            rows = (along * step + np.float32(self.phase * 10)).astype(np.int32) % _TILE
            columns = (across * step).astype(np.int32) % _TILE
            return _NOISE[rows, columns]
        cosine, sine = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        wave = np.float32(6.2832 / self.period)
        first = np.sin((along * cosine + across * sine) * wave + np.float32(self.phase))
        if self.pattern == "stripes":
            return to_unit(2 * first + 0.5)
        second = np.sin((across * cosine - along * sine) * wave + np.float32(self.phase))
        return to_unit(2 * first * second + 0.5)


def pick(rng: np.random.Generator, options: Sequence, odds: Sequence[float] | None = None):
    """One of `options`; `odds` (any sum) or equal ones. Much faster than `Generator.choice`."""
    if odds is None:
        return options[int(rng.random() * len(options))]
    place = rng.random() * sum(odds)
    for option, share in zip(options, odds, strict=True):
        place -= share
        if place < 0:
            return option
    return options[-1]


def random_color(rng: np.random.Generator) -> Color:
    """Any colour a piece of cloth or a wall may have; greys, and skin tones, among them."""
    kind = rng.random()
    if kind < 0.2:
        return to_color(rng.uniform(15, 240) + rng.normal(0, 6, 3))
    if kind < 0.38:
        return skin_color(rng)
    hue, saturation, value = rng.random(), rng.uniform(0.15, 0.95), rng.uniform(0.18, 0.98)
    ramp = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return to_color(255 * value * (1 - saturation * (1 - to_unit(ramp))))


def to_unit(values: np.ndarray) -> np.ndarray:
    """`values` limited to 0..1."""
    return np.minimum(np.maximum(values, 0), 1)


def to_color(values: np.ndarray) -> Color:
    """`values` (3,) limited to 0..255, float32."""
    return np.minimum(np.maximum(values, 0), 255).astype(np.float32)


def skin_color(rng: np.random.Generator) -> Color:
    """A skin tone, jittered."""
    tone = pick(rng, _SKIN_TONES)
    return to_color(tone * rng.uniform(0.88, 1.1) + rng.normal(0, 5, 3))


def hair_color(rng: np.random.Generator) -> Color:
    """A hair colour, jittered."""
    tone = pick(rng, _HAIR_TONES)
    return to_color(tone * rng.uniform(0.8, 1.2) + rng.normal(0, 5, 3))


def random_material(
    rng: np.random.Generator, scale: float, base: Color | None = None, pattern: str | None = None
) -> Material:
    """A textured material; `scale` (pixels) is the height of the thing that wears it."""
    base = random_color(rng) if base is None else base
    if rng.random() < 0.5:
        second = random_color(rng)
    else:
        second = to_color(base * rng.uniform(0.55, 1.45))
    return Material(
        base=base,
        second=second,
        pattern=pattern or pick(rng, _PATTERNS, _PATTERN_ODDS),
        period=float(rng.uniform(0.028, 0.09) * scale + 1.5),
        angle=float(pick(rng, (0.0, np.pi / 2, rng.uniform(0, np.pi)))),
        phase=float(rng.uniform(0, 6.28)),
        fold=float(rng.uniform(0.02, 0.14)),
        fold_period=float(rng.uniform(0.05, 0.25) * scale + 3),
    )


def plain_material(rng: np.random.Generator, color: Color) -> Material:
    """Skin, hair, leather: one colour with faint shading."""
    return Material(base=color, second=color, fold=0.03, phase=float(rng.uniform(0, 6.28)))


def similar_material(rng: np.random.Generator, other: Material, scale: float) -> Material:
    """Cloth of nearly the same colour as another person's, of the same or another pattern."""
    base = to_color(other.base + rng.normal(0, 6, 3))
    if rng.random() < 0.5:
        return replace(other, base=base, phase=float(rng.uniform(0, 6.28)))
    return random_material(rng, scale, base=base)
