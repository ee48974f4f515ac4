"""AP of part segments and of whole objects, fed with comparisons of labellings.

Letters: P parts; C object classes; M predicted and G true regions of an image.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .average_precision import APResult, AveragePrecision
from .contingency import IGNORE, Overlaps, group_overlaps
from .parsing import Comparison
from .protocols import Protocol, get_protocol

__all__ = ["ObjectAP", "PartAP", "ap_summary", "object_overlaps", "part_overlaps", "printable"]

PART_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OBJECT_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def part_overlaps(comparison: Comparison, *, erase_ignored: bool = False) -> Overlaps:
    """Overlaps of the part segments of both sides, (M, G)."""
    table = comparison.table
    return group_overlaps(
        table,
        table.prediction.segment_id,
        comparison.prediction.segment_ids,
        table.truth.segment_id,
        comparison.truth.segment_ids,
        erased=table.truth.segment_id == IGNORE if erase_ignored else None,
    )


def object_overlaps(comparison: Comparison, *, erase_ignored: bool = False) -> Overlaps:
    """Overlaps of the objects of both sides, (M, G)."""
    table = comparison.table
    return group_overlaps(
        table,
        table.prediction.object_id,
        comparison.prediction.object_ids,
        table.truth.object_id,
        comparison.truth.object_ids,
        erased=comparison.unknown_objects if erase_ignored else None,
    )


class _RegionAP:
    """What part segments and objects have in common."""

    def __init__(self, names: Sequence[str], protocol: str | Protocol) -> None:
        self.names = tuple(names)
        self.protocol = get_protocol(protocol)
        self.ap = AveragePrecision(len(self.names), self.protocol)
        self.available = True
        """False when an image came without the scores (or objects) that an AP needs."""

    def add_regions(
        self,
        image_id: Hashable,
        *,
        scores: NDArray,
        classes: NDArray,
        ious: NDArray,
        truth_classes: NDArray,
        truth_crowd: NDArray,
    ) -> None:
        """Add an image of regions that may overlap; see :meth:`AveragePrecision.add`."""
        self.ap.add(
            image_id,
            scores=scores,
            classes=classes,
            ious=ious,
            truth_classes=truth_classes,
            truth_crowd=truth_crowd,
        )

    def merge(self, other: _RegionAP) -> None:
        """Take over the images of another process."""
        self.ap.merge(other.ap)
        self.available = self.available and other.available

    @property
    def _erases(self) -> bool:
        return self.protocol.ignore == "erase"


class PartAP(_RegionAP):
    """APr of part segments (Table 1 of the paper).

    Args:
        names: (P,) part names.
        protocol: see :mod:`.protocols`.
    """

    def add(self, comparison: Comparison, scores: NDArray | None = None) -> None:
        """Add one image; ``scores`` (M,) replace those of the prediction."""
        prediction, truth = comparison.prediction, comparison.truth
        scores = prediction.segment_scores if scores is None else scores
        if scores is None:
            self.available = False
            return
        self.ap.add(
            comparison.image_id,
            scores=scores,
            classes=np.asarray(prediction.segment_parts) - 1,
            ious=part_overlaps(comparison, erase_ignored=self._erases).iou(),
            truth_classes=np.asarray(truth.segment_parts) - 1,
            has_prediction=comparison.has_prediction,
        )

    def compute(self) -> dict[str, float]:
        """``APr_vol``, ``APr10`` … ``APr90``, ``APr_oracle``, ``APr_vol/<part>`` in percent."""
        return ap_summary(self.ap.compute(), PART_THRESHOLDS, self.names)


class ObjectAP(_RegionAP):
    """APr of whole objects (Table 2 of the paper).

    Args:
        names: (C,) object classes; ``class_agnostic`` merges them.
        protocol: see :mod:`.protocols`.
        prefix: of the reported keys.
        thresholds: reported one by one.
    """

    def __init__(
        self,
        names: Sequence[str],
        protocol: str | Protocol,
        *,
        class_agnostic: bool = False,
        prefix: str = "APr",
        thresholds: Sequence[float] = OBJECT_THRESHOLDS,
    ) -> None:
        super().__init__(("object",) if class_agnostic else names, protocol)
        self.class_agnostic = class_agnostic
        self.prefix = prefix
        self.thresholds = tuple(thresholds)

    def add(self, comparison: Comparison, scores: NDArray | None = None) -> None:
        """Add one image; ``scores`` (M,) replace those of the prediction."""
        prediction, truth = comparison.prediction, comparison.truth
        scores = prediction.object_scores if scores is None else scores
        if scores is None or not comparison.objects_known:
            self.available = False
            return
        overlaps = object_overlaps(comparison, erase_ignored=self._erases)
        self.ap.add(
            comparison.image_id,
            scores=scores,
            classes=self._classes(prediction.object_classes),
            ious=overlaps.iou(truth.crowd),
            truth_classes=self._classes(truth.object_classes),
            truth_crowd=truth.crowd,
            has_prediction=comparison.has_prediction,
        )

    def _classes(self, classes: NDArray) -> NDArray:
        return np.zeros_like(classes) if self.class_agnostic else classes

    def compute(self) -> dict[str, float]:
        """``APr_vol``, ``APr50`` … ``APr90``, ``APr_oracle`` in percent, and ``APr_vol/<class>``
        when there are several."""
        names = self.names if len(self.names) > 1 else ()
        return ap_summary(self.ap.compute(), self.thresholds, names, self.prefix)


def ap_summary(
    result: APResult, thresholds: Sequence[float], class_names: Sequence[str], prefix: str = "APr"
) -> dict[str, float]:
    """The reported numbers of one AP, in percent.

    Args:
        result: of :meth:`AveragePrecision.compute`.
        thresholds: reported one by one, where the protocol has them.
        class_names: (C,) reported one by one, or empty.
        prefix: of the keys: ``<prefix>_vol``, ``<prefix>50``, ``<prefix>_vol/<class>``,
            ``<prefix>_oracle`` (the mean under the best possible ranking).
    """
    summary = {f"{prefix}_vol": result.volume}
    for threshold in thresholds:
        if threshold in result.protocol.thresholds:
            summary[f"{prefix}{round(100 * threshold)}"] = result.at(threshold)
    summary[f"{prefix}_oracle"] = float(result.mean(result.oracle).mean())
    if class_names:
        for name, ap in zip(class_names, result.ap.mean(axis=1), strict=True):
            summary[f"{prefix}_vol/{printable(name)}"] = float(ap)
    return percent(summary)


def percent(numbers: Mapping[str, float]) -> dict[str, float]:
    """Fractions as percent."""
    return {key: 100.0 * float(value) for key, value in numbers.items()}


def printable(name: str) -> str:
    """A class name as part of a metric's key: Detectron2 does not print keys with a ``-``."""
    return name.replace("-", "_").replace(" ", "_")
