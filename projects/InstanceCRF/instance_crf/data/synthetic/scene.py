"""The pictures: people and clutter put one behind the other, lit and photographed.

Shapes: H, W the picture's height and width in pixels.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .clutter import background, distractor, post
from .figure import Figure, Outfit
from .materials import pick
from .shapes import Layer

MIN_VISIBLE_FRACTION = 0.025
MIN_VISIBLE_PIXELS = 40
"""A person of whom less can be seen is left out of the picture altogether."""


class SyntheticSample(NamedTuple):
    """A picture and its ground truth."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    part_map: np.ndarray
    """(H, W) uint8: 0 background, 1..6 parts."""
    object_map: np.ndarray
    """(H, W) uint8: 0 nobody, 1..n people, every id with pixels."""


@dataclass(frozen=True)
class SplitSettings:
    """How many people (odds of 1, 2, ...), their standing height over the picture's, and how they
    crowd: the chance to stand beside somebody, and how far (over the own height)."""

    count_odds: tuple[float, ...]
    min_height: float
    max_height: float
    crowding: float
    spacing: tuple[float, float]


SPLITS = {
    "moderate": SplitSettings((0.2, 0.3, 0.28, 0.22), 0.6, 1.05, 0.4, (0.2, 0.6)),
    "hard": SplitSettings((0.1, 0.16, 0.22, 0.22, 0.18, 0.12), 0.38, 1.05, 0.5, (0.15, 0.5)),
}
_SPLIT_KEYS = {"moderate": 1, "hard": 2}


