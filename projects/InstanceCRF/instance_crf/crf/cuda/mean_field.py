"""Mean-field inference of one image with the Triton kernels, forward and backward.

Neither pass keeps an array of N x L numbers per iteration. The forward pass keeps blurred lattice
values, from which the backward pass remakes the marginals; if these take more than a few arrays of
N x L, those of every sqrt(T)-th iteration alone.

Shape letters: N pixels, L labels, K Gaussian kernels, T iterations; of all kernels together M
lattice vertices and C corners (the vertices around a pixel). Rows are padded from L to R columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
import triton
from torch import Tensor

from ..gaussian_filter import ImageKernels
from ..mean_field import in_reverse, iterate, stretch_length
from .kernels import pullback, update
from .lattice import JointLattice, join_lattices, run

__all__ = ["is_compiled", "mean_field", "supports"]

MAX_LABELS = 4096
"""A program holds all labels of a pixel."""
_MAX_PAIRS = 2**31
"""Pixels times corners: their numbers are int32."""
_MAX_KEPT = 3.0
"""Lattice values kept for the backward pass, in units of N·L; beyond it some are recomputed."""
_TILE, _WARPS = 2048, 8
"""Pixels times labels of a program, and its warps."""


def is_compiled() -> bool:
    """True: Triton compiles in seconds, for each number of labels anew, and keeps the code."""
    return True


def supports(unary: Tensor, kernels: ImageKernels, compatibility: Tensor | None) -> str | None:
    """Why this backend cannot, or None; see `engine`."""
    runs = unary.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    if unary.dtype != torch.float32 or not runs:
        return f"needs float32 on CUDA, but unary is {unary.dtype} on {unary.device}."
    if compatibility is not None:
        return "knows the Potts model only, no compatibility."
    num_pixels, num_labels = unary.shape
    if num_labels > MAX_LABELS:
        return f"takes at most {MAX_LABELS} labels, but unary has {num_labels}."
    if num_pixels * sum(kernel.num_features + 1 for kernel in kernels.kernels) >= _MAX_PAIRS:
        return f"cannot number the corners of {num_pixels} pixels with 31 bits."
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
    """Log-marginals after some updates, strided like ``unary``; see `engine.infer`."""
    # One lattice per stream: another one might read it too early, or after it was freed.
    stream = torch.cuda.current_stream(unary.device) if unary.is_cuda else None
    joint, ones = kernels.built(
        ("triton", unary.device, stream), lambda: join_lattices(kernels, unary.device)
    )
    with torch.no_grad():
        factors = joint.factors(ones, normalization, support)
    keep = torch.is_grad_enabled() and (unary.requires_grad or weights.requires_grad)
    if keep:
        return _MeanField.apply(unary, weights, joint, factors, num_iterations)
    inference = _Inference(unary, weights, joint, factors)
    values, _ = iterate(inference.advance, num_iterations)
    return inference.log_marginals(values, out)


class _MeanField(torch.autograd.Function):
    """(N, L) log-marginals of (N, L) unary energies and (K,) kernel weights."""

    @staticmethod
    def forward(ctx, unary, weights, joint, factors, num_iterations):
        inference = _Inference(unary, weights, joint, factors)
        interval = 1
        if num_iterations * sum(joint.sizes) > _MAX_KEPT * len(unary):
            interval = stretch_length(num_iterations)
        values, kept = iterate(inference.advance, num_iterations, interval)
        # Saved as tensors, so that the backward pass frees them and hooks see them.
        ctx.save_for_backward(unary, weights, *factors, *kept.values(), *joint[2:])
        ctx.counts, ctx.iterations = joint[:2], list(kept)
        ctx.num_iterations, ctx.interval = num_iterations, interval
        return inference.log_marginals(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        unary, weights, factor_in, factor_out, *saved = ctx.saved_tensors
        kept = dict(zip(ctx.iterations, saved, strict=False))
        joint = JointLattice(*ctx.counts, *saved[len(kept) :])
        inference = _Inference(unary, weights, joint, (factor_in, factor_out))
        del saved
        states = in_reverse(inference.advance, kept, ctx.num_iterations, ctx.interval)
        return *inference.gradient(states, grad), None, None, None


class _Inference:
    """Launches the kernels for one image.

    Args:
        unary: (N, L).
        weights: (K,).
        joint: the kernels' lattices.
        factors: (K, N) before and after filtering.
    """

    def __init__(
        self, unary: Tensor, weights: Tensor, joint: JointLattice, factors: tuple[Tensor, Tensor]
    ) -> None:
        self.unary, self.weights, self.joint = unary, weights, joint
        self.factor_in, self.factor_out = factors
        self.weighted_out = weights[:, None] * self.factor_out

    def advance(self, values: Tensor | None, spare: Tensor | None = None) -> Tensor:
        """(M, R) blurred lattice values after one more iteration; ``values`` None: the first."""
        marginals = self._rows()
        self._update(marginals, values, log=False)
        return self.joint.blur(self.joint.splat(marginals, self.factor_in))

    def log_marginals(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """(N, L) that the last lattice values give."""
        out = torch.empty_like(self.unary) if out is None else out
        self._update(out, values, log=True)
        return out

    def gradient(self, states: Iterator[Tensor | None], grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the unary and the weights from that of the log-marginals, (N, L).

        Args:
            states: lattice values of the iterations, from the last to None, before the first.
        """
        joint, values = self.joint, next(states)
        rows, grad_unary = self._rows(), torch.empty_like(self.unary)
        grad_weights = torch.zeros_like(self.weights, dtype=torch.float64)
        weighted_in = self.weights[:, None] * self.factor_in
        self._pullback(rows, grad_unary, values, grad)
        for before in states:
            on_lattice = joint.splat(rows, self.factor_out)
            grad_weights += joint.inner_products(on_lattice, values)
            on_lattice = joint.blur(on_lattice, reverse=True)
            self._pullback(rows, grad_unary, before, on_lattice, weighted_in)
            values = before
        return grad_unary, grad_weights.to(self.weights.dtype)

    def _rows(self) -> Tensor:
        """(N, R), not filled."""
        num_pixels, num_labels = self.unary.shape
        return self.unary.new_empty(num_pixels, 4 * triton.cdiv(num_labels, 4))

    def _update(self, out: Tensor, values: Tensor | None, *, log: bool) -> None:
        """Writes to ``out`` the (N, L) log-marginals or the (N, R) marginals."""
        corners = 0 if values is None else len(self.joint.vertex)
        self._run(update, out, *out.stride(), *self._given(values), LOG=log, CORNERS=corners)

    def _pullback(
        self,
        out: Tensor,
        grad_unary: Tensor,
        values: Tensor | None,
        source: Tensor,
        factor: Tensor | None = None,
    ) -> None:
        """Writes the gradient of an iteration's logits to ``out`` (N, R), and to ``grad_unary``.

        Args:
            source: without ``factor`` the gradient of the log-marginals, the seed; otherwise that
                of the splatted marginals, to be sliced with the factor.
        """
        corners = len(self.joint.vertex)
        self._run(
            pullback,
            out,
            grad_unary,
            *grad_unary.stride(),
            *self._given(values),
            source,
            *source.stride(),
            factor,
            SEED=factor is None,
            CORNERS=0 if values is None else corners,
            SOURCE_CORNERS=0 if factor is None else corners,
        )

    def _given(self, values: Tensor | None) -> tuple:
        """What logits are made of: the unary and, after the first iteration, messages."""
        joint = self.joint
        lattice = (joint.vertex, joint.weight, joint.kernel_of, self.weighted_out)
        return (self.unary, *self.unary.stride(), values, *lattice)

    def _run(self, kernel, *arguments, **constants) -> None:
        """Runs one program per tile of pixels, with all labels."""
        num_pixels, num_labels = self.unary.shape
        block_l = max(4, triton.next_power_of_2(num_labels))
        block_n = max(1, _TILE // block_l)
        constants |= {"BLOCK_N": block_n, "BLOCK_L": block_l, "num_warps": _WARPS}
        grid = (triton.cdiv(num_pixels, block_n),)
        run(kernel, grid, *arguments, num_pixels, num_labels, **constants)
