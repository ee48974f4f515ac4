"""What detections must be before anything is computed from them.

Letters: D detections; K keypoints; H, W size of the image.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..inputs import Detections
from .convert import as_boxes, as_floats, as_keypoints, as_masks

__all__ = ["check_detections"]

_INFINITE = 1e9  # whose squares would soon be no numbers
_LISTED = 3  # so many rows are named in a message
_BEYOND = 1.25  # a box that reaches so many times the image's width is probably of another image
_BEYOND_IF_TURNED = 1.02  # where all boxes would fit the image turned by a quarter


def check_detections(detections: Detections, size: tuple[int, int]) -> Detections:
    """The detections, if they can be of an image of ``size``; empty and foreign boxes left out.

    Boxes without an area, and boxes wholly outside of the image, are left out: ``notes`` and
    ``doubts`` say which and why, ``index`` holds the rows of those that stay. ``doubts`` also name
    a box that reaches far beyond the image. All else stays as it is; boxes are not clipped.

    Args:
        detections: of one image.
        size: (H, W) of the image.

    Raises:
        ValueError: shapes that disagree, NaN, scores outside [0, 1], boxes whose corners are the
            wrong way round or relative to the image's size, masks of another size.
    """
    height, width = size
    detections = _converted(detections)
    _check_shapes(detections)
    _check_finite(detections)
    _check_scores(detections.scores)
    boxes = detections.boxes
    _check_corners(boxes)
    no_area = (boxes[:, 2] == boxes[:, 0]) | (boxes[:, 3] == boxes[:, 1])
    _check_pixels(boxes[~no_area], size)
    if detections.masks is not None and tuple(detections.masks.shape[1:]) != (height, width):
        raise ValueError(
            f"The masks are {detections.masks.shape[2]}x{detections.masks.shape[1]} pixels, but "
            f"the image is {width}x{height}. Bring them to the image's size first."
        )
    outside = (boxes[:, 0] >= width) | (boxes[:, 1] >= height)
    outside |= (boxes[:, 2] <= 0) | (boxes[:, 3] <= 0)
    image = f"outside of the image, {width}x{height}"
    rows = torch.arange(len(boxes)) if detections.index is None else detections.index
    stay = ~(no_area | outside)
    notes = _left_out(boxes, rows, no_area, "without an area")
    doubts = _left_out(boxes, rows, outside & ~no_area, image) + _far_beyond(boxes[stay], size)
    detections = replace(
        detections if bool(stay.all()) else detections.take(stay),
        notes=tuple(dict.fromkeys([*detections.notes, *notes])),
        doubts=tuple(dict.fromkeys([*detections.doubts, *doubts])),
    )
    return replace(detections, scores=detections.scores.clamp(max=1))


def _converted(detections: Detections) -> Detections:
    optional = {"masks": as_masks, "keypoints": as_keypoints}
    return replace(
        detections,
        boxes=as_boxes(detections.boxes),
        scores=as_floats(detections.scores, "scores"),
        **{
            name: convert(getattr(detections, name))
            for name, convert in optional.items()
            if getattr(detections, name) is not None
        },
    )


def _check_shapes(detections: Detections) -> None:
    count = len(detections.boxes)
    if detections.scores.dim() != 1:
        raise ValueError(
            f"The scores have shape {tuple(detections.scores.shape)}; it must be (D,), one of "
            "each box. Scores of all classes: take the largest, and the class that has it."
        )
    for name in ("scores", "class_names", "masks", "keypoints", "index"):
        value = getattr(detections, name)
        if value is not None and len(value) != count:
            raise ValueError(f"There are {count} boxes, but {len(value)} {name}.")
    if (detections.index is None) != (detections.given is None):
        raise ValueError(
            "index says which of the detections these are, given how many there were: give both, "
            "or neither."
        )


def _check_finite(detections: Detections) -> None:
    for name in ("boxes", "scores", "keypoints"):
        value = getattr(detections, name)
        if value is None or bool((value.abs() < _INFINITE).all()):
            continue
        rows = (~(value.abs() < _INFINITE)).reshape(len(value), -1).any(1).nonzero().squeeze(1)
        raise ValueError(
            f"{_rows(rows)} of the {name} hold NaN or infinity: {str(value[rows[0]].tolist()):.80}."
        )
    if detections.keypoints is not None:
        _check_confidence(detections.keypoints[..., 2])


def _check_scores(scores: Tensor) -> None:
    if not len(scores) or (scores.min() >= 0 and scores.max() <= 1 + 1e-3):
        return
    low, high = float(scores.min()), float(scores.max())
    advice = "logits? Apply a sigmoid (or the model's own softmax) first"
    if low >= 0:
        advice = "percent? Divide them by 100" if high <= 100 else "logits, or not scores at all?"
    raise ValueError(f"The scores are {low:g}..{high:g}; they must be in 0..1. ({advice}.)")


def _check_confidence(confidence: Tensor) -> None:
    if confidence.numel() and not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-3):
        low, high = float(confidence.min()), float(confidence.max())
        raise ValueError(
            f"The keypoints' confidences (their third column) are {low:g}..{high:g}; they must be "
            "in 0..1. COCO's visibility 0, 1, 2: use v > 0; logits: apply a sigmoid."
        )


def _check_corners(boxes: Tensor) -> None:
    inverted = ((boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])).nonzero().squeeze(1)
    if len(inverted):
        x1, y1, x2, y2 = boxes[inverted[0]].tolist()
        wrong = f"x2 {x2:g} < x1 {x1:g}" if x2 < x1 else f"y2 {y2:g} < y1 {y1:g}"
        raise ValueError(
            f"{_rows(inverted)} of {len(boxes)} boxes: the corners are the wrong way round, as in "
            f"{_text(boxes[inverted[0]])}, where {wrong}. It looks like x, y, width, height; boxes "
            "are x1, y1, x2, y2: boxes[:, 2:] += boxes[:, :2] (or, if x, y is the centre, "
            "torchvision.ops.box_convert(boxes, 'cxcywh', 'xyxy'))."
        )


def _check_pixels(boxes: Tensor, size: tuple[int, int]) -> None:
    if not len(boxes) or max(size) <= 2:
        return
    if bool((boxes > -0.1).all()) and bool((boxes < 1.1).all()):
        height, width = size
        raise ValueError(
            f"All boxes lie within 0..1, e.g. {_text(boxes[0])}, but the image is {width}x{height} "
            "pixels: they are relative to its size. Multiply x by the width and y by the height "
            f"(transformers: post_process_...(outputs, target_sizes=[({height}, {width})]))."
        )


def _left_out(boxes: Tensor, rows: Tensor, which: Tensor, why: str) -> list[str]:
    found = which.nonzero().squeeze(1).tolist()
    if not found:
        return []
    listed = ", ".join(f"{int(rows[i])} {_text(boxes[i])}" for i in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"{len(found)} left out, {why}: box {listed}{more}."]


def _far_beyond(boxes: Tensor, size: tuple[int, int]) -> list[str]:
    if not len(boxes):
        return []
    height, width = size
    right, bottom = boxes[:, 2:].unbind(1)
    turned = float(right.max()) <= height + 1 and float(bottom.max()) <= width + 1
    least = _BEYOND_IF_TURNED if turned else _BEYOND
    found = ((right > least * width) | (bottom > least * height)).nonzero().squeeze(1).tolist()
    if not found:
        return []
    how = "of the image before it was turned, as its EXIF tag says" if turned else "of another size"
    return [
        f"{len(found)} of {len(boxes)} boxes reach far beyond the image, {width}x{height}, as "
        f"{_text(boxes[found[0]])}: are they {how}?"
    ]


def _rows(rows: Tensor) -> str:
    listed = ", ".join(str(i) for i in rows[:_LISTED].tolist())
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    return f"Row {listed}{more}"


def _text(box: Tensor) -> str:
    return "[" + ", ".join(f"{v:g}" for v in box.tolist()) + "]"
