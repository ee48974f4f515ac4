"""Signs that a part model got the wrong input, or that its output is taken for another thing.

Letters: P parts, D detections, h, w the working size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...crf.potentials import box_masks

__all__ = ["suspicious"]

_LITTLE = 0.1
_NEARLY_ALL = 0.95
_MANY_PARTS = 6
_CHECK_INPUT = (
    "Check what the model is given: its range (0..1 for -1..1 or 0..255, mean and deviation), RGB "
    "for BGR, weights quantised too coarsely"
)
_CHECK_PLACE = (
    "Check that boxes and part scores are of the same photo (not cropped, padded or rotated), that "
    "the boxes are x1 y1 x2 y2 in pixels"
)


def suspicious(q: Tensor, boxes: Tensor) -> list[str]:
    """Sentences that say what looks wrong, and what to check; none where nothing does.

    Args:
        q: (P+1, h, w) probabilities, background first.
        boxes: (D, 4) x1 y1 x2 y2 in its pixels.
    """
    labels = q.argmax(0)
    background = float((labels == 0).float().mean())
    sentences = _of_flatness(q)
    if background == 1 and len(boxes):
        sentences.append(
            f"The background is the likeliest label everywhere, in spite of {len(boxes)} boxes. "
            f"{_CHECK_INPUT}; and whether the background's channel is the last (background='last')."
        )
    elif background == 0:
        sentences.append(
            "The background is nowhere the likeliest label. Check whether its channel is the last "
            "(background='last') or there is none (background='none')."
        )
    elif len(boxes):
        sentences += _of_boxes(q[0] < 0.5, boxes)
    return sentences + _of_parts(labels, len(q) - 1)


def _of_flatness(q: Tensor) -> list[str]:
    largest, num_labels = q.amax(0), len(q)
    # A softmax of numbers in 0..1 cannot exceed this.
    most_of_two = math.e / (math.e + num_labels - 1)
    most = float(largest.max())
    if most <= most_of_two + 1e-3:
        return [
            f"No probability exceeds {most:.2f}. Check whether a softmax was applied twice (with "
            f"{num_labels} labels that gives {most_of_two:.2f} at most): probabilities are passed "
            "as part_prob."
        ]
    mean = float(largest.mean())
    if mean < 1.5 / num_labels:
        return [
            f"The largest of the {num_labels} probabilities is {mean:.3f} on average, nearly that "
            f"of a guess ({1 / num_labels:.3f}). {_CHECK_INPUT}."
        ]
    return []


def _of_boxes(foreground: Tensor, boxes: Tensor) -> list[str]:
    inside = box_masks(boxes.to(foreground.device), *foreground.shape).any(-1)
    both = float((foreground & inside).sum())
    in_boxes, in_all = float(inside.sum()), float(foreground.sum())
    sentences = []
    if in_boxes and both < _LITTLE * in_boxes:
        sentences.append(
            f"Parts cover {both / in_boxes:.1%} of the boxes. {_CHECK_INPUT}. {_CHECK_PLACE}."
        )
    if in_all and both < _LITTLE * in_all:
        sentences.append(
            f"Of the pixels with parts, {both / in_all:.1%} lie in a box. {_CHECK_PLACE}; and "
            "whether the background's channel is the first (background=)."
        )
    outside = (in_all - both) / max(foreground.numel() - in_boxes, 1)
    if in_boxes and not sentences and both / in_boxes < outside:
        sentences.append(
            f"Parts cover {both / in_boxes:.1%} of the boxes and {outside:.1%} of what is outside. "
            f"Check whether the background's channel is where it is said to be (background=). "
            f"{_CHECK_PLACE}."
        )
    return sentences


def _of_parts(labels: Tensor, num_parts: int) -> list[str]:
    counts = torch.bincount(labels.flatten(), minlength=num_parts + 1)[1:]
    total, most = int(counts.sum()), int(counts.max()) if num_parts else 0
    if num_parts < _MANY_PARTS or most <= _NEARLY_ALL * total:
        return []
    part = int(counts.argmax()) + 1
    return [
        f"Of the pixels with parts, {most / total:.1%} are part {part} of {num_parts}. "
        f"{_CHECK_INPUT}; and whether the background's channel is where it is said to be "
        "(background=)."
    ]
