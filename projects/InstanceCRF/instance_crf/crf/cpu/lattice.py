"""Building a permutohedral lattice on the CPU; the same lattice as PermutohedralFilter's.

Pixels are visited in tiles, and vertices are numbered as they are met, so that what is close in the
picture is close in memory. A hash of whole *simplices* comes before the hash of vertices: most
pixels share theirs with a neighbour.

Shape letters: N pixels, F feature dimensions (5 bilateral, 2 spatial), M lattice vertices.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from instance_crf.crf.cpu.jit import kernel
from instance_crf.crf.cpu.lanes import prefetch
from instance_crf.crf.cpu.threads import run_tasks, split_range

__all__ = [
    "END",
    "Lattice",
    "LatticeRangeError",
    "build_lattice",
    "filter_scalar",
    "tile_order",
    "tile_positions",
]

END = 0xFFFFFFFF
"""Ends a chain in a sequence of rows."""

_TILE = 16
_BLOCK = 64
"""Pixels that are embedded together."""
_AHEAD = 8
"""Keys between the prefetch of a table's slot and its use."""
_MANY_SIMPLICES = 0.8
"""Share of the pixels with a simplex of their own above which simplices are not told apart."""
_TINY = np.float32(1e-20)


class LatticeRangeError(Exception):
    """The features are spread so widely that a vertex does not fit 62 bits."""


class Lattice(NamedTuple):
    """A lattice and its pixels, the pixels in the order of ``tile_order``."""

    vertex: np.ndarray
    """(N, F + 1) int32 vertices of the simplex around each pixel."""
    weight: np.ndarray
    """(N, F + 1) float32 barycentric weights."""
    weight_in: np.ndarray
    """(N,) float32 factor of a value before it is splatted (1 for "after")."""
    weight_out: np.ndarray
    """(N,) float32 factor of a value after it was sliced."""
    up: np.ndarray
    """(F + 1, M) int32 neighbour along each direction, -1 where there is none."""
    down: np.ndarray
    """(F + 1, M) int32 neighbour the other way."""
    chains: np.ndarray
    """uint32 vertices of the runs of neighbours along each direction, each run ended by END."""
    chain_ptr: np.ndarray
    """(F + 2,) int64 where each direction starts in ``chains``."""
    row_sum: np.ndarray
    """(N,) float32 row sums of the normalised kernel: 1 for "after"."""
    peak: float
    """What no row sum exceeds."""

    @property
    def num_vertices(self) -> int:
        """M."""
        return self.up.shape[1]


@lru_cache(maxsize=16)
def tile_order(height: int, width: int) -> np.ndarray:
    """(N,) int32 pixel indices, tile after tile, rows within a tile."""
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = np.full((rows * _TILE, columns * _TILE), -1, np.int32)
    padded[:height, :width] = np.arange(height * width, dtype=np.int32).reshape(height, width)
    order = padded.reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3).ravel()
    order = order[order >= 0]
    order.flags.writeable = False
    return order


