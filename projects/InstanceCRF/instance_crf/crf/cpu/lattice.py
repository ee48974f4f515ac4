"""Building a permutohedral lattice on the CPU; the same lattice as PermutohedralLattice's.

Pixels are visited in tiles, and vertices are numbered as they are met, so that what is close in the
picture is close in memory.

Shape letters: N pixels, C features after the position, F feature dimensions, M lattice vertices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..gaussian_filter import GaussianKernel
from .jit import kernel
from .lanes import prefetch
from .threads import run_tasks, split_range

__all__ = ["KeyLayout", "LatticeRangeError", "build_lattice", "key_layout", "tile_order"]

_TILE = 16
_BLOCK = 64
"""Pixels that are embedded together: a block's numbers stay in the first-level cache."""
_AHEAD = 8
"""Keys between the prefetch of a table's slot and its use; measured, 4 to 16 do as well."""
_RANK_BITS = 3
_KEY_BITS = 62
"""Of an int64: keys and their neighbours' are not negative, -1 is a free slot."""
_MAX_STEPS = 2**13
"""Largest coordinate, in steps of F + 1, of which float32 leaves barycentric weights of 1e-3."""


class LatticeRangeError(ValueError):
    """The features are spread too widely for compact keys or for float32."""


class KeyLayout(NamedTuple):
    """How the coordinates of a lattice's simplices and vertices are packed into int64 keys.

    The key of a simplex holds the ranks of its first F coordinates, 3 bits each, and above them the
    coordinates of its rounded point in steps of F + 1; the key of a vertex its first F coordinates.
    All are counted from their lowest value, so that fields are not negative. The last coordinate
    follows from the others, which sum to 0 with it.
    """

    scale: np.ndarray
    """(F,) float32 factor of each feature, see _elevate in permutohedral_lattice."""
    lowest: np.ndarray
    """(F,) int64 lowest coordinate of a rounded point, in steps of F + 1."""
    simplex_shift: np.ndarray
    """(F,) int64 lowest bit of each coordinate in the key of a simplex."""
    mask: np.ndarray
    """(F,) int64 ones as wide as these fields."""
    low: np.ndarray
    """(F,) int64 lowest coordinate of a vertex, neighbours included."""
    shift: np.ndarray
    """(F,) int64 lowest bit of each coordinate in the key of a vertex."""


def key_layout(gaussian: GaussianKernel) -> KeyLayout:
    """The layout for a kernel of an image.

    Raises:
        LatticeRangeError: if the bandwidths are too small for this backend.
    """
    dim = gaussian.num_features
    if dim + 1 > 2**_RANK_BITS:
        raise LatticeRangeError(f"takes at most 7 features, but a kernel has {dim}.")
    low, high = [], []
    if gaussian.theta is not None:
        low, high = [0.0, 0.0], [float(gaussian.size[1]), float(gaussian.size[0])]
    if gaussian.features is not None:
        rows = gaussian.features.detach().flatten(1)
        low += rows.amin(dim=1).tolist()
        high += rows.amax(dim=1).tolist()
    axis = np.arange(1, dim + 1)
    scale = (dim + 1) * np.sqrt(2 / 3) / np.sqrt(axis * (axis + 1)) / np.array(gaussian.thetas)
    lowest, highest = _coordinate_range(np.array(low) * scale, np.array(high) * scale)
    # Written so that a nan fails.
    if not max(abs(lowest).max(), abs(highest).max()) <= _MAX_STEPS:
        raise LatticeRangeError(
            "works in float32, which the features of a kernel exceed: they spread over some "
            f"{_MAX_STEPS} bandwidths or more, or are not finite. A larger theta fits."
        )
    lowest, highest = lowest.astype(np.int64), highest.astype(np.int64)
    simplex_shift = _bit_fields(highest - lowest, reserved=_RANK_BITS * dim)
    margin = 2 * (dim + 1)  # a vertex of the simplex, and one step on
    low = lowest * (dim + 1) - margin
    field = np.append(np.diff(simplex_shift), _KEY_BITS - simplex_shift[-1])
    return KeyLayout(
        scale=scale.astype(np.float32),
        lowest=lowest,
        simplex_shift=simplex_shift,
        mask=((np.int64(1) << field) - 1).astype(np.int64),
        low=low,
        shift=_bit_fields(highest * (dim + 1) + margin - low),
    )


def _coordinate_range(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F,) bounds of the rounded points' coordinates, in steps of F + 1, of scaled features."""
    dim = len(low)
    lowest, highest = np.empty(dim), np.empty(dim)
    for i in range(dim):
        # Coordinate i is the sum of the scaled features from i on, less i times the one before.
        lowest[i] = low[i:].sum() - (i * high[i - 1] if i else 0)
        highest[i] = high[i:].sum() - (i * low[i - 1] if i else 0)
    step = dim + 1
    return np.floor(lowest / step + 0.5) - 2, np.floor(highest / step + 0.5) + 2


