"""Region average precision (APr) under the protocols of the literature.

Plain arrays in, numbers out: :class:`AveragePrecision` is fed the pairwise IoUs of one image at
a time and keeps a few bytes per predicted region, so memory does not depend on image sizes.
The masks themselves are compared elsewhere: disjoint label maps by one histogram of paired ids
(:mod:`.contingency`), overlapping masks by pycocotools.

Letters: M predictions and G ground truths of one image; C classes; T thresholds; R predictions
of one class over all images, by descending score.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .protocols import PROTOCOLS, Protocol, get_protocol
from .region_matching import NOT_COUNTED, TRUE_POSITIVE, count_attainable, match

__all__ = [
    "PROTOCOLS",
    "APResult",
    "AveragePrecision",
    "Protocol",
    "average_precision",
    "get_protocol",
    "match",
    "precision_recall",
]


def precision_recall(flags: NDArray, num_truths: int) -> tuple[NDArray, NDArray]:
    """(R,) precision and (R,) recall after each prediction.

    Args:
        flags: (R,) :func:`match`'s flags by descending score; those not counted are left out.
        num_truths: ground truths of the class, at least 1.
    """
    counted = flags[flags != NOT_COUNTED]
    hits = np.cumsum(counted == TRUE_POSITIVE)
    return hits / np.arange(1, len(counted) + 1), hits / num_truths


def average_precision(flags: NDArray, num_truths: int, integral: str) -> float:
    """Integrate precision over recall by :attr:`Protocol.integral`; NaN without ground truth.

    Args:
        flags: (R,) :func:`match`'s flags by descending score.
        num_truths: ground truths of the class.
        integral: ``"all_points"``, ``"11_points"``, ``"101_points"`` or ``"sum"``.

    Raises:
        ValueError: another integral.
    """
    if integral not in ("all_points", "11_points", "101_points", "sum"):
        raise ValueError(f"Unknown integral {integral!r}.")
    if num_truths == 0:
        return float("nan")
    precision, recall = precision_recall(flags, num_truths)
    good = flags[flags != NOT_COUNTED] == TRUE_POSITIVE
    if integral == "sum":
        return float(precision[good].sum() / num_truths)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if integral == "all_points":
        # Recall rises by 1/num_truths at each true positive and nowhere else.
        return float(envelope[good].sum() / num_truths)
    # k / 10 is the decimal itself, so a recall of 0.3 is not missed as it is by 0.1 * 3. The
    # 101 points are those of pycocotools, to the last bit.
    points = np.arange(11) / 10 if integral == "11_points" else np.linspace(0.0, 1.0, 101)
    at = np.searchsorted(recall, points, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


@dataclass(frozen=True)
class APResult:
    """AP of every class and threshold, as fractions (1.0 is perfect).

    Attributes:
        protocol: what the numbers mean.
        ap: (C, T) NaN (or 0, by the protocol) for a class without ground truth.
        oracle: (C, T) AP under the best possible ranking of the same predictions.
        num_truths: (C,) ground truths that count.
        num_predictions: (C,) predictions.
        num_images: images that count.
        ranked: one (R, T) array of flags a class, by descending score.
    """

    protocol: Protocol
    ap: NDArray[np.float64]
    oracle: NDArray[np.float64]
    num_truths: NDArray[np.int64]
    num_predictions: NDArray[np.int64]
    num_images: int
    ranked: tuple[NDArray[np.int8], ...]

    def mean(self, ap: NDArray | None = None) -> NDArray[np.float64]:
        """(T,) mean over the classes that the protocol counts, of ``ap`` (or of ``oracle``)."""
        ap = self.ap if ap is None else ap
        if self.protocol.absent != "skip":
            return ap.mean(axis=0)
        present = self.num_truths > 0
        return ap[present].mean(axis=0) if present.any() else np.full(ap.shape[1], np.nan)

    def at(self, threshold: float) -> float:
        """Mean AP over classes at one IoU threshold.

        Raises:
            ValueError: the protocol does not have that threshold.
        """
        if threshold not in self.protocol.thresholds:
            raise ValueError(
                f"Protocol {self.protocol.name!r} has no IoU threshold {threshold}; it has "
                f"{self.protocol.thresholds}."
            )
        return float(self.mean()[self.protocol.thresholds.index(threshold)])

    @property
    def volume(self) -> float:
        """Mean over classes and thresholds: AP_vol."""
        return float(self.mean().mean())

    def precision_recall(self, class_index: int, threshold: float) -> tuple[NDArray, NDArray]:
        """(R,) precision and recall of one class at one threshold of the protocol."""
        column = self.protocol.thresholds.index(threshold)
        flags = self.ranked[class_index][:, column]
        return precision_recall(flags, max(int(self.num_truths[class_index]), 1))


@dataclass(frozen=True)
class _ImageRecord:
    """What is kept of one image: (M,) scores and classes, (M, T) flags, sparse counts."""

    scores: NDArray[np.float64]
    classes: NDArray[np.int32]
    flags: NDArray[np.int8]
    truth_classes: NDArray[np.int32]
    attainable: dict[int, NDArray[np.int64]]


def _rank(image_id: Hashable) -> tuple[bool, int, str]:
    if isinstance(image_id, int | np.integer):
        return False, int(image_id), ""
    return True, 0, str(image_id)


class AveragePrecision:
    """Accumulates images, then computes the AP of every class and threshold.

    The result does not depend on the order in which images come, nor on how they are spread
    over accumulators that are then merged: equal scores rank by image id (whole numbers as
    numbers, all others as text), and within an image as they were given.
    """

    def __init__(self, num_classes: int, protocol: str | Protocol = "sds") -> None:
        self.num_classes = num_classes
        self.protocol = get_protocol(protocol)
        self._images: dict[Hashable, _ImageRecord] = {}

    def add(
        self,
        image_id: Hashable,
        *,
        scores: ArrayLike,
        classes: ArrayLike,
        ious: ArrayLike,
        truth_classes: ArrayLike,
        truth_crowd: ArrayLike | None = None,
        has_prediction: bool = True,
    ) -> None:
        """Add one image.

        Args:
            image_id: any name of the image; an image is added once.
            scores: (M,) any real numbers, higher is surer.
            classes: (M,) predicted classes, 0..C-1.
            ious: (M, G) pairwise IoU, whatever the classes (see :func:`match` for crowds).
            truth_classes: (G,) classes of the ground truth, 0..C-1.
            truth_crowd: (G,) bool crowd flags.
            has_prediction: False when nothing was submitted for the image, which some protocols
                leave out; an empty submission is True.

        Raises:
            ValueError: the image was added before, shapes that disagree, a class out of range,
                a score or IoU that is not a number.
        """
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
        classes = np.asarray(classes, dtype=np.int32).reshape(-1)
        truth_classes = np.asarray(truth_classes, dtype=np.int32).reshape(-1)
        ious = np.asarray(ious, dtype=np.float64).reshape(len(scores), len(truth_classes))
        self._check(image_id, scores, classes, ious, truth_classes)
        if not has_prediction and self.protocol.images == "predicted":
            return
        crowd = np.zeros(len(truth_classes), dtype=bool)
        if truth_crowd is not None:
            crowd = np.asarray(truth_crowd, dtype=bool)
        kept = self._within_max_detections(scores, classes)
        scores, classes = scores[kept], classes[kept]
        ious = np.where(classes[:, None] == truth_classes[None], ious[kept], 0.0)
        self._images[image_id] = _ImageRecord(
            scores=scores,
            classes=classes,
            flags=match(ious, scores, self.protocol, crowd),
            truth_classes=truth_classes[~crowd],
            attainable={
                int(c): count_attainable(
                    ious[np.ix_(classes == c, (truth_classes == c) & ~crowd)], self.protocol
                )
                for c in np.intersect1d(classes, truth_classes)
            },
        )

    def merge(self, other: AveragePrecision) -> None:
        """Take over the images of an accumulator of another process.

        Raises:
            ValueError: another protocol or number of classes, or an image that both have.
        """
        if (other.protocol, other.num_classes) != (self.protocol, self.num_classes):
            raise ValueError(
                f"Cannot merge {other.protocol.name!r} over {other.num_classes} classes into "
                f"{self.protocol.name!r} over {self.num_classes}."
            )
        for image_id, record in other._images.items():
            if image_id in self._images:
                raise ValueError(f"Image {image_id!r} was evaluated twice.")
            self._images[image_id] = record

    def compute(self) -> APResult:
        """AP over all images so far."""
        records = [self._images[key] for key in sorted(self._images, key=_rank)]
        shape = (self.num_classes, len(self.protocol.thresholds))
        ap, oracle = np.zeros(shape), np.zeros(shape)
        num_truths = np.zeros(self.num_classes, dtype=np.int64)
        attainable = np.zeros(shape, dtype=np.int64)
        for record in records:
            num_truths += np.bincount(record.truth_classes, minlength=self.num_classes)
            for index, counts in record.attainable.items():
                attainable[index] += counts
        scores = np.concatenate([r.scores for r in records] or [np.zeros(0)])
        classes = np.concatenate([r.classes for r in records] or [np.zeros(0, np.int32)])
        flags = np.concatenate([r.flags for r in records] or [np.zeros((0, shape[1]), np.int8)])
        ranked = []
        for index in range(self.num_classes):
            members = np.flatnonzero(classes == index)
            order = members[np.argsort(-scores[members], kind="stable")]
            ranked.append(flags[order])
            ap[index] = self._class_ap(flags[order], num_truths[index])
            best = np.arange(len(order))[:, None] < attainable[index][None]
            oracle[index] = self._class_ap(best.astype(np.int8), num_truths[index])
        self._warn(ap, num_truths)
        return APResult(
            protocol=self.protocol,
            ap=ap,
            oracle=oracle,
            num_truths=num_truths,
            num_predictions=np.bincount(classes, minlength=self.num_classes),
            num_images=len(records),
            ranked=tuple(ranked),
        )

    def _class_ap(self, flags: NDArray, num_truths: int) -> NDArray[np.float64]:
        if num_truths == 0 and not len(flags) and self.protocol.absent == "zero":
            return np.zeros(flags.shape[1])
        columns = range(flags.shape[1])
        return np.array(
            [average_precision(flags[:, t], num_truths, self.protocol.integral) for t in columns]
        )

    def _within_max_detections(self, scores: NDArray, classes: NDArray) -> NDArray[np.int64]:
        limit = self.protocol.max_detections
        if limit is None or len(scores) <= limit:
            return np.arange(len(scores))
        kept = [
            members[np.argsort(-scores[members], kind="stable")[:limit]]
            for members in (np.flatnonzero(classes == c) for c in np.unique(classes))
        ]
        return np.sort(np.concatenate(kept))

    def _check(self, image_id, scores, classes, ious, truth_classes) -> None:
        where = f"Image {image_id!r}:"
        if image_id in self._images:
            raise ValueError(f"Image {image_id!r} was evaluated twice.")
        if len(scores) != len(classes):
            raise ValueError(f"{where} {len(scores)} scores for {len(classes)} predictions.")
        if not np.isfinite(scores).all():
            raise ValueError(f"{where} a score is NaN or infinite.")
        if not np.isfinite(ious).all():
            raise ValueError(f"{where} an IoU is NaN or infinite.")
        for name, values in (("predicted", classes), ("ground-truth", truth_classes)):
            if len(values) and not 0 <= values.min() <= values.max() < self.num_classes:
                raise ValueError(
                    f"{where} {name} classes span {values.min()}..{values.max()}, expected "
                    f"0..{self.num_classes - 1}."
                )

    def _warn(self, ap: NDArray, num_truths: NDArray) -> None:
        defect = (ap > 1 + 1e-9).any() or (
            self.protocol.absent != "skip" and (num_truths == 0).any()
        )
        if defect and self.protocol.warning:
            message = f"Protocol {self.protocol.name!r} as published: {self.protocol.warning}."
            warnings.warn(message, stacklevel=3)
