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

Shape letters: N pixels, C channels, F feature dimensions, M lattice vertices, S distinct simplices.
"""

from __future__ import annotations

import warnings
from functools import cached_property, lru_cache
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
    "spatial_filter",
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


class Normalization:
    """Weighs values before and after an unnormalised filter so that it yields means.

    Attributes:
        weight_in: (N, 1) factors before filtering, or None for ones.
        weight_out: (N, 1) factors after filtering.
    """

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
        self.normalization = Normalization(self.kernel.sum(dim=1, keepdim=True), normalization)

    def __call__(self, values: Tensor) -> Tensor:
        kernel = self.kernel.to(values.dtype)
        return self.normalization.after(kernel @ self.normalization.before(values))


class PermutohedralFilter:
    """Gaussian filter on a permutohedral lattice, in plain PyTorch on any device.

    Splat and slice are sparse matrices, transposes of each other, made at the first call; the blur
    is a gather per direction. The lattice is built once, from the features.

    Args:
        features: (N, F) features; the kernel has unit standard deviation in their space.
        normalization: "after" or "symmetric", see the module's docstring.

    Attributes:
        num_pixels: N.
        num_vertices: M.
        vertex: (N, F + 1) int64 vertices of the simplex around each pixel.
        weight: (N, F + 1) float64 barycentric weights.
        neighbours: (F + 1, 2, M) int64 vertices before and after each one in each direction, M
            where there is none.
        normalization: the factors before and after filtering.
    """

    def __init__(self, features: Tensor, *, normalization: str = "after") -> None:
        rounded, rank, self.weight = _enclosing_simplices(features.detach().to(torch.float64))
        # Many pixels share a simplex: its vertices are looked up once.
        simplices, simplex = _unique_rows(torch.cat([rounded, rank], dim=1))
        vertices = _simplex_vertices(*simplices.tensor_split(2, dim=1))
        index, self.neighbours = _connect(vertices.flatten(0, 1))
        self.vertex = index.view(vertices.shape[:2])[simplex]
        self.num_pixels, self.num_vertices = features.shape[0], self.neighbours.shape[2]
        self._matrices: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self.normalization = Normalization(self._filter_ones(), normalization)

    def __call__(self, values: Tensor) -> Tensor:
        """Filters (N, C) values; differentiable."""
        filtered = _ApplyLattice.apply(self.normalization.before(values), self)
        return self.normalization.after(filtered)

    @cached_property
    def by_vertex(self) -> tuple[Tensor, Tensor]:
        """The (pixel, corner) pairs in the order of their vertices, for splatting.

        Returns:
            (M + 1,) first pair of each vertex, and (N (F + 1),) pairs as pixel * (F + 1) + corner,
            both int64.
        """
        vertex = self.vertex.flatten()
        counts = torch.bincount(vertex, minlength=self.num_vertices)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return first, torch.argsort(vertex, stable=True)

    def _filter(self, values: Tensor, *, transpose: bool = False) -> Tensor:
        splat, slice_ = self._splat_and_slice(values.dtype)
        return slice_ @ self._blur(splat @ values.contiguous(), reverse=transpose)

    def _filter_ones(self) -> Tensor:
        """(N, 1) unnormalised response to ones; needs no matrices."""
        lattice = self.weight.new_zeros(self.num_vertices)
        lattice.index_add_(0, self.vertex.flatten(), self.weight.flatten())
        lattice = self._blur(lattice[:, None], reverse=False)[:, 0]
        return (lattice[self.vertex] * self.weight).sum(dim=1, keepdim=True)

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
            size = (self.num_pixels, self.num_vertices)
            pixels, corners = self.vertex.shape
            weight = self.weight.to(dtype).flatten()
            first, pairs = self.by_vertex
            rows = torch.arange(0, (pixels + 1) * corners, corners, device=weight.device)
            self._matrices[dtype] = (
                _csr(first, pairs // corners, weight[pairs], size[::-1]),
                _csr(rows, self.vertex.flatten(), weight, size),
            )
        return self._matrices[dtype]


@lru_cache(maxsize=4)
def spatial_filter(
    height: int, width: int, theta_gamma: float, *, normalization: str, device: torch.device
) -> PermutohedralFilter:
    """The filter of the spatial kernel, which all images of a size share."""
    # What is kept may serve training although inference mode asked for it first.
    with torch.inference_mode(False):
        features = spatial_features(height, width, theta_gamma, device=device)
        return PermutohedralFilter(features, normalization=normalization)


class _ApplyLattice(torch.autograd.Function):
    """slice . blur . splat, with the exact transpose as its backward."""

    @staticmethod
    def forward(ctx, values: Tensor, lattice: PermutohedralFilter) -> Tensor:
        ctx.lattice = lattice
        return lattice._filter(values)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.lattice._filter(grad, transpose=True), None


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The lattice simplex around each feature point.

    Coordinates sum to zero, so that the last of the F + 1 follows from the others and is left out.

    Returns:
        (N, F) int64 coordinates of the "remainder-0 point" in units of F + 1, (N, F) int64 ranks
        that tell which of the simplices around that point it is, and (N, F + 1) barycentric
        weights of the simplex's vertices.
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
    return (rounded[:, :dim] / (dim + 1)).round().long(), rank[:, :dim], weights


def _simplex_vertices(rounded: Tensor, rank: Tensor) -> Tensor:
    """(S, F + 1, F) coordinates of the vertices of simplices, see `_enclosing_simplices`."""
    dim = rank.shape[1]
    # Vertex r adds r to the coordinates of rank <= F - r and r - (F + 1) to the others.
    r = torch.arange(dim + 1, device=rank.device)[None, :, None]
    offset = torch.where(rank[:, None] <= dim - r, r, r - (dim + 1))
    return rounded[:, None] * (dim + 1) + offset


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
    packed, _ = _pack(rows, margin=0)
    if packed is None:
        return torch.unique(rows, dim=0, return_inverse=True)
    distinct, index = torch.unique(packed, return_inverse=True)
    unique = rows.new_empty(distinct.shape[0], rows.shape[1])
    unique[index] = rows
    return unique, index


def _pack(rows: Tensor, *, margin: int) -> tuple[Tensor | None, list[int]]:
    """Integer rows as single int64 keys in the same order, or None where 63 bits are too few.

    Returns:
        The keys, and what a step of one in each coordinate adds to a key: true as long as no
        coordinate leaves the range of the rows by more than ``margin``.
    """
    low, high = torch.aminmax(rows, dim=0)
    low, extent = low - margin, (high - low + 2 * margin + 1).tolist()
    strides = [1]
    for count in reversed(extent):
        strides.insert(0, strides[0] * count)
    size, *strides = strides
    if size >= 2**63:
        return None, strides
    packed = torch.zeros_like(rows[:, 0])
    for column, stride in enumerate(strides):
        packed += (rows[:, column] - low[column]) * stride
    return packed, strides


def _connect(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers the distinct ones of (..., F) vertices, in the order of their coordinates.

    Returns:
        The number of each vertex, and (F + 1, 2, M) the neighbours of each number along each
        direction, M where there is none.
    """
    dim = vertices.shape[1]
    # A step to a neighbour: F along one coordinate, -1 along all others.
    steps = vertices.new_full((dim + 1, dim), -1)
    steps.fill_diagonal_(dim)
    packed, strides = _pack(vertices, margin=dim + 1)
    if packed is None:
        keys, index = torch.unique(vertices, dim=0, return_inverse=True)
        below = torch.stack([_find_rows(keys, keys + step) for step in steps])
    else:
        keys, index = torch.unique(packed, return_inverse=True)
        wanted = keys + (steps * steps.new_tensor(strides)).sum(dim=1, keepdim=True)
        below = torch.searchsorted(keys, wanted).clamp_(max=keys.shape[0] - 1)
        below.masked_fill_(keys[below] != wanted, keys.shape[0])
    count = keys.shape[0]
    # A step back from the neighbour below is where we came from.
    above = below.new_full((dim + 1, count + 1), count)
    above.scatter_(1, below, torch.arange(count, device=below.device).expand_as(below))
    return index, torch.stack([below, above[:, :count]], dim=1)


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
