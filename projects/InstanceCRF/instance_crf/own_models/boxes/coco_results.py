"""Detections of one image as COCO results: a list of dicts with ``bbox`` x, y, width, height.

Letters: D detections; K keypoints; H, W size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...data.coco_masks import decode_mask
from ..inputs import Detections
from .classes import name_classes
from .convert import as_floats, as_keypoints, as_masks, boxes_of_masks

__all__ = ["matches", "read"]


def matches(value) -> bool:
    """A list of dicts with ``bbox`` or ``segmentation``."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(v, Mapping) and ("bbox" in v or "segmentation" in v) for v in value)
    )


def read(value: Sequence[Mapping], size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet.

    ``segmentation`` may be run lengths or polygons; without ``bbox``, the boxes are those around
    it. ``keypoints`` is a flat list of x, y, confidence.

    Raises:
        ValueError: entries of several images, no such entries, broken masks or of another size.
    """
    images = sorted({str(entry["image_id"]) for entry in value if "image_id" in entry})
    if len(images) > 1:
        raise ValueError(
            f"The results are of {len(images)} images ({', '.join(images[:3])}, ...); give those "
            "of this image, or load the file by load_detector('coco:FILE.json')."
        )
    labels = [entry["category_id"] for entry in value] if _all_have(value, "category_id") else None
    names, known = name_classes(labels, len(value), class_names)
    masks = _masks(value, size) if _all_have(value, "segmentation") else None
    if not _all_have(value, "bbox") and masks is None:
        raise ValueError("The results have neither a bbox nor a segmentation; they need one.")
    if _all_have(value, "bbox"):
        boxes = torch.tensor([_box(entry, i) for i, entry in enumerate(value)])
    else:
        boxes = boxes_of_masks(masks)
    return Detections(
        boxes=boxes,
        scores=as_floats([entry.get("score", 1.0) for entry in value], "scores"),
        class_names=names,
        masks=masks,
        keypoints=_keypoints(value) if _all_have(value, "keypoints") else None,
        known_classes=known,
    )


def _all_have(entries: Sequence[Mapping], key: str) -> bool:
    values = [entry.get(key) for entry in entries]
    # Data sets of boxes often have an empty list in the place of a mask.
    having = sum(v is not None and not (isinstance(v, list) and not v) for v in values)
    if having not in (0, len(entries)):
        raise ValueError(
            f"{having} of {len(entries)} results have a {key}; all must have one, or none."
        )
    return bool(having)


def _box(entry: Mapping, number: int) -> list[float]:
    try:
        x, y, width, height = (float(v) for v in entry["bbox"])
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"Result {number} has the bbox {entry['bbox']!r}; it must be [x, y, width, height]."
        ) from None
    if width < 0 or height < 0:
        raise ValueError(
            f"Result {number} has the bbox {entry['bbox']!r} of a negative size; it must be "
            "[x, y, width, height]."
        )
    return [x, y, x + width, y + height]


def _masks(entries: Sequence[Mapping], size: tuple[int, int]) -> Tensor:
    masks = np.zeros((len(entries), *size), dtype=bool)
    for number, (mask, entry) in enumerate(zip(masks, entries, strict=True)):
        mask[:] = _mask(entry["segmentation"], size, f"Result {number}")
    return as_masks(masks)


def _mask(segmentation, size: tuple[int, int], source: str) -> np.ndarray:
    known = isinstance(segmentation, Mapping) and {"size", "counts"} <= segmentation.keys()
    if not known and not isinstance(segmentation, list):
        raise ValueError(
            f'{source}: its segmentation is neither polygons nor {{"size": [height, width], '
            '"counts"}.'
        )
    return decode_mask(segmentation, size, f"{source}: its mask")


def _keypoints(entries: Sequence[Mapping]) -> Tensor:
    flat = [entry["keypoints"] for entry in entries]
    if not all(isinstance(points, (list, tuple)) for points in flat):
        raise ValueError("The results' keypoints must be lists of x, y, confidence, …")
    if len({len(points) for points in flat}) != 1 or len(flat[0]) % 3:
        raise ValueError(
            f"The results' keypoints have {sorted({len(p) for p in flat})} numbers; they must have "
            "three, x, y and the confidence, of each keypoint."
        )
    return as_keypoints([[points[i : i + 3] for i in range(0, len(points), 3)] for points in flat])
