"""Gaussian sums over all pairs of pixels in linear time, in plain PyTorch on any device.

Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice, 2010. Values
are *splatted* onto the vertices of a lattice, blurred there along each of its F + 1 directions, and
*sliced* back. Differentiable with respect to the values; the backward pass applies the exact
transpose.

Shape letters: N pixels, C channels, F feature dimensions, M lattice vertices, S distinct simplices.
"""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["PermutohedralLattice"]

_PIXELS_AT_A_TIME = 2**18
"""Pixels that are embedded together: bounds the memory of large pictures."""


class PermutohedralLattice:
    """The Gaussian sum on a permutohedral lattice, in plain PyTorch on any device.

    Splat and slice are sparse matrices, transposes of each other, made at the first call; the blur
    is a gather per direction. The lattice is built once, from the features.

    Args:
        features: (N, F); the kernel has unit standard deviation in their space.

    Attributes:
        num_vertices: M.
        vertex: (N, F + 1) int32 vertices of the simplex around each pixel.
        weight: (N, F + 1) float32 barycentric weights.
        neighbours: (F + 1, 2, M) int32 vertices before and after each one in each direction, M
            where there is none.
    """

    def __init__(self, features: Tensor) -> None:
        features = features.detach().to(torch.float64)
        parts = [_enclosing_simplices(rows) for rows in features.split(_PIXELS_AT_A_TIME)]
        rounded, rank, weight = (torch.cat(column) for column in zip(*parts, strict=True))
        del parts
        # Many pixels share a simplex: its vertices are looked up once.
        simplices, simplex = _unique_rows(torch.cat([rounded, rank], dim=1))
        del rounded, rank
        number, self.neighbours = _connect(*simplices.tensor_split(2, dim=1))
        self.num_vertices = self.neighbours.shape[2]
        self.weight, self.vertex = weight, number[simplex]
        self._matrices: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def to(self, device: torch.device) -> PermutohedralLattice:
        """Moves the lattice to a device, before its first use."""
        self.weight, self.vertex = self.weight.to(device), self.vertex.to(device)
        self.neighbours = self.neighbours.to(device)
        return self

    def __call__(self, values: Tensor) -> Tensor:
        """Filters (N, C) values; differentiable."""
        return _ApplyLattice.apply(values, self)

    @cached_property
    def by_vertex(self) -> tuple[Tensor, Tensor]:
        """The (pixel, corner) pairs in the order of their vertices, for splatting.

        Returns:
            (M + 1,) first pair of each vertex, and (N (F + 1),) pairs as pixel * (F + 1) + corner,
            both int32.
        """
        vertex = self.vertex.flatten()
        counts = torch.bincount(vertex, minlength=self.num_vertices)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return first.int(), torch.argsort(vertex, stable=True).int()

    def filter(self, values: Tensor, *, transpose: bool = False) -> Tensor:
        """The filter or its transpose, without gradient."""
        return self._slice(self._blur(self._splat(values.contiguous()), reverse=transpose))

    def _splat(self, values: Tensor) -> Tensor:
        """(N, C) -> (M, C)."""
        if self._has_matrices:
            return self._splat_and_slice(values.dtype)[0] @ values
        lattice = values.new_zeros(self.num_vertices, values.shape[1])
        for vertex, weight in zip(self.vertex.unbind(1), self.weight.unbind(1), strict=True):
            lattice.index_add_(0, vertex, values * weight.to(values.dtype)[:, None])
        return lattice

    def _slice(self, lattice: Tensor) -> Tensor:
        """(M, C) -> (N, C), the transpose of `_splat`."""
        if self._has_matrices:
            return self._splat_and_slice(lattice.dtype)[1] @ lattice
        values = 0
        for vertex, weight in zip(self.vertex.unbind(1), self.weight.unbind(1), strict=True):
            values = values + lattice[vertex] * weight.to(lattice.dtype)[:, None]
        return values

    def _blur(self, lattice: Tensor, *, reverse: bool) -> Tensor:
        """[1/2 1 1/2] along every direction; the transpose runs the directions in reverse."""
        order = reversed(self.neighbours) if reverse else self.neighbours
        nothing = lattice.new_zeros(1, lattice.shape[1])
        for below, above in order:
            padded = torch.cat([lattice, nothing])
            lattice = torch.add(lattice, padded[below] + padded[above], alpha=0.5)
        return lattice

    @property
    def _has_matrices(self) -> bool:
        """Whether the device multiplies sparse matrices."""
        return self.weight.device.type in ("cpu", "cuda")

    def _splat_and_slice(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The (M, N) and (N, M) sparse matrices; made once per dtype."""
        if dtype not in self._matrices:
            pixels, corners = self.vertex.shape
            size = (pixels, self.num_vertices)
            weight = self.weight.to(dtype).flatten()
            first, pairs = self.by_vertex
            rows = torch.arange(0, (pixels + 1) * corners, corners, device=first.device)
            self._matrices[dtype] = (
                _csr(first, pairs // corners, weight[pairs], size[::-1]),
                _csr(rows.int(), self.vertex.flatten(), weight, size),
            )
        return self._matrices[dtype]


class _ApplyLattice(torch.autograd.Function):
    """slice . blur . splat, with the exact transpose as its backward."""

    @staticmethod
    def forward(ctx, values: Tensor, lattice: PermutohedralLattice) -> Tensor:
        ctx.lattice = lattice
        return lattice.filter(values)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.lattice.filter(grad, transpose=True), None


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The lattice simplex around each feature point.

    Coordinates sum to zero, so that the last of the F + 1 follows from the others and is left out.

    Returns:
        (N, F) int32 coordinates of the "remainder-0 point" in units of F + 1, (N, F) int32 ranks
        that tell which of the simplices around that point it is, and (N, F + 1) float32
        barycentric weights of the simplex's vertices.

    Raises:
        ValueError: if a coordinate is beyond what int32 holds: the bandwidths are too small.
    """
    dim = features.shape[1]
    elevated = _elevate(features)
    # The nearest point whose coordinates are all multiples of F + 1 ("remainder-0 point") ...
    rounded = torch.round(elevated / (dim + 1)) * (dim + 1)
    residual = elevated - rounded
    # ... and the rank of each coordinate's residual, largest first, ties to the lower index.
    order = torch.argsort(residual, dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    steps = torch.arange(dim + 1, device=features.device).expand_as(order)
    rank.scatter_(1, order, steps)
    # Rounding may leave the hyperplane (sum zero); walk back along the ranked coordinates.
    rank = rank + (rounded.sum(dim=1, keepdim=True) / (dim + 1)).round().long()
    shift = (rank < 0).long() - (rank > dim).long()
    rank = rank + shift * (dim + 1)
    rounded = rounded + shift * (dim + 1)
    residual = (elevated - rounded) / (dim + 1)

    by_rank = torch.empty_like(residual).scatter_(1, rank, residual)
    ascending = by_rank.flip(1)  # residual of the coordinate with rank F, F - 1, ..., 0
    weights = torch.empty_like(ascending)
    weights[:, 1:] = ascending[:, 1:] - ascending[:, :-1]
    weights[:, 0] = 1 + ascending[:, 0] - ascending[:, -1]
    rounded = (rounded[:, :dim] / (dim + 1)).round()
    if rounded.numel() and not rounded.abs().max() < 2**31 / (dim + 1):
        raise ValueError(
            "The features of a Gaussian kernel spread over more than 2^31 bandwidths, or are not "
            "finite: its theta is too small for this image."
        )
    return rounded.int(), rank[:, :dim].int(), weights.float()


def _simplex_vertex(rounded: Tensor, rank: Tensor, r: int) -> Tensor:
    """(S, F) int64 coordinates of vertex r of simplices, see `_enclosing_simplices`."""
    dim = rank.shape[1]
    # It adds r to the coordinates of rank <= F - r and r - (F + 1) to the others.
    return rounded.long() * (dim + 1) + torch.where(rank <= dim - r, r, r - (dim + 1))


def _elevate(features: Tensor) -> Tensor:
    """Maps (N, F) features onto the hyperplane of (F + 1)-vectors that sum to zero.

    The scale makes splat, blur and slice together a Gaussian of unit standard deviation.
    """
    dim = features.shape[1]
    axis = torch.arange(1, dim + 1, device=features.device, dtype=features.dtype)
    scaled = features * ((dim + 1) * (2 / 3) ** 0.5 / torch.sqrt(axis * (axis + 1)))
    tail = scaled.flip(1).cumsum(1).flip(1)  # sum of the features from each index on
    elevated = torch.cat([tail, torch.zeros_like(tail[:, :1])], dim=1)
    elevated[:, 1:] -= axis * scaled
    return elevated


def _unique_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct integer rows, sorted, and the index of each row among them."""
    low, high = torch.aminmax(rows, dim=0)
    strides = _strides(low, high)
    if strides is None:
        return torch.unique(rows, dim=0, return_inverse=True)
    distinct, index = torch.unique(_pack(rows, low, strides), return_inverse=True)
    unique = rows.new_empty(distinct.shape[0], rows.shape[1])
    unique[index] = rows
    return unique, index


def _strides(low: Tensor, high: Tensor) -> list[int] | None:
    """What a step of one in each coordinate adds to a key; None where 63 bits are too few.

    Args:
        low, high: (F,) range of the coordinates.
    """
    strides = [1]
    for count in reversed((high.long() - low.long() + 1).tolist()):
        strides.insert(0, strides[0] * count)
    return None if strides[0] >= 2**63 else strides[1:]


def _pack(rows: Tensor, low: Tensor, strides: list[int]) -> Tensor:
    """(S, F) integer rows as (S,) int64 keys in the same order."""
    packed = torch.zeros_like(rows[:, 0], dtype=torch.int64)
    for column, stride in enumerate(strides):
        packed += (rows[:, column].long() - low[column]) * stride
    return packed


def _connect(rounded: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers the distinct vertices of simplices, in the order of their coordinates.

    Args:
        rounded, rank: (S, F), see `_enclosing_simplices`.

    Returns:
        (S, F + 1) number of each vertex, and (F + 1, 2, M) the neighbours of each number along each
        direction, M where there is none; both int32.
    """
    dim = rank.shape[1]
    low, high = (bound.long() * (dim + 1) for bound in torch.aminmax(rounded, dim=0))
    low, high = low - 2 * dim, high + 2 * dim  # a vertex of the simplex, and one step on
    strides = _strides(low, high)
    # One corner at a time: all coordinates of all vertices would be hundreds of bytes per pixel.
    corners = (_simplex_vertex(rounded, rank, r) for r in range(dim + 1))
    if strides is None:
        vertices = torch.stack(list(corners), dim=1)
        keys, number = torch.unique(vertices.flatten(0, 1), dim=0, return_inverse=True)
    else:
        packed = torch.stack([_pack(corner, low, strides) for corner in corners], dim=1)
        keys, number = torch.unique(packed, return_inverse=True)
        del packed
    count = keys.shape[0]
    number = number.view(-1, dim + 1).int()
    each = torch.arange(count, dtype=torch.int32, device=keys.device)
    neighbours = each.new_full((dim + 1, 2, count + 1), count)
    for direction, (below, above) in enumerate(neighbours):
        # A step to a neighbour: F along one coordinate, -1 along all others.
        step = [dim if i == direction else -1 for i in range(dim)]
        if strides is None:
            found = _find_rows(keys, keys + keys.new_tensor(step))
        else:
            wanted = keys + sum(s * stride for s, stride in zip(step, strides, strict=True))
            found = torch.searchsorted(keys, wanted).clamp_(max=count - 1)
            found.masked_fill_(keys[found] != wanted, count)
        below[:count] = found
        # A step back from the neighbour below is where we came from.
        above[found] = each
    return number, neighbours[..., :count].contiguous()


def _find_rows(keys: Tensor, wanted: Tensor) -> Tensor:
    """Index of each wanted row among the distinct ``keys``, or M where it is not there."""
    count = keys.shape[0]
    rows, index = torch.unique(torch.cat([keys, wanted]), dim=0, return_inverse=True)
    where = keys.new_full((rows.shape[0],), count)
    where[index[:count]] = torch.arange(count, device=keys.device)
    return where[index[count:]]


def _csr(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # "CSR tensor support is in beta": products with dense matrices, all that is used, are not.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(rows, columns, values, size, check_invariants=False)
