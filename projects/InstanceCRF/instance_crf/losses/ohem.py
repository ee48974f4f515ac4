"""Online hard example mining over the pixels of each image (Sec. 3.3 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_top_k", "hardest_pixels_loss"]


def hardest_pixels_loss(
    log_probs: Sequence[Tensor], valid: Sequence[Tensor], *, top_k: int | float
) -> Tensor:
    """Mean cross-entropy over the K pixels of each image with the highest loss.

    K is an image's own, so that what is mined of it depends neither on the other images of the
    mini-batch nor on how many of them a GPU has. The mean is over all pixels that were kept: each
    counts the same, whichever its image, as in the plain cross-entropy.

    Args:
        log_probs: one tensor an image, of any shape: the log-probability of each pixel's target.
        valid: one bool tensor an image, of the same shape: False where the target is ignored.
            Ignored pixels are never among the K.
        top_k: K. A number of pixels (2^15 in the paper; all where an image has fewer), or below 1
            a fraction of the image's valid pixels (rounded, at least one); 0 keeps every pixel.

    Returns:
        A scalar; 0, still connected to the graph, when no pixel is valid.

    Raises:
        ValueError: lists of different lengths, shapes that differ, a K that is neither.
    """
    check_top_k(top_k)
    if len(log_probs) != len(valid):
        raise ValueError(f"Got {len(log_probs)} log_probs but {len(valid)} valid masks.")
    kept = []
    for log_prob, mask in zip(log_probs, valid, strict=True):
        if log_prob.shape != mask.shape:
            raise ValueError(
                f"log_prob is {tuple(log_prob.shape)} but its mask is {tuple(mask.shape)}."
            )
        kept.append(_hardest(-log_prob[mask], top_k))
    losses = torch.cat(kept)
    if not len(losses):
        return sum(log_prob.sum() * 0 for log_prob in log_probs)
    return losses.mean()


def check_top_k(top_k: int | float) -> None:
    """Raises ValueError unless ``top_k`` is 0, a number of pixels or a fraction of them.

    A number may be written as a float, as configs do; 1.0 is refused, for it reads as all pixels.
    """
    if type(top_k) is int and top_k >= 0:
        return
    if isinstance(top_k, float) and (0 <= top_k < 1 or (top_k > 1 and top_k.is_integer())):
        return
    raise ValueError(
        f"The hardest pixels of an image (top_k, OHEM_TOP_K): got {top_k!r}. Give a whole number "
        "of pixels, such as 32768, or a fraction of them between 0 and 1, such as 0.12, or 0 for "
        "all pixels."
    )


def _hardest(losses: Tensor, top_k: int | float) -> Tensor:
    """The K largest of the (N,) losses of one image."""
    count = len(losses)
    wanted = max(1, round(top_k * count)) if 0 < top_k < 1 else int(top_k)
    if 0 < wanted < count:
        return losses.topk(wanted, sorted=False).values
    return losses
