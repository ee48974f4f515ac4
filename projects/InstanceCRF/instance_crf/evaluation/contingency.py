"""Everything that label maps can say about each other, from one histogram of an image.

A predicted and a true labelling give each pixel an (object, part, segment) triple. The pixels
with equal triples form a *cell*; the number of pixels that each predicted cell shares with each
true cell is all that APr, object AP, mean IoU, PQ, PartPQ, APp and PCP need. So an image's maps
are read once, by one ``bincount`` of paired ids, and every metric is a sum over a small table.

Letters: H, W image size; A cells of the prediction, B cells of the ground truth; M and G groups
of cells (segments, objects) on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IGNORE", "Cells", "Contingency", "Overlaps", "group_overlaps", "tabulate"]

IGNORE = -1
"""The id of pixels that the ground truth leaves out (255 and 65535 on disk)."""

_LARGEST_HISTOGRAM = 1 << 22


@dataclass(frozen=True)
class Cells:
    """The cells of one labelling; three ids a cell, :data:`IGNORE` where it is ignored.

    Attributes:
        object_id: (A,) object, 0 none.
        part: (A,) part, 0 background.
        segment_id: (A,) part segment, 0 none.
    """

    object_id: NDArray[np.int64]
    part: NDArray[np.int64]
    segment_id: NDArray[np.int64]


@dataclass(frozen=True)
class Contingency:
    """Pixels that predicted and true cells share.

    Attributes:
        prediction: A cells.
        truth: B cells.
        counts: (A, B) pixels.
    """

    prediction: Cells
    truth: Cells
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """Pairwise overlaps of M predicted and G true regions, in pixels.

    Attributes:
        intersection: (M, G).
        prediction_area: (M,).
        truth_area: (G,).
    """

    intersection: NDArray[np.int64]
    prediction_area: NDArray[np.int64]
    truth_area: NDArray[np.int64]

    def iou(self, crowd: NDArray | None = None) -> NDArray[np.float64]:
        """(M, G) intersection over union; over the prediction's own area for ``crowd`` (G,)."""
        union = self.prediction_area[:, None] + self.truth_area[None] - self.intersection
        if crowd is not None:
            union = np.where(crowd[None], self.prediction_area[:, None], union)
        return self.intersection / np.maximum(union, 1)


def tabulate(prediction: Sequence[NDArray], truth: Sequence[NDArray]) -> Contingency:
    """Count the pixels of every pair of cells.

    Args:
        prediction: (H, W) integer maps ``object, part`` or ``object, part, segment``; ids >= 0,
            or :data:`IGNORE`. Without a segment map a segment is an (object, part) pair, with
            ids as of :func:`pair_segments`.
        truth: the same of the ground truth.

    Raises:
        ValueError: maps of different sizes, or of no ids.
    """
    shapes = {tuple(m.shape) for m in (*prediction, *truth)}
    if len(shapes) != 1:
        raise ValueError(f"Label maps must have one size, got {sorted(shapes)} (height, width).")
    rows, row_codes = _encode(prediction)
    columns, column_codes = _encode(truth)
    width = len(column_codes)
    rows = rows * width
    rows += columns
    joint = np.bincount(rows, minlength=len(row_codes) * width)
    joint = joint.reshape(len(row_codes), width)
    used_rows, used_columns = joint.any(axis=1), joint.any(axis=0)
    return Contingency(
        prediction=_cells(row_codes[used_rows]),
        truth=_cells(column_codes[used_columns]),
        counts=joint[np.ix_(used_rows, used_columns)],
    )


