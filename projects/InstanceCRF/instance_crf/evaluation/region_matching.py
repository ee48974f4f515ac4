"""Which predicted regions of an image hit a ground truth, under a protocol.

Letters: M predictions and G ground truths of one image; T thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from .protocols import Protocol

__all__ = ["NOT_COUNTED", "TRUE_POSITIVE", "count_attainable", "match"]

TRUE_POSITIVE, NOT_COUNTED = 1, -1  # 0 is a false positive


def match(
    ious: NDArray, scores: NDArray, protocol: Protocol, crowd: NDArray | None = None
) -> NDArray[np.int8]:
    """Which predictions of one image are true positives, at every threshold.

    Args:
        ious: (M, G) IoU, 0 where the classes differ. In a crowd's column, the share of the
            prediction that lies in the crowd.
        scores: (M,) predictions are taken by descending score, equal scores in the order given.
        protocol: comparison, matching, crowd and thresholds are used.
        crowd: (G,) bool, ground truths that are crowd regions; None: none is.

    Returns:
        (M, T): 1 true positive, 0 false positive, -1 not counted (absorbed by a crowd).
    """
    flags = np.zeros((len(ious), len(protocol.thresholds)), dtype=np.int8)
    if not ious.size:
        return flags
    crowd_share = None
    if crowd is not None and crowd.any():
        crowd_share = ious[:, crowd].max(axis=1)
        ious = ious[:, ~crowd]
    if ious.size:
        order = np.argsort(-scores, kind="stable")
        match_one = {
            "argmax": _match_argmax,
            "uncovered": _match_uncovered,
            "unlimited": _match_unlimited,
        }[protocol.matching]
        if protocol.equal_ious == "last":
            ious = ious[:, ::-1]
        ranked = ious[order]
        for column, threshold in enumerate(protocol.thresholds):
            flags[order, column] = match_one(ranked, _passes(ranked, threshold, protocol))
    if crowd_share is not None and protocol.crowd == "absorb":
        for column, threshold in enumerate(protocol.thresholds):
            absorbed = _passes(crowd_share, threshold, protocol) & (flags[:, column] == 0)
            flags[absorbed, column] = NOT_COUNTED
    return flags


def _passes(ious: NDArray, threshold: float | NDArray, protocol: Protocol) -> NDArray[np.bool_]:
    return ious >= threshold if protocol.inclusive else ious > threshold


def _match_unlimited(ious: NDArray, passes: NDArray) -> NDArray[np.bool_]:
    return passes.any(axis=1)


def _match_argmax(ious: NDArray, passes: NDArray) -> NDArray[np.bool_]:
    best = ious.argmax(axis=1)
    candidates = np.flatnonzero(passes[np.arange(len(ious)), best])
    _, first = np.unique(best[candidates], return_index=True)
    hit = np.zeros(len(ious), dtype=bool)
    hit[candidates[first]] = True
    return hit


def _match_uncovered(ious: NDArray, passes: NDArray) -> NDArray[np.bool_]:
    if passes.sum(axis=0).max() <= 1 and passes.sum(axis=1).max() <= 1:
        return passes.any(axis=1)  # no two rivals, as always for disjoint regions above IoU 0.5
    hit = np.zeros(len(ious), dtype=bool)
    free = np.where(passes, ious, 0.0)
    for row in np.flatnonzero(passes.any(axis=1)):
        target = free[row].argmax()
        if free[row, target] > 0:
            hit[row] = True
            free[:, target] = 0.0
    return hit


def count_attainable(ious: NDArray, protocol: Protocol) -> NDArray[np.int64]:
    """(T,) true positives under the best possible order of the predictions of one class."""
    thresholds = np.asarray(protocol.thresholds)
    if not ious.size:
        return np.zeros(len(thresholds), dtype=np.int64)
    best = ious.max(axis=1)
    if protocol.matching == "argmax":  # of the predictions that would take each ground truth
        best, taken = np.full(ious.shape[1], -np.inf), best
        np.maximum.at(best, ious.argmax(axis=1), taken)
    elif protocol.matching == "uncovered":
        rivals = _passes(ious, thresholds.min(), protocol).sum(axis=0).max() > 1
        if rivals:
            passing = (csr_matrix(_passes(ious, t, protocol)) for t in thresholds)
            matched = [maximum_bipartite_matching(p, perm_type="column") >= 0 for p in passing]
            return np.count_nonzero(matched, axis=1)
    return np.count_nonzero(_passes(best[:, None], thresholds, protocol), axis=0)