@lru_cache(maxsize=8)
def tile_positions(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) float32 column and row of each pixel in the order of ``tile_order``."""
    y, x = np.divmod(tile_order(height, width), width)
    return x.astype(np.float32), y.astype(np.float32)


def build_lattice(
    height: int,
    width: int,
    theta_position: float,
    image: np.ndarray | None = None,
    theta_colour: float = 1.0,
    *,
    normalization: str = "after",
    num_threads: int = 1,
) -> Lattice:
    """The lattice of position/theta_position and, given an image, colour/theta_colour.

    Args:
        height, width: of the image in pixels.
        theta_position: in pixels.
        image: (3, N) float32 colours in 0-255 in the usual order of pixels, or None.
        theta_colour: in units of 0-255.
        normalization: "after" or "symmetric".

    Raises:
        LatticeRangeError: if the bandwidths are too small for the compact keys.
    """
    order = tile_order(height, width)
    image = np.empty((0, 1), np.float32) if image is None else image
    pixels, dim = order.shape[0], 2 + image.shape[0]
    scale = _elevation_scale(theta_position, theta_colour, dim)
    lowest, highest = _coordinate_range(height, width, image, scale)
    simplex_shift = _bit_fields(highest - lowest, reserved=3 * dim)
    margin = 2 * (dim + 1)  # a vertex of the simplex, and one step on
    low = lowest * (dim + 1) - margin
    shift = _bit_fields(highest * (dim + 1) + margin - low)

    keys = np.empty(pixels, np.int64)
    weight = np.empty((pixels, dim + 1), np.float32)
    ranges = split_range(pixels, num_threads)
    x, y = tile_positions(height, width)
    embed = (order, x, y, scale, image, lowest, simplex_shift, keys, weight)
    run_tasks([(_embed, (a, b, *embed)) for a, b in ranges])
    layout = (lowest, simplex_shift, low, shift, num_threads)
    if _mostly_distinct(keys):
        vertex, up, down = _number_vertices(keys, *layout)
    else:
        simplex = np.empty(pixels, np.int32)
        simplices, _ = _number_keys(keys, simplex)
        vertex_of_simplex, up, down = _number_vertices(simplices, *layout)
        vertex = np.empty((pixels, dim + 1), np.int32)
        run_tasks([(_gather_rows, (a, b, vertex_of_simplex, simplex, vertex)) for a, b in ranges])
    chains, chain_ptr = _chains(up, down, num_threads)
    ones = np.ones(1, np.float32)
    lattice = Lattice(vertex, weight, ones, ones, up, down, chains, chain_ptr, ones, 1.0)
    ones = np.ones(pixels, np.float32)
    norm = filter_scalar(lattice, ones, num_threads)
    if normalization == "after":
        return lattice._replace(weight_in=ones, weight_out=1 / (norm + _TINY), row_sum=ones)
    weight = 1 / np.sqrt(norm + _TINY)
    lattice = lattice._replace(weight_in=weight, weight_out=weight)
    row_sum = filter_scalar(lattice, ones, num_threads)
    return lattice._replace(row_sum=row_sum, peak=1.01 * float(row_sum.max()))


def _elevation_scale(theta_position: float, theta_colour: float, dim: int) -> np.ndarray:
    """(F,) float32 factor of each feature; see _elevate in gaussian_filter."""
    axis = np.arange(1, dim + 1)
    theta = np.where(axis <= 2, theta_position, theta_colour)
    return ((dim + 1) * np.sqrt(2 / 3) / np.sqrt(axis * (axis + 1)) / theta).astype(np.float32)


def _coordinate_range(
    height: int, width: int, image: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(F,) int64 bounds of the rounded points' coordinates, counted in steps of F + 1."""
    dim = scale.shape[0]
    low = np.concatenate([[0, 0], image.min(axis=1)]) * scale
    high = np.concatenate([[width, height], image.max(axis=1)]) * scale
    lowest, highest = np.empty(dim), np.empty(dim)
    for i in range(dim):
        # Coordinate i is the sum of the scaled features from i on, less i times the one before.
        lowest[i] = low[i:].sum() - (i * high[i - 1] if i else 0)
        highest[i] = high[i:].sum() - (i * low[i - 1] if i else 0)
    step = dim + 1
    return (
        (np.floor(lowest / step + 0.5) - 2).astype(np.int64),
        (np.floor(highest / step + 0.5) + 2).astype(np.int64),
    )


def _bit_fields(largest: np.ndarray, reserved: int = 0) -> np.ndarray:
    """Bit position of each coordinate of a key, above ``reserved`` low bits.

    Args:
        largest: (F,) int64 largest value of each coordinate, the smallest being 0.
    """
    bits = [int(value).bit_length() for value in largest]
    if reserved + sum(bits) > 62:
        raise LatticeRangeError(f"A lattice key needs {reserved + sum(bits)} bits.")
    return (reserved + np.concatenate([[0], np.cumsum(bits)[:-1]])).astype(np.int64)


