"""Unary potentials of the Instance CRF: Eq. 1 (unary part), Eq. 2 and Eq. 3 of the paper.

Shape letters: D detections, P parts, L labels, H, W image height and width.

Box convention: boxes are ``x1, y1, x2, y2`` in pixel edges, so an image spans [0, W] x [0, H] and a
box around the pixels x = a..b has x1 = a, x2 = b + 1. Pixel (x, y) has its centre at
(x + 0.5, y + 0.5) and lies in a box when the centre does: x1 <= x + 0.5 < x2, likewise for y. A box
that is tight around an object thus contains each of its pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instance_crf.crf.label_space import LabelSpace

__all__ = [
    "SCORE_TRANSFORMS",
    "box_masks",
    "box_term",
    "global_term",
    "pixel_ranges",
    "transform_scores",
    "unary_energy",
]

SCORE_TRANSFORMS = ("identity", "tvg")


def pixel_ranges(boxes: Tensor) -> Tensor:
    """First column, first row, and one beyond the last column and row, whose centres lie in a box.

    Args:
        boxes: (D, 4) ``x1, y1, x2, y2`` in pixels.

    Returns:
        (D, 4) whole numbers in the dtype of the boxes; not clipped to the image.
    """
    return torch.ceil(boxes - 0.5)


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixel sets B_i of the detections.

    Args:
        boxes: (D, 4) ``x1, y1, x2, y2`` in pixels; what lies outside the image has no pixels.
        height, width: size of the image in pixels.

    Returns:
        (D, H, W) bool: whether the centre of the pixel lies in the box.
    """
    x = torch.arange(width, device=boxes.device)
    y = torch.arange(height, device=boxes.device)
    left, top, right, bottom = (column[:, None] for column in pixel_ranges(boxes).unbind(dim=1))
    in_columns = (left <= x) & (x < right)
    in_rows = (top <= y) & (y < bottom)
    return in_rows[:, :, None] & in_columns[:, None, :]


def transform_scores(scores: Tensor, score_transform: str = "identity") -> Tensor:
    """What stands for s_i in Eq. 2.

    Args:
        scores: (D,) detection scores in [0, 1].
        score_transform: "identity" is the paper's s_i; "tvg" is sigmoid(2 s_i - 1), which the
            authors' release computes.

    Raises:
        ValueError: if the transform is unknown.
    """
    if score_transform == "identity":
        return scores
    if score_transform == "tvg":
        return torch.sigmoid(2 * scores - 1)
    raise ValueError(f"score_transform is {score_transform!r}, but must be in {SCORE_TRANSFORMS}.")


def box_term(
    part_prob: Tensor,
    boxes: Tensor,
    scores: Tensor,
    label_space: LabelSpace,
    *,
    background_score: float = 0.0,
) -> Tensor:
    """Box consistency term, Eq. 2: s_i Q_k(j) for k in B_i, otherwise 0.

    Args:
        part_prob: (P + 1, H, W) Q, the probability of background and of each part.
        boxes: (D, 4) in pixels, see the module's box convention.
        scores: (D,) s_i.
        label_space: the labels of the image.
        background_score: the background is "the 0-th detection". 0 leaves it without a box; another
            number gives it the whole image as its box with that score, which a CRF without the
            global term needs.

    Returns:
        (L, H, W) psi_Box. Differentiable with respect to ``part_prob``.
    """
    height, width = part_prob.shape[-2:]
    weight = box_masks(boxes, height, width).to(part_prob.dtype)
    weight = weight * scores.to(part_prob.dtype)[:, None, None]
    background = weight.new_full((1, height, width), background_score)
    weight = torch.cat([background, weight])
    return weight[label_space.label_instance] * part_prob[label_space.label_part]


def global_term(part_prob: Tensor, label_space: LabelSpace) -> Tensor:
    """Global term, Eq. 3: Q_k(j), whichever the detection and wherever its box.

    Args:
        part_prob: (P + 1, H, W) Q.
        label_space: the labels of the image.

    Returns:
        (L, H, W) psi_Global; for the background label it is Q_k(0).
    """
    return part_prob[label_space.label_part]


def unary_energy(
    psi_box: Tensor | None,
    psi_global: Tensor | None,
    box_weight: Tensor | float,
    global_weight: Tensor | float,
    epsilon: float,
) -> Tensor:
    """Unary energy, the first sum of Eq. 1: -ln[w1 psi_Box + w2 psi_Global + epsilon].

    Args:
        psi_box: (L, H, W) or None to leave the term out (an ablation).
        psi_global: (L, H, W) or None to leave the term out.
        box_weight: w1.
        global_weight: w2.
        epsilon: keeps the logarithm finite, > 0.

    Returns:
        (L, H, W) energy of each label at each pixel.

    Raises:
        ValueError: if both terms are None.
    """
    if psi_box is None and psi_global is None:
        raise ValueError("The unary energy needs the box term, the global term or both.")
    potential = epsilon
    if psi_box is not None:
        potential = potential + box_weight * psi_box
    if psi_global is not None:
        potential = potential + global_weight * psi_global
    return -torch.log(potential)
