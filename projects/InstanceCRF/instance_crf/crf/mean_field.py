"""Mean-field inference of the fully connected CRF, a fixed number of iterations.

The variational distribution starts at the normalised unary and is updated by
``Q <- softmax(-U + sum_m w_m K_m Q)`` (Kraehenbuehl and Koltun, 2011). The pairwise energy is the
Potts model, so each label is encouraged by itself alone; the weights w_m are shared by all labels.

Shape letters: N pixels, L labels, T iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
        recorded, about 3 sqrt(T) arrays of N x L are held, and the rest is recomputed in the
        backward pass: first a stretch of iterations, then each of its iterations.
    """
    logits, remaining = -unary, num_iterations
    stretch = math.isqrt(max(num_iterations - 1, 0)) + 1
    while torch.is_grad_enabled() and remaining > stretch:
        logits = _recomputed(_run, logits, unary, filters, weights, stretch)
        remaining -= stretch
    logits = _run(logits, unary, filters, weights, remaining)
    return torch.log_softmax(logits, dim=1)


def _run(
    logits: Tensor,
    unary: Tensor,
    filters: Sequence[GaussianFilter],
    weights: Sequence[Tensor],
    count: int,
) -> Tensor:
    """``count`` updates, of which each keeps its input alone."""
    for _ in range(count):
        logits = _recomputed(mean_field_step, logits, unary, filters, weights)
    return logits


def _recomputed(function: Callable[..., Tensor], *arguments) -> Tensor:
    """The function's value; its backward pass computes the inside again."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