def _bit_fields(largest: np.ndarray, reserved: int = 0) -> np.ndarray:
    """Bit position of each coordinate of a key, above ``reserved`` low bits.

    Args:
        largest: (F,) int64 largest value of each coordinate, the smallest being 0.
    """
    bits = [int(value).bit_length() for value in largest]
    if reserved + sum(bits) > _KEY_BITS:
        raise LatticeRangeError(
            f"has keys of {_KEY_BITS} bits, but the features of a kernel spread so widely that it "
            f"needs {reserved + sum(bits)}. A larger theta fits."
        )
    return (reserved + np.concatenate([[0], np.cumsum(bits)[:-1]])).astype(np.int64)


def tile_order(height: int, width: int) -> np.ndarray:
    """(N,) int32 pixel indices, tile after tile, rows within a tile."""
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = np.full((rows * _TILE, columns * _TILE), -1, np.int32)
    padded[:height, :width] = np.arange(height * width, dtype=np.int32).reshape(height, width)
    order = padded.reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3).ravel()
    return order[order >= 0]


def build_lattice(
    gaussian: GaussianKernel,
    layout: KeyLayout,
    order: np.ndarray,
    vertex: np.ndarray,
    weight: np.ndarray,
    column: int,
    first_row: int,
    num_threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The lattice of one kernel.

    Args:
        layout: of the kernel.
        order: (N,) int32 pixels in the order of ``tile_order``.
        vertex: (N, corners) int32, written from ``column`` on: the vertices around each pixel,
            counted from ``first_row``.
        weight: (N, corners) float32, likewise: the barycentric weights.

    Returns:
        Neighbours up and down along each direction, both (F + 1, M) int32 from 0 on, -1 for none.
    """
    features = np.empty((0, 1), np.float32)
    if gaussian.features is not None:
        features = gaussian.features.detach().float().contiguous().flatten(1).numpy()
    simplices = np.empty(len(order), np.int64)
    embed = (order, gaussian.size[1], features, layout, simplices, weight, column)
    run_tasks([(_embed, (a, b, *embed)) for a, b in split_range(len(order), num_threads)])

    # A simplex has one vertex of each remainder class 0..F, and vertices of different classes never
    # coincide: each class has a table of its own, small and independent of the others.
    corners = len(layout.lowest) + 1
    tasks = [(_number_class, (c, simplices, layout, vertex[:, column + c])) for c in range(corners)]
    classes = run_tasks(tasks, num_threads)
    counts = np.array([len(found) for found, _ in classes])
    base = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    vertex[:, column : column + corners] += first_row + base[:-1]

    up = np.empty((corners, base[-1]), np.int32)
    down = np.full((corners, base[-1]), -1, np.int32)
    unit = (np.int64(1) << layout.shift).astype(np.int64)
    tasks = []
    for direction in range(corners):
        step = -int(unit.sum())
        if direction < corners - 1:
            step += corners * int(unit[direction])
        for c in range(corners):
            # A step takes one off every coordinate modulo F + 1, so it leads to the class below.
            other = (c - 1) % corners
            keys, table = classes[c][0], classes[other][1]
            links = up[direction], down[direction]
            tasks.append((_find_neighbours, (keys, step, table, base[other], base[c], *links)))
    run_tasks(tasks, num_threads)
    return up, down


@kernel
def _embed(start, end, pixels, width, features, layout, keys, weight, column):
    """Simplex and barycentric weights of pixels start..end; see _enclosing_simplices.

    Blocks of pixels go through each step together, which the compiler turns into vector
    instructions.

    Args:
        features: (C, N) features after the position, in the usual order of pixels.
        keys: (N,) int64 keys of the simplices, see KeyLayout; written.
        weight: (N, C) float32, written from ``column`` on.
    """
    scale, lowest, shift = layout.scale, layout.lowest, layout.simplex_shift
    dim = scale.shape[0]
    position = dim - features.shape[0]
    step = np.float32(dim + 1)
    feature = np.empty((dim, _BLOCK), np.float32)
    tail = np.empty(_BLOCK, np.float32)
    total = np.empty(_BLOCK, np.int32)
    whole = np.empty((dim + 1, _BLOCK), np.int32)
    residual = np.empty((dim + 1, _BLOCK), np.float32)
    rank = np.empty((dim + 1, _BLOCK), np.int32)
    by_rank = np.empty((dim + 1, _BLOCK), np.float32)
    key = np.empty(_BLOCK, np.int64)
    for first in range(start, end, _BLOCK):
        block = range(min(_BLOCK, end - first))
        for n in block:
            if position:
                feature[0, n] = np.float32(pixels[first + n] % width)
                feature[1, n] = np.float32(pixels[first + n] // width)
        for i in range(position, dim):
            for n in block:
                feature[i, n] = features[i - position, pixels[first + n]]

        # Elevate, and round to the nearest point whose coordinates are multiples of F + 1.
        for n in block:
            tail[n] = 0
            total[n] = 0
        for i in range(dim, -1, -1):
            for n in block:
                scaled = feature[i - 1, n] * scale[i - 1] if i else np.float32(0)
                elevated = tail[n] - np.float32(i) * scaled
                tail[n] += scaled
                whole[i, n] = np.int32(np.floor(elevated / step + np.float32(0.5)))
                residual[i, n] = elevated - np.float32(whole[i, n]) * step
                total[n] += whole[i, n]

        # Rank the residuals, and walk back where rounding left the hyperplane.
        for i in range(dim + 1):
            for n in block:
                rank[i, n] = total[n]
        for i in range(dim):
            for j in range(i + 1, dim + 1):
                for n in block:
                    less = np.int32(residual[i, n] < residual[j, n])
                    rank[i, n] += less
                    rank[j, n] += np.int32(1) - less
        for i in range(dim + 1):
            for n in block:
                back = np.int32(rank[i, n] < 0) - np.int32(rank[i, n] > dim)
                rank[i, n] += back * np.int32(dim + 1)
                whole[i, n] += back
                residual[i, n] = (residual[i, n] - np.float32(back) * step) / step

        for r in range(dim + 1):
            for n in block:
                by_rank[r, n] = 0
            for i in range(dim + 1):
                for n in block:
                    by_rank[r, n] += residual[i, n] if rank[i, n] == r else np.float32(0)
        for n in block:
            weight[first + n, column] = np.float32(1) + by_rank[dim, n] - by_rank[0, n]
            for r in range(1, dim + 1):
                weight[first + n, column + r] = by_rank[dim - r, n] - by_rank[dim + 1 - r, n]

        for n in block:
            key[n] = 0
        for i in range(dim):
            for n in block:
                key[n] |= np.int64(rank[i, n]) << (_RANK_BITS * i)
                key[n] |= (np.int64(whole[i, n]) - lowest[i]) << shift[i]
        for n in block:
            keys[first + n] = key[n]


@kernel(inline=True)
def _home(table, key):
    """The slot of an open-addressing table where the search for a key begins."""
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(36)
    return slot & np.uint64(table.shape[0] - 1)


@kernel(inline=True)
def _slot(table, key):
    """Index of ``key`` in an open-addressing table, or of the free slot where it belongs.

    A slot is (key, number), the key -1 if it is free.
    """
    mask = np.uint64(table.shape[0] - 1)
    slot = _home(table, key)
    while table[slot, 0] != -1 and table[slot, 0] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def _number_keys(keys, index):
    """Numbers distinct keys in the order in which they come; writes the number of each key.

    Returns:
        The distinct keys and the table of them.
    """
    table = np.full((1 << 14, 2), -1, np.int64)
    found = np.empty(1 << 13, np.int64)
    count = 0
    length = keys.shape[0]
    for p in range(length):
        prefetch(table, np.uint64(2) * _home(table, keys[min(p + _AHEAD, length - 1)]))
        key = keys[p]
        if p > 0 and key == keys[p - 1]:
            index[p] = index[p - 1]
            continue
        slot = _slot(table, key)
        if table[slot, 0] == -1:
            if count == found.shape[0]:
                found, table = _grow(found, table)
                slot = _slot(table, key)
            table[slot, 0] = key
            table[slot, 1] = count
            found[count] = key
            count += 1
        index[p] = table[slot, 1]
    return found[:count].copy(), table


@kernel
def _grow(found, table):
    """Four times the room for the distinct keys, and a table of them four times as large."""
    count = found.shape[0]
    bigger = np.empty(4 * count, np.int64)
    bigger[:count] = found
    table = np.full((4 * table.shape[0], 2), -1, np.int64)
    for i in range(count):
        slot = _slot(table, found[i])
        table[slot, 0] = found[i]
        table[slot, 1] = i
    return bigger, table


@kernel
def _number_class(corner, simplices, layout, number):
    """Numbers the vertices of one remainder class: their keys and the table of them.

    Args:
        simplices: (N,) int64 keys of the pixels' simplices.
        number: (N,) int32 number of each pixel's vertex, written.
    """
    dim = layout.lowest.shape[0]
    keys = np.empty(simplices.shape[0], np.int64)
    for first in range(0, keys.shape[0], _BLOCK):
        block = range(first, min(first + _BLOCK, keys.shape[0]))
        for s in block:
            keys[s] = 0
        for i in range(dim):
            for s in block:
                rank = (simplices[s] >> (_RANK_BITS * i)) & 7
                offset = corner if rank <= dim - corner else corner - (dim + 1)
                whole = (simplices[s] >> layout.simplex_shift[i]) & layout.mask[i]
                value = (whole + layout.lowest[i]) * (dim + 1) + offset
                keys[s] |= (value - layout.low[i]) << layout.shift[i]
    return _number_keys(keys, number)


@kernel
def _find_neighbours(keys, step, table, other_base, base, up, down):
    """Links the vertices of a class to those one step on, which are of another class."""
    for i in range(keys.shape[0]):
        ahead = keys[min(i + _AHEAD, keys.shape[0] - 1)] + step
        prefetch(table, np.uint64(2) * _home(table, ahead))
        slot = _slot(table, keys[i] + step)
        v = base + i
        up[v] = -1
        if table[slot, 0] != -1:
            up[v] = other_base + table[slot, 1]
            down[up[v]] = v
