"""Mean-field inference of the fully connected CRF, a fixed number of iterations.

The variational distribution starts at the normalised unary and is updated by
``Q <- softmax(-U + sum_m w_m K_m Q)`` (Kraehenbuehl and Koltun, 2011). The pairwise energy is the
Potts model, so each label is encouraged by itself alone; the weights w_m are shared by all labels.

Shape letters: N pixels, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from instance_crf.crf.gaussian_filter import GaussianFilter

__all__ = ["mean_field", "mean_field_step"]


def mean_field_step(
    logits: Tensor, unary: Tensor, filters: Sequence[GaussianFilter], weights: Sequence[Tensor]
) -> Tensor:
    """One update of all marginals at once.

    Args:
        logits: (N, L) whose softmax is the current Q.
        unary: (N, L) energies U.
        filters: the kernels K_m.
        weights: their weights w_m, scalars.

    Returns:
        (N, L) the next logits, -U + sum_m w_m K_m Q.
    """
    marginals = torch.softmax(logits, dim=1)
    updated = -unary
    for filter_, weight in zip(filters, weights, strict=True):
        updated = updated + weight * filter_(marginals)
    return updated


def mean_field(
    unary: Tensor,
    filters: Sequence[GaussianFilter],
    weights: Sequence[Tensor],
    num_iterations: int,
) -> Tensor:
    """Log-marginals after ``num_iterations`` updates.

    Args:
        unary: (N, L) energies U.
        filters: the kernels K_m, built from the image.
        weights: their weights w_m, scalars, non-negative for a CRF that smooths.
        num_iterations: T; 0 gives the normalised unary.

    Returns:
        (N, L) log Q. Differentiable with respect to ``unary`` and ``weights``. When gradients are
        recorded, each iteration keeps its input alone and is recomputed in the backward pass.
    """
    logits = -unary
    for _ in range(num_iterations):
        if torch.is_grad_enabled():
            logits = checkpoint(
                mean_field_step,
                logits,
                unary,
                filters,
                weights,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        else:
            logits = mean_field_step(logits, unary, filters, weights)
    return torch.log_softmax(logits, dim=1)
