"""Detections of ultralytics' ``Results``, by their attributes alone.

Letters: D detections; H, W size of the image; h, w size of the network's input.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ..inputs import Detections
from ..tensors import as_tensor
from .classes import name_classes
from .convert import as_boxes, as_floats, as_keypoints, as_masks

__all__ = ["matches", "read", "without_letterbox"]


def matches(value) -> bool:
    """It has ``boxes``, ``names`` and ``orig_shape``."""
    return all(hasattr(value, name) for name in ("boxes", "names", "orig_shape"))


def read(value, size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet.

    Raises:
        ValueError: results of another image's size, or without upright boxes.
    """
    if tuple(value.orig_shape) != size:
        height, width = value.orig_shape
        raise ValueError(
            f"The results are of an image of {width}x{height} pixels, but the image is "
            f"{size[1]}x{size[0]}."
        )
    if value.boxes is None:
        turned = getattr(value, "obb", None) is not None
        kind = "turned boxes (obb); its xyxy are upright" if turned else "no boxes"
        raise ValueError(f"The results have {kind}: give those of a detection or pose model.")
    boxes = as_boxes(value.boxes.xyxy)
    table = value.names if class_names is None else class_names
    names, known = name_classes(value.boxes.cls, len(boxes), table)
    return Detections(
        boxes=boxes,
        scores=as_floats(value.boxes.conf, "scores"),
        class_names=names,
        masks=_masks(getattr(value, "masks", None), size),
        keypoints=_keypoints(getattr(value, "keypoints", None), len(boxes)),
        known_classes=known,
    )


def without_letterbox(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of the network's input as masks of the image.

    The input holds the image, scaled to fit, in its middle; an odd row or column of padding is at
    the lower or right side.

    Args:
        masks: (D, h, w), bool or in [0, 1].
        size: (H, W) of the image.

    Returns:
        (D, H, W) bool.
    """
    height, width = masks.shape[1:]
    if (height, width) == tuple(size):
        return masks >= 0.5 if masks.is_floating_point() else masks.bool()
    gain = min(height / size[0], width / size[1])
    inner = [min(round(n * gain), most) for n, most in zip(size, (height, width), strict=True)]
    top, left = ((most - n) // 2 for n, most in zip(inner, (height, width), strict=True))
    result = torch.empty((len(masks), *size), dtype=torch.bool)
    for row, mask in zip(result, masks, strict=True):  # one by one: floats of all would be large
        cut = mask[top : top + inner[0], left : left + inner[1]].float()
        resized = F.interpolate(cut[None, None], tuple(size), mode="bilinear", align_corners=False)
        row[:] = resized[0, 0] >= 0.5
    return result


def _masks(masks, size: tuple[int, int]) -> Tensor | None:
    if masks is None:
        return None
    if getattr(masks, "data", None) is not None:
        return without_letterbox(as_masks(masks.data), size)
    return _filled(masks.xy, size)


def _filled(polygons, size: tuple[int, int]) -> Tensor:
    """(D, H, W) bool of one polygon (n, 2) a detection, x and y in pixels of the image."""
    masks = torch.zeros((len(polygons), *size), dtype=torch.bool)
    for mask, points in zip(masks, polygons, strict=True):
        if len(points) < 3:
            continue
        picture = Image.new("1", (size[1], size[0]))
        corners = [(float(x), float(y)) for x, y in as_tensor(points, "polygon").tolist()]
        ImageDraw.Draw(picture).polygon(corners, fill=1)
        mask[:] = torch.from_numpy(np.array(picture))
    return masks


def _keypoints(keypoints, count: int) -> Tensor | None:
    return as_keypoints(keypoints.data) if keypoints is not None and count else None
