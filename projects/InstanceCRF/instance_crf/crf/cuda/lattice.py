"""The permutohedral lattices of an image's kernels as one, and what is done on it.

Nothing here depends on the order in which threads finish: equal images give equal bits.

Shape letters: N pixels, K Gaussian kernels; of all of them together M lattice vertices, C corners
(the vertices around a pixel), E = C·N (corner, pixel) pairs; rows have R columns, a multiple of 4.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from ..gaussian_filter import ImageKernels, normalization_factors
from .kernels import blur, sum_rows

__all__ = ["JointLattice", "join_lattices", "run"]

_SEGMENT = 64
"""Most pairs summed in one go: a vertex has anything from one to many thousands."""
_TILE, _WARPS = 512, 1
"""Rows times labels of a program, and its warps; small, since it waits for the row with most to
sum."""
_LABELS_PER_TILE = 64
"""Labels of such a program at most."""


class JointLattice(NamedTuple):
    """The lattices of all kernels, whose vertices and corners follow each other.

    Attributes:
        sizes: vertices of each kernel, M in total.
        corners: corners of each kernel, C in total.
        vertex: (C, N) int32 vertices around each pixel.
        weight: (C, N) float32 barycentric weights.
        kernel_of: (C,) int32 kernel of each corner.
        pair: (E,) int32 pairs, corner * N + pixel, in the order of their vertices.
        segment: (G + 1,) int32 first pair of each stretch of at most _SEGMENT pairs of a vertex.
        vertex_segment: (M + 1,) int32 first segment of each vertex.
        neighbours: (directions, 2, M) int32, M where there is none.
    """

    sizes: tuple[int, ...]
    corners: tuple[int, ...]
    vertex: Tensor
    weight: Tensor
    kernel_of: Tensor
    pair: Tensor
    segment: Tensor
    vertex_segment: Tensor
    neighbours: Tensor

    def splat(self, rows: Tensor, factor: Tensor) -> Tensor:
        """(M, R) lattice values of (N, R) rows of the pixels times (K, N) factors."""
        sums = self._sum_rows(rows, self.segment, factor)
        if len(self.segment) == len(self.vertex_segment):
            return sums
        return self._sum_rows(sums, self.vertex_segment)

    def blur(self, values: Tensor, *, reverse: bool = False) -> Tensor:
        """(M, R) values blurred along all directions; overwrites what it is given."""
        spare = torch.empty_like(values)
        grid, options = _grid(*values.shape)
        order = range(len(self.neighbours))
        for direction in reversed(order) if reverse else order:
            arguments = (spare, values, self.neighbours, direction, *values.shape)
            run(blur, grid, *arguments, **options)
            values, spare = spare, values
        return values

    def factors(
        self, ones: Tensor, normalization: str, support: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(K, N) float32 factors before and after the kernels; see `normalization_factors`.

        Args:
            ones: (K, N) sums K 1.
            support: (N,), or None.
        """
        reach = None if support is None else self.filter_number(support)
        return normalization_factors(ones, normalization, support, reach)

    def filter_number(self, number: Tensor) -> Tensor:
        """(K, N) each kernel's sums of (N,) float32 numbers."""
        rows = F.pad(number[:, None], (0, 3))
        values = self.splat(rows, rows.new_ones(len(self.sizes), len(number)))
        values = self.blur(values)[:, 0].contiguous()
        shares = values.index_select(0, self.vertex.flatten()).view_as(self.weight)
        shares *= self.weight
        return torch.stack([part.sum(dim=0) for part in shares.split(self.corners)])

    def inner_products(self, one: Tensor, other: Tensor) -> Tensor:
        """(K,) float64 inner products of (M, R) lattice values, one per kernel."""
        products = (one * other).sum(dim=1, dtype=torch.float64)
        return torch.stack([part.sum() for part in products.split(self.sizes)])

    def _sum_rows(self, rows: Tensor, start: Tensor, factor: Tensor | None = None) -> Tensor:
        """Sums of stretches of the rows; given a factor, of what the pairs make of the rows."""
        splat = factor is not None
        out = rows.new_empty(len(start) - 1, rows.shape[1])
        pairs = (self.pair, self.weight, self.kernel_of, factor) if splat else (None,) * 4
        sizes = len(out), self.vertex.shape[1], out.shape[1]
        grid, options = _grid(*out.shape)
        run(sum_rows, grid, out, rows, start, *pairs, *sizes, SPLAT=splat, **options)
        return out