def _encode(maps: Sequence[NDArray]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """(H*W,) index of each pixel's cell, and (A, len(maps)) the ids of each cell."""
    flat = [m.reshape(-1) for m in maps]
    if any(m.dtype.kind not in "iub" for m in flat):
        raise ValueError(f"Label maps hold ids, integers; got {[str(m.dtype) for m in flat]}.")
    # IGNORE is -1: maps that have it are shifted by 1.
    lows = [0 if m.dtype.kind in "ub" else int(m.min(initial=0)) for m in flat]
    if min(lows) < IGNORE:
        raise ValueError(f"A label map has the id {min(lows)}; only {IGNORE}, ignored, is below 0.")
    shifts = [int(low < 0) for low in lows]
    sizes = [int(m.max(initial=0)) + 1 + shift for m, shift in zip(flat, shifts, strict=True)]
    small = np.prod(sizes, dtype=np.float64) <= _LARGEST_HISTOGRAM
    code = np.zeros(flat[0].shape, dtype=np.int32 if small else np.int64)
    for label_map, size, shift in zip(flat, sizes, shifts, strict=True):
        code *= size
        code += label_map.astype(code.dtype, copy=False)
        if shift:
            code += shift
    if small:
        present = np.flatnonzero(np.bincount(code))
        index_of = np.zeros(int(present[-1]) + 1 if len(present) else 1, dtype=np.int32)
        index_of[present] = np.arange(len(present))
        index = index_of[code]
    else:
        present, index = np.unique(code, return_inverse=True)
        index = index.reshape(-1)
    return index, np.stack(np.unravel_index(present, sizes), axis=1) - np.array(shifts)


def _cells(codes: NDArray) -> Cells:
    object_id, part = codes[:, 0], codes[:, 1]
    if codes.shape[1] == 3:
        segment_id = codes[:, 2]
    else:
        segment_id = pair_segments(object_id, part)
    return Cells(object_id=object_id, part=part, segment_id=segment_id)


def pair_segments(object_id: NDArray, part: NDArray) -> NDArray[np.int64]:
    """The segment of each (object, part) pair: one id a pair, 0 where either is none.

    An ignored object or part makes an ignored segment.
    """
    object_id, part = np.asarray(object_id, np.int64), np.asarray(part, np.int64)
    segment = (object_id << 16) + part
    segment = np.where((object_id > 0) & (part > 0), segment, 0)
    return np.where((object_id == IGNORE) | (part == IGNORE), IGNORE, segment)


def group_overlaps(
    table: Contingency,
    prediction_labels: NDArray,
    prediction_ids: NDArray,
    truth_labels: NDArray,
    truth_ids: NDArray,
    *,
    erased: NDArray | None = None,
) -> Overlaps:
    """Overlaps of regions that are unions of cells.

    Args:
        table: counts of an image.
        prediction_labels: (A,) the group of each predicted cell.
        prediction_ids: (M,) the groups wanted, in the order wanted.
        truth_labels: (B,) the group of each true cell.
        truth_ids: (G,) the groups wanted.
        erased: (B,) bool, true cells whose pixels are taken out of the predictions.
    """
    counts = table.counts if erased is None else np.where(erased[None], 0, table.counts)
    rows = _sum_groups(counts, prediction_labels, prediction_ids)
    return Overlaps(
        intersection=_sum_groups(rows.T, truth_labels, truth_ids).T,
        prediction_area=rows.sum(axis=1),
        truth_area=_sum_groups(table.counts.sum(axis=0)[:, None], truth_labels, truth_ids)[:, 0],
    )


def _sum_groups(counts: NDArray, labels: NDArray, ids: NDArray) -> NDArray[np.int64]:
    """(len(ids), B) sums of the rows of ``counts`` (A, B) whose label (A,) is each of ``ids``.

    In integers and without BLAS, whose threads would fight with those of other processes.
    """
    ids = np.asarray(ids, dtype=np.int64)
    sums = np.zeros((len(ids), counts.shape[1]), dtype=np.int64)
    if not len(ids) or not len(labels):
        return sums
    order = np.argsort(ids)
    position = np.minimum(np.searchsorted(ids, labels, sorter=order), len(ids) - 1)
    group = order[position]
    members = np.flatnonzero(ids[group] == labels)
    np.add.at(sums, group[members], counts[members])
    return sums
