"""Boxes, scores, masks and keypoints of any library as tensors on the CPU.

Letters: D detections; H, W size of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors import as_tensor

__all__ = ["as_boxes", "as_floats", "as_keypoints", "as_masks", "boxes_of_masks"]


def as_floats(values, name: str) -> Tensor:
    """Numbers as float32 on the CPU; an empty list has shape (0,)."""
    return as_tensor(values, name).cpu().float()


def as_boxes(values) -> Tensor:
    """(D, 4) float32; nothing at all is no box.

    Raises:
        ValueError: another shape; says what five or six columns probably are.
    """
    boxes = as_floats(values, "boxes")
    if boxes.numel() == 0:
        return boxes.new_zeros(0, 4)
    if boxes.dim() == 2 and boxes.shape[1] == 4:
        return boxes
    hint = ""
    if boxes.dim() == 2 and boxes.shape[1] in (5, 6):
        classes = ", array[:, 5]" if boxes.shape[1] == 6 else ""
        hint = (
            " If the other columns are scores and classes, give "
            f"(array[:, :4], array[:, 4]{classes})."
        )
    raise ValueError(
        f"The boxes have shape {tuple(boxes.shape)}; it must be (D, 4): x1, y1, x2, y2 of each."
        + hint
    )


def as_masks(values) -> Tensor:
    """(D, H, W), or (D, 1, H, W), as (D, H, W) bool or float32 in [0, 1].

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """
    masks = as_tensor(values, "masks").cpu()
    if masks.dim() == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.dim() != 3:
        raise ValueError(
            f"The masks have shape {tuple(masks.shape)}; it must be (D, H, W) or (D, 1, H, W)."
        )
    if masks.dtype == torch.bool:
        return masks
    low, high = (float(v) for v in masks.aminmax()) if masks.numel() else (0.0, 0.0)
    if not (0 <= low and high <= 1 + 1e-3):  # NaN is refused, too
        advice = "divide them by 255" if 0 <= low and high <= 255 else "give probabilities"
        raise ValueError(
            f"The masks have values {low:g}..{high:g}; they must be in 0..1: {advice}."
        )
    if not masks.is_floating_point():
        return masks.bool()
    return masks.float() if high <= 1 else masks.float().clamp(max=1)


def as_keypoints(values, confidence=None) -> Tensor:
    """(D, K, 3) float32: x, y, confidence.

    Args:
        values: (D, K, 2) x, y, or (D, K, 3) with the confidence.
        confidence: (D, K), in place of the third column. Where there is none at all: 1, and 0 at
            x = y = 0, which is how libraries mark keypoints that they have not found.

    Raises:
        ValueError: other shapes.
    """
    keypoints = as_floats(values, "keypoints")
    if keypoints.dim() != 3 or keypoints.shape[2] not in (2, 3):
        raise ValueError(
            f"The keypoints have shape {tuple(keypoints.shape)}; it must be (D, K, 3): x, y and "
            "the confidence of each, or (D, K, 2)."
        )
    if confidence is None:
        if keypoints.shape[2] == 3:
            return keypoints
        return torch.cat([keypoints, keypoints.any(2, keepdim=True)], dim=2)
    confidence = as_floats(confidence, "keypoints' scores")
    if confidence.shape != keypoints.shape[:2]:
        raise ValueError(
            f"There are scores {tuple(confidence.shape)} of keypoints {tuple(keypoints.shape)}; "
            f"they must be {tuple(keypoints.shape[:2])}."
        )
    return torch.cat([keypoints[..., :2], confidence[..., None]], dim=2)


def boxes_of_masks(masks: Tensor) -> Tensor:
    """(D, 4) float32, the boxes around masks (D, H, W) where they are at least 0.5; a pixel at
    column x reaches from x to x + 1. An empty mask has the box 0, 0, 0, 0."""
    boxes = torch.zeros(len(masks), 4)
    for box, mask in zip(boxes, masks, strict=True):
        inside = mask if mask.dtype == torch.bool else mask >= 0.5
        columns, rows = (inside.any(axis).nonzero().squeeze(1) for axis in (0, 1))
        if len(columns):
            box[:] = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return boxes
