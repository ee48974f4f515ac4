"""Which labels are worth keeping at which pixels.

At most pixels nearly all labels are hopeless. Bounds on marginals, valid at every iteration, are
cheap, as they tell no detections apart: `foreground_bound` is a mean-field of one number per pixel,
`part_bounds` one of P + 1 at the pixels that remain. What stays below the threshold is dropped.

Messages are never negative and grow with the marginals that are filtered. So an upper bound of one
iteration's marginals gives one of the messages, and that one of the next marginals.

Shape letters: N pixels, K active pixels, P parts, T iterations.
"""

from __future__ import annotations

import numpy as np

from instance_crf.crf.cpu.kernels import (
    PAD,
    Groups,
    Unary,
    bound_update,
    part_mass,
    pixels_with_one_group,
)
from instance_crf.crf.cpu.lattice import Lattice, filter_scalar
from instance_crf.crf.cpu.rows import merge_and_blur, sparse_rows
from instance_crf.crf.cpu.threads import run_tasks, split_range

__all__ = ["foreground_bound", "part_bounds", "unary_shares"]

_TINY = np.float32(1e-30)


def unary_shares(
    unary: Unary, part_first: np.ndarray, part_last: np.ndarray, num_threads: int
) -> np.ndarray:
    """(N, P + 1) share of background and of each part in the normalised unary, and pads.

    Args:
        part_first, part_last: (P + 1,) range of the detections that own each part.
    """
    pixels, channels = unary.part_prob.shape
    shares = np.zeros((pixels, -(-channels // PAD) * PAD), np.float32)
    ranges = split_range(pixels, num_threads)
    run_tasks([(part_mass, (a, b, unary, part_first, part_last, shares)) for a, b in ranges])
    return shares


def foreground_bound(
    shares: np.ndarray,
    lattices: tuple[Lattice, Lattice],
    strengths: tuple[float, float],
    num_iterations: int,
    num_threads: int,
) -> np.ndarray:
    """(N,) what all labels but the background together never exceed.

    With f the bound so far, e_0 the share of the background and K the weighted kernels, no label's
    message exceeds K f, and the background's is at least K (1 - f). So

        f <- (1 - e_0) exp(K f) / (e_0 exp(K (1 - f)) + (1 - e_0) exp(K f)).
    """
    background = shares[:, 0]
    # Not 1 - background, which may round to 0 where messages can still lift a label.
    bound = highest = shares[:, 1:].sum(axis=1)
    odds = np.log((bound + _TINY) / (background + _TINY))
    for lattice, strength in zip(lattices, strengths, strict=True):
        odds -= np.float32(strength) * lattice.row_sum
    for _ in range(num_iterations):
        tasks = [(filter_scalar, (lattice, bound, 1)) for lattice in lattices]
        exponent = odds.copy()
        for strength, message in zip(strengths, run_tasks(tasks, num_threads), strict=True):
            exponent += np.float32(2 * strength) * message
        with np.errstate(over="ignore"):
            bound = 1 / (1 + np.exp(-exponent))
        highest = np.maximum(highest, bound)
    return highest


def part_bounds(
    shares: np.ndarray,
    active: np.ndarray,
    lattices: tuple[Lattice, Lattice],
    strengths: tuple[float, float],
    num_iterations: int,
    threshold: float,
    num_threads: int,
) -> np.ndarray:
    """(N, P + 1) what each part, all detections together, never exceeds; 0 where inactive.

    See `kernels.bound_update` for the inequality.

    Args:
        active: (N,) bool; elsewhere all parts together stay below the threshold.
    """
    groups = _one_group(shares.shape[1])
    pixels = pixels_with_one_group(active.nonzero()[0])
    inactive = np.full(shares.shape[1], threshold, np.float32)
    inactive[0] = 1 - threshold
    mask = active.astype(np.uint8)
    ranges = split_range(len(pixels.index), num_threads)
    rows = [
        sparse_rows(lattice, groups, pixels, ranges, strength, mask, inactive)
        for lattice, strength in zip(lattices, strengths, strict=True)
    ]
    highest = np.zeros_like(shares)
    old = [np.zeros(1, np.float32)] * 2
    new = [row.zeros() for row in rows]
    spare = [row.zeros() for row in rows]
    for iteration in range(num_iterations + 1):
        first, last = iteration == 0, iteration == num_iterations
        tasks = []
        for t, (a, b) in enumerate(ranges):
            common = (pixels, groups, shares, *(row.of_thread[t] for row in rows), first, *old)
            tasks.append((bound_update, (a, b, *common, last, *new, highest)))
        run_tasks(tasks)
        if last:
            break
        merge_and_blur(rows, new, False, num_threads)
        old, new = new, spare if first else old
        for values in new:
            values.fill(0)
    return highest


def _one_group(width: int) -> Groups:
    """A single group of rows with a column per part."""
    nothing = np.zeros(1, np.int64)
    return Groups(
        width=np.array([width], np.int64),
        start=nothing,
        epsilon=np.zeros(1, np.float32),
        label=np.zeros(1, np.int32),
        block_ptr=nothing,
        block_part=nothing,
        block_first=nothing,
        block_width=nothing,
        group_of_label=np.zeros(1, np.int32),
        column_of_label=np.zeros(1, np.int32),
        max_row=width,
    )
