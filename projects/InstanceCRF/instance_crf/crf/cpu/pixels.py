"""What is done at each pixel: slice the messages, normalise, splat; and the same backwards.

A visit of a pixel works on a *row*, one number per label, that stays in the cache. What lives
between iterations are the lattice values: a flat float32 array, one row per vertex of any kernel.
No array of marginals exists.

Rows are padded to a multiple of eight columns, since loops work on eight at a time (`lanes`). A pad
has the marginal 0, and so 0 in everything that is computed from it.

Every kernel works on pixels start..end in the order of ``tile_order``; ranges run on threads of
their own. Corners of a pixel, the vertices around it in the lattices of all kernels, are worked on
three at a time, which keeps their weights in registers; a kernel whose corners are no multiple of
three is padded with corners of weight 0.

Shape letters: N pixels, L labels, K kernels, C corners, R rows of lattice values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import kernel
from .lanes import exp, lane_sum, load, prefetch, repeat, store

__all__ = [
    "PAD",
    "Corners",
    "Problem",
    "log_marginals",
    "pull_gradient",
    "seed_gradient",
    "slice_number",
    "splat_number",
    "update",
]

PAD = 8
"""Rows have a multiple of as many columns: the width of `lanes`."""

_LANES = np.uint64(8)
_LOWEST = np.float32(-1e30)
"""Logit of a pad, less the maximum of the labels: its exponential is 0."""
_LINE = np.uint64(16)
"""float32 in a cache line."""
_NEAR = np.uint64(64)
"""So much of a row is fetched ahead; what follows the processor sees coming by itself."""
_AHEAD = 3
"""Pixels between a prefetch and its use: their work takes as long as memory does to answer."""


class Corners(NamedTuple):
    """How pixels meet the lattices of all kernels."""

    order: np.ndarray
    """(N,) int32 pixels in the order of ``tile_order``; all other (N, ...) here are in it."""
    vertex: np.ndarray
    """(N, C) int32 rows of the vertices around each pixel."""
    target: np.ndarray
    """(N, C) int32 rows to splat into: a thread's own where another splats into the same vertex."""
    weight: np.ndarray
    """(N, C) float32 barycentric weights."""
    kernel_of: np.ndarray
    """(C / 3,) int64 kernel of each three corners."""
    scattered: np.ndarray
    """(C / 3,) bool whether neighbours have vertices of their own: rows far from the processor."""


class Problem(NamedTuple):
    """All that the iterations of one image read."""

    corners: Corners
    unary: np.ndarray
    """(N * L,) float32 energies, pixels in their usual order."""
    num_labels: int
    """L."""
    width: int
    """L with its pads."""
    strength: np.ndarray
    """(K,) float32 weight w of each kernel."""
    weight_in: np.ndarray
    """(N, K) float32 factor of a pixel's values before each kernel; 0 where it sends nothing."""
    weight_out: np.ndarray
    """(N, K) float32 factor after it."""


@kernel(inline=True)
def _read_row(numbers, pixel, num_labels, factor, row):
    """factor * numbers of the pixel's labels into a row, 0 into its pads."""
    start = np.uint64(pixel) * np.uint64(num_labels)
    width = np.uint64(row.shape[0])
    if start + width <= np.uint64(numbers.shape[0]):
        for c in range(np.uint64(0), width, _LANES):
            store(row, c, load(numbers, start + c) * factor)
    else:  # eight at a time would read beyond the end
        for c in range(num_labels):
            row[c] = numbers[start + np.uint64(c)] * factor
    for c in range(num_labels, row.shape[0]):
        row[c] = 0


