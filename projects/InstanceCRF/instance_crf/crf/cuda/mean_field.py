"""Mean-field inference on permutohedral lattices with the fused kernels, forward and backward.

Neither pass keeps an array of N x L numbers per iteration. The forward pass keeps blurred lattice
values, from which the backward pass remakes the marginals; if even these take more than a few
arrays of N x L, those of every sqrt(T)-th iteration alone.

Shape letters: N pixels, L labels, K kernels, T iterations, E (pixel, corner) pairs; of all kernels
together M lattice vertices and C corners (the vertices around a pixel).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor

from instance_crf.crf import mean_field as reference
from instance_crf.crf.cuda import kernels
from instance_crf.crf.gaussian_filter import PermutohedralFilter

__all__ = ["Lattices", "join_lattices", "mean_field", "runs_on"]

MAX_LABELS = 4096
"""More labels than that are left to the reference: a program holds all those of a pixel."""
_MAX_KEPT = 3.0
"""Lattice values kept for the backward pass, in units of N·L; beyond it some are recomputed."""
_SEGMENT = 64
"""Most (pixel, corner) pairs summed in one go: a vertex has anything from one to many thousands."""
_PIXEL_TILE, _PIXEL_WARPS = 2048, 8
"""Pixels times labels of a program that normalises over the labels, and its warps."""
_VERTEX_TILE, _VERTEX_WARPS = 512, 1
"""Vertices times labels of a program to which labels are independent; small, since it waits for the
vertex with most to sum."""
_LABELS_PER_TILE = 64
"""Labels of such a program at most."""


@dataclass(frozen=True)
class Lattices:
    """The lattices of all kernels as one, whose vertices follow each other, for the Triton kernels.

    Attributes:
        sizes: vertices of each kernel, M in total.
        corners: corners of each kernel, C in total.
        vertex: (C, N) int32 vertices around each pixel.
        weight_in, weight_out: (C, N) float32 barycentric weights times the normalisation's factor
            before and after filtering.
        pixel: (E,) int32 pixels in the order of their vertices.
        splat_in, splat_out: (E,) the same weights in that order.
        segment: (G + 1,) int32 first pair of each stretch of pairs of the same vertex.
        vertex_segment: (M + 1,) int32 first segment of each vertex.
        neighbours: (directions, 2, M) int32, M where there is none.
    """

    sizes: tuple[int, ...]
    corners: tuple[int, ...]
    vertex: Tensor
    weight_in: Tensor
    weight_out: Tensor
    pixel: Tensor
    splat_in: Tensor
    splat_out: Tensor
    segment: Tensor
    vertex_segment: Tensor
    neighbours: Tensor


def join_lattices(filters: Sequence[PermutohedralFilter]) -> Lattices:
    """Puts the lattices of an image's kernels into one; see `Lattices`."""
    sizes = tuple(f.num_vertices for f in filters)
    corners = tuple(f.vertex.shape[1] for f in filters)
    total = sum(sizes)
    vertex, pixel, counts = [], [], []
    weights: dict[str, list[Tensor]] = {"in": [], "out": []}
    splats: dict[str, list[Tensor]] = {"in": [], "out": []}
    neighbours = filters[0].neighbours.new_full((max(corners), 2, total), total)
    row = 0
    for f in filters:
        first, pairs = f.by_vertex
        vertex.append((f.vertex + row).t())
        pixel.append(pairs // f.vertex.shape[1])
        counts.append(first.diff())
        factors = {"in": f.normalization.weight_in, "out": f.normalization.weight_out}
        for name, factor in factors.items():
            weight = f.weight if factor is None else f.weight * factor
            weights[name].append(weight.t())
            splats[name].append(weight.flatten()[pairs])
        found = torch.where(f.neighbours < f.num_vertices, f.neighbours + row, total)
        neighbours[: f.vertex.shape[1], :, row : row + f.num_vertices] = found
        row += f.num_vertices
    segment, vertex_segment = _segments(torch.cat(counts))
    return Lattices(
        sizes=sizes,
        corners=corners,
        vertex=torch.cat(vertex).int(),
        weight_in=torch.cat(weights["in"]).float(),
        weight_out=torch.cat(weights["out"]).float(),
        pixel=torch.cat(pixel).int(),
        splat_in=torch.cat(splats["in"]).float(),
        splat_out=torch.cat(splats["out"]).float(),
        segment=segment,
        vertex_segment=vertex_segment,
        neighbours=neighbours.int(),
    )


def _segments(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts each vertex's pairs into segments of at most _SEGMENT.

    Args:
        counts: (M,) pairs of each vertex, at least one.

    Returns:
        (G + 1,) int32 first pair of each segment and (M + 1,) int32 first segment of each vertex,
        both with the total at the end.
    """
    pieces = (counts + _SEGMENT - 1) // _SEGMENT
    zero = counts.new_zeros(1)
    first_pair = torch.cat([zero, counts.cumsum(0)])
    first_segment = torch.cat([zero, pieces.cumsum(0)])
    owner = torch.repeat_interleave(pieces)
    within = torch.arange(owner.shape[0], device=counts.device) - first_segment[owner]
    segment = first_pair[owner] + _SEGMENT * within
    return torch.cat([segment, first_pair[-1:]]).int(), first_segment.int()


def mean_field(
    unary: Tensor,
    filters: Sequence[PermutohedralFilter],
    weights: Sequence[Tensor],
    num_iterations: int,
) -> Tensor:
    """Log-marginals after ``num_iterations`` updates; see `instance_crf.crf.mean_field`.

    Args:
        unary: (N, L) float32 energies U, strided as they come. More than MAX_LABELS labels are left
            to the reference.
        filters: the kernels K_m on the device of ``unary``.
        weights: their weights w_m, scalars.
        num_iterations: T; 0 gives the normalised unary.

    Returns:
        (N, L) log Q, strided like ``unary``. Differentiable once with respect to ``unary`` and
        ``weights``.

    Raises:
        ValueError: if the unary is not (N, L) float32, or the filters are for other images.
    """
    if unary.dim() != 2 or unary.dtype != torch.float32:
        raise ValueError(
            f"unary must be (N, L) float32, but is {tuple(unary.shape)} {unary.dtype}."
        )
    for filter_ in filters:
        if filter_.num_pixels != unary.shape[0]:
            raise ValueError(
                f"A filter is for {filter_.num_pixels} pixels, unary has {unary.shape[0]}."
            )
    if len(filters) != len(weights):
        raise ValueError(f"There are {len(filters)} filters, but {len(weights)} weights.")
    if unary.shape[1] > MAX_LABELS:
        return reference.mean_field(unary, filters, weights, num_iterations)
    if not filters:
        num_iterations = 0
    if num_iterations == 0:
        strengths, lattices = unary.new_zeros(0), None
    else:
        strengths = torch.stack([w.to(unary) for w in weights])
        lattices = join_lattices(filters)
    keep = torch.is_grad_enabled() and (unary.requires_grad or strengths.requires_grad)
    return _MeanField.apply(unary, strengths, lattices, num_iterations, keep)


@cache
def runs_on(device: torch.device) -> bool:
    """Whether Triton can compile and run kernels on the device; if not, warns why, once.

    Triton builds its launcher with a C compiler and Python's headers, which not all machines have.
    """
    try:
        mean_field(torch.zeros(1, 1, device=device), [], [], 0)
    except Exception as error:  # of many kinds: no compiler, an old driver, an old device
        warnings.warn(f"The CRF runs without its Triton kernels: {error!r}.", stacklevel=2)
        return False
    return True


class _MeanField(torch.autograd.Function):
    """(N, L) log-marginals of (N, L) unary energies and (K,) kernel weights."""

    @staticmethod
    def forward(ctx, unary, strengths, lattices, num_iterations, keep):
        inference = _Inference(unary, strengths, lattices)
        interval = 1
        if num_iterations * inference.num_vertices > _MAX_KEPT * unary.shape[0]:
            interval = math.isqrt(num_iterations - 1) + 1
        values, kept = None, {}
        for iteration in range(num_iterations):
            values = inference.advance(values)
            if keep and iteration % interval == interval - 1:
                kept[iteration] = values
        if keep:
            ctx.save_for_backward(unary, strengths)
            ctx.lattices, ctx.kept = lattices, kept
            ctx.num_iterations, ctx.interval = num_iterations, interval
        return inference.log_marginals(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        unary, strengths = ctx.saved_tensors
        inference = _Inference(unary, strengths, ctx.lattices)
        grad_unary = torch.empty_like(unary)
        grad_strengths = torch.zeros_like(strengths, dtype=torch.float64)
        iterations = _in_reverse(inference, ctx.kept, ctx.num_iterations, ctx.interval)
        values = next(iterations)
        rows = inference.pull_seed(values, grad, grad_unary)
        for before in iterations:
            on_lattice = inference.splat(rows, transpose=True)
            grad_strengths += inference.inner_products(on_lattice, values)
            on_lattice = inference.blur(on_lattice, reverse=True)
            inference.pull(before, on_lattice, grad_unary, rows)
            values = before
        return grad_unary, grad_strengths.to(strengths.dtype), None, None, None


def _in_reverse(
    inference: _Inference, kept: dict[int, Tensor], num_iterations: int, interval: int
) -> Iterator[Tensor | None]:
    """Blurred lattice values after each iteration, from the last to none at all.

    What was not kept is made again, a stretch of iterations at a time.
    """
    for start in reversed(range(0, num_iterations, interval)):
        stretch, values = [], kept.get(start - 1)
        for iteration in range(start, min(start + interval, num_iterations)):
            values = kept[iteration] if iteration in kept else inference.advance(values)
            stretch.append(values)
        del values
        while stretch:
            yield stretch.pop()
    yield None


class _Inference:
    """Launches the kernels for one image. Rows are padded from L to R = 4 quads."""

    def __init__(self, unary: Tensor, strengths: Tensor, lattices: Lattices | None) -> None:
        self.unary, self.lattices = unary, lattices
        self.num_pixels, self.num_labels = unary.shape
        self.quads = triton.cdiv(self.num_labels, 4)
        self.num_vertices = self.num_corners = 0
        if lattices is not None:
            self.num_vertices, self.num_corners = sum(lattices.sizes), sum(lattices.corners)
            per_corner = [w.expand(c) for w, c in zip(strengths, lattices.corners, strict=True)]
            per_corner = torch.cat(per_corner)[:, None]
            self.weight_in = per_corner * lattices.weight_in
            self.weight_out = per_corner * lattices.weight_out

    def advance(self, values: Tensor | None) -> Tensor:
        """(M, R) blurred lattice values after one more iteration; ``values`` None: the first."""
        return self.blur(self.splat(self.marginals(values)))

    def marginals(self, values: Tensor | None) -> Tensor:
        """(N, R) marginals that the blurred lattice values give."""
        out = self._rows(self.num_pixels)
        self._update(out, (0, 0), values, log=False)
        return out

    def log_marginals(self, values: Tensor | None) -> Tensor:
        """(N, L) log-marginals that the blurred lattice values give."""
        out = torch.empty_like(self.unary)
        self._update(out, out.stride(), values, log=True)
        return out

    def splat(self, rows: Tensor, *, transpose: bool = False) -> Tensor:
        """(M, R) lattice values of (N, R) rows of the pixels."""
        lattices = self.lattices
        weight = lattices.splat_out if transpose else lattices.splat_in
        sums = self._sum_rows(rows, lattices.segment, lattices.pixel, weight)
        if sums.shape[0] == self.num_vertices:
            return sums
        return self._sum_rows(sums, lattices.vertex_segment)

    def blur(self, values: Tensor, *, reverse: bool = False) -> Tensor:
        """Lattice values blurred along all directions; overwrites what it is given."""
        spare = torch.empty_like(values)
        neighbours = self.lattices.neighbours
        order = range(neighbours.shape[0])
        grid, options = self._vertex_grid(self.num_vertices)
        for direction in reversed(order) if reverse else order:
            sizes = (self.num_vertices, self.quads)
            self._launch(
                kernels.blur[grid], spare, values, neighbours, direction, *sizes, **options
            )
            values, spare = spare, values
        return values

    def inner_products(self, one: Tensor, other: Tensor) -> Tensor:
        """(K,) float64 inner products of lattice values, one per kernel."""
        products = (one * other).sum(dim=1, dtype=torch.float64)
        return torch.stack([part.sum() for part in products.split(self.lattices.sizes)])

    def pull_seed(self, values: Tensor | None, grad: Tensor, grad_unary: Tensor) -> Tensor:
        """(N, R) gradient of the last logits from that of the log-marginals; sets grad_unary."""
        out = self._rows(self.num_pixels)
        self._pullback(out, grad_unary, values, grad, grad.stride())
        return out

    def pull(
        self, values: Tensor | None, on_lattice: Tensor, grad_unary: Tensor, out: Tensor
    ) -> None:
        """Gradient of an iteration's logits from that of its splatted marginals.

        Writes it to ``out`` (N, R), unless ``values`` is None, and adds it to grad_unary.
        """
        self._pullback(out, grad_unary, values, on_lattice, None)

    def _rows(self, count: int) -> Tensor:
        return self.unary.new_empty(count, 4 * self.quads)

    def _pixel_grid(self) -> tuple[tuple[int], dict[str, int]]:
        """One program per tile of pixels, with all labels."""
        block_l = max(4, triton.next_power_of_2(self.num_labels))
        block_n = max(1, _PIXEL_TILE // block_l)
        options = {"BLOCK_N": block_n, "BLOCK_L": block_l, "num_warps": _PIXEL_WARPS}
        return (triton.cdiv(self.num_pixels, block_n),), options

    def _vertex_grid(self, num_rows: int) -> tuple[tuple[int, int], dict[str, int]]:
        """One program per tile of rows and labels."""
        block_l = min(_LABELS_PER_TILE, max(4, triton.next_power_of_2(self.num_labels)))
        block_m = _VERTEX_TILE // block_l
        options = {"BLOCK_M": block_m, "BLOCK_L": block_l, "num_warps": _VERTEX_WARPS}
        return (triton.cdiv(num_rows, block_m), triton.cdiv(4 * self.quads, block_l)), options

    def _sum_rows(
        self,
        rows: Tensor,
        start: Tensor,
        index: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        out = self._rows(start.shape[0] - 1)
        grid, options = self._vertex_grid(out.shape[0])
        arguments = (out, rows, start, index, weight, out.shape[0], self.quads)
        self._launch(kernels.sum_rows[grid], *arguments, INDEXED=index is not None, **options)
        return out

    def _update(
        self, out: Tensor, strides: tuple[int, int], values: Tensor | None, *, log: bool
    ) -> None:
        grid, options = self._pixel_grid()
        self._launch(
            kernels.update[grid],
            out,
            *strides,
            *self._given(values),
            self.num_pixels,
            self.num_labels,
            self.quads,
            LOG=log,
            CORNERS=0 if values is None else self.num_corners,
            **options,
        )

    def _pullback(
        self,
        out: Tensor,
        grad_unary: Tensor,
        values: Tensor | None,
        source: Tensor,
        strides: tuple[int, int] | None,
    ) -> None:
        """``strides`` are those of the seed; None: ``source`` is on the lattice."""
        seed = strides is not None
        grid, options = self._pixel_grid()
        self._launch(
            kernels.pullback[grid],
            out,
            grad_unary,
            *grad_unary.stride(),
            *self._given(values),
            source,
            *(strides or (0, 0)),
            None if seed else self.lattices.vertex,
            None if seed else self.weight_in,
            self.num_pixels,
            self.num_labels,
            self.quads,
            SEED=seed,
            CORNERS=0 if values is None else self.num_corners,
            SOURCE_CORNERS=0 if seed else self.num_corners,
            **options,
        )

    def _given(self, values: Tensor | None) -> tuple:
        """What the logits are made of: the unary and, after the first iteration, messages."""
        unary = (self.unary, *self.unary.stride())
        if values is None:
            return (*unary, None, None, None)
        return (*unary, values, self.lattices.vertex, self.weight_out)

    def _launch(self, kernel, *arguments, **constants) -> None:
        with torch.cuda.device_of(self.unary):  # Triton launches on the current device
            kernel(*arguments, **constants)
