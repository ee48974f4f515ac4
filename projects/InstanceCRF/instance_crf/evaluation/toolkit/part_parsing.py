"""Every metric of instance-level part parsing, image by image, each image read once.

Letters: P parts; C object classes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..parsing import Comparison, Parsing
from ..protocols import COCO_THRESHOLDS, PROTOCOLS, Protocol, get_protocol
from ..regions import ObjectAP, PartAP
from ..semantic import MeanIoU
from .panoptic import PanopticMetrics
from .person import PersonAP

__all__ = ["METRICS", "PartParsingMetrics", "Results", "format_results", "without_nan"]

Results: TypeAlias = dict[str, dict[str, float]]

METRICS = ("part_apr", "object_apr", "part_seg", "person_ap", "panoptic")
"""``part_apr``, ``object_apr``: APr of part segments and of objects under each protocol asked
for. ``part_seg``: mean IoU. ``person_ap``: APp, PCP and APh. ``panoptic``: PQ and PartPQ."""


class PartParsingMetrics:
    """Accumulates the metrics of a data set, one image at a time.

    The numbers do not depend on the order of images, nor on how they were spread over
    accumulators that :meth:`merge` joins, to the last digit.

    Args:
        part_names: (P,) names of parts 1..P.
        object_names: (C,) names of the object classes.
        protocols: of the part and the object AP. The first one's numbers are called
            ``part_apr`` and ``object_apr``, those of others ``part_apr_<protocol>``.
        metrics: which of :data:`METRICS`.
    """

    def __init__(
        self,
        part_names: Sequence[str],
        object_names: Sequence[str],
        protocols: str | Protocol | Sequence[str | Protocol] = "sds",
        metrics: Iterable[str] = METRICS,
    ) -> None:
        if isinstance(protocols, (str, Protocol)):
            protocols = (protocols,)
        self.protocols = tuple(get_protocol(p) for p in protocols)
        chosen = tuple(metrics)
        unknown = set(chosen) - set(METRICS)
        if unknown:
            raise ValueError(f"Unknown metrics {sorted(unknown)}; known: {', '.join(METRICS)}.")
        self.parts: dict[str, PartAP] = {}
        self.objects: dict[str, ObjectAP] = {}
        for index, protocol in enumerate(self.protocols):
            suffix = f"_{protocol.name}" if index else ""
            if "part_apr" in chosen:
                self.parts[f"part_apr{suffix}"] = PartAP(part_names, protocol)
            if "object_apr" in chosen:
                self.objects[f"object_apr{suffix}"] = ObjectAP(object_names, protocol)
        self.part_seg = MeanIoU(("background", *part_names)) if "part_seg" in chosen else None
        self.persons = self.humans = self.panoptic = None
        if "person_ap" in chosen:
            self.persons = PersonAP(len(part_names), object_names)
            self.humans = ObjectAP(
                object_names,
                PROTOCOLS["aph"],
                class_agnostic=True,
                prefix="APh",
                thresholds=COCO_THRESHOLDS[:1],
            )
        if "panoptic" in chosen:
            self.panoptic = PanopticMetrics(part_names, object_names)

    def _all(self) -> list:
        others = (self.part_seg, self.persons, self.humans, self.panoptic)
        return [*self.parts.values(), *self.objects.values(), *(m for m in others if m)]

    def add(self, image_id: Hashable, prediction: Parsing | None, truth: Parsing) -> Comparison:
        """Add one image, and return the comparison that all metrics used.

        Args:
            image_id: its name; an image is added once.
            prediction: None when there is none; its ground truth still counts, unless a
                protocol leaves such images out.
            truth: the ground truth.

        Raises:
            ValueError: maps of different sizes; a part, class or score that cannot be; an image
                that was added before.
        """
        comparison = Comparison.of(image_id, prediction, truth)
        for metric in self._all():
            metric.add(comparison)
        return comparison

    def merge(self, other: PartParsingMetrics) -> None:
        """Take over the images of an accumulator of another process."""
        for mine, theirs in zip(self._all(), other._all(), strict=True):
            mine.merge(theirs)

    def compute(self) -> Results:
        """Task -> number -> percent. A task whose input was missing (objects or scores are not
        known) is left out."""
        results = {
            name: metric.compute()
            for name, metric in (*self.parts.items(), *self.objects.items())
            if metric.available
        }
        if self.part_seg:
            results["part_seg"] = self.part_seg.compute()
        if self.persons and self.humans and self.persons.available and self.humans.available:
            results["person_ap"] = self.persons.compute() | self.humans.compute()
        if self.panoptic:
            results["panoptic"] = self.panoptic.compute()
        return results

    def protocol_of(self, task: str) -> str | None:
        """The name of the protocol behind a task's numbers."""
        metric = self.parts.get(task) or self.objects.get(task)
        if metric is not None:
            return metric.protocol.name
        return {"person_ap": "app, aph"}.get(task)


def format_results(
    results: Mapping[str, Mapping[str, float]],
    metrics: PartParsingMetrics,
    caveats: Mapping[str, str | None] | None = None,
) -> str:
    """The results as a text table, the protocol beside each task's name.

    Args:
        results: of ``metrics``.
        metrics: what computed them.
        caveats: protocol -> what the files cannot tell of it.
    """
    lines = []
    for task, numbers in results.items():
        protocol = metrics.protocol_of(task)
        lines.append(task + (f"  [protocol {protocol}]" if protocol else ""))
        if caveats and caveats.get(protocol):
            lines.append(f"    {protocol} here: {caveats[protocol]}")
        summary = {k: v for k, v in numbers.items() if "/" not in k}
        classes = {k: v for k, v in numbers.items() if "/" in k}
        lines += _rows(summary) + _rows(classes)
    return "\n".join(lines)


def without_nan(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results, nested as deep as they are, as JSON can hold them: None in the place of NaN."""

    def value_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return without_nan(value)
        return None if math.isnan(value) else value

    return {key: value_of(value) for key, value in results.items()}


def _rows(numbers: Mapping[str, float], per_row: int = 5) -> list[str]:
    cells = [f"{key} {value:.2f}" for key, value in numbers.items()]
    width = max((len(cell) for cell in cells), default=0) + 3
    rows = [cells[i : i + per_row] for i in range(0, len(cells), per_row)]
    return ["    " + "".join(cell.ljust(width) for cell in row).rstrip() for row in rows]
