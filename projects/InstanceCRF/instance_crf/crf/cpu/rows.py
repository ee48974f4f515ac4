"""Where the rows of a lattice's vertices lie in memory, and the operations on all of them.

Shape letters: N pixels, M lattice vertices, G groups, R rows of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from typing import NamedTuple

import numpy as np

from instance_crf.crf.cpu.jit import kernel
from instance_crf.crf.cpu.kernels import (
    Groups,
    PixelKernel,
    Pixels,
    blur_all,
    blur_rows,
    merge,
)
from instance_crf.crf.cpu.lattice import END, Lattice, LatticeRangeError, blur_scalar, splat_scalar
from instance_crf.crf.cpu.threads import Task, run_tasks, split_range

__all__ = [
    "Rows",
    "blur",
    "dense_rows",
    "merge_and_blur",
    "merge_own",
    "sparse_rows",
]

Ranges = list[tuple[int, int]]

_LINE = 16
"""float32 in a cache line."""


def _aligned_zeros(size: int) -> np.ndarray:
    """(size,) float32 zeros that start with a cache line, so that no row has one more than needed.

    NumPy starts large arrays 16 bytes into a page.
    """
    line = 4 * _LINE
    room = np.zeros(size + _LINE, np.float32)
    first = (-room.ctypes.data % line) // 4
    return room[first : first + size]


@dataclass
class _Region:
    """The rows of one group: row r starts at ``base + stride * r``."""

    base: int
    stride: int
    rows: int
    chains: np.ndarray
    chain_ptr: np.ndarray


class _Own(NamedTuple):
    """Rows of a thread's own, at the end of the lattice values, all uint32."""

    own: np.ndarray
    """Where they start."""
    main: np.ndarray
    """Where the rows start that they are added to."""
    width: np.ndarray


@dataclass
class Rows:
    """The lattice values of one Gaussian kernel: a flat float32 array, in regions by group.

    Attributes:
        of_thread: the kernel as each thread sees it.
        regions: by group.
        size: of the array.
        main_size: without the threads' own rows, which follow.
        owns: the own rows of the second thread, the third, ...
        constant: blurred share of the inactive pixels at the rows of the first group, (R,).
        share: what the inactive pixels have in the columns of the first group.
    """

    of_thread: list[PixelKernel]
    regions: list[_Region]
    size: int
    main_size: int
    owns: list[_Own]
    constant: np.ndarray | None = None
    share: np.ndarray | None = None

    def zeros(self) -> np.ndarray:
        """Lattice values, all 0."""
        return _aligned_zeros(self.size)

    def merge_tasks(self, values: np.ndarray, num_threads: int) -> list[list[Task]]:
        """Tasks, thread after thread, that add the threads' own rows to the others."""
        return [
            [(merge, (a, b, values, *own)) for a, b in split_range(len(own.own), num_threads)]
            for own in self.owns
        ]

    def add_inactive(self, values: np.ndarray) -> None:
        """Adds what the inactive pixels contribute to blurred lattice values."""
        if self.constant is None:
            return
        first = self.regions[0]
        end = first.base + first.rows * first.stride
        for column in np.flatnonzero(self.share):
            values[first.base + column : end : first.stride] += self.share[column] * self.constant


def merge_and_blur(
    kernels: Sequence[Rows], values: Sequence[np.ndarray], backward: bool, num_threads: int
) -> None:
    """Completes the splat of all threads, and blurs."""
    merge_own(kernels, values, num_threads)
    blur(kernels, values, backward, num_threads)


def merge_own(kernels: Sequence[Rows], values: Sequence[np.ndarray], num_threads: int) -> None:
    """Adds what threads splatted into rows of their own to the lattice values of each kernel."""
    of_kernels = [
        rows.merge_tasks(mine, num_threads) for rows, mine in zip(kernels, values, strict=True)
    ]
    for tasks in zip_longest(*of_kernels, fillvalue=[]):
        run_tasks(list(chain.from_iterable(tasks)), num_threads)


def blur(
    kernels: Sequence[Rows], values: Sequence[np.ndarray], backward: bool, num_threads: int
) -> None:
    """Blurs the lattice values of each kernel in place.

    Args:
        backward: apply the transpose; the inactive pixels are then left out.
    """
    pairs = [(r, mine) for rows, mine in zip(kernels, values, strict=True) for r in rows.regions]
    if len(pairs) > len(kernels):
        pairs.sort(key=lambda pair: -pair[0].rows * pair[0].stride)
        run_tasks([_whole_blur(*pair, backward) for pair in pairs], num_threads)
    else:
        # One large region each: all threads work on a direction.
        steps = [_blur_steps(*pair, backward, num_threads) for pair in pairs]
        for step in zip_longest(*steps, fillvalue=[]):
            run_tasks(list(chain.from_iterable(step)), num_threads)
    if not backward:
        for rows, mine in zip(kernels, values, strict=True):
            rows.add_inactive(mine)


