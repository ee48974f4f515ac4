"""Results of several seeds as numbers: read, looked up by row and column, paired by seed.

``seed_N/results.json`` of a folder holds::

    {"seed": N, "dataset": its name, "made": [machine and versions, of all that added something],
     "hours": of training, "iterations": {stage: iterations of its own},
     "minutes": {stage: minutes of training by plan, from the first}, "minutes_by_clock": {...},
     "rows": {row: {split: {condition: {task: {metric: percent}}}}},
     "curve": {system: [{"minutes": m, split: {task: {metric: percent}}}, ...]}}

A seed may lack rows: whatever is compared is compared over the seeds that both sides have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..files import read_json

__all__ = [
    "AS_FOUND",
    "Column",
    "Results",
    "Summary",
    "changes",
    "differences",
    "points_of_curve",
    "read_results",
    "row_seeds",
    "shares_won_back",
    "summarize",
    "values",
]

Results: TypeAlias = Mapping[int, Mapping[str, Any]]
"""Seed -> what its results.json holds."""


AS_FOUND = "as found"
"""The condition of boxes that nobody has disturbed."""


class Column(NamedTuple):
    """Where a number of a row is found: what a table's column says, and the keys in the results."""

    heading: str
    split: str
    condition: str
    task: str
    metric: str


class Summary(NamedTuple):
    """The mean over seeds, half the range of their values, and how many seeds there are."""

    mean: float
    spread: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Of differences: whether they are above 0 by more than their spread."""
        if self.seeds < 2:
            return "one seed only"
        if abs(self.mean) <= self.spread:
            return "no"
        return "yes" if self.mean > 0 else "no, the reverse"


def read_results(folder: str | Path, dataset: str | None = None) -> dict[int, dict]:
    """Every ``seed_N/results.json`` of ``folder``, by seed, in their order.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file that is no such JSON, or of another seed than its folder says, or of
            another data set than ``dataset``.
    """
    results = {}
    for path in Path(folder).glob("seed_*/results.json"):
        content = read_json(path, dict)
        seed = content.get("seed")
        if path.parent.name != f"seed_{seed}":
            raise ValueError(f"{path} is of seed {seed!r}, but its folder is {path.parent.name}.")
        if dataset is not None and content.get("dataset") != dataset:
            raise ValueError(
                f"{path} is of the data set {content.get('dataset')!r}, not of {dataset!r}: give "
                "--dataset, or another --output."
            )
        results[seed] = content
    if not results:
        raise FileNotFoundError(f"{folder} has no seed_N/results.json.")
    return dict(sorted(results.items()))


def row_seeds(results: Results, row: str) -> list[int]:
    """The seeds that have something of ``row``."""
    return [seed for seed, content in results.items() if content.get("rows", {}).get(row)]


def values(results: Results, row: str, column: Column) -> dict[int, float]:
    """Seed -> the number of ``row`` in ``column``; seeds without one (None, NaN) are left out."""
    found = {}
    for seed, content in results.items():
        number = _look_up(content, "rows", row, *column[1:])
        if _is_number(number):
            found[seed] = float(number)
    return found


def differences(results: Results, row: str, reference: str, column: Column) -> dict[int, float]:
    """Seed -> by how much ``row`` is above ``reference``, over the seeds that have both."""
    ours, theirs = values(results, row, column), values(results, reference, column)
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def changes(results: Results, row: str, column: Column, condition: str) -> dict[int, float]:
    """Seed -> by how much ``row`` changes under ``condition``, over the seeds that have both."""
    here = values(results, row, column)
    there = values(results, row, column._replace(condition=condition))
    return {seed: there[seed] - here[seed] for seed in here if seed in there}


def shares_won_back(
    results: Results, row: str, box: str, column: Column, shrunk: str
) -> dict[int, float]:
    """Of what ``box`` loses when boxes shrink, the share that ``row`` has more than it then, in %.

    (row shrunk - box shrunk) / (box as found - box shrunk); seeds in which ``box`` loses nothing
    are left out.

    Args:
        results: of all seeds.
        row: whose share.
        box: the row that knows of boxes alone.
        column: of boxes as found.
        shrunk: the condition of shrunk boxes.
    """
    gained = differences(results, row, box, column._replace(condition=shrunk))
    lost = {seed: -change for seed, change in changes(results, box, column, shrunk).items()}
    return {seed: 100 * gained[seed] / lost[seed] for seed in gained if lost.get(seed, 0) > 0}


def summarize(numbers: Mapping[int, float]) -> Summary | None:
    """Seed -> number as one :class:`Summary`; None of nothing."""
    if not numbers:
        return None
    found = list(numbers.values())
    return Summary(math.fsum(found) / len(found), (max(found) - min(found)) / 2, len(found))


def points_of_curve(results: Results, system: str, column: Column) -> list[tuple[Summary, Summary]]:
    """(minutes, number) after each piece of training, each over the seeds that got that far.

    The k-th points of all seeds are one. The column's condition is not looked at: it is
    :data:`AS_FOUND`.
    """
    curves = {seed: content.get("curve", {}).get(system, []) for seed, content in results.items()}
    points = []
    for k in range(max(map(len, curves.values()), default=0)):
        minutes, numbers = {}, {}
        for seed, curve in curves.items():
            point = curve[k] if k < len(curve) else {}
            number = _look_up(point, column.split, column.task, column.metric)
            if _is_number(number):
                minutes[seed], numbers[seed] = float(point["minutes"]), float(number)
        if numbers:
            points.append((summarize(minutes), summarize(numbers)))
    return points


def _look_up(content: object, *keys: str) -> object:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