@kernel
def _embed(start, end, order, x, y, scale, image, lowest, shift, keys, weight):
    """Simplex and barycentric weights of pixels start..end; see _enclosing_simplices.

    The key of a simplex holds the ranks of its first F coordinates, 3 bits each, and above them
    the coordinates of its rounded point in steps of F + 1. Blocks of pixels go through each step
    together, which the compiler turns into vector instructions.
    """
    dim = scale.shape[0]
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
            feature[0, n] = x[first + n]
            feature[1, n] = y[first + n]
        for i in range(2, dim):
            for n in block:
                feature[i, n] = image[i - 2, order[first + n]]

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
            weight[first + n, 0] = np.float32(1) + by_rank[dim, n] - by_rank[0, n]
            for r in range(1, dim + 1):
                weight[first + n, r] = by_rank[dim - r, n] - by_rank[dim + 1 - r, n]

        for n in block:
            key[n] = 0
        for i in range(dim):
            for n in block:
                key[n] |= np.int64(rank[i, n]) << (3 * i)
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


def _mostly_distinct(keys: np.ndarray) -> bool:
    """Whether so few pixels share a simplex, as in grainy pictures, that looking is in vain."""
    tile = _TILE * _TILE
    sample = [keys[start : start + tile] for start in range(0, len(keys), 16 * tile)]
    distinct = sum(len(np.unique(part)) for part in sample)
    return distinct > _MANY_SIMPLICES * sum(map(len, sample))