class SyntheticPeople:
    """Endless pictures of articulated people: `people[index]` draws picture `index`.

    A picture depends on (seed, index, split, size) alone: not on which were drawn before, nor on
    the process that draws it.

    Args:
        split: "moderate" (1-4 people, 0.6-1.05 of the picture's height when standing) or "hard"
            (1-6 people, 0.38-1.05).
        size: height and width in pixels, at least 32 each.
        seed: a non-negative integer; another seed gives other pictures.

    Raises:
        ValueError: for an unknown split, a size below 32 or a negative seed.
    """

    def __init__(
        self, split: str = "moderate", size: tuple[int, int] = (160, 160), seed: int = 0
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; use one of {', '.join(map(repr, SPLITS))}")
        if len(size) != 2 or min(size) < 32:
            raise ValueError(f"size is {size!r}; use (height, width), each at least 32 pixels")
        if operator.index(seed) < 0:
            raise ValueError(f"seed is {seed}; use a non-negative integer")
        self.split = split
        self.size = (operator.index(size[0]), operator.index(size[1]))
        self.seed = operator.index(seed)

    def __getitem__(self, index: int) -> SyntheticSample:
        index = operator.index(index)
        if index < 0:
            raise IndexError(f"index is {index}; pictures are numbered from 0")
        entropy = (self.seed, _SPLIT_KEYS[self.split], index)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        return draw_scene(rng, SPLITS[self.split], self.size)


def draw_scene(
    rng: np.random.Generator, settings: SplitSettings, size: tuple[int, int]
) -> SyntheticSample:
    """One picture of `size` (height, width) with its labels."""
    height, width = size
    canvas = background(rng, height, width)
    people = _place_people(rng, settings, height, width)
    layers: list[tuple[Layer, bool]] = [
        (distractor(rng, height, width), False) for _ in range(int(rng.integers(1, 5)))
    ]
    for person in people:
        layers.append((person, True))
        if rng.random() < 0.15:
            layers.append((distractor(rng, height, width), False))
    if rng.random() < 0.4:
        layers.append((post(rng, height, width), False))

    layers = _drop_hidden(layers, height, width)
    part_map = np.zeros(size, np.uint8)
    object_map = np.zeros(size, np.uint8)
    count = 0
    for layer, is_person in layers:
        count += is_person
        _put(layer, count if is_person else 0, canvas, part_map, object_map)
    return SyntheticSample(_photograph(rng, canvas), part_map, object_map)


def _place_people(
    rng: np.random.Generator, settings: SplitSettings, height: int, width: int
) -> list[Layer]:
    """Drawn people, the furthest first; later ones may stand beside earlier ones."""
    count = pick(rng, range(1, len(settings.count_odds) + 1), settings.count_odds)
    typical = rng.uniform(settings.min_height, settings.max_height)
    outfits: list[Outfit] = []
    centres: list[float] = []
    people: list[tuple[float, Layer]] = []
    for _ in range(count):
        tall = _sample_height(rng, settings, typical) * height
        figure = Figure(rng, tall, outfits)
        outfits.append(figure.outfit)
        x0, y0, x1, y1 = figure.extent
        centres.append(_sample_centre(rng, settings, tall, centres, width))
        spare = height - (y1 - y0)
        top = rng.uniform(-0.12, 0.12) * tall + max(spare, 0) * rng.beta(2, 2) + min(spare, 0) / 2
        layer = figure.layer(centres[-1] - (x0 + x1) / 2, top - y0)
        # The larger ones are nearer, as a rule.
        people.append((tall / height + rng.normal(0, 0.1), layer))
    return [layer for _, layer in sorted(people, key=lambda pair: pair[0])]


def _sample_height(rng: np.random.Generator, settings: SplitSettings, typical: float) -> float:
    """A standing height over the picture's, often near the `typical` one of this picture."""
    if rng.random() < 0.6:
        tall = typical * rng.uniform(0.8, 1.25)
    else:
        tall = rng.uniform(settings.min_height, settings.max_height)
    return float(np.clip(tall, settings.min_height, settings.max_height))


def _sample_centre(
    rng: np.random.Generator,
    settings: SplitSettings,
    tall: float,
    others: list[float],
    width: int,
) -> float:
    """Where a person of `tall` pixels stands, horizontally: beside one of `others`, or anywhere."""
    if others and rng.random() < settings.crowding:
        step = tall * rng.uniform(*settings.spacing) * pick(rng, (-1, 1))
        centre = pick(rng, others) + step
    else:
        centre = rng.uniform(0.1, 0.9) * width
    return float(np.clip(centre, 0.04 * width, 0.96 * width))


def _drop_hidden(
    layers: list[tuple[Layer, bool]], height: int, width: int
) -> list[tuple[Layer, bool]]:
    """Without the people of whom next to nothing can be seen, those in front decided first.

    Where that would leave nobody, what is in front of the nearest person goes instead.
    """
    covered = np.zeros((height, width), bool)
    kept: list[tuple[Layer, bool]] = []
    for layer, is_person in reversed(layers):
        place, own = layer.window(height, width)
        mask = layer.mask
        visible = np.count_nonzero(mask[own] & ~covered[place])
        needed = max(MIN_VISIBLE_FRACTION * np.count_nonzero(mask), MIN_VISIBLE_PIXELS)
        if is_person and visible < needed:
            continue
        covered[place] |= mask[own]
        kept.append((layer, is_person))
    if any(is_person for _, is_person in kept):
        return kept[::-1]
    nearest = max(i for i, (_, is_person) in enumerate(layers) if is_person)
    return [entry for entry in layers[: nearest + 1] if not entry[1]] + [layers[nearest]]


def _put(
    layer: Layer, object_id: int, canvas: np.ndarray, part_map: np.ndarray, object_map: np.ndarray
) -> None:
    """Draw a layer over the picture and its labels, in place."""
    place, own = layer.window(*part_map.shape)
    alpha = layer.alpha[own]
    if alpha.size == 0:
        return
    under = canvas[:, place[0], place[1]]
    under *= 1 - alpha
    under += layer.rgb[:, own[0], own[1]]
    mask = layer.mask[own]
    part_map[place][mask] = layer.part[own][mask]
    object_map[place][mask] = object_id


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Light, blur, noise: (3, H, W) float32 to (H, W, 3) uint8."""
    height, width = canvas.shape[1:]
    canvas = np.ascontiguousarray(canvas.transpose(1, 2, 0))
    corners = rng.uniform(0.72, 1.18, (2, 2, 1)) * rng.uniform(0.9, 1.1, (1, 1, 3))
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    canvas *= light
    if rng.random() < 0.6:
        sigma = float(rng.uniform(0.35, 0.8))
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    contrast = np.float32(rng.uniform(0.75, 1.15))
    offset = np.float32(128 * (1 - contrast) + rng.uniform(-22, 22))
    noise = rng.standard_normal(canvas.shape, np.float32)
    noise *= np.float32(rng.uniform(2, 10))
    canvas *= contrast
    canvas += offset
    canvas += noise
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
