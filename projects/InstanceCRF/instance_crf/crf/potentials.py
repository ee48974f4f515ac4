"""Unary potentials of the Instance CRF: Eq. 1 (unary part), Eq. 2 and Eq. 3 of the paper.

Eq. 2 and 3 are both Q_k(j) times a factor that does not depend on the part, so that
``w1 psi_Box + w2 psi_Global = (w1 s_i [k in B_i] + w2) Q_k(j)``. The functions here give the
factors, of D numbers per pixel, and multiply by Q once. Everything is differentiable tensor code.

Shape letters: D detections, P parts, L labels, H, W image height and width.

Box convention: boxes are ``x1, y1, x2, y2`` in pixel edges, so an image spans [0, W] x [0, H] and a
box around the pixels x = a..b has x1 = a, x2 = b + 1. Pixel (x, y) has its centre at
(x + 0.5, y + 0.5) and lies in a box when the centre does: x1 <= x + 0.5 < x2, likewise for y. A box
that is tight around an object thus contains each of its pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .label_space import LabelSpace

__all__ = [
    "SCORE_TRANSFORMS",
    "box_masks",
    "box_term",
    "global_term",
    "transform_scores",
    "unary_energy",
]

SCORE_TRANSFORMS = ("identity", "tvg")

_NUMBERS_AT_A_TIME = 2**18
"""In a backward pass: what stays in the cache."""


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixel sets B_i of the detections.

    Args:
        boxes: (D, 4) ``x1, y1, x2, y2`` in pixels; what lies outside the image has no pixels.
        height, width: size of the image in pixels.

    Returns:
        (H, W, D) bool: whether the centre of the pixel lies in the box.
    """
    x = torch.arange(width, device=boxes.device)[:, None]
    y = torch.arange(height, device=boxes.device)[:, None]
    # First column and row, and one beyond the last, whose centres lie in the box.
    left, top, right, bottom = torch.ceil(boxes - 0.5).unbind(dim=1)
    in_columns = (left <= x) & (x < right)
    in_rows = (top <= y) & (y < bottom)
    return in_rows[:, None] & in_columns[None, :]


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
    boxes: Tensor, scores: Tensor, height: int, width: int, *, background_score: float = 0.0
) -> Tensor:
    """Box consistency term, Eq. 2, as what it multiplies Q_k(j) by: s_i for k in B_i, otherwise 0.

    Args:
        boxes: (D, 4) in pixels, see the module's box convention.
        scores: (D,) s_i.
        height, width: size of the image in pixels.
        background_score: the background is "the 0-th detection". 0 leaves it without a box; another
            number gives it the whole image as its box with that score, which a CRF without the
            global term needs.

    Returns:
        (H, W, D + 1): the background, then the detections.
    """
    inside = box_masks(boxes, height, width) * scores
    background = inside.new_full((height, width, 1), background_score)
    return torch.cat([background, inside], dim=2)


def global_term(boxes: Tensor, height: int, width: int) -> Tensor:
    """Global term, Eq. 3, as what it multiplies Q_k(j) by: 1, whichever the detection.

    Returns:
        (H, W, D + 1) ones, which take no memory.
    """
    return boxes.new_ones(()).expand(height, width, len(boxes) + 1)


def unary_energy(
    part_prob: Tensor,
    factor: Tensor,
    label_space: LabelSpace,
    epsilon: float,
) -> Tensor:
    """Unary energy, the first sum of Eq. 1: -ln[factor_i Q_k(j) + epsilon].

    Args:
        part_prob: (P + 1, H, W) Q, the probability of background and of each part.
        factor: (H, W, D + 1) ``w1 box_term + w2 global_term``, or one of the two.
        label_space: the labels of the image.
        epsilon: keeps the logarithm finite, > 0.

    Returns:
        (H, W, L) energy of each label at each pixel. Differentiable with respect to ``part_prob``
        and ``factor``, so to w1 and w2.
    """
    q = part_prob.permute(1, 2, 0)
    return _MinusLogPotential.apply(factor, q, label_space, epsilon)


class _MinusLogPotential(torch.autograd.Function):
    """-ln[factor_i Q(j) + epsilon], written once, and a backward pass in pieces.

    With hundreds of labels an array of them is a gigabyte: torch's own operations would make three
    in the forward pass, keep two for the backward pass and make four there. 1/potential is read off
    the result, so that nothing else of that size is kept.
    """

    @staticmethod
    def forward(ctx, factor: Tensor, q: Tensor, label_space: LabelSpace, epsilon: float) -> Tensor:
        """(H, W, D + 1) and (H, W, P + 1) -> (H, W, L)."""
        factor, q = factor.contiguous(), q.contiguous()
        if label_space.is_product:
            # (0, 0), then an outer product: several times faster than gathering.
            counts = label_space.num_detections, label_space.num_parts
            energy = q.new_empty(*q.shape[:2], label_space.num_labels)
            torch.mul(factor[..., 0], q[..., 0], out=energy[..., 0])
            foreground = energy[..., 1:].unflatten(-1, counts)
            torch.mul(factor[..., 1:, None], q[..., None, 1:], out=foreground)
        else:
            energy = factor[..., label_space.label_instance] * q[..., label_space.label_part]
        energy.add_(epsilon).log_().neg_()
        ctx.save_for_backward(factor, q, energy)
        ctx.label_space = label_space
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        factor, q, energy = ctx.saved_tensors
        space = ctx.label_space
        grad_factor, grad_q = torch.zeros_like(factor), torch.zeros_like(q)
        rows = max(1, _NUMBERS_AT_A_TIME // max(1, energy[0].numel()))
        arrays = grad, energy, factor, q, grad_factor, grad_q
        pieces = zip(*(array.split(rows) for array in arrays), strict=True)
        for grad_piece, energy_piece, f, p, out_f, out_p in pieces:
            slope = energy_piece.exp().mul_(grad_piece).neg_()  # of the potential
            if space.is_product:
                out_f[..., 0], out_p[..., 0] = slope[..., 0] * p[..., 0], slope[..., 0] * f[..., 0]
                counts = space.num_detections, space.num_parts
                foreground = slope[..., 1:].unflatten(-1, counts)
                out_f[..., 1:] = (foreground @ p[..., 1:, None])[..., 0]
                out_p[..., 1:] = (f[..., None, 1:] @ foreground)[..., 0, :]
            else:
                out_f.index_add_(2, space.label_instance, slope * p[..., space.label_part])
                out_p.index_add_(2, space.label_part, slope * f[..., space.label_instance])
        return grad_factor, grad_q, None, None