def _number_vertices(
    simplices: np.ndarray,
    lowest: np.ndarray,
    simplex_shift: np.ndarray,
    low: np.ndarray,
    shift: np.ndarray,
    num_threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers the distinct vertices and links them to their neighbours.

    A simplex has one vertex of each remainder class 0..F, and vertices of different classes never
    coincide: each class has a table of its own, small and independent of the others.

    Returns:
        (S, F + 1) int32 vertices of each simplex; the neighbours up and down along each
        direction, both (F + 1, M) int32, -1 for none.
    """
    corners = lowest.shape[0] + 1
    local = np.empty((simplices.shape[0], corners), np.int32)
    field = np.append(np.diff(simplex_shift), 62 - simplex_shift[-1])
    mask = ((np.int64(1) << field) - 1).astype(np.int64)
    layout = (simplices, lowest, simplex_shift, mask, low, shift, local)
    classes = run_tasks([(_number_class, (c, *layout)) for c in range(corners)], num_threads)
    counts = np.array([len(found) for found, _ in classes])
    base = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    local += base[:-1]

    up = np.empty((corners, base[-1]), np.int32)
    down = np.full((corners, base[-1]), -1, np.int32)
    unit = (np.int64(1) << shift).astype(np.int64)
    tasks = []
    for direction in range(corners):
        step = -int(unit.sum())
        if direction < corners - 1:
            step += corners * int(unit[direction])
        for c in range(corners):
            # A step takes one off every coordinate modulo F + 1, so it leads to the class below.
            other = (c - 1) % corners
            tasks.append(
                (
                    _find_neighbours,
                    (
                        classes[c][0],
                        step,
                        classes[other][1],
                        base[other],
                        base[c],
                        up[direction],
                        down[direction],
                    ),
                )
            )
    run_tasks(tasks, num_threads)
    return local, up, down


@kernel
def _number_class(corner, simplices, lowest, simplex_shift, mask, low, shift, local):
    """Numbers the vertices of one remainder class: their keys and the table of them."""
    dim = lowest.shape[0]
    keys = np.empty(simplices.shape[0], np.int64)
    for first in range(0, keys.shape[0], _BLOCK):
        block = range(first, min(first + _BLOCK, keys.shape[0]))
        for s in block:
            keys[s] = 0
        for i in range(dim):
            for s in block:
                rank = (simplices[s] >> (3 * i)) & 7
                offset = corner if rank <= dim - corner else corner - (dim + 1)
                whole = ((simplices[s] >> simplex_shift[i]) & mask[i]) + lowest[i]
                keys[s] |= (whole * (dim + 1) + offset - low[i]) << shift[i]
    return _number_keys(keys, local[:, corner])


@kernel
def _find_neighbours(keys, step, table, other_base, base, up, down):
    for i in range(keys.shape[0]):
        ahead = keys[min(i + _AHEAD, keys.shape[0] - 1)] + step
        prefetch(table, np.uint64(2) * _home(table, ahead))
        slot = _slot(table, keys[i] + step)
        v = base + i
        up[v] = -1
        if table[slot, 0] != -1:
            up[v] = other_base + table[slot, 1]
            down[up[v]] = v


@kernel
def _gather_rows(start, end, rows, index, gathered):
    for p in range(start, end):
        for c in range(rows.shape[1]):
            gathered[p, c] = rows[index[p], c]


def _chains(up: np.ndarray, down: np.ndarray, num_threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of neighbours along each direction; vertices alone are left out."""
    directions, count = up.shape
    found = np.empty((directions, count + count // 2 + 2), np.uint32)
    lengths = np.zeros(directions, np.int64)
    tasks = [
        (_walk_chains, (up[j], down[j], found[j], lengths[j : j + 1])) for j in range(directions)
    ]
    run_tasks(tasks, num_threads)
    chain_ptr = np.concatenate([[0], np.cumsum(lengths)])
    chains = np.concatenate([row[:length] for row, length in zip(found, lengths, strict=True)])
    return chains, chain_ptr


@kernel
def _walk_chains(up, down, found, length):
    end = 0
    for v in range(up.shape[0]):
        if down[v] >= 0 or up[v] < 0:
            continue
        at = v
        while at >= 0:
            found[end] = at
            end += 1
            at = up[at]
        found[end] = np.uint32(0xFFFFFFFF)
        end += 1
    length[0] = end


def filter_scalar(lattice: Lattice, values: np.ndarray, num_threads: int) -> np.ndarray:
    """(N,) one float32 per pixel through the normalised kernel."""
    on_lattice = np.zeros(lattice.num_vertices, np.float32)
    splat_scalar(lattice.vertex, lattice.weight, values * lattice.weight_in, on_lattice)
    blur_scalar(on_lattice, lattice.chains, lattice.chain_ptr)
    filtered = np.empty_like(values)
    ranges = split_range(len(values), num_threads)
    slice_ = (lattice.vertex, lattice.weight, on_lattice, filtered)
    run_tasks([(slice_scalar, (a, b, *slice_)) for a, b in ranges])
    return filtered * lattice.weight_out


@kernel
def splat_scalar(vertex, weight, values, lattice_values):
    """Adds one number per pixel to the vertices of its simplex."""
    for p in range(vertex.shape[0]):
        for c in range(vertex.shape[1]):
            lattice_values[vertex[p, c]] += weight[p, c] * values[p]


@kernel
def slice_scalar(start, end, vertex, weight, lattice_values, values):
    """Reads one number per pixel start..end off the vertices of its simplex."""
    for p in range(start, end):
        total = np.float32(0)
        for c in range(vertex.shape[1]):
            total += weight[p, c] * lattice_values[vertex[p, c]]
        values[p] = total


@kernel
def blur_scalar(lattice_values, chains, chain_ptr):
    """[1/2 1 1/2] along each direction, in place, one number per vertex."""
    half = np.float32(0.5)
    for i in range(chain_ptr[-1]):
        # Directions follow one another in ``chains``, each a list of complete chains.
        if i == 0 or chains[i - 1] == np.uint32(0xFFFFFFFF):
            before = np.float32(0)
        row = chains[i]
        if row == np.uint32(0xFFFFFFFF):
            continue
        value = lattice_values[row]
        after = np.float32(0)
        if chains[i + 1] != np.uint32(0xFFFFFFFF):
            after = lattice_values[chains[i + 1]]
        lattice_values[row] = value + half * (before + after)
        before = value
