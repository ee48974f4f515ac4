"""Mean-field inference of one image on the CPU, forward and backward.

The forward pass keeps the blurred lattice values of its iterations, from which the backward pass
remakes the marginals; if these take more than a few arrays of N x L, those of every sqrt(T)-th
iteration alone. docs/CRF.md counts the memory.

Shape letters: N pixels, L labels, K kernels, T iterations, R rows of lattice values.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..gaussian_filter import ImageKernels
from ..mean_field import in_reverse, iterate, stretch_length
from .jit import is_compiled
from .lattice import LatticeRangeError
from .pixels import PAD, Problem, log_marginals, pull_gradient, seed_gradient, update
from .plan import Plan, key_layouts

__all__ = ["is_compiled", "mean_field", "supports"]

_MAX_KEPT = 6.0
"""Lattice values kept for the backward pass, in units of N·L; beyond it some are recomputed."""
_ALWAYS_KEPT = 2**24
"""So many numbers (64 MiB) are kept in any case."""
_SMALL = 2**16
"""Up to so many pixels times labels, a second thread costs more than it brings."""
_NOTHING = np.empty(0, np.float32)


def supports(unary: Tensor, kernels: ImageKernels, compatibility: Tensor | None) -> str | None:
    """Why this backend cannot, or None; see `engine`."""
    if unary.device.type != "cpu" or unary.dtype != torch.float32:
        return f"needs float32 on the CPU, but unary is {unary.dtype} on {unary.device}."
    if compatibility is not None:
        return "knows the Potts model only, no compatibility."
    try:
        key_layouts(kernels)
    except LatticeRangeError as error:
        return str(error)
    return None


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
    """Log-marginals after ``num_iterations`` updates; see `engine.infer`."""
    num_threads = 1 if unary.numel() < _SMALL else torch.get_num_threads()
    plan = kernels.built(("plan", num_threads), lambda: Plan(kernels, num_threads))
    factors = plan.factors(normalization, support)
    keep = torch.is_grad_enabled() and (unary.requires_grad or weights.requires_grad)
    unary = unary.contiguous()
    if keep:
        return _MeanField.apply(unary, weights, plan, factors, num_iterations)
    inference = _Inference(unary, weights, plan, factors)
    values, _ = iterate(inference.advance, num_iterations)
    return inference.log_marginals(values, out)


class _MeanField(torch.autograd.Function):
    """(N, L) log-marginals of (N, L) unary energies and (K,) kernel weights."""

    @staticmethod
    def forward(ctx, unary, weights, plan, factors, num_iterations):
        inference = _Inference(unary, weights, plan, factors)
        interval = 1
        if num_iterations * inference.size > max(_ALWAYS_KEPT, _MAX_KEPT * unary.numel()):
            interval = stretch_length(num_iterations)
        values, kept = iterate(inference.advance, num_iterations, interval)
        # Saved as tensors, so that the backward pass frees them and hooks see them.
        ctx.save_for_backward(unary, weights, *map(torch.from_numpy, kept.values()))
        ctx.iterations, ctx.plan, ctx.factors = list(kept), plan, factors
        ctx.num_iterations, ctx.interval = num_iterations, interval
        return inference.log_marginals(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        unary, weights, *kept = ctx.saved_tensors
        if not torch.isfinite(grad.sum()):  # the kernels know finite numbers only
            return (
                torch.full_like(unary, torch.nan),
                torch.full_like(weights, torch.nan),
                *[None] * 3,
            )
        inference = _Inference(unary, weights, ctx.plan, ctx.factors)
        kept = dict(zip(ctx.iterations, (values.numpy() for values in kept), strict=True))
        states = in_reverse(inference.advance, kept, ctx.num_iterations, ctx.interval)
        grads = inference.gradient(states, grad.contiguous().numpy().ravel())
        return *grads, None, None, None


class _Inference:
    """Runs the kernels for one image."""

    def __init__(self, unary: Tensor, weights: Tensor, plan: Plan, factors) -> None:
        self.plan = plan
        self.shape = tuple(unary.shape)
        self.width = -(-unary.shape[1] // PAD) * PAD
        self.problem = Problem(
            plan.corners,
            unary.detach().numpy().ravel(),
            unary.shape[1],
            self.width,
            weights.detach().numpy(),
            *factors,
        )

    @property
    def size(self) -> int:
        """Of the lattice values."""
        return self.plan.num_rows * self.width

    def advance(self, old: np.ndarray | None, spare: np.ndarray | None = None) -> np.ndarray:
        """Blurred lattice values after one more iteration, in ``spare`` if given."""
        new = self._zeros(spare)
        self.plan.run(update, self.problem, _NOTHING if old is None else old, new)
        self.plan.merge(new, self.width)
        self.plan.blur(new, self.width)
        return new

    def log_marginals(self, values: np.ndarray, out: Tensor | None = None) -> Tensor:
        """(N, L) that the last lattice values give."""
        if out is None or not out.is_contiguous():
            # NumPy asks for huge pages, which torch does not: half the time of first writing.
            result = torch.from_numpy(np.empty(self.shape, np.float32))
        else:
            result = out
        self.plan.run(log_marginals, self.problem, values, result.numpy().ravel())
        return result if out is None or result is out else out.copy_(result)

    def gradient(self, states, grad: np.ndarray) -> tuple[Tensor, Tensor]:
        """Gradients of the unary and the weights from that of the log-marginals, (N * L,).

        Args:
            states: lattice values of the iterations, from the last to None, before the first.
        """
        grad_unary = torch.from_numpy(np.zeros(self.shape, np.float32))
        grad_weights = np.zeros(len(self.plan.row_ptr) - 1)
        values, on_lattice, spare = next(states), self._zeros(), None
        out = grad_unary.numpy().ravel()
        self.plan.run(seed_gradient, self.problem, values, grad, out, on_lattice)
        for before in states:
            self.plan.merge(on_lattice, self.width)
            for k, (start, end) in enumerate(self._rows_of_kernels()):
                grad_weights[k] += np.dot(on_lattice[start:end], values[start:end])
            self.plan.blur(on_lattice, self.width, reverse=True)
            new = _NOTHING if before is None else self._zeros(spare)
            values = _NOTHING if before is None else before
            self.plan.run(pull_gradient, self.problem, values, on_lattice, out, new)
            on_lattice, spare = new, on_lattice
        return grad_unary, torch.from_numpy(grad_weights).float()

    def _rows_of_kernels(self) -> list[tuple[int, int]]:
        ends = [row * self.width for row in self.plan.row_ptr]
        return list(zip(ends[:-1], ends[1:], strict=True))

    def _zeros(self, spare: np.ndarray | None = None) -> np.ndarray:
        if spare is None:
            return self.plan.zeros(self.width)
        spare.fill(0)
        return spare
