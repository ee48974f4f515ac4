"""What each way to score a segment is worth: the same regions, ranked by each score."""

from __future__ import annotations

from collections.abc import Sequence

from ...structures import SCORE_NAMES, PartInstances
from ..parsing import Comparison
from ..protocols import Protocol
from ..regions import ObjectAP, PartAP

__all__ = ["ScoreStudy"]


class ScoreStudy:
    """What each score of :data:`SCORE_NAMES` is worth as a ranking: APr_vol of the same regions.

    Args:
        part_names, object_names: of the dataset.
        protocol: of the APs.
    """

    def __init__(
        self, part_names: Sequence[str], object_names: Sequence[str], protocol: Protocol
    ) -> None:
        self.parts = {name: PartAP(part_names, protocol) for name in SCORE_NAMES}
        self.objects = {name: ObjectAP(object_names, protocol) for name in SCORE_NAMES}

    def add(self, comparison: Comparison, result: PartInstances | None) -> None:
        """Add one image; ``result`` is None when there is none."""
        for name in SCORE_NAMES:
            segments = objects = None
            if result is not None:
                segments = result.segment_scores[name].cpu().double().numpy()
                objects = result.object_scores[name].cpu().double().numpy()
            self.parts[name].add(comparison, segments)
            self.objects[name].add(comparison, objects)

    def merge(self, other: ScoreStudy) -> None:
        """Take over the images of another process."""
        for name in SCORE_NAMES:
            self.parts[name].merge(other.parts[name])
            self.objects[name].merge(other.objects[name])

    def compute(self) -> dict[str, float]:
        """``part_APr_vol/<score>``, ``object_APr_vol/<score>``, the same at 50, and what the
        best possible ranking would give, in percent."""
        results = {}
        for kind, metrics in (("part", self.parts), ("object", self.objects)):
            for name, metric in metrics.items():
                numbers = metric.compute()
                results[f"{kind}_APr_vol/{name}"] = numbers["APr_vol"]
                results[f"{kind}_APr50/{name}"] = numbers["APr50"]
            results[f"{kind}_APr_vol/oracle"] = numbers["APr_oracle"]
        return results
