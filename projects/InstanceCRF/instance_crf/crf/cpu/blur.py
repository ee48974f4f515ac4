"""What is done on the lattices: the blur, and the sum of what threads splatted on their own.

Shape letters: R rows of lattice values.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .lanes import load, prefetch, repeat, store

__all__ = ["END", "blur_chains", "merge_rows"]

END = 0xFFFFFFFF
"""Ends a chain in a sequence of rows."""

_LANES = np.uint64(8)
_LINE = np.uint64(16)
"""float32 in a cache line."""
_NEAR = np.uint64(64)
"""So much of a row is fetched ahead; what follows the processor sees coming by itself."""
_AHEAD = 6
"""Rows between a prefetch and its use. Neighbours lie anywhere, so that without it the blur waits
for memory at each row: a factor of three."""


@kernel
def blur_chains(values, width, chains, start, end):
    """[1/2 1 1/2] along the chains start..end of one direction, in place.

    Args:
        values: (R * width,) float32.
        chains: uint32 rows, neighbours following each other, each chain ended by END.
    """
    width = np.uint64(width)
    half = np.float32(0.5)
    stop = np.uint32(END)
    before = np.zeros(width, np.float32)
    for i in range(start, end):
        ahead = chains[min(i + _AHEAD, end - 1)]
        if ahead != stop:
            for line in range(np.uint64(0), min(width, _NEAR), _LINE):
                prefetch(values, width * np.uint64(ahead) + line)
        if chains[i] == stop:
            for c in range(np.uint64(0), width, _LANES):
                store(before, c, repeat(np.float32(0)))
            continue
        here = width * np.uint64(chains[i])
        if chains[i + 1] == stop:
            for c in range(np.uint64(0), width, _LANES):
                store(values, here + c, load(values, here + c) + half * load(before, c))
            continue
        there = width * np.uint64(chains[i + 1])
        for c in range(np.uint64(0), width, _LANES):
            value = load(values, here + c)
            around = load(before, c) + load(values, there + c)
            store(before, c, value)
            store(values, here + c, value + half * around)


@kernel
def merge_rows(start, end, values, width, first_own, main):
    """Adds a thread's own rows, which follow each other, to the rows that they stand for.

    Args:
        start, end: which of them.
        first_own: the first one's row.
        main: int32 rows that they stand for.
    """
    width = np.uint64(width)
    for i in range(start, end):
        source = width * np.uint64(first_own + i)
        target = width * np.uint64(main[i])
        for c in range(np.uint64(0), width, _LANES):
            store(values, target + c, load(values, target + c) + load(values, source + c))