def _whole_blur(region: _Region, values: np.ndarray, backward: bool) -> Task:
    arguments = (region.chains, region.chain_ptr, region.base, region.stride, backward)
    return blur_all, (values, *arguments)


def _blur_steps(
    region: _Region, values: np.ndarray, backward: bool, num_threads: int
) -> list[list[Task]]:
    """For each direction tasks that share its chains."""
    steps = []
    for first, last in pairwise(region.chain_ptr.tolist()):
        edges = [first]
        for start, _ in split_range(last - first, num_threads)[1:]:
            edges.append(max(edges[-1], _next_chain(region.chains, first + start)))
        place = (region.base, region.stride)
        edges.append(last)
        steps.append([(blur_rows, (values, region.chains, *e, *place)) for e in pairwise(edges)])
    return steps[::-1] if backward else steps


def _next_chain(chains: np.ndarray, index: int) -> int:
    """Where the next chain begins, at the index or after it."""
    while chains[index - 1] != END:
        index += 1
    return index


def dense_rows(
    lattice: Lattice, groups: Groups, pixels: Pixels, ranges: Ranges, strength: float
) -> Rows:
    """One row per vertex, for the only group.

    Args:
        ranges: of the active pixels, for each thread.
    """
    stride = int(groups.width[0])
    count = lattice.num_vertices
    _check_size(count * stride)
    position = (np.arange(count, dtype=np.uint32) * np.uint32(stride))[:, None]
    region = _Region(0, stride, count, lattice.chains, lattice.chain_ptr)
    mask = np.ones(count, np.uint8)
    return _make_rows(lattice, pixels, ranges, strength, position, mask, [region])


def sparse_rows(
    lattice: Lattice,
    groups: Groups,
    pixels: Pixels,
    ranges: Ranges,
    strength: float,
    pixel_mask: np.ndarray,
    share: np.ndarray,
) -> Rows:
    """Rows for the groups that active pixels have, at the vertices where they matter.

    These are the vertices that such a pixel touches, and those through which the blur carries
    something from one of them to another.

    Args:
        ranges: of the active pixels, for each thread.
        pixel_mask: (N,) uint8 or uint64; bit g tells whether the pixel has group g, 0 for inactive
            pixels.
        share: what an inactive pixel has in the columns of the first group.
    """
    mask = np.zeros(lattice.num_vertices, pixel_mask.dtype)
    _touch(pixels.index, pixel_mask, lattice.vertex, mask)
    mask = _between(mask, lattice.up, lattice.down)
    num_groups = groups.width.shape[0]
    position = np.zeros((lattice.num_vertices, num_groups), np.uint32)
    tasks, bases, base = [], [], 0
    counts = _count_rows(mask, num_groups)
    for g in range(num_groups):
        stride = int(groups.width[g])
        bases.append((base, stride))
        base += int(counts[g]) * stride
        _check_size(base)
        tasks.append(
            (_place_group, (g, mask, *bases[-1], counts[g], position, lattice.up, lattice.down))
        )
    regions = []
    placed = run_tasks(tasks, len(ranges))
    for g, (chains, chain_ptr) in enumerate(placed):
        regions.append(_Region(*bases[g], int(counts[g]), chains, chain_ptr))
    rows = _make_rows(lattice, pixels, ranges, strength, position, mask, regions)
    rows.constant, rows.share = _inactive_constant(lattice, pixel_mask, mask), share
    return rows


