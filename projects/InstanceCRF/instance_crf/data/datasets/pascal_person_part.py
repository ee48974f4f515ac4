"""Pascal-Person-Part: six parts of people in PASCAL VOC 2010 pictures, without left and right.

Two orders of the six classes are in circulation. Files in the wrong order load without any error,
so `recognise_class_order` tells them apart by where heads and lower legs are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...taxonomies.pascal_person_part import (
    OTHER_ORDER_TO_OURS,
    PERSON_PART_GROUPS,
    PERSON_PART_TAXONOMY,
)
from .register import register_canonical

__all__ = [
    "OTHER_ORDER_TO_OURS",
    "PERSON_PART_GROUPS",
    "PERSON_PART_TAXONOMY",
    "part_heights",
    "recognise_class_order",
    "register_pascal_person_part",
]

FOLDER = "pascal_person_part"


def register_pascal_person_part(root: str | Path) -> None:
    """Register ``pascal_person_part_{train,val}`` under ``root``."""
    for split in ("train", "val"):
        register_canonical(
            f"pascal_person_part_{split}",
            Path(root) / FOLDER,
            split,
            PERSON_PART_TAXONOMY,
            merged_from=PERSON_PART_GROUPS,
        )


def part_heights(parts: np.ndarray, objects: np.ndarray) -> list[tuple[int, float]]:
    """(part id, mean height of its pixels) of each part of each person, 0 top .. 1 bottom.

    Args:
        parts, objects: (H, W) maps; object ids below 1 are left out. People with fewer than three
            parts say too little about the order and are left out as well.
    """
    found = []
    for object_id in np.unique(objects[objects > 0]).tolist():
        rows, columns = np.nonzero(objects == object_id)
        labels = parts[rows, columns]
        present = [j for j in np.unique(labels).tolist() if 1 <= j <= 6]
        if len(present) < 3:
            continue
        top, extent = rows.min(), max(int(np.ptp(rows)), 1)
        found += [(j, float((rows[labels == j].mean() - top) / extent)) for j in present]
    return found


def recognise_class_order(heights: Iterable[tuple[int, float]]) -> str:
    """Which order of the six classes the maps are in: ``"ours"``, ``"other"`` or ``"unknown"``.

    Heads are on top and lower legs at the bottom on average: ids 1 and 6 in our (the original)
    order, ids 2 and 5 in the other one.

    Args:
        heights: of many people, see `part_heights`.
    """
    total, count = np.zeros(7), np.zeros(7)
    for part, height in heights:
        total[part] += height
        count[part] += 1
    if not count[1:].all():
        return "unknown"
    mean = total[1:] / count[1:]
    extremes = (int(mean.argmin()) + 1, int(mean.argmax()) + 1)
    return {(1, 6): "ours", (2, 5): "other"}.get(extremes, "unknown")
