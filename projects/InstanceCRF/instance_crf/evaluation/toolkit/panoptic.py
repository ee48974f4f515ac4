"""Panoptic quality (PQ) of part segments and of objects, and PartPQ of objects with parts.

PQ of a category is the sum of IoU over matches / (TP + FP/2 + FN/2), where a match is a pair of
regions of the category with IoU > 0.5, which makes it unique. PartPQ puts in the place of an
object's IoU the mean IoU of its parts. As published: void pixels of a prediction leave the
union, and an unmatched prediction that lies in void or crowd by more than half is not counted.

Letters: M predicted and G true regions of an image; K classes, background included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..contingency import IGNORE, Overlaps
from ..parsing import Comparison
from ..regions import object_overlaps, part_overlaps, percent, printable

__all__ = ["PanopticMetrics", "PanopticQuality", "match_panoptic"]


class PanopticQuality:
    """PQ, SQ and RQ over categories, from matches.

    Args:
        num_categories: categories 0..num_categories-1.
    """

    def __init__(self, num_categories: int) -> None:
        self._ious: list[list[float]] = [[] for _ in range(num_categories)]
        self.false_positives = np.zeros(num_categories, dtype=np.int64)
        self.false_negatives = np.zeros(num_categories, dtype=np.int64)

    def add(
        self,
        ious: NDArray,
        matched_categories: NDArray,
        missed_categories: NDArray,
        spurious_categories: NDArray,
    ) -> None:
        """Add one image: the matches' quality and category, the categories of unmatched ground
        truth and of unmatched predictions."""
        for iou, category in zip(ious, matched_categories, strict=True):
            self._ious[category].append(float(iou))
        size = len(self._ious)
        self.false_negatives += np.bincount(missed_categories, minlength=size)
        self.false_positives += np.bincount(spurious_categories, minlength=size)

    def merge(self, other: PanopticQuality) -> None:
        """Take over the images of another process."""
        for mine, theirs in zip(self._ious, other._ious, strict=True):
            mine += theirs
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives

    def per_category(self) -> tuple[NDArray, NDArray, NDArray]:
        """PQ, SQ and RQ of each category as fractions; NaN where a category occurs nowhere."""
        # fsum is exact, so the order in which images came does not show in the last digit.
        quality = np.array([math.fsum(ious) for ious in self._ious])
        hits = np.array([len(ious) for ious in self._ious])
        weight = hits + 0.5 * self.false_positives + 0.5 * self.false_negatives
        present = weight > 0
        weight = np.where(present, weight, 1.0)
        pq = np.where(present, quality / weight, np.nan)
        sq = np.where(present, quality / np.maximum(hits, 1), np.nan)
        rq = np.where(present, hits / weight, np.nan)
        return pq, sq, rq

    def summary(self, prefix: str) -> dict[str, float]:
        """``<prefix>PQ``, ``<prefix>SQ``, ``<prefix>RQ``: means over the categories that occur."""
        means = {}
        for letter, values in zip("PSR", self.per_category(), strict=True):
            present = values[~np.isnan(values)]
            means[f"{prefix}{letter}Q"] = float(present.mean()) if len(present) else math.nan
        return means


def match_panoptic(
    overlaps: Overlaps,
    categories: NDArray,
    truth_categories: NDArray,
    void: NDArray,
    void_or_crowd: NDArray,
) -> tuple[NDArray, NDArray, NDArray]:
    """Match regions of equal category with IoU > 0.5, void pixels left out of the union.

    Args:
        overlaps: of M predictions and G ground truths.
        categories: (M,).
        truth_categories: (G,).
        void: (M,) pixels of each prediction in void.
        void_or_crowd: (M,) pixels of each prediction in void, or in a crowd of its category.

    Returns:
        (M,) the matched ground truth or -1; (M,) its IoU; (M,) bool, predictions that are false
        positives.
    """
    union = (
        overlaps.prediction_area[:, None] + overlaps.truth_area[None] - overlaps.intersection
    ) - void[:, None]
    iou = overlaps.intersection / np.maximum(union, 1)
    iou = np.where(categories[:, None] == truth_categories[None], iou, 0.0)
    matched = np.full(len(categories), -1, dtype=np.int64)
    best = np.zeros(len(categories))
    if iou.size:
        best = iou.max(axis=1)
        matched = np.where(best > 0.5, iou.argmax(axis=1), -1)
    in_void = void_or_crowd > 0.5 * overlaps.prediction_area
    return matched, best, (matched < 0) & ~in_void


class PanopticMetrics:
    """PQ of part segments and of objects, and PartPQ.

    Args:
        part_names: (P,).
        object_names: (C,).
    """

    def __init__(self, part_names: Sequence[str], object_names: Sequence[str]) -> None:
        self.part_names = tuple(part_names)
        self.parts = PanopticQuality(len(part_names))
        self.objects = PanopticQuality(len(object_names))
        self.part_pq = PanopticQuality(len(object_names))
        self.objects_known = True
        self.available = True

    def add(self, comparison: Comparison) -> None:
        """Add one image."""
        self._add_parts(comparison)
        if comparison.objects_known:
            self._add_objects(comparison)
            self._add_part_pq(comparison)
        else:
            self.objects_known = False

    def _add_parts(self, comparison: Comparison) -> None:
        table = comparison.table
        void = _pixels_in(
            comparison,
            table.prediction.segment_id,
            comparison.prediction.segment_ids,
            (table.truth.segment_id == IGNORE),
        )
        categories = np.asarray(comparison.prediction.segment_parts) - 1
        truth_categories = np.asarray(comparison.truth.segment_parts) - 1
        matched, iou, spurious = match_panoptic(
            part_overlaps(comparison), categories, truth_categories, void, void
        )
        _add_matches(self.parts, matched, iou, spurious, categories, truth_categories)

    def _add_objects(self, comparison: Comparison) -> None:
        prediction, truth = comparison.prediction, comparison.truth
        matched, iou, spurious, kept = _match_objects(comparison, truth.crowd)
        _add_matches(
            self.objects,
            matched,
            iou,
            spurious,
            prediction.object_classes,
            truth.object_classes[kept],
        )

    def _add_part_pq(self, comparison: Comparison) -> None:
        """Objects again, with those that have no part annotated taken as crowd."""
        prediction, truth = comparison.prediction, comparison.truth
        cells = comparison.table.truth
        with_parts = np.isin(truth.object_ids, cells.object_id[cells.part > 0])
        matched, _, spurious, kept = _match_objects(comparison, truth.crowd | ~with_parts)
        true_ids = truth.object_ids[kept]
        unevaluated = (cells.object_id == IGNORE) | (cells.part == IGNORE)
        unevaluated |= np.isin(cells.object_id, truth.object_ids[~kept])
        quality = np.zeros(len(matched))
        for row in np.flatnonzero(matched >= 0):
            quality[row] = _mean_part_iou(
                comparison, prediction.object_ids[row], true_ids[matched[row]], unevaluated
            )
        _add_matches(
            self.part_pq,
            matched,
            quality,
            spurious,
            prediction.object_classes,
            truth.object_classes[kept],
        )

    def merge(self, other: PanopticMetrics) -> None:
        """Take over the images of another process."""
        self.parts.merge(other.parts)
        self.objects.merge(other.objects)
        self.part_pq.merge(other.part_pq)
        self.objects_known = self.objects_known and other.objects_known

    def compute(self) -> dict[str, float]:
        """``PQ``, ``SQ``, ``RQ`` of part segments, ``PQ/<part>``, and, when objects are known,
        ``PartPQ``, ``PartSQ``, ``PartRQ`` and ``ObjectPQ``, ``ObjectSQ``, ``ObjectRQ``."""
        results = self.parts.summary("")
        if self.objects_known:
            results |= self.part_pq.summary("Part") | self.objects.summary("Object")
        for name, value in zip(self.part_names, self.parts.per_category()[0], strict=True):
            results[f"PQ/{printable(name)}"] = value
        return percent(results)


def _match_objects(
    comparison: Comparison, crowd: NDArray
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """:func:`match_panoptic` of objects, and (n,) the true objects that are no crowd."""
    table, prediction, truth = comparison.table, comparison.prediction, comparison.truth
    overlaps = object_overlaps(comparison)
    cells = table.truth
    void_cells = (cells.object_id == IGNORE) | ((cells.part == IGNORE) & (cells.object_id == 0))

    def pixels(true_cells: NDArray) -> NDArray:
        return _pixels_in(comparison, table.prediction.object_id, prediction.object_ids, true_cells)

    void = pixels(void_cells)
    void_or_crowd = void.copy()
    for category in np.unique(truth.object_classes[crowd]):
        ids = truth.object_ids[crowd & (truth.object_classes == category)]
        in_crowd = pixels(np.isin(cells.object_id, ids))
        void_or_crowd += np.where(prediction.object_classes == category, in_crowd, 0)
    kept = ~crowd
    overlaps = Overlaps(
        overlaps.intersection[:, kept], overlaps.prediction_area, overlaps.truth_area[kept]
    )
    matched, iou, spurious = match_panoptic(
        overlaps, prediction.object_classes, truth.object_classes[kept], void, void_or_crowd
    )
    return matched, iou, spurious, kept


def _mean_part_iou(
    comparison: Comparison, object_id: int, true_id: int, unevaluated: NDArray
) -> float:
    """Mean IoU of the parts, background included, of a predicted and a true object.

    Over the whole image but void, crowd and the true object's pixels without a part; over the
    classes that either has.
    """
    table = comparison.table
    evaluated = ~(unevaluated | ((table.truth.object_id == true_id) & (table.truth.part == 0)))
    counts = table.counts[:, evaluated]
    predicted = np.where(table.prediction.object_id == object_id, table.prediction.part, 0)
    true = np.where(table.truth.object_id == true_id, table.truth.part, 0)[evaluated]
    size = int(max(predicted.max(initial=0), true.max(initial=0))) + 1
    rows = np.broadcast_to(predicted[:, None], counts.shape)
    columns = np.broadcast_to(true[None], counts.shape)
    confusion = np.zeros((size, size), dtype=np.int64)
    np.add.at(confusion, (rows, columns), counts)
    hits = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    present = union > 0
    return float((hits[present] / union[present]).mean())


def _pixels_in(
    comparison: Comparison, labels: NDArray, ids: NDArray, true_cells: NDArray
) -> NDArray[np.int64]:
    """(M,) pixels of each predicted region in the true cells given."""
    members = np.asarray(ids)[:, None] == labels[None]
    return members @ comparison.table.counts[:, true_cells].sum(axis=1)


def _add_matches(
    quality: PanopticQuality,
    matched: NDArray,
    iou: NDArray,
    spurious: NDArray,
    categories: NDArray,
    truth_categories: NDArray,
) -> None:
    hit = matched >= 0
    missed = np.ones(len(truth_categories), dtype=bool)
    missed[matched[hit]] = False
    quality.add(iou[hit], categories[hit], truth_categories[missed], categories[spurious])
