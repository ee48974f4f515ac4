"""The metrics of instance-level part parsing, image by image: APr, object APr and mean IoU.

Letters: H, W image size; P parts; C object classes; M predicted and G true regions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .average_precision import APResult, AveragePrecision, Protocol, get_protocol
from .contingency import IGNORE, Contingency, group_overlaps, pair_segments, tabulate
from .semantic import MeanIoU

__all__ = ["Parsing", "PartParsingMetrics", "ap_summary", "printable"]

PART_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OBJECT_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def _no_ids() -> NDArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Parsing:
    """One image's labelling, predicted or true.

    Attributes:
        part_map: (H, W) part of each pixel, 0 background, 1..P, ``IGNORE`` (-1) ignored.
        object_map: (H, W) object of each pixel, 0 none, ``IGNORE`` ignored; None when objects
            are not known.
        segment_map: (H, W) part segment of each pixel, 0 none; None: a segment is an
            (object, part) pair.
        segment_ids: (M,) ids in ``segment_map``, or :func:`pair_segments` of object and part.
        segment_parts: (M,) part of each, 1..P.
        segment_scores: (M,); ground truth has none.
        object_ids: (n,) ids in ``object_map``.
        object_classes: (n,) contiguous classes, 0..C-1.
        object_scores: (n,); ground truth has none.
        object_crowd: (n,) bool; None: no object is a crowd.
    """

    part_map: NDArray
    object_map: NDArray | None = None
    segment_map: NDArray | None = None
    segment_ids: NDArray = field(default_factory=_no_ids)
    segment_parts: NDArray = field(default_factory=_no_ids)
    segment_scores: NDArray = field(default_factory=_no_ids)
    object_ids: NDArray = field(default_factory=_no_ids)
    object_classes: NDArray = field(default_factory=_no_ids)
    object_scores: NDArray = field(default_factory=_no_ids)
    object_crowd: NDArray | None = None

    @property
    def maps(self) -> tuple[NDArray, ...]:
        """The maps as :func:`tabulate` takes them."""
        objects = np.zeros_like(self.part_map) if self.object_map is None else self.object_map
        segments = () if self.segment_map is None else (self.segment_map,)
        return (objects, self.part_map, *segments)

    @classmethod
    def of_ground_truth(
        cls,
        part_map: NDArray,
        object_map: NDArray,
        *,
        object_ids: NDArray,
        object_classes: NDArray,
        object_crowd: NDArray | None = None,
    ) -> Parsing:
        """Ground truth: every (object, part) pair with a pixel is a segment.

        Parts of crowd objects are no ground truth, and their pixels are ignored.
        """
        object_ids = np.asarray(object_ids, dtype=np.int64)
        if object_crowd is not None and np.any(object_crowd):
            in_crowd = np.isin(object_map, object_ids[np.asarray(object_crowd, dtype=bool)])
            part_map = np.where(in_crowd, IGNORE, part_map)
        width = max(int(part_map.max(initial=0)), 0) + 1
        both = (object_map > 0) & (part_map > 0)
        codes = np.flatnonzero(
            np.bincount(object_map[both].astype(np.int64) * width + part_map[both])
        )
        owners, parts = codes // width, codes % width
        return cls(
            part_map=part_map,
            object_map=object_map,
            segment_ids=pair_segments(owners, parts),
            segment_parts=parts,
            object_ids=object_ids,
            object_classes=np.asarray(object_classes, dtype=np.int64),
            object_crowd=object_crowd,
        )


class PartParsingMetrics:
    """Accumulates the metrics of a data set, one image at a time.

    Args:
        part_names: (P,) names of parts 1..P.
        object_names: (C,) names of the object classes.
        protocol: of the part and the object AP.

    The numbers do not depend on the order of images, nor on how they were spread over
    accumulators that :meth:`merge` joins.
    """

    def __init__(
        self,
        part_names: Sequence[str],
        object_names: Sequence[str],
        protocol: str | Protocol = "sds",
    ) -> None:
        self.part_names = tuple(part_names)
        self.object_names = tuple(object_names)
        self.protocol = get_protocol(protocol)
        self.part_ap = AveragePrecision(len(self.part_names), self.protocol)
        self.object_ap = AveragePrecision(len(self.object_names), self.protocol)
        self.part_seg = MeanIoU(len(self.part_names) + 1)
        self.objects_known = True

    def add(self, image_id: Hashable, prediction: Parsing | None, truth: Parsing) -> None:
        """Add one image.

        Args:
            image_id: its name; an image is added once.
            prediction: None when there is none; its ground truth still counts, unless the
                protocol leaves such images out.
            truth: the ground truth.

        Raises:
            ValueError: see :meth:`AveragePrecision.add`; maps of different sizes.
        """
        has_prediction = prediction is not None
        if prediction is None:
            prediction = Parsing(part_map=np.zeros_like(truth.part_map))
        try:
            table = tabulate(prediction.maps, truth.maps)
        except ValueError as error:
            raise ValueError(f"Image {image_id!r}: {error}") from None
        if has_prediction or self.protocol.images == "all":
            self.part_seg.add(image_id, table)
        self._add_parts(image_id, table, prediction, truth, has_prediction)
        if has_prediction and prediction.object_map is None:
            self.objects_known = False
        self._add_objects(image_id, table, prediction, truth, has_prediction)

    def _add_parts(
        self,
        image_id: Hashable,
        table: Contingency,
        prediction: Parsing,
        truth: Parsing,
        has_prediction: bool,
    ) -> None:
        overlaps = group_overlaps(
            table,
            table.prediction.segment_id,
            prediction.segment_ids,
            table.truth.segment_id,
            truth.segment_ids,
            erased=self._erased(table.truth.segment_id == IGNORE),
        )
        self.part_ap.add(
            image_id,
            scores=prediction.segment_scores,
            classes=np.asarray(prediction.segment_parts) - 1,
            ious=overlaps.iou(),
            truth_classes=np.asarray(truth.segment_parts) - 1,
            has_prediction=has_prediction,
        )

    def _add_objects(
        self,
        image_id: Hashable,
        table: Contingency,
        prediction: Parsing,
        truth: Parsing,
        has_prediction: bool,
    ) -> None:
        crowd = np.zeros(len(truth.object_ids), dtype=bool)
        if truth.object_crowd is not None:
            crowd = np.asarray(truth.object_crowd, dtype=bool)
        cells = table.truth
        # A pixel without an object whose part is ignored may belong to anybody.
        unknown = (cells.object_id == IGNORE) | ((cells.part == IGNORE) & (cells.object_id == 0))
        unknown |= np.isin(cells.object_id, np.asarray(truth.object_ids)[crowd])
        overlaps = group_overlaps(
            table,
            table.prediction.object_id,
            prediction.object_ids,
            cells.object_id,
            truth.object_ids,
            erased=self._erased(unknown),
        )
        self.object_ap.add(
            image_id,
            scores=prediction.object_scores,
            classes=prediction.object_classes,
            ious=overlaps.iou(crowd),
            truth_classes=truth.object_classes,
            truth_crowd=crowd,
            has_prediction=has_prediction,
        )

    def _erased(self, ignored: NDArray) -> NDArray | None:
        return ignored if self.protocol.ignore == "erase" else None

    def merge(self, other: PartParsingMetrics) -> None:
        """Take over the images of an accumulator of another process."""
        self.part_ap.merge(other.part_ap)
        self.object_ap.merge(other.object_ap)
        self.part_seg.merge(other.part_seg)
        self.objects_known = self.objects_known and other.objects_known

    def compute(self) -> dict[str, dict[str, float]]:
        """The numbers, in percent: ``part_apr``, ``object_apr`` (when objects are known) and
        ``part_seg``."""
        results = {"part_apr": ap_summary(self.part_ap.compute(), PART_THRESHOLDS, self.part_names)}
        if self.objects_known:
            names = self.object_names if len(self.object_names) > 1 else ()
            results["object_apr"] = ap_summary(self.object_ap.compute(), OBJECT_THRESHOLDS, names)
        results["part_seg"] = self.part_seg.compute(("background", *self.part_names))
        return results


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
    for name, ap in zip(class_names, result.ap.mean(axis=1), strict=False):
        summary[f"{prefix}_vol/{printable(name)}"] = float(ap)
    return {key: 100.0 * float(value) for key, value in summary.items()}


def printable(name: str) -> str:
    """A class name as part of a metric's key: Detectron2 does not print keys with a ``-``."""
    return name.replace("-", "_").replace(" ", "_")


def describe(results: Mapping[str, Mapping[str, float]], protocol: Protocol) -> str:
    """The results as a text table that names the protocol."""
    lines = []
    for task, numbers in results.items():
        label = f"{task} (protocol {protocol.name})" if "apr" in task else task
        lines.append(label)
        width = max(len(key) for key in numbers)
        lines += [f"  {key:<{width}}  {value:7.2f}" for key, value in numbers.items()]
    return "\n".join(lines)
