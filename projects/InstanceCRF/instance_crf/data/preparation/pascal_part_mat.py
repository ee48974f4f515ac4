"""Reading PASCAL-Part's annotation files (`Annotations_Part/<id>.mat`).

Legend: H, W image size in pixels.

A file holds ``anno``, a struct with ``imname`` and ``objects``; an object has ``class``, ``mask``
and ``parts`` (empty if its parts were not annotated); a part has ``part_name`` and ``mask``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ...taxonomies.schema import IGNORE_LABEL

__all__ = ["AnnotatedObject", "part_and_object_maps", "read_annotation"]


@dataclass(frozen=True)
class AnnotatedObject:
    """One object: class name, (H, W) bool mask, and its (part name, (H, W) bool mask) in order."""

    name: str
    mask: np.ndarray
    parts: list[tuple[str, np.ndarray]]


def read_annotation(path: str | Path) -> list[AnnotatedObject]:
    """The objects of one file, in the file's order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no MATLAB file, a missing field, masks of different sizes; names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"PASCAL-Part annotation not found: {path}")
    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # SciPy raises whatever the broken bytes lead to
        raise ValueError(f"Cannot read {path}: {error}. Copy it again.") from error
    if "anno" not in content:
        raise ValueError(f"{path} has no variable 'anno'; is it a PASCAL-Part annotation?")
    objects = []
    for number, item in enumerate(_items(_field(content["anno"], "objects", path)), 1):
        where = f"{path}, object {number}"
        mask = _mask(item, where)
        parts = [
            (str(_field(part, "part_name", where)), _mask(part, f"{where}, part {n}", mask.shape))
            for n, part in enumerate(_items(_field(item, "parts", where)), 1)
        ]
        objects.append(AnnotatedObject(str(_field(item, "class", where)), mask, parts))
    if len({item.mask.shape for item in objects}) > 1:
        raise ValueError(f"{path} has object masks of different sizes.")
    return objects


def part_and_object_maps(
    objects: list[AnnotatedObject],
    part_id: Callable[[str, str], int],
    *,
    whole: Collection[str] = (),
    unannotated: str = "ignore",
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Paint the annotated objects of one image.

    Parts overlap (eyes lie on the head): they are painted in the file's order, the later one wins,
    and so do later objects. An object is the union of its parts.

    Args:
        objects: at least one, see `read_annotation`.
        part_id: (class name, part name) -> id 1..P.
        whole: classes without parts by design: the object is one part, named as its class.
        unannotated: what pixels of other objects without parts become, ``"ignore"`` (255, -1) or
            ``"background"``.

    Returns:
        (H, W) uint8 parts, (H, W) int32 objects, and the class name of each object id.
    """
    shape = objects[0].mask.shape
    parts = np.zeros(shape, dtype=np.uint8)
    ids = np.zeros(shape, dtype=np.int32)
    classes: dict[int, str] = {}
    for item in objects:
        pieces = item.parts or ([(item.name, item.mask)] if item.name in whole else [])
        if not pieces and unannotated == "ignore":
            unknown = item.mask & (ids == 0)
            parts[unknown], ids[unknown] = IGNORE_LABEL, -1
        if not any(mask.any() for _, mask in pieces):
            continue
        number = len(classes) + 1
        classes[number] = item.name
        for name, mask in pieces:
            parts[mask], ids[mask] = part_id(item.name, name), number
    return parts, ids, {i: c for i, c in classes.items() if (ids == i).any()}


def _items(value) -> list:
    """A struct array of any length, as SciPy squeezes it."""
    return list(np.atleast_1d(value)) if np.size(value) else []


def _field(struct, name: str, where: str):
    if not hasattr(struct, name):
        fields = ", ".join(getattr(struct, "_fieldnames", [])) or "none"
        raise ValueError(f"{where} has no field {name!r}; it has: {fields}.")
    return getattr(struct, name)


def _mask(struct, where: str, shape: tuple[int, int] | None = None) -> np.ndarray:
    mask = np.asarray(_field(struct, "mask", where))
    if mask.dtype.kind not in "biuf":
        raise ValueError(f"{where}: the mask holds {mask.dtype}, not numbers.")
    if mask.ndim != 2 or (shape is not None and mask.shape != shape):
        raise ValueError(f"{where}: the mask has shape {mask.shape}, expected {shape or '(H, W)'}.")
    return mask > 0
