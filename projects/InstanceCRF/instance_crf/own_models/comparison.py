"""The numbers of `compare`: every method on every image, tables, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.parsing import parsing_of_result
from ..evaluation.toolkit.part_parsing import PartParsingMetrics
from ..evaluation.toolkit.person_maps import (
    PERSON_MAP_METRICS,
    PersonMapCounts,
    bootstrap,
    compare_person_maps,
    interval_ends,
    metric_cells,
    numbered_by_detection,
    summarize,
)
from ..rules import NEAREST
from ..structures import PartInstances
from ..taxonomies import PartTaxonomy
from .compare_pictures import SketchBook
from .join import Problem
from .methods import FACTORED, Method, make_methods, part_answer
from .truth import Truth

__all__ = ["Comparison", "format_tables", "person_map"]

LEAST_IMAGES = 10
"""Of fewer, an interval says nothing."""

_PART_METRICS = {
    "part APr50": ("part_apr", "APr50"),
    "part APr vol": ("part_apr", "APr_vol"),
    "{} APr50": ("object_apr", "APr50"),
    "{} APr vol": ("object_apr", "APr_vol"),
    "APp50": ("person_ap", "APp50"),
    "part mIoU": ("part_seg", "mIoU"),
}


@dataclass(frozen=True)
class _Judged:
    """One method on one image; ``parts`` of this image alone."""

    person_map: NDArray
    people: PersonMapCounts
    parts: PartParsingMetrics | None


class Comparison:
    """Methods against the truth, image by image.

    Args:
        ranking: "share" or "detection", scores that mean the same for all methods.
        protocol: of the APs of parts.
        ablation: see `make_methods`.
        samples: of the bootstrap.
        sketches: gets the images to be drawn.
    """

    def __init__(
        self,
        *,
        ranking: str = "share",
        protocol: str = "sds",
        ablation: bool = True,
        samples: int = 2000,
        sketches: SketchBook | None = None,
    ) -> None:
        self.ranking, self.protocol, self.samples = ranking, protocol, samples
        self.ablation, self.sketches = ablation, sketches
        self.taxonomy: PartTaxonomy | None = None
        self.images: list[str] = []
        self._methods: list[Method] = []
        self._people: dict[str, list[PersonMapCounts]] = {}
        self._parts: dict[str, PartParsingMetrics] = {}
        self._lacking: dict[str, int] = {}
        self._had: set[str] = set()

    def add(self, name: str, problem: Problem, truth: Truth) -> None:
        """One image, to all methods or, if an exception comes, to none.

        Raises:
            ValueError: a truth of another size, or with other parts than it says.
        """
        if truth.people.shape != problem.size:
            raise ValueError(f"The truth is {truth.people.shape}, the image {problem.size} (H, W).")
        methods = self._methods or make_methods(problem.taxonomy, ablation=self.ablation)
        answer = part_answer(problem)
        judged = {
            method.name: self._judge(name, method.solve(problem, answer), problem, truth)
            for method in methods
            if method.applies(problem)
        }
        self._methods, self.taxonomy = methods, problem.taxonomy
        self.images.append(name)
        for method in methods:
            if method.name not in judged:
                self._lacking[method.name] = self._lacking.get(method.name, 0) + 1
                continue
            if len(problem.detections):
                self._had.add(method.name)
            self._keep(method.name, judged[method.name])
        if self.sketches is not None:
            shown = {m.name for m in methods if m.kind != "without"}
            maps = {key: each.person_map for key, each in judged.items() if key in shown}
            self.sketches.offer(name, problem, answer[0], maps, truth)

    def _judge(self, name: str, result: PartInstances, problem: Problem, truth: Truth) -> _Judged:
        owner, scores = person_map(result, problem, self.ranking)
        boxes = problem.detections.boxes.double().numpy()
        people = compare_person_maps(
            owner, truth.people, boxes, scores, truth_complete=truth.complete
        )
        if truth.parsing is None:
            return _Judged(owner, people, None)
        names = problem.taxonomy.part_names, problem.taxonomy.object_names
        tasks = {task for task, _ in _PART_METRICS.values()}
        parts = PartParsingMetrics(*names, self.protocol, sorted(tasks))
        parts.add(name, parsing_of_result(result, self.ranking), truth.parsing)
        return _Judged(owner, people, parts)

    def _keep(self, method: str, judged: _Judged) -> None:
        self._people.setdefault(method, []).append(judged.people)
        if judged.parts is not None and method in self._parts:
            self._parts[method].merge(judged.parts)
        elif judged.parts is not None:
            self._parts[method] = judged.parts

    @property
    def methods(self) -> list[Method]:
        """Those that every image had what they need for."""
        return [
            m
            for m in self._methods
            if m.name not in self._lacking and (m.needs is None or m.name in self._had)
        ]

    @property
    def num_people(self) -> int:
        """In the truth of all images."""
        return sum(len(counts.ious) for counts in self._people[NEAREST])

    @property
    def notes(self) -> list[str]:
        """Which methods only some images had what they need for."""
        return [
            f"'{m.name}' is left out: {self._lacking[m.name]} of {len(self.images)} images have "
            f"no {m.needs}."
            for m in self._methods
            if m.name in self._lacking and m.name in self._had
        ]

    @property
    def noun(self) -> str:
        """What the objects are called."""
        people = self.taxonomy is None or self.taxonomy.object_names == ("person",)
        return "people" if people else "objects"

    def rows(self) -> list[dict]:
        """The numbers of each method, in percent; None where there is none.

        ``people``: PERSON_MAP_METRICS; ``interval``: 95 % of their differences to the nearest
        centre, over the images, paired; ``parts``: of parts, if the truth has any.
        """
        base, rows = self._drawn(NEAREST), []
        for method in self.methods:
            counts = self._people[method.name]
            row = {"row": method.name, "kind": method.kind, "people": _named(summarize(counts))}
            if method.name != NEAREST:
                row["interval"] = _named(interval_ends(self._drawn(method.name) - base))
            if method.name in self._parts:
                row["parts"] = self._part_numbers(self._parts[method.name])
            rows.append(row)
        return rows

    def _part_numbers(self, metrics: PartParsingMetrics) -> dict[str, float | None]:
        noun = "person" if self.noun == "people" else "object"
        results = metrics.compute()
        numbers = {
            column.format(noun): results.get(task, {}).get(key, math.nan)
            for column, (task, key) in _PART_METRICS.items()
        }
        return {column: None if math.isnan(v) else v for column, v in numbers.items()}

    def conclusion(self, rows: Sequence[dict]) -> dict:
        """Whether the factored CRF is better than the simple rules.

        Args:
            rows: of :meth:`rows`.

        Returns:
            ``sentence``; ``verdict`` "better", "worse" or "open", by AP50, or mIoU if no truth is
            complete; ``rule``, the simple one that is best by this; and ``differences``: of each
            measure, to the ``rule`` that is best by it, with the 95 % ``interval``.
        """
        images = f"{len(self.images)} photograph" + "s" * (len(self.images) != 1)
        if not self.num_people:
            sentence = f"The truth of these {images} has nobody: there is nothing to compare."
            return {"sentence": sentence, "verdict": "open", "rule": NEAREST, "differences": {}}
        counts = self._people[NEAREST]
        measures = ["AP50"] * any(c.positives for c in counts) + ["mIoU"]
        measures += ["contested"] * any(c.contested for c in counts)
        differences = {m: self._to_best_rule(rows, m) for m in measures}
        first = differences[measures[0]]
        verdict = "open"
        if len(self.images) >= LEAST_IMAGES:
            low, high = first["interval"]
            verdict = "better" if low > 0 else "worse" if high < 0 else "open"
        return {
            "sentence": self._sentence(images, verdict, differences, _parts_gained(rows)),
            "verdict": verdict,
            "rule": first["rule"],
            "differences": differences,
        }

    def _to_best_rule(self, rows: Sequence[dict], measure: str) -> dict:
        numbers = {row["row"]: row["people"][measure] for row in rows}
        simple = [row["row"] for row in rows if row["kind"] == "simple"]
        rule = max(simple, key=numbers.__getitem__)
        ends = interval_ends(self._drawn(FACTORED) - self._drawn(rule))
        return {
            "rule": rule,
            "difference": numbers[FACTORED] - numbers[rule],
            "interval": _named(ends)[measure],
        }

    def _drawn(self, method: str) -> NDArray:
        return bootstrap(self._people[method], self.samples)

    def _sentence(self, images: str, verdict: str, differences: dict, gained: str) -> str:
        numbers = ", ".join(
            f"{measure} {d['difference']:+.1f} [{d['interval'][0]:+.1f}, {d['interval'][1]:+.1f}] "
            f"({d['rule']})"
            for measure, d in differences.items()
        )
        where = f"On these {images} ({self.num_people} {self.noun})"
        if len(self.images) < LEAST_IMAGES:
            start = f"{where}, too few for a verdict, the factored CRF gains over"
        elif verdict == "open":
            start = f"{where} the factored CRF is neither better nor worse, beyond chance, than"
        else:
            start = f"{where} the factored CRF is {verdict} than"
        return (
            f"{start} the best simple rule: {numbers}{gained}. These are points, with "
            "95 % intervals over the photographs, each to the rule that is best by the measure."
        )


def person_map(
    result: PartInstances, problem: Problem, ranking: str
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """(H, W) whose each pixel is, 0 nobody, i + 1 detection i of the problem; and (D,) what ranks
    the detections, 0 for those that won nothing."""
    number = {row: i for i, row in enumerate(problem.detections.index.tolist())}
    return numbered_by_detection(
        result.object_map.cpu().numpy(),
        np.array([number[row] for row in result.detection_index.tolist()], np.int32),
        result.object_scores[ranking].cpu().numpy(),
        len(problem.detections),
    )


def format_tables(rows: Sequence[dict]) -> Iterator[str]:
    """Lines of Markdown: parts, where there are any, and people."""
    if any("parts" in row for row in rows):
        columns = list(next(row["parts"] for row in rows if "parts" in row))
        yield from _table_head(columns)
        for row in rows:
            cells = ["–" if v is None else f"{v:.1f}" for v in row.get("parts", {}).values()]
            yield f"| {row['row']} | {' | '.join(cells)} |"
        yield ""
    yield from _table_head(PERSON_MAP_METRICS)
    for row in rows:
        cells = metric_cells(row["people"], row.get("interval"))
        yield f"| {row['row']} | {' | '.join(cells)} |"


def _table_head(columns: Sequence[str]) -> Iterator[str]:
    yield f"| | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"


def _named(values: NDArray) -> dict:
    return dict(zip(PERSON_MAP_METRICS, values.tolist(), strict=True))


def _parts_gained(rows: Sequence[dict]) -> str:
    """The same of the first number about parts, which has no interval."""
    numbers = {
        row["row"]: (row["kind"], *next(iter(row["parts"].items())))
        for row in rows
        if "parts" in row and row["kind"] in ("simple", "factored")
    }
    if FACTORED not in numbers or any(value is None for _, _, value in numbers.values()):
        return ""
    _, measure, ours = numbers.pop(FACTORED)
    rule = max(numbers, key=lambda name: numbers[name][2])
    return f", {measure} {ours - numbers[rule][2]:+.1f} ({rule})"
