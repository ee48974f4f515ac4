"""Checks of what enters the CRF: a wrong input is an error that names it, never a wrong number.

Shape letters: D detections, P parts, H, W image height and width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = [
    "check_boxes",
    "check_choice",
    "check_evidence",
    "check_image",
    "check_inputs",
    "check_iterations",
    "check_part_prob",
    "check_positive",
    "check_scores",
    "check_support",
    "positive_parameter",
    "value_range",
]

# A softmax in half precision may exceed 1 by its rounding, an interpolated image 255.
_PROBABILITY_SLACK = 1e-2
_COLOUR_SLACK = 1.0


def check_inputs(
    part_prob: Tensor,
    boxes: Tensor,
    scores: Tensor,
    image: Tensor,
    object_classes: Tensor | None,
    part_owner: Tensor | None,
    evidence: Tensor | None = None,
) -> None:
    """Checks the inputs of one image against each other; see the forward of the Instance CRFs.

    Raises:
        ValueError: naming the argument and what is wrong with it.
    """
    check_part_prob(part_prob)
    size = tuple(part_prob.shape[-2:])
    check_image(image, size)
    check_boxes(boxes, size)
    check_scores(scores, boxes.shape[0])
    devices = {"part_prob": part_prob, "boxes": boxes, "scores": scores, "image": image}
    if evidence is not None:
        check_evidence(evidence, (boxes.shape[0], *size))
        devices["evidence"] = evidence
    for name, value in devices.items():
        if value.device != part_prob.device:
            raise ValueError(f"{name} is on {value.device}, part_prob on {part_prob.device}.")
    if (object_classes is None) != (part_owner is None):
        raise ValueError("object_classes and part_owner come together: give both or neither.")
    if object_classes is not None and part_owner is not None:
        if tuple(object_classes.shape) != (boxes.shape[0],):
            raise ValueError(
                f"object_classes has shape {tuple(object_classes.shape)}, but there are "
                f"{boxes.shape[0]} boxes."
            )
        if tuple(part_owner.shape) != (part_prob.shape[0] - 1,):
            raise ValueError(
                f"part_owner has shape {tuple(part_owner.shape)}, but part_prob has "
                f"{part_prob.shape[0] - 1} parts and a background."
            )


def check_part_prob(part_prob: Tensor) -> None:
    """(P + 1, H, W) finite probabilities."""
    if part_prob.dim() != 3 or part_prob.shape[0] < 2 or not part_prob.is_floating_point():
        raise ValueError(
            "part_prob must be floating point of shape (P + 1, H, W) with P >= 1, got "
            f"{part_prob.dtype} of shape {tuple(part_prob.shape)}."
        )
    if part_prob.numel() == 0:
        raise ValueError(f"part_prob has no pixels: its shape is {tuple(part_prob.shape)}.")
    low, high = value_range(part_prob)
    if not (low >= 0 and high <= 1 + _PROBABILITY_SLACK):
        raise ValueError(
            f"part_prob must hold probabilities, but its values run from {low:g} to {high:g} "
            "(nan: not a number). Apply a softmax over the parts first."
        )


def check_image(image: Tensor, size: tuple[int, ...]) -> None:
    """(3, H, W) colours in 0-255 of the same size as part_prob."""
    if tuple(image.shape) != (3, *size):
        raise ValueError(
            f"image has shape {tuple(image.shape)}, but must have (3, {size[0]}, {size[1]})."
        )
    low, high = value_range(image)
    if not (low >= -_COLOUR_SLACK and high <= 255 + _COLOUR_SLACK):
        raise ValueError(
            f"image must have colours in 0-255, but its values run from {low:g} to {high:g}. "
            "Give the picture before the backbone's normalisation."
        )
    if image.is_floating_point() and 0 < high <= 1 and bool((image != image.round()).any()):
        raise ValueError(
            f"image seems to be scaled to 0-1 (its largest value is {high:g}), but the CRF needs "
            "colours in 0-255; round one that is nearly black to whole numbers."
        )


def check_boxes(boxes: Tensor, size: tuple[int, ...]) -> None:
    """(D, 4) boxes that are not empty and overlap the image."""
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (D, 4), got {tuple(boxes.shape)}.")
    height, width = size
    x1, y1, x2, y2 = boxes.detach().unbind(dim=1)
    # Written so that a nan fails.
    good = (x2 > x1) & (y2 > y1) & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    if not bool(good.all()):
        worst = int((~good).nonzero()[0])
        raise ValueError(
            f"boxes[{worst}] = {boxes[worst].tolist()} is empty or outside of the image, which is "
            f"{width} pixels wide and {height} high. Boxes are x1, y1, x2, y2 in pixels."
        )


def check_scores(scores: Tensor, num_detections: int) -> None:
    """(D,) detection scores in [0, 1]."""
    if tuple(scores.shape) != (num_detections,):
        raise ValueError(
            f"scores has shape {tuple(scores.shape)}, but there are {num_detections} boxes."
        )
    if num_detections == 0:
        return
    low, high = value_range(scores)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"scores must lie in [0, 1], but run from {low:g} to {high:g}.")


def check_evidence(evidence: Tensor, shape: tuple[int, ...]) -> None:
    """(D, H, W) in [0, 1]."""
    if tuple(evidence.shape) != shape:
        raise ValueError(
            f"evidence has shape {tuple(evidence.shape)}, but must have (D, H, W) = {shape}."
        )
    if evidence.numel() == 0:
        return
    low, high = value_range(evidence)
    if not (low >= 0 and high <= 1 + _PROBABILITY_SLACK):
        raise ValueError(f"evidence must lie in [0, 1], but runs from {low:g} to {high:g}.")


def check_support(support: Tensor | None, num_pixels: int) -> None:
    """Raises ValueError unless the support is None or (N,) in [0, 1]."""
    if support is None:
        return
    if tuple(support.shape) != (num_pixels,):
        raise ValueError(f"support has shape {tuple(support.shape)}, but must be ({num_pixels},).")
    low, high = value_range(support)
    if not (low >= 0 and high <= 1 + _PROBABILITY_SLACK):
        raise ValueError(f"support must lie in [0, 1], but runs from {low:g} to {high:g}.")


def positive_parameter(name: str, value: float | list[float]) -> nn.Parameter:
    """Raw numbers, shaped like ``value``, whose softplus are its numbers; these must be > 0."""
    for each in value if isinstance(value, list) else [value]:
        check_positive(**{name: each})
    value = torch.tensor(value, dtype=torch.float64)
    raw = value + torch.log(-torch.expm1(-value))  # the inverse of softplus
    return nn.Parameter(raw.float())


def check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}, but must be > 0 and finite.")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be in {choices}.")


def check_iterations(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"num_iterations is {value!r}, but must be an integer >= 0.")
    return value


def value_range(values: Tensor) -> tuple[float, float]:
    """Smallest and largest value; (nan, nan) if any is nan."""
    low, high = torch.aminmax(values.detach())
    low, high = torch.stack([low, high]).to(torch.float64).tolist()
    return low, high
