"""Dense Gaussian filtering of label distributions in a feature space.

A filter sums over *all* pixels of the image,
``(K v)_k = sum_i exp(-|f_k - f_i|^2 / 2) v_i``, the pixel itself included. The features decide the
kernel: position/theta_gamma for the spatial kernel, position/theta_alpha with colour/theta_beta for
the bilateral one. Positions are in pixels of the grid that is filtered, colours in 0-255.

``PermutohedralFilter`` approximates the sum in linear time (Adams, Baek, Davis: Fast
High-Dimensional Filtering Using the Permutohedral Lattice, 2010): values are *splatted* onto the
vertices of a lattice, blurred there along each of its F + 1 directions, and *sliced* back.
``BruteForceFilter`` is the sum itself, for tests and tiny images.

Normalisation turns the sum into weighted means. With n = K 1:

* ``"after"``: K v / n (rows sum to one; what the authors' release does);
* ``"symmetric"``: n^-1/2 K (n^-1/2 v) (what pydensecrf does by default).

Filters are linear in the values and depend on the image only. They are differentiable with respect
to the values; the backward pass applies the exact transpose. The image gets no gradient.

Shape letters: N pixels, C channels, F feature dimensions, M lattice vertices.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "NORMALIZATIONS",
    "BruteForceFilter",
    "GaussianFilter",
    "PermutohedralFilter",
    "bilateral_features",
    "spatial_features",
]

NORMALIZATIONS = ("after", "symmetric")

# The sum of a pixel's own weight is positive by construction; this only guards the division.
_TINY = 1e-20


class GaussianFilter(Protocol):
    """A linear filter of per-pixel values: (N, C) -> (N, C)."""

    def __call__(self, values: Tensor) -> Tensor: ...


def spatial_features(
    height: int, width: int, theta_gamma: float, *, device: torch.device | str | None = None
) -> Tensor:
    """(N, 2) float64 features ``(x, y) / theta_gamma``; theta_gamma in pixels."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float64),
        torch.arange(width, device=device, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], dim=1) / theta_gamma


def bilateral_features(image: Tensor, theta_alpha: float, theta_beta: float) -> Tensor:
    """(N, 5) float64 features ``(x, y) / theta_alpha, colour / theta_beta``.

    Args:
        image: (3, H, W) colours in 0-255; the order of the channels does not matter.
        theta_alpha: in pixels.
        theta_beta: in units of colour.
    """
    height, width = image.shape[-2:]
    position = spatial_features(height, width, theta_alpha, device=image.device)
    colour = image.reshape(image.shape[0], -1).t().to(torch.float64) / theta_beta
    return torch.cat([position, colour], dim=1)


class _Normalized:
    """Weighs values before and after an unnormalised filter so that it yields means."""

    def __init__(self, norm: Tensor, normalization: str) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization is {normalization!r}, but must be in {NORMALIZATIONS}."
            )
        if normalization == "after":
            self.weight_in, self.weight_out = None, (norm + _TINY).reciprocal()
        else:
            self.weight_in = self.weight_out = (norm + _TINY).rsqrt()

    def before(self, values: Tensor) -> Tensor:
        return values if self.weight_in is None else values * self.weight_in.to(values.dtype)

    def after(self, values: Tensor) -> Tensor:
        return values * self.weight_out.to(values.dtype)


class BruteForceFilter:
    """The Gaussian sum over all pairs of pixels, O(N^2): the truth that lattices approximate."""

    def __init__(self, features: Tensor, *, normalization: str = "after") -> None:
        squared_distance = torch.cdist(features, features).square()
        self.kernel = torch.exp(-0.5 * squared_distance)
        self._normalized = _Normalized(self.kernel.sum(dim=1, keepdim=True), normalization)

    def __call__(self, values: Tensor) -> Tensor:
        kernel = self.kernel.to(values.dtype)
        return self._normalized.after(kernel @ self._normalized.before(values))


