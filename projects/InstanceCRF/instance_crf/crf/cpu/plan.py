"""What the iterations of one image need: the lattices of all its kernels as one, and threads.

The rows of lattice values are the vertices of the first kernel, those of the second, ..., and then
the threads' own: where two threads splat into the same vertex (4 % in a picture of 500 x 375), the
later one has a row of its own, which is added afterwards, always in the same order. So results
depend on nothing but the number of threads.

Shape letters: N pixels, K kernels, F feature dimensions, C corners, R rows of lattice values.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..gaussian_filter import ImageKernels, normalization_factors
from .blur import END, blur_chains, merge_rows
from .jit import kernel
from .lattice import KeyLayout, build_lattice, key_layout, tile_order
from .pixels import PAD, Corners, slice_number, splat_number
from .threads import run_tasks, split_range

__all__ = ["Plan", "key_layouts"]

_LINE_BYTES = 64


def key_layouts(kernels: ImageKernels) -> list[KeyLayout]:
    """The layout of each kernel's keys; LatticeRangeError if one does not fit."""
    return kernels.built("key layouts", lambda: [key_layout(each) for each in kernels.kernels])


class Plan:
    """The joint lattice of an image's kernels, laid out for some threads.

    Args:
        kernels: of the image.
        num_threads: at most as many threads work at a time.

    Attributes:
        corners: how pixels meet the lattices.
        ranges: pixels of each thread.
        row_ptr: (K + 1,) first row of each kernel's vertices; the last is that of the threads' own.
        num_rows: R.
    """

    def __init__(self, kernels: ImageKernels, num_threads: int) -> None:
        self.num_threads = num_threads
        order = tile_order(*kernels.size)
        counts = [kernel.num_features + 1 for kernel in kernels.kernels]
        triples = [-(-count // 3) for count in counts]
        shape = (len(order), 3 * sum(triples))
        vertex, weight = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        self.row_ptr, column, links = [0], 0, []
        for each, layout, size in zip(kernels.kernels, key_layouts(kernels), triples, strict=True):
            place = (order, vertex, weight, column, self.row_ptr[-1])
            links.append(build_lattice(each, layout, *place, num_threads))
            self.row_ptr.append(self.row_ptr[-1] + links[-1][0].shape[1])
            column += 3 * size
        self._lay_chains(links)
        self.ranges = split_range(len(order), num_threads)
        self._own: list[tuple[int, np.ndarray]] = []
        target = self._give_own_rows(vertex)
        of_kernel = np.diff(self.row_ptr)
        self.corners = Corners(
            order=order,
            vertex=vertex,
            target=target,
            weight=weight,
            kernel_of=np.repeat(np.arange(len(counts)), triples),
            scattered=np.repeat(4 * of_kernel > len(order), triples),
        )
        self._ones = self._filter_number(np.ones(len(order), np.float32))

    def _lay_chains(self, links: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Runs of neighbours along each direction, of all kernels; vertices alone are left out."""
        tasks, directions = [], []
        for direction in range(max(len(up) for up, _ in links)):
            for first_row, (up, down) in zip(self.row_ptr, links, strict=False):
                if direction < len(up):
                    tasks.append((_walk_chains, (up[direction], down[direction], first_row)))
                    directions.append(direction)
        chains = run_tasks(tasks, self.num_threads)
        lengths = np.bincount(directions, weights=[len(chain) for chain in chains])
        self._chains = np.concatenate(chains)
        self._chain_ptr = [0, *np.cumsum(lengths).astype(int).tolist()]

    def _give_own_rows(self, vertex: np.ndarray) -> np.ndarray:
        """Rows to splat into, (N, C), with rows of their own for all threads but the first."""
        self.num_rows = self.row_ptr[-1]
        if len(self.ranges) == 1:
            return vertex
        target = np.empty_like(vertex)
        before = np.zeros(self.num_rows, bool)
        for start, end in self.ranges:
            touched = np.zeros_like(before)
            _mark(start, end, vertex, touched)
            main = (touched & before).nonzero()[0].astype(np.int32)
            rows = np.arange(len(before), dtype=np.int32)
            rows[main] = self.num_rows + np.arange(len(main), dtype=np.int32)
            _look_up(start, end, vertex, rows, target)
            self._own.append((self.num_rows, main))
            self.num_rows += len(main)
            before |= touched
        return target

    def zeros(self, width: int) -> np.ndarray:
        """(R * width,) lattice values that start with a cache line.

        NumPy starts large arrays 16 bytes into a page, so that each row had a line more.
        """
        size = self.num_rows * width
        room = np.zeros(size + _LINE_BYTES // 4, np.float32)
        first = (-room.ctypes.data % _LINE_BYTES) // 4
        return room[first : first + size]

    def run(self, function, *arguments) -> None:
        """Runs a kernel on the pixels of all threads."""
        run_tasks([(function, (a, b, *arguments)) for a, b in self.ranges])

    def merge(self, values: np.ndarray, width: int) -> None:
        """Adds what threads splatted into rows of their own to the vertices' rows."""
        for first, main in self._own:
            ranges = split_range(len(main), self.num_threads)
            run_tasks([(merge_rows, (a, b, values, width, first, main)) for a, b in ranges])

    def blur(self, values: np.ndarray, width: int, *, reverse: bool = False) -> None:
        """Blurs lattice values in place; in reverse order of directions for the transpose."""
        directions = list(pairwise(self._chain_ptr))
        for start, end in reversed(directions) if reverse else directions:
            edges = [start]
            for cut, _ in split_range(end - start, self.num_threads)[1:]:
                edges.append(max(edges[-1], self._next_chain(start + cut)))
            edges.append(end)
            tasks = [(blur_chains, (values, width, self._chains, *e)) for e in pairwise(edges)]
            run_tasks(tasks)

    def _next_chain(self, index: int) -> int:
        """Where the next chain begins, at the index or after it."""
        while self._chains[index - 1] != END:
            index += 1
        return index

    def factors(self, normalization: str, support: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) float32 factors before and after the kernels; see `normalization_factors`.

        Args:
            support: (N,) float32 in the usual order of pixels, or None.
        """
        reach = None
        if support is not None:
            support = support[torch.from_numpy(self.corners.order)]
            reach = torch.from_numpy(self._filter_number(support.numpy()))
            support = support[:, None]
        ones = torch.from_numpy(self._ones)
        factors = normalization_factors(ones, normalization, support, reach)
        return factors[0].numpy(), factors[1].numpy()

    def _filter_number(self, numbers: np.ndarray) -> np.ndarray:
        """(N, K) each kernel's sums of (N,) numbers, both in the order of the pixels."""
        values = self.zeros(PAD)
        self.run(splat_number, self.corners, numbers, values)
        self.merge(values, PAD)
        self.blur(values, PAD)
        sums = np.zeros((len(numbers), len(self.row_ptr) - 1), np.float32)
        self.run(slice_number, self.corners, values, sums)
        return sums


@kernel
def _walk_chains(up, down, first_row):
    """Rows of the runs of neighbours along one direction, each ended by END."""
    count = up.shape[0]
    found = np.empty(count + count // 2 + 2, np.uint32)
    length = 0
    for v in range(count):
        if down[v] >= 0 or up[v] < 0:
            continue
        at = v
        while at >= 0:
            found[length] = first_row + at
            length += 1
            at = up[at]
        found[length] = np.uint32(END)
        length += 1
    return found[:length].copy()


@kernel
def _mark(start, end, vertex, touched):
    """Marks the vertices of pixels start..end."""
    for p in range(start, end):
        for c in range(vertex.shape[1]):
            touched[vertex[p, c]] = True


@kernel
def _look_up(start, end, vertex, rows, target):
    """rows[vertex] of pixels start..end."""
    for p in range(start, end):
        for c in range(vertex.shape[1]):
            target[p, c] = rows[vertex[p, c]]
