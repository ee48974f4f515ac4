"""Which parts are worth keeping at which pixels.

At most pixels nearly all labels are hopeless. Bounds on the total marginal of each part, valid at
every iteration, cost a mean-field over P + 1 channels; where the bound stays below the threshold,
all labels of the part are dropped at the pixel. See `kernels.bound_update` for the inequality.

Shape letters: N pixels, P parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from instance_crf.crf.cpu.kernels import PAD, Groups, Pixels, Unary, bound_update, part_mass
from instance_crf.crf.cpu.lattice import Lattice
from instance_crf.crf.cpu.rows import Rows, aligned_zeros, dense_rows
from instance_crf.crf.cpu.threads import run_tasks, split_range

__all__ = ["active_parts"]

_WORTH_BOUNDING = 0.4
"""Least fraction of (pixel, part) pairs that must look droppable before messages."""


def active_parts(
    unary: Unary,
    part_first: np.ndarray,
    part_last: np.ndarray,
    lattices: tuple[Lattice, Lattice],
    strengths: tuple[float, float],
    num_iterations: int,
    threshold: float,
    num_threads: int,
    blur: Callable[[Rows, Rows, list, list, bool], None],
) -> np.ndarray | None:
    """(N, P + 1) bool, whether a part may ever exceed the threshold; None if few are below it.

    Args:
        part_first, part_last: (P + 1,) range of the detections that own each part.
        blur: merges what threads splatted and blurs it, see `inference`.
    """
    pixels, channels = unary.part_prob.shape
    groups = _one_group(channels)
    mass = np.zeros((pixels, groups.max_row), np.float32)
    ranges = split_range(pixels, num_threads)
    run_tasks([(part_mass, (a, b, unary, part_first, part_last, mass)) for a, b in ranges])
    droppable = np.count_nonzero(mass[:, 1:channels] < threshold)
    if droppable < _WORTH_BOUNDING * pixels * (channels - 1):
        return None

    everywhere = Pixels(
        np.arange(pixels, dtype=np.int32),
        np.arange(pixels + 1, dtype=np.int64),
        np.zeros(pixels, np.int16),
    )
    rows = [dense_rows(*each) for each in zip(lattices, [groups] * 2, strengths, strict=True)]
    highest = np.zeros_like(mass)
    old = [np.zeros(1, np.float32)] * 2
    new = [row.zeros() for row in rows]
    others = [aligned_zeros((len(ranges) - 1) * row.size).reshape(-1, row.size) for row in rows]
    spare = [row.zeros() for row in rows]
    for iteration in range(num_iterations + 1):
        first, last = iteration == 0, iteration == num_iterations
        tasks = []
        for t, (a, b) in enumerate(ranges):
            target = new if t == 0 else [other[t - 1] for other in others]
            common = (everywhere, groups, mass, rows[0].kernel, rows[1].kernel, first, *old)
            tasks.append((bound_update, (a, b, *common, last, *target, highest)))
        run_tasks(tasks)
        if last:
            break
        blur(*rows, new, others, False)
        old, new = new, spare if first else old
        for values in new:
            values.fill(0)
    active = highest[:, :channels] >= threshold
    active[:, 0] = True
    return active


def _one_group(channels: int) -> Groups:
    """A single group of rows with a column per part."""
    nothing = np.zeros(1, np.int64)
    width = -(-channels // PAD) * PAD
    return Groups(
        width=np.array([width], np.int64),
        start=nothing,
        part=nothing,
        detection=nothing,
        epsilon=np.zeros(1, np.float32),
        label=np.zeros(1, np.int32),
        only_part=nothing,
        block_ptr=nothing,
        block_part=nothing,
        block_width=nothing,
        group_of_label=np.zeros(1, np.int32),
        column_of_label=np.zeros(1, np.int32),
        max_row=width,
    )