class PermutohedralFilter:
    """Gaussian filter on a permutohedral lattice, in plain PyTorch on any device.

    Splat and slice are sparse matrices, transposes of each other; the blur is a gather per
    direction. The lattice is built once, from the features.

    Args:
        features: (N, F) features; the kernel has unit standard deviation in their space.
        normalization: "after" or "symmetric", see the module's docstring.

    Attributes:
        num_vertices: M.
    """

    def __init__(self, features: Tensor, *, normalization: str = "after") -> None:
        vertices, weights = _enclosing_simplices(features.detach().to(torch.float64))
        keys, index = _unique_rows(vertices.flatten(0, 1))
        self.num_pixels, self.num_vertices = features.shape[0], keys.shape[0]
        self.vertex = index.view(weights.shape)  # (N, F + 1)
        self.weight = weights  # (N, F + 1) barycentric
        self.neighbours = _blur_neighbours(keys)  # (F + 1, 2, M), M where there is none
        self._matrices: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        ones = weights.new_ones(self.num_pixels, 1)
        self._normalized = _Normalized(self._filter(ones), normalization)

    def __call__(self, values: Tensor) -> Tensor:
        """Filters (N, C) values; differentiable."""
        filtered = _ApplyLattice.apply(self._normalized.before(values), self)
        return self._normalized.after(filtered)

    def _filter(self, values: Tensor, *, transpose: bool = False) -> Tensor:
        splat, slice_ = self._splat_and_slice(values.dtype)
        return slice_ @ self._blur(splat @ values.contiguous(), reverse=transpose)

    def _blur(self, lattice: Tensor, *, reverse: bool) -> Tensor:
        """[1/2 1 1/2] along every direction; the transpose runs the directions in reverse."""
        order = reversed(self.neighbours) if reverse else self.neighbours
        nothing = lattice.new_zeros(1, lattice.shape[1])
        for below, above in order:
            padded = torch.cat([lattice, nothing])
            lattice = torch.add(lattice, padded[below] + padded[above], alpha=0.5)
        return lattice

    def _splat_and_slice(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The (M, N) and (N, M) sparse matrices; made once per dtype."""
        if dtype not in self._matrices:
            self._matrices[dtype] = (
                _splat_matrix(self.vertex, self.weight.to(dtype), self.num_vertices),
                _slice_matrix(self.vertex, self.weight.to(dtype), self.num_vertices),
            )
        return self._matrices[dtype]


class _ApplyLattice(torch.autograd.Function):
    """slice . blur . splat, with the exact transpose as its backward."""

    @staticmethod
    def forward(ctx, values: Tensor, lattice: PermutohedralFilter) -> Tensor:
        ctx.lattice = lattice
        return lattice._filter(values)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.lattice._filter(grad, transpose=True), None


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """The lattice simplex around each feature point.

    Returns:
        (N, F + 1, F) int64 coordinates of the vertices (the last coordinate follows from the
        others, since they sum to zero) and (N, F + 1) barycentric weights.
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

    # Vertex r adds r to the coordinates of rank <= F - r and r - (F + 1) to the others.
    r = torch.arange(dim + 1, device=features.device)[None, :, None]
    rank = rank[:, None, :dim]
    offset = torch.where(rank <= dim - r, r, r - (dim + 1))
    return rounded[:, None, :dim].long() + offset, weights


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
    packed = _pack(rows, rows)
    if packed is None:
        return torch.unique(rows, dim=0, return_inverse=True)
    _, inverse = torch.unique(packed, return_inverse=True)
    keys = rows.new_empty(int(inverse.max()) + 1, rows.shape[1])
    keys[inverse] = rows
    return keys, inverse


def _pack(rows: Tensor, reference: Tensor) -> Tensor | None:
    """Integer rows as single int64 keys in the same order, or None where 63 bits are too few.

    The range of ``reference`` is widened by what a step to a neighbour can change.
    """
    margin = rows.shape[1] + 1
    low = reference.amin(dim=0) - margin
    extent = (reference.amax(dim=0) + margin + 1 - low).tolist()
    packed, size = torch.zeros_like(rows[:, 0]), 1
    for column, count in enumerate(extent):
        size *= count
        packed = packed * count + (rows[:, column] - low[column])
    return packed if size < 2**63 else None


def _blur_neighbours(keys: Tensor) -> Tensor:
    """(F + 1, 2, M) indices of the two neighbours along each direction, M where there is none."""
    count, dim = keys.shape
    steps = keys.new_full((dim + 1, dim), -1)
    steps[torch.arange(dim), torch.arange(dim)] = dim
    here = torch.arange(count, device=keys.device)
    found = keys.new_full((dim + 1, 2, count), count)
    for direction, step in enumerate(steps):
        below = _find_rows(keys, keys + step)
        exists = below < count
        found[direction, 0] = below
        # A step back from the neighbour below is where we came from.
        found[direction, 1, below[exists]] = here[exists]
    return found


def _find_rows(keys: Tensor, wanted: Tensor) -> Tensor:
    """Index of each wanted row among the sorted distinct ``keys``, or M where it is not there."""
    count = keys.shape[0]
    ids = _pack(keys, keys)
    if ids is None:
        rows, index = torch.unique(torch.cat([keys, wanted]), dim=0, return_inverse=True)
        where = keys.new_full((rows.shape[0],), count)
        where[index[:count]] = torch.arange(count, device=keys.device)
        return where[index[count:]]
    wanted = _pack(wanted, keys)
    position = torch.searchsorted(ids, wanted).clamp_(max=count - 1)
    return position.masked_fill(ids[position] != wanted, count)


def _slice_matrix(vertex: Tensor, weight: Tensor, num_vertices: int) -> Tensor:
    """(N, M) CSR matrix; the row of a pixel holds its barycentric weights."""
    pixels, corners = vertex.shape
    rows = torch.arange(0, (pixels + 1) * corners, corners, device=vertex.device)
    return _csr(rows, vertex.flatten(), weight.flatten(), (pixels, num_vertices))


def _splat_matrix(vertex: Tensor, weight: Tensor, num_vertices: int) -> Tensor:
    """(M, N) CSR matrix, the transpose of the slice matrix."""
    pixels, corners = vertex.shape
    by_vertex = torch.argsort(vertex.flatten(), stable=True)
    counts = torch.bincount(vertex.flatten(), minlength=num_vertices)
    rows = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _csr(rows, by_vertex // corners, weight.flatten()[by_vertex], (num_vertices, pixels))


def _csr(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # "CSR tensor support is in beta": products with dense matrices, all that is used, are not.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(rows, columns, values, size, check_invariants=False)
