"""Person-level metrics: APp and PCP of Multi-Human Parsing.

A person is compared as a whole: the "IoU" of a predicted and a true person is the mean, over
the part classes that either has and background, of the IoU of their part maps on the whole
image (everything that is not the person is background in its map, so that the background's IoU
is near 1 and lifts the mean; the metric is defined so).

Letters: M predicted and G true persons of an image; K classes, background included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..average_precision import AveragePrecision, match
from ..contingency import IGNORE, Cells, tabulate
from ..parsing import Comparison
from ..protocols import PROTOCOLS
from ..regions import ap_summary, percent

__all__ = ["PersonAP", "class_ious"]

_PCP_THRESHOLD = 0.5


class PersonAP:
    """APp at IoU 0.1 … 0.9 and PCP50, the share of correctly parsed parts.

    Args:
        num_parts: P; K is P + 1.
        object_names: one AP an object class, then their mean; people: one class.
    """

    def __init__(self, num_parts: int, object_names: Sequence[str] = ("person",)) -> None:
        self.num_classes = num_parts + 1
        self.available = True
        self.ap = AveragePrecision(len(object_names), PROTOCOLS["app"])
        self._parsed: list[float] = []  # of each matched person, the share of its parts
        self._num_persons = 0

    def add(self, comparison: Comparison) -> None:
        """Add one image. True persons without a part are left out, as in Multi-Human Parsing."""
        prediction, truth = comparison.prediction, comparison.truth
        if prediction.object_scores is None or not comparison.objects_known:
            self.available = False
            return
        ious, num_parts = class_ious(comparison, self.num_classes)
        kept = (num_parts > 0) & ~truth.crowd
        ious, num_parts = ious[:, kept], num_parts[kept]
        truth_classes = truth.object_classes[kept]
        means = _mean_over_classes(ious)
        scores = np.asarray(prediction.object_scores, dtype=np.float64)
        self.ap.add(
            comparison.image_id,
            scores=scores,
            classes=prediction.object_classes,
            ious=means,
            truth_classes=truth_classes,
            has_prediction=comparison.has_prediction,
        )
        self._num_persons += len(num_parts)
        same = prediction.object_classes[:, None] == truth_classes[None]
        means = np.where(same, means, 0.0)
        column = PROTOCOLS["app"].thresholds.index(_PCP_THRESHOLD)
        for person in np.flatnonzero(match(means, scores, PROTOCOLS["app"])[:, column]):
            target = means[person].argmax()
            correct = np.count_nonzero(ious[person, target, 1:] > _PCP_THRESHOLD)
            self._parsed.append(correct / int(num_parts[target]))

    def merge(self, other: PersonAP) -> None:
        """Take over the images of another process."""
        self.ap.merge(other.ap)
        self._parsed += other._parsed
        self._num_persons += other._num_persons
        self.available = self.available and other.available

    def compute(self) -> dict[str, float]:
        """``APp_vol``, ``APp50``, ``APp_oracle``, ``PCP50`` in percent."""
        summary = ap_summary(self.ap.compute(), (0.5,), (), "APp")
        # fsum is exact, so the order in which images came does not show in the last digit.
        pcp = math.fsum(self._parsed) / self._num_persons if self._num_persons else math.nan
        return summary | percent({"PCP50": pcp})


def class_ious(comparison: Comparison, num_classes: int) -> tuple[NDArray, NDArray]:
    """IoU of every class of every pair of persons.

    Pixels that the ground truth ignores do not count.

    Returns:
        (M, G, K) IoU, NaN where neither person has the class; (G,) number of part classes of
        each true person.
    """
    if comparison.truth.person_maps is not None:
        counts = [_person_table(comparison, m, num_classes) for m in comparison.truth.person_maps]
    else:
        counts = [
            _object_table(comparison, object_id, num_classes)
            for object_id in comparison.truth.object_ids
        ]
    persons = np.asarray(comparison.prediction.object_ids)
    ious = np.full((len(persons), len(counts), num_classes), np.nan)
    num_parts = np.zeros(len(counts), dtype=np.int64)
    for column, (cells, table) in enumerate(counts):
        num_parts[column] = np.count_nonzero(table.sum(axis=0)[1:])
        ious[:, column] = _ious_with_one(cells, table, persons)
    return ious, num_parts


def _object_table(
    comparison: Comparison, object_id: int, num_classes: int
) -> tuple[Cells, NDArray[np.int64]]:
    """(A, K) pixels of each predicted cell and each class of one true object's part map."""
    cells, counts = comparison.table.truth, comparison.table.counts
    counted = (cells.part != IGNORE) & (cells.object_id != IGNORE)
    own = np.flatnonzero(counted & (cells.object_id == object_id) & (cells.part > 0))
    pixels = np.zeros((len(counts), num_classes), dtype=np.int64)
    np.add.at(pixels.T, cells.part[own], counts[:, own].T)
    pixels[:, 0] = counts[:, counted].sum(axis=1) - pixels[:, 1:].sum(axis=1)
    return comparison.table.prediction, pixels


def _person_table(
    comparison: Comparison, person_map: NDArray, num_classes: int
) -> tuple[Cells, NDArray[np.int64]]:
    """The same for a part map of its own, as where true persons overlap."""
    table = tabulate(comparison.prediction.maps, (np.zeros_like(person_map), person_map))
    one_hot = table.truth.part[:, None] == np.arange(num_classes)[None]  # IGNORE matches none
    return table.prediction, table.counts @ one_hot.astype(np.int64)


def _ious_with_one(cells: Cells, table: NDArray, persons: NDArray) -> NDArray[np.float64]:
    """(M, K) IoU of each predicted person's part map and the true one of ``table`` (A, K)."""
    num_classes = table.shape[1]
    totals = table.sum(axis=1)
    foreground = np.flatnonzero((cells.part > 0) & np.isin(cells.object_id, persons))
    row_of = {int(person): row for row, person in enumerate(persons)}
    rows = np.array([row_of[int(i)] for i in cells.object_id[foreground]], dtype=np.int64)
    parts = cells.part[foreground]
    hits = np.zeros((len(persons), num_classes), dtype=np.int64)
    area = np.zeros_like(hits)
    overlap = np.zeros(len(persons), dtype=np.int64)  # foreground of both, whatever the parts
    np.add.at(hits, (rows, parts), table[foreground, parts])
    np.add.at(area, (rows, parts), totals[foreground])
    np.add.at(overlap, rows, table[foreground, 1:].sum(axis=1))
    true_area = table.sum(axis=0)
    area[:, 0] = totals.sum() - area.sum(axis=1)
    hits[:, 0] = area[:, 0] - true_area[1:].sum() + overlap
    union = area + true_area[None] - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


def _mean_over_classes(ious: NDArray) -> NDArray[np.float64]:
    """(M, G) mean over the classes that are not NaN."""
    present = ~np.isnan(ious)
    return np.where(present, ious, 0.0).sum(axis=2) / np.maximum(present.sum(axis=2), 1)