def _make_rows(
    lattice: Lattice,
    pixels: Pixels,
    ranges: Ranges,
    strength: float,
    position: np.ndarray,
    mask: np.ndarray,
    regions: list[_Region],
) -> Rows:
    """Adds rows of their own for the threads, at vertices that an earlier one touches, too.

    Args:
        position: (M, G) where the row of a group starts.
        mask: (M,) bit g tells whether the vertex has a row for group g.
    """
    main_size = size = sum(region.rows * region.stride for region in regions)
    touched_before = np.zeros(lattice.num_vertices, bool)
    of_thread, owns = [], []
    for start, end in ranges:
        touched = np.zeros_like(touched_before)
        _mark(pixels.index[start:end], lattice.vertex, touched)
        shared = (touched & touched_before).nonzero()[0]
        touched_before |= touched
        target, places = position, []
        if len(shared):
            target = position.copy()
            for g, region in enumerate(regions):
                vertices = shared[(mask[shared] >> mask.dtype.type(g)) & 1 > 0]
                own = size + np.arange(len(vertices), dtype=np.int64) * region.stride
                size += len(vertices) * region.stride
                _check_size(size)
                main = position[vertices, g]
                target[vertices, g] = own
                places.append((own, main, np.full(len(vertices), region.stride)))
            fields = (np.concatenate(part) for part in zip(*places, strict=True))
            owns.append(_Own(*(field.astype(np.uint32) for field in fields)))
        of_thread.append(
            PixelKernel(
                lattice.vertex,
                lattice.weight,
                lattice.weight_in,
                lattice.weight_out,
                position,
                target,
                float(strength),
                float(strength) * lattice.peak,
            )
        )
    return Rows(of_thread, regions, size, main_size, owns)


@kernel
def _mark(index, vertex, touched):
    """Marks the vertices of each pixel."""
    for k in range(index.shape[0]):
        for c in range(vertex.shape[1]):
            touched[vertex[index[k], c]] = True


def _check_size(size: int) -> None:
    if size >= 2**32:
        raise LatticeRangeError(f"{size} lattice values are more than 32-bit positions reach.")


def _inactive_constant(lattice: Lattice, pixel_mask: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lattice values of the inactive pixels, 1 each, at the rows of the first group."""
    values = np.zeros(lattice.num_vertices, np.float32)
    inactive = np.where(pixel_mask == 0, lattice.weight_in, np.float32(0)).astype(np.float32)
    splat_scalar(lattice.vertex, lattice.weight, inactive, values)
    blur_scalar(values, lattice.chains, lattice.chain_ptr)
    return values[(mask & 1) > 0]


@kernel
def _touch(index, pixel_mask, vertex, mask):
    """Marks the vertices of each active pixel with the pixel's groups."""
    for k in range(index.shape[0]):
        p = index[k]
        for c in range(vertex.shape[1]):
            mask[vertex[p, c]] |= pixel_mask[p]


@kernel
def _between(touched, up, down):
    """Groups of each vertex on a path of the blur from a touched vertex to a touched vertex."""
    directions, count = up.shape
    reached = np.empty((directions + 1, count), touched.dtype)
    for v in range(count):
        reached[0, v] = touched[v]
    for j in range(directions):
        for v in range(count):
            value = reached[j, v]
            if up[j, v] >= 0:
                value |= reached[j, up[j, v]]
            if down[j, v] >= 0:
                value |= reached[j, down[j, v]]
            reached[j + 1, v] = value
    leads = touched.copy()
    before = np.empty_like(touched)
    result = touched.copy()
    for j in range(directions - 1, -1, -1):
        for v in range(count):
            value = leads[v]
            if up[j, v] >= 0:
                value |= leads[up[j, v]]
            if down[j, v] >= 0:
                value |= leads[down[j, v]]
            before[v] = value
            result[v] |= value & reached[j, v]
        leads, before = before, leads
    return result


@kernel
def _count_rows(mask, num_groups):
    counts = np.zeros(num_groups, np.int64)
    for v in range(mask.shape[0]):
        for g in range(num_groups):
            counts[g] += np.int64((np.uint64(mask[v]) >> np.uint64(g)) & np.uint64(1))
    return counts


@kernel
def _place_group(g, mask, base, stride, count, position, up, down):
    """Positions of one group's rows and its chains."""
    bit = np.uint64(1) << np.uint64(g)
    vertex = np.empty(count, np.int32)
    row = 0
    for v in range(mask.shape[0]):
        if mask[v] & bit:
            position[v, g] = base + stride * row
            vertex[row] = v
            row += 1
    directions = up.shape[0]
    chain_ptr = np.zeros(directions + 1, np.int64)
    chains = np.empty(directions * (count + count // 2 + 2), np.uint32)
    end = 0
    for j in range(directions):
        for r in range(count):
            v = vertex[r]
            above = up[j, v]
            below = down[j, v]
            if above < 0 or not (mask[above] & bit) or (below >= 0 and (mask[below] & bit)):
                continue
            while v >= 0 and (mask[v] & bit):
                chains[end] = (np.int64(position[v, g]) - base) // stride
                end += 1
                v = up[j, v]
            chains[end] = np.uint32(0xFFFFFFFF)
            end += 1
        chain_ptr[j + 1] = end
    return chains[:end].copy(), chain_ptr