def run(kernel, grid: tuple[int, ...], out: Tensor, *arguments, **constants) -> None:
    """Launches a kernel on the device of what it writes."""
    with torch.cuda.device_of(out):  # Triton launches on the current device
        kernel[grid](out, *arguments, **constants)


def _grid(rows: int, columns: int) -> tuple[tuple[int, int], dict[str, int]]:
    """One program per tile of rows and labels."""
    block_l = min(_LABELS_PER_TILE, triton.next_power_of_2(columns))
    block_m = _TILE // block_l
    options = {"BLOCK_M": block_m, "BLOCK_L": block_l, "num_warps": _WARPS}
    return (triton.cdiv(rows, block_m), triton.cdiv(columns, block_l)), options


def join_lattices(kernels: ImageKernels, device: torch.device) -> tuple[JointLattice, Tensor]:
    """The joint lattice of an image's kernels, and their (K, N) sums of ones, K 1.

    Both stay, and take 12 C + 4 K bytes per pixel and at most 8 (F + 2) per vertex. While they are
    made there are besides the lattice of one kernel at a time, with what its making takes, and then
    some 30 bytes for each pair of one kernel, to sort them.
    """
    corners = tuple(kernel.num_features + 1 for kernel in kernels.kernels)
    shape = sum(corners), kernels.size[0] * kernels.size[1]
    vertex = torch.empty(shape, dtype=torch.int32, device=device)
    weight = torch.empty(shape, dtype=torch.float32, device=device)
    rows, neighbours = [0], []
    places = zip(kernels.kernels, vertex.split(corners), weight.split(corners), strict=True)
    for kernel, vertex_place, weight_place in places:
        lattice = kernel.lattice(device)
        torch.add(lattice.vertex.t(), rows[-1], out=vertex_place)
        weight_place.copy_(lattice.weight.t())
        neighbours.append(lattice.neighbours)
        rows.append(rows[-1] + lattice.num_vertices)
        del lattice  # before the next one is built
    kernel_of = [k for k, count in enumerate(corners) for _ in range(count)]
    joint = JointLattice(
        tuple(end - start for start, end in pairwise(rows)),
        corners,
        vertex,
        weight,
        torch.tensor(kernel_of, dtype=torch.int32, device=device),
        _sorted_pairs(vertex, corners),
        *_segments(torch.bincount(vertex.flatten())),
        _join_neighbours(neighbours, rows),
    )
    return joint, joint.filter_number(torch.ones(shape[1], device=device))


def _sorted_pairs(vertex: Tensor, corners: tuple[int, ...]) -> Tensor:
    """(E,) int32 pairs in the order of their vertices, by number where these are the same."""
    pair = torch.empty_like(vertex)
    first = 0
    for place, part in zip(pair.split(corners), vertex.split(corners), strict=True):
        place.view(-1).copy_(torch.argsort(part.view(-1), stable=True)).add_(first)
        first += part.numel()
    return pair.flatten()


def _segments(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts each vertex's pairs into segments of at most _SEGMENT.

    Args:
        counts: (M,) pairs of each vertex, at least one.

    Returns:
        (G + 1,) int32 first pair of each segment and (M + 1,) int32 first segment of each vertex,
        both with the total at the end.
    """
    first_pair = F.pad(counts.cumsum(0), (1, 0)).int()
    pieces = (counts + _SEGMENT - 1) // _SEGMENT
    first_segment = F.pad(pieces.cumsum(0), (1, 0)).int()
    segment = torch.repeat_interleave(first_pair[:-1] - _SEGMENT * first_segment[:-1], pieces)
    segment += _SEGMENT * torch.arange(len(segment), dtype=torch.int32, device=segment.device)
    return torch.cat([segment, first_pair[-1:]]), first_segment


def _join_neighbours(neighbours: list[Tensor], rows: list[int]) -> Tensor:
    """(directions, 2, M) int32 neighbours of all kernels' vertices, M where there is none.

    Args:
        neighbours: (F + 1, 2, M_k) of each kernel, M_k where there is none.
        rows: (K + 1,) first vertex of each kernel.
    """
    directions = max(map(len, neighbours))
    joint = neighbours[0].new_full((directions, 2, rows[-1]), rows[-1])
    for of_kernel, (start, end) in zip(neighbours, pairwise(rows), strict=True):
        place = joint[: len(of_kernel), :, start:end]
        place.copy_(of_kernel).add_(start).masked_fill_(of_kernel == end - start, rows[-1])
    return joint
