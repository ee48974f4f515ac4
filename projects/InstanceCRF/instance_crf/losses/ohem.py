"""Online hard example mining over pixels (Sec. 3.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["hardest_pixels_loss"]


def hardest_pixels_loss(
    log_probs: Sequence[Tensor], valid: Sequence[Tensor], *, top_k: int
) -> Tensor:
    """Mean cross-entropy over the K pixels of the mini-batch with the highest loss.

    Args:
        log_probs: one tensor an image, of any shape: the log-probability of each pixel's target.
        valid: one bool tensor an image, of the same shape: False where the target is ignored.
        top_k: K (2^15 in the paper); 0 keeps every pixel. Ignored pixels are never among the K,
            and the mean is over the pixels that were kept.

    Returns:
        A scalar; 0, still connected to the graph, when no pixel is valid.

    Raises:
        ValueError: lists of different lengths, shapes that differ, a negative K.
    """
    if top_k < 0:
        raise ValueError(f"top_k must be 0 (every pixel) or positive, got {top_k}.")
    if len(log_probs) != len(valid):
        raise ValueError(f"Got {len(log_probs)} log_probs but {len(valid)} valid masks.")
    for log_prob, mask in zip(log_probs, valid, strict=True):
        if log_prob.shape != mask.shape:
            raise ValueError(
                f"log_prob is {tuple(log_prob.shape)} but its mask is {tuple(mask.shape)}."
            )
    losses = torch.cat([-log_prob[mask] for log_prob, mask in zip(log_probs, valid, strict=True)])
    if not len(losses):
        return sum(log_prob.sum() * 0 for log_prob in log_probs)
    if 0 < top_k < len(losses):
        losses = losses.topk(top_k, sorted=False).values
    return losses.mean()
