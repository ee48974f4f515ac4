"""A result as arrays: one object alone, cut out of the picture, the picture drawn over.

Letters: H, W image size; h, w size of a cut-out.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.image_io import at_most
from .names import taxonomy_of

if TYPE_CHECKING:
    from ..structures import PartInstances

__all__ = ["Crop", "check_image", "crop", "draw", "image_of", "part_ids", "person_map"]

_LARGEST_PART = 254  # of 8 bits; 255 means ignored


class Crop(NamedTuple):
    """One object cut out of a picture.

    Attributes:
        image: (h, w, 3) uint8 RGB; whoever else is there can be seen.
        part_map: (h, w) uint8 part ids of this object, 0 elsewhere.
        box: x1 y1 x2 y2, whole pixels of the picture: ``image`` is ``picture[y1:y2, x1:x2]``.
    """

    image: np.ndarray
    part_map: np.ndarray
    box: tuple[int, int, int, int]


def person_map(result: PartInstances, k: int) -> np.ndarray:
    """See :meth:`PartInstances.person`."""
    index, count = operator.index(k), len(result)
    if not 0 <= index < count:
        known = "it has none" if not count else f"it has {count}, from 0 to {count - 1}"
        raise ValueError(f"The result has no object {index}: {known}.")
    return part_ids(torch.where(result.object_map == index + 1, result.part_map, 0))


def crop(
    result: PartInstances, k: int, *, margin: float = 0.0, image: np.ndarray | None = None
) -> Crop:
    """See :meth:`PartInstances.crop`."""
    if not (margin >= 0 and math.isfinite(margin)):
        raise ValueError(f"margin is {margin}; it is a share of the object's size, at least 0.")
    image, part_map = image_of(result, image), person_map(result, k)
    if not part_map.any():
        raise ValueError(f"Object {k} has no pixel to cut out.")
    (y1, y2), (x1, x2) = (_span(part_map.any(axis), margin) for axis in (1, 0))
    window = (slice(y1, y2), slice(x1, x2))
    return Crop(image[window].copy(), part_map[window].copy(), (x1, y1, x2, y2))


def draw(
    result: PartInstances,
    image: np.ndarray | None = None,
    *,
    legend: bool = False,
    labels: bool = True,
    alpha: float = 0.7,
    scale: int | None = 1,
    max_size: int | None = None,
) -> np.ndarray:
    """See :meth:`PartInstances.draw`."""
    from ..visualization import draw_legend, draw_part_instances

    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is an opacity, 0..1.")
    for name, value in (("scale", scale), ("max_size", max_size)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} is {value}; it must be a whole number, at least 1, or None.")
    taxonomy = taxonomy_of(result)
    image = image_of(result, image)
    maps = result.part_map.cpu().numpy(), result.object_map.cpu().numpy()
    picture = draw_part_instances(
        *at_most(max_size or max(image.shape[:2]), image, *maps),
        taxonomy,
        scores=dict(enumerate(result.scores.tolist(), start=1)),
        alpha=alpha,
        scale=scale,
        labels=labels,
    )
    if legend:
        picture = np.concatenate([picture, draw_legend(taxonomy, picture.shape[1])])
    return picture


def image_of(result: PartInstances, image: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB: ``image``, or the result's own where it is None.

    Raises:
        ValueError: neither is there, or the image given is no picture of the result's size.
    """
    if image is None:
        if result.image is None:
            raise ValueError(
                "The result does not know its picture: give image=, the (H, W, 3) uint8 RGB array."
            )
        return result.image
    check_image(image, result.image_size)
    return image


def check_image(image: np.ndarray, size: tuple[int, int]) -> None:
    """
    Raises:
        ValueError: not an (H, W, 3) uint8 array of the (H, W) given.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        got = f"{tuple(getattr(image, 'shape', ()))} {getattr(image, 'dtype', type(image))}"
        raise ValueError(f"image must be an (H, W, 3) uint8 RGB array, got {got}.")
    if image.shape != (*size, 3):
        raise ValueError(f"image is {image.shape}, but the result's maps are {size} (H, W).")


def part_ids(part_map: Tensor) -> np.ndarray:
    """(H, W) uint8 of an (H, W) map of part ids.

    Raises:
        ValueError: ids that do not fit.
    """
    if part_map.numel() and int(part_map.max()) > _LARGEST_PART:
        raise ValueError(
            f"part_map holds part {int(part_map.max())}; 8 bits hold parts 1..{_LARGEST_PART}."
        )
    return part_map.to(torch.uint8).cpu().numpy()


def _span(occupied: np.ndarray, margin: float) -> tuple[int, int]:
    """First and one beyond the last of what is occupied, with a margin, within the picture."""
    where = np.flatnonzero(occupied)
    first, end = int(where[0]), int(where[-1]) + 1
    room = round(margin * (end - first))
    return max(0, first - room), min(len(occupied), end + room)
