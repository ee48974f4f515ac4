"""Mean-field inference of a dense CRF: the reference, as the equations say it.

With the Potts model an update is Q_k(l) <- softmax_l( -U_k(l) + sum_m w_m (K_m Q)_k(l) ); with
compatibilities mu(l', l) the messages are multiplied by mu. It starts at Q = softmax(-U). Messages
need no minus sign: that labels l' != l cost energy equals, up to a constant, that equal ones pay.

Shape letters: N pixels, L labels, K kernels, T iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .gaussian_filter import ImageKernels, NormalizedFilter

__all__ = [
    "in_reverse",
    "is_compiled",
    "iterate",
    "mean_field",
    "mean_field_step",
    "normalized_filters",
    "stretch_length",
    "supports",
]

State = TypeVar("State")


def is_compiled() -> bool:
    """True: there is nothing to compile."""
    return True


def supports(unary: Tensor, kernels: ImageKernels, compatibility: Tensor | None) -> str | None:
    """None: the reference takes everything."""
    return None


def mean_field_step(
    logits: Tensor,
    unary: Tensor,
    filters: Sequence[Callable[[Tensor], Tensor]],
    weights: Tensor,
    compatibility: Tensor | None = None,
) -> Tensor:
    """One update of all marginals at once.

    Args:
        logits: (N, L) whose softmax is the current Q.
        unary: (N, L) energies U.
        filters: the K normalised kernels.
        weights: (K,) their weights w.
        compatibility: (L, L) mu, how much a label attracts another; None is the identity (Potts).

    Returns:
        (N, L) the next logits, -U + (sum_m w_m K_m Q) mu.
    """
    marginals = torch.softmax(logits, dim=1)
    messages = sum(
        weight * filter_(marginals) for filter_, weight in zip(filters, weights, strict=True)
    )
    return (messages if compatibility is None else messages @ compatibility) - unary


def mean_field(
    unary: Tensor,
    kernels: ImageKernels,
    weights: Tensor,
    num_iterations: int,
    *,
    normalization: str = "after",
    support: Tensor | None = None,
    compatibility: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Log-marginals after ``num_iterations`` updates; see `engine.infer`.

    When gradients are recorded, about 3 sqrt(T) arrays of N x L are held, and the rest is
    recomputed in the backward pass: first a stretch of iterations, then each of its iterations.
    """
    filters = normalized_filters(kernels, unary, normalization, support)
    step = partial(
        mean_field_step,
        unary=unary,
        filters=filters,
        weights=weights,
        compatibility=compatibility,
    )
    logits, remaining = -unary, num_iterations
    stretch = stretch_length(num_iterations)
    while torch.is_grad_enabled() and remaining > stretch:
        logits = _recomputed(partial(_run, step, stretch), logits)
        remaining -= stretch
    log_marginals = torch.log_softmax(_run(step, remaining, logits), dim=1)
    return log_marginals if out is None else out.copy_(log_marginals)


def normalized_filters(
    kernels: ImageKernels, unary: Tensor, normalization: str, support: Tensor | None
) -> list[NormalizedFilter]:
    """The normalised kernels for values like ``unary`` (N, L), on lattices that are kept."""
    device = unary.device
    lattices = kernels.built(
        ("lattices", device), lambda: [kernel.lattice(device) for kernel in kernels.kernels]
    )
    precision = torch.float32 if device.type == "mps" else torch.float64
    ones = torch.ones(len(unary), 1, device=device, dtype=precision)
    options = {"normalization": normalization, "support": support}
    return [NormalizedFilter(lattice, ones, **options) for lattice in lattices]


def _run(step: Callable[[Tensor], Tensor], count: int, logits: Tensor) -> Tensor:
    """``count`` updates, of which each keeps its input alone."""
    for _ in range(count):
        logits = _recomputed(step, logits)
    return logits


def _recomputed(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The function's value; its backward pass computes the inside again."""
    if not torch.is_grad_enabled():
        return function(logits)
    return checkpoint(function, logits, use_reentrant=False, preserve_rng_state=False)


def stretch_length(num_iterations: int) -> int:
    """About sqrt(T): as many iterations to a stretch as there are stretches hold least in all."""
    return math.isqrt(max(num_iterations - 1, 0)) + 1


def iterate(
    advance: Callable[[State | None, State | None], State], num_iterations: int, interval: int = 0
) -> tuple[State, dict[int, State]]:
    """The state after the last iteration, and those of every ``interval``-th one and the last.

    For backends that keep states for the backward pass; with interval 0 none are kept.

    Args:
        advance: from one state, at first None, to the next; its second argument is a state that is
            needed no more, whose memory may be used, or None.
    """
    state, spare, kept = None, None, {}
    for iteration in range(num_iterations):
        old, state = state, advance(state, spare)
        if interval and (iteration % interval == interval - 1 or iteration == num_iterations - 1):
            kept[iteration] = state
        spare = old if iteration - 1 not in kept else None
    return state, kept


def in_reverse(
    advance: Callable[[State | None], State],
    kept: dict[int, State],
    num_iterations: int,
    interval: int,
) -> Iterator[State | None]:
    """States after each iteration, from the last down to None, which is before the first.

    What `iterate` did not keep is made again, a stretch of iterations at a time.

    Args:
        advance: from one state, at first None, to the next.
        kept: what `iterate` kept, with the same interval.
    """
    for start in reversed(range(0, num_iterations, interval)):
        stretch, state = [], kept.get(start - 1)
        for iteration in range(start, min(start + interval, num_iterations)):
            state = kept[iteration] if iteration in kept else advance(state)
            stretch.append(state)
        del state
        while stretch:
            yield stretch.pop()
    yield None
