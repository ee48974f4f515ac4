"""Whose the pixels of photographs are, where only whole people are annotated, and no parts.

A person map says for every pixel which of the detections it belongs to. Measured are

* AP50: average precision of people at mask IoU 0.5, ranked by a score over all photographs; the
  sum of the precisions, made to fall with the rank, at each hit, over the number of people;
* mIoU: mean IoU of all true people, each with its own prediction (the best pairing);
* contested: of the pixels of found people (a box of IoU 0.5 with the person's own, pairs chosen
  greedily) inside two or more boxes, those given to the right person, of those given to anybody;
* answered: of these pixels, those given to anybody.

Letters: D detections, G true people, K photographs, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

__all__ = [
    "PERSON_MAP_METRICS",
    "PersonMapCounts",
    "bootstrap",
    "compare_person_maps",
    "interval_ends",
    "match_boxes",
    "metric_cells",
    "numbered_by_detection",
    "summarize",
    "tight_boxes",
    "without_gaps",
]

PERSON_MAP_METRICS = ("AP50", "mIoU", "contested", "answered")
"""The columns of `summarize` and `bootstrap`, in percent."""

_IOU = 0.5
_SAMPLES = 100


@dataclass(frozen=True)
class PersonMapCounts:
    """What one photograph adds.

    Attributes:
        ious: (G,) IoU of each true person.
        contested, answered, right: numbers of pixels, each among the one before.
        scores: (D',) of the people predicted, highest first; none where people are left out of the
            truth, for AP cannot tell them from false alarms.
        hits: (D',) bool, which of them are true.
        positives: the number of people to be found, G or 0.
    """

    ious: NDArray
    contested: int
    answered: int
    right: int
    scores: NDArray
    hits: NDArray
    positives: int


def compare_person_maps(
    predicted: NDArray,
    truth: NDArray,
    boxes: NDArray,
    scores: NDArray,
    *,
    truth_complete: bool = True,
) -> PersonMapCounts:
    """Compare one photograph's person map with the truth.

    Args:
        predicted: (H, W) integers, 0 nobody, i + 1 detection i.
        truth: (H, W) integers, 0 nobody, 1..G, negative: does not count.
        boxes: (D, 4) the detections' x1 y1 x2 y2 in pixel edges.
        scores: (D,) what ranks the people predicted.
        truth_complete: whether everybody is annotated; otherwise nothing is said about AP.

    Raises:
        ValueError: maps of different sizes, a person without a box, boxes and scores that are not
            finite or not as many.
    """
    if (
        boxes.shape != (len(scores), 4)
        or not (np.isfinite(boxes).all(1) & np.isfinite(scores)).all()
    ):
        raise ValueError(
            f"There are boxes {boxes.shape} and scores {scores.shape}; they must be (D, 4) and "
            "(D,), all finite."
        )
    if predicted.shape != truth.shape:
        raise ValueError(f"The person map is {predicted.shape}, its truth {truth.shape} (H, W).")
    low, high = predicted.min(initial=0), predicted.max(initial=0)
    if low < 0 or high > len(boxes):
        raise ValueError(f"The person map has persons {low}..{high}, there are {len(boxes)} boxes.")
    counted, people = truth >= 0, int(truth.max(initial=0))
    pairs = predicted[counted].astype(int) * (people + 1) + truth[counted]
    table = np.bincount(pairs, minlength=(len(boxes) + 1) * (people + 1))
    table = table.reshape(len(boxes) + 1, people + 1)
    ious = _ious(table)
    best = np.zeros(people)
    rows, columns = linear_sum_assignment(-ious)
    best[columns] = ious[rows, columns]

    owner = np.append(0, match_boxes(boxes, tight_boxes(truth)) + 1)[np.maximum(truth, 0)]
    contested = (owner > 0) & counted & (_claims(boxes, truth.shape) >= 2)
    answered = contested & (predicted > 0)
    right = answered & (predicted == owner)

    whole = np.bincount(predicted.reshape(-1), minlength=len(boxes) + 1)[1:]
    judged = (whole > 0) & (table[1:].sum(1) >= 0.5 * whole) & truth_complete
    ranked = np.array([i for i in np.argsort(-scores, kind="stable") if judged[i]], int)
    return PersonMapCounts(
        ious=best,
        contested=int(contested.sum()),
        answered=int(answered.sum()),
        right=int(right.sum()),
        scores=scores[ranked],
        hits=_hits(ious[ranked]),
        positives=people if truth_complete else 0,
    )


def tight_boxes(truth: NDArray) -> NDArray:
    """(G, 4) x1 y1 x2 y2 in pixel edges around persons 1..G of an (H, W) map."""
    boxes = np.zeros((int(truth.max(initial=0)), 4))
    for person, box in enumerate(boxes, start=1):
        y, x = np.nonzero(truth == person)
        if len(y):
            box[:] = x.min(), y.min(), x.max() + 1, y.max() + 1
    return boxes


def without_gaps(people: NDArray) -> NDArray[np.int32]:
    """(H, W) ids, of which those above 0 become 1..G in their order: a number without a pixel
    would be a person whom nobody finds."""
    ids = np.unique(people[people > 0])
    return np.where(people > 0, np.searchsorted(ids, people) + 1, people).astype(np.int32)


def match_boxes(boxes: NDArray, truth_boxes: NDArray) -> NDArray:
    """(G,) the detection of each true person, -1 for none: greedy, from the best IoU to 0.5."""
    detection = np.full(len(truth_boxes), -1)
    size = np.minimum(boxes[:, None, 2:], truth_boxes[None, :, 2:])
    size = (size - np.maximum(boxes[:, None, :2], truth_boxes[None, :, :2])).clip(0)
    overlap = size.prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, truth_boxes)]
    ious = overlap / np.maximum(areas[0][:, None] + areas[1][None] - overlap, 1e-9)
    for flat in np.argsort(-ious, axis=None, kind="stable"):
        i, person = divmod(int(flat), ious.shape[1])
        if ious[i, person] < _IOU:
            break
        if detection[person] < 0 and i not in detection:
            detection[person] = i
    return detection


def numbered_by_detection(
    object_map: NDArray, detection: NDArray, scores: NDArray, count: int
) -> tuple[NDArray, NDArray]:
    """A result's objects under the numbers of all detections: those without a pixel have a say in
    what is contested, too.

    Args:
        object_map: (H, W) integers, 0 nobody, 1..n.
        detection: (n,) the detection of each object, 0..D-1.
        scores: (n,) of the objects.
        count: D.

    Returns:
        (H, W) person map, 0 nobody, i + 1 detection i; (D,) scores, 0 for who won nothing.
    """
    of_detection = np.zeros(count)
    of_detection[detection] = scores
    numbers = np.append(np.zeros(1, detection.dtype), detection + 1)
    return numbers[object_map], of_detection


def summarize(counts: Sequence[PersonMapCounts]) -> NDArray:
    """(4,) PERSON_MAP_METRICS over all photographs, in percent."""
    return _weighted(counts, np.ones((1, len(counts)), int))[0]


def bootstrap(counts: Sequence[PersonMapCounts], samples: int, seed: int = 0) -> NDArray:
    """(B, 4) PERSON_MAP_METRICS of B samples of the photographs, drawn with replacement.

    Equal seeds draw equal samples: differences between two systems are paired.
    """
    drawn = np.random.default_rng(seed).integers(len(counts), size=(samples, len(counts)))
    times = np.stack([np.bincount(d, minlength=len(counts)) for d in drawn])
    # Few samples at a time: each has a number for every person predicted.
    pieces = [times[i : i + _SAMPLES] for i in range(0, samples, _SAMPLES)]
    return np.concatenate([_weighted(counts, piece) for piece in pieces])


def interval_ends(differences: NDArray) -> NDArray:
    """(B, 4) differences of two systems' samples -> (4, 2) where 95 % of them lie."""
    return np.percentile(differences, [2.5, 97.5], axis=0).T


def metric_cells(
    values: Mapping[str, float], interval: Mapping[str, Sequence[float]] | None = None
) -> list[str]:
    """PERSON_MAP_METRICS as a table has them, the interval in brackets where it means something."""
    cells = [f"{values[metric]:.1f}" for metric in PERSON_MAP_METRICS]
    if interval is None:
        return cells
    return [
        cell if metric == "answered" else cell + " ({:+.1f} to {:+.1f})".format(*interval[metric])
        for metric, cell in zip(PERSON_MAP_METRICS, cells, strict=True)
    ]


def _weighted(counts: Sequence[PersonMapCounts], times: NDArray) -> NDArray:
    """(B, 4) percent; ``times`` (B, K), how often each photograph counts."""

    def total(values: list) -> NDArray:
        return times @ np.array(values)

    ious = total([c.ious.sum() for c in counts]) / _at_least_1(total([len(c.ious) for c in counts]))
    contested, answered, right = (
        total([getattr(c, name) for c in counts]) for name in ("contested", "answered", "right")
    )
    columns = (
        _average_precision(counts, times) / _at_least_1(total([c.positives for c in counts])),
        ious,
        right / _at_least_1(answered),
        answered / _at_least_1(contested),
    )
    return 100 * np.stack(columns, axis=1)


def _average_precision(counts: Sequence[PersonMapCounts], times: NDArray) -> NDArray:
    """(B,) sum of the precisions at the hits. That a photograph counts twice is a weight: the
    precision made to fall is the same at a hit and at its copies."""
    order = np.argsort(-np.concatenate([c.scores for c in counts]), kind="stable")
    hits = np.concatenate([c.hits for c in counts])[order]
    photograph = np.repeat(np.arange(len(counts)), [len(c.hits) for c in counts])[order]
    weights = times[:, photograph]
    precision = np.cumsum(weights * hits, axis=1) / _at_least_1(np.cumsum(weights, axis=1))
    falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (weights * hits * falling).sum(1)


def _ious(table: NDArray) -> NDArray:
    """(D + 1, G + 1) pixel counts -> (D, G) IoU."""
    common = table[1:, 1:]
    union = table[1:].sum(1)[:, None] + table[:, 1:].sum(0)[None] - common
    return common / np.maximum(union, 1)


def _hits(ious: NDArray) -> NDArray:
    """(D', G) IoU, best-ranked first -> (D',) bool: each takes the best person not taken yet."""
    free = np.ones(ious.shape[1], bool)
    hits = np.zeros(len(ious), bool)
    for i, row in enumerate(ious):
        possible = np.where(free & (row >= _IOU), row, 0)
        if possible.any():
            free[possible.argmax()] = False
            hits[i] = True
    return hits


def _claims(boxes: NDArray, size: tuple[int, int]) -> NDArray:
    """(H, W) in how many boxes the centre of each pixel lies."""
    y, x = (np.arange(length) + 0.5 for length in size)
    claims = np.zeros(size, int)
    for x1, y1, x2, y2 in boxes:
        claims += ((y1 <= y) & (y < y2))[:, None] & ((x1 <= x) & (x < x2))
    return claims


def _at_least_1(numbers: NDArray) -> NDArray:
    return np.maximum(numbers, 1)