@kernel(inline=True)
def _subtract_row(row, pixel, num_labels, numbers):
    """Subtracts a row from the numbers of the pixel's labels."""
    start = np.uint64(pixel) * np.uint64(num_labels)
    whole = np.uint64(num_labels // 8 * 8)
    for c in range(np.uint64(0), whole, _LANES):
        store(numbers, start + c, load(numbers, start + c) - load(row, c))
    for c in range(whole, np.uint64(num_labels)):
        numbers[start + c] -= row[c]


@kernel(inline=True)
def _write_row(row, pixel, num_labels, numbers):
    """Writes the numbers of the pixel's labels."""
    start = np.uint64(pixel) * np.uint64(num_labels)
    whole = np.uint64(num_labels // 8 * 8)
    for c in range(np.uint64(0), whole, _LANES):
        store(numbers, start + c, load(row, c))
    for c in range(whole, np.uint64(num_labels)):
        numbers[start + c] = row[c]


@kernel(inline=True)
def _three_corners(one, p, triple, vertex, scale):
    """Weights times a scale, and places in the lattice values, of three corners of a pixel."""
    c, width = 3 * triple, np.uint64(one.width)
    w = one.corners.weight
    weights = w[p, c] * scale, w[p, c + 1] * scale, w[p, c + 2] * scale
    first, second, third = vertex[p, c], vertex[p, c + 1], vertex[p, c + 2]
    return weights, (np.uint64(first) * width, np.uint64(second) * width, np.uint64(third) * width)


@kernel(inline=True)
def _slice_row(one, p, factor, values, row):
    """Adds strength * factor * (what the pixel slices from the lattices) to a row."""
    for triple in range(one.corners.kernel_of.shape[0]):
        k = one.corners.kernel_of[triple]
        scale = one.strength[k] * factor[p, k]
        (w0, w1, w2), (v0, v1, v2) = _three_corners(one, p, triple, one.corners.vertex, scale)
        for c in range(np.uint64(0), np.uint64(one.width), _LANES):
            total = w0 * load(values, v0 + c) + w1 * load(values, v1 + c)
            store(row, c, load(row, c) + total + w2 * load(values, v2 + c))


@kernel(inline=True)
def _splat_row(one, p, factor, scale, row, values):
    """Adds scale * factor * row to the lattice values around the pixel."""
    for triple in range(one.corners.kernel_of.shape[0]):
        each = scale * factor[p, one.corners.kernel_of[triple]]
        (w0, w1, w2), (v0, v1, v2) = _three_corners(one, p, triple, one.corners.target, each)
        for c in range(np.uint64(0), np.uint64(one.width), _LANES):
            value = load(row, c)
            store(values, v0 + c, load(values, v0 + c) + w0 * value)
            store(values, v1 + c, load(values, v1 + c) + w1 * value)
            store(values, v2 + c, load(values, v2 + c) + w2 * value)


@kernel(inline=True)
def _prefetch(one, p, vertex, values):
    """Brings lattice values of pixel p near.

    Which they are is known long before, but not to the processor.

    Args:
        vertex: ``corners.vertex`` of what is read, ``corners.target`` of what is written.
    """
    if p >= vertex.shape[0] or values.shape[0] == 0:
        return
    width = np.uint64(one.width)
    for triple in range(one.corners.kernel_of.shape[0]):
        if one.corners.scattered[triple]:
            for corner in range(3 * triple, 3 * triple + 3):
                row = np.uint64(vertex[p, corner]) * width
                for line in range(np.uint64(0), min(width, _NEAR), _LINE):
                    prefetch(values, row + line)


@kernel(inline=True)
def _sends(one, p):
    """Whether the pixel has support in any kernel."""
    for k in range(one.weight_in.shape[1]):
        if one.weight_in[p, k] != 0:
            return True
    return False


@kernel(inline=True)
def _logits(one, p, values, row):
    """-U + messages of the pixel's labels, less their maximum; no messages from empty values."""
    pixel = one.corners.order[p]
    _read_row(one.unary, pixel, one.num_labels, np.float32(-1), row)
    if values.shape[0]:
        _slice_row(one, p, one.weight_out, values, row)
    largest = row[0]
    for c in range(one.num_labels):
        largest = max(largest, row[c])
    for c in range(np.uint64(0), np.uint64(one.width), _LANES):
        store(row, c, load(row, c) - largest)
    for c in range(one.num_labels, one.width):
        row[c] = _LOWEST


@kernel(inline=True)
def _exponentials(row, out):
    """exp(row) into ``out``; their sum."""
    lanes = repeat(np.float32(0))
    for c in range(np.uint64(0), np.uint64(row.shape[0]), _LANES):
        value = exp(load(row, c))
        store(out, c, value)
        lanes += value
    return lane_sum(lanes)


@kernel
def update(start, end, one, old, new):
    """One mean-field iteration: marginals from the blurred lattice values, splatted anew.

    Args:
        old: (R * width,) blurred lattice values, empty in the first iteration.
        new: (R * width,) lattice values, added to.
    """
    row = np.empty(one.width, np.float32)
    for p in range(start, end):
        _prefetch(one, p + _AHEAD, one.corners.vertex, old)
        _prefetch(one, p + _AHEAD, one.corners.target, new)
        if _sends(one, p):
            _logits(one, p, old, row)
            total = _exponentials(row, row)
            _splat_row(one, p, one.weight_in, np.float32(1) / total, row, new)


@kernel
def log_marginals(start, end, one, values, out):
    """Log-marginals after the last iteration into ``out``, (N * L,), which may be the unary."""
    row = np.empty(one.width, np.float32)
    power = np.empty(one.width, np.float32)
    for p in range(start, end):
        _prefetch(one, p + _AHEAD, one.corners.vertex, values)
        _logits(one, p, values, row)
        normaliser = np.log(_exponentials(row, power))
        for c in range(np.uint64(0), np.uint64(one.width), _LANES):
            store(row, c, load(row, c) - normaliser)
        _write_row(row, one.corners.order[p], one.num_labels, out)


@kernel
def seed_gradient(start, end, one, values, grad, grad_unary, new):
    """The backward pass of ``log_marginals``: gradient of the last logits, splatted.

    Args:
        values: what ``log_marginals`` got.
        grad: (N * L,) gradient of the log-marginals. A pixel whose gradients are all 0, as where a
            loss ignores it, is passed over.
        grad_unary: (N * L,) float32, added to.
        new: (R * width,) lattice values, added to.
    """
    row = np.empty(one.width, np.float32)
    slope = np.empty(one.width, np.float32)
    for p in range(start, end):
        _prefetch(one, p + _AHEAD, one.corners.vertex, values)
        _prefetch(one, p + _AHEAD, one.corners.target, new)
        pixel = one.corners.order[p]
        _read_row(grad, pixel, one.num_labels, np.float32(1), slope)
        total = np.float32(0)
        size = np.float32(0)
        for c in range(one.width):
            total += slope[c]
            size += abs(slope[c])
        if size == 0:
            continue
        _logits(one, p, values, row)
        share = total / _exponentials(row, row)
        for c in range(np.uint64(0), np.uint64(one.width), _LANES):
            store(slope, c, load(slope, c) - load(row, c) * share)
        _subtract_row(slope, pixel, one.num_labels, grad_unary)
        _splat_row(one, p, one.weight_out, np.float32(1), slope, new)


@kernel
def pull_gradient(start, end, one, values, grad_values, grad_unary, new):
    """The backward pass of ``update``: from the gradient of its result to that of its logits.

    Args:
        values: the lattice values that ``update`` got; empty if it was the first iteration, then
            nothing is splatted.
        grad_values: (R * width,) gradient of what it splatted.
        grad_unary: (N * L,) float32, added to.
        new: (R * width,) lattice values, added to.
    """
    row = np.empty(one.width, np.float32)
    slope = np.empty(one.width, np.float32)
    width = np.uint64(one.width)
    for p in range(start, end):
        _prefetch(one, p + _AHEAD, one.corners.vertex, values)
        _prefetch(one, p + _AHEAD, one.corners.vertex, grad_values)
        _prefetch(one, p + _AHEAD, one.corners.target, new)
        if not _sends(one, p):
            continue
        _logits(one, p, values, row)
        inverse = np.float32(1) / _exponentials(row, row)
        for c in range(np.uint64(0), width, _LANES):
            store(slope, c, repeat(np.float32(0)))
        _slice_row(one, p, one.weight_in, grad_values, slope)
        lanes = repeat(np.float32(0))
        for c in range(np.uint64(0), width, _LANES):
            lanes += load(row, c) * load(slope, c)
        mean = lane_sum(lanes) * inverse
        for c in range(np.uint64(0), width, _LANES):
            store(slope, c, load(row, c) * inverse * (load(slope, c) - mean))
        _subtract_row(slope, one.corners.order[p], one.num_labels, grad_unary)
        if values.shape[0]:
            _splat_row(one, p, one.weight_out, np.float32(1), slope, new)


@kernel
def splat_number(start, end, corners, numbers, values):
    """Splats one number per pixel, (N,), into the first column of rows of PAD columns."""
    for p in range(start, end):
        for c in range(corners.target.shape[1]):
            values[PAD * np.int64(corners.target[p, c])] += corners.weight[p, c] * numbers[p]


@kernel
def slice_number(start, end, corners, values, out):
    """Reads the first column of rows of PAD columns back, for each kernel; (N, K), 0 before."""
    for p in range(start, end):
        for c in range(corners.vertex.shape[1]):
            value = corners.weight[p, c] * values[PAD * np.int64(corners.vertex[p, c])]
            out[p, corners.kernel_of[c // 3]] += value
