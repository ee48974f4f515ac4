"""Part segmentation: the mean intersection over union of Table 3.

Letters: K classes, background included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .contingency import IGNORE
from .parsing import Comparison
from .regions import percent, printable

__all__ = ["MeanIoU"]


class MeanIoU:
    """Confusion of parts over all pixels of all images, background included.

    Pixels that the ground truth ignores do not count. A class without a pixel in ground truth
    and prediction has no IoU: it is NaN and left out of the mean. A class that is only predicted
    has IoU 0, in the mean.

    Args:
        names: (K,) class names; the first is background.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.available = True
        self.confusion = np.zeros((len(self.names), len(self.names)), dtype=np.int64)
        """(K, K) pixels, ground truth by prediction."""

    def add(self, comparison: Comparison) -> None:
        """Add one image.

        Raises:
            ValueError: a part id that does not exist.
        """
        table = comparison.table
        predicted, true = table.prediction.part, table.truth.part
        for side, parts in (("predicted", predicted), ("ground-truth", true)):
            if parts.max(initial=0) >= len(self.names):
                raise ValueError(
                    f"Image {comparison.image_id!r}: {side} part id {parts.max()}, expected "
                    f"0..{len(self.names) - 1}."
                )
        if predicted.min(initial=0) < 0:
            raise ValueError(
                f"Image {comparison.image_id!r}: a prediction cannot have ignored pixels."
            )
        counted = true != IGNORE
        counts = table.counts[:, counted]
        rows = np.broadcast_to(true[counted], counts.shape)
        columns = np.broadcast_to(predicted[:, None], counts.shape)
        np.add.at(self.confusion, (rows, columns), counts)

    def merge(self, other: MeanIoU) -> None:
        """Add the pixels of another process."""
        self.confusion += other.confusion

    def iou(self) -> NDArray[np.float64]:
        """(K,) IoU of each class, NaN for a class that occurs nowhere."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    def compute(self) -> dict[str, float]:
        """``mIoU``, ``mIoU_parts`` (without background), ``pixel_accuracy`` and ``IoU/<class>``,
        in percent."""
        iou = self.iou()
        total = int(self.confusion.sum())
        results = {
            "mIoU": _nanmean(iou),
            "mIoU_parts": _nanmean(iou[1:]),
            "pixel_accuracy": np.trace(self.confusion) / total if total else np.nan,
        }
        for name, value in zip(self.names, iou, strict=True):
            results[f"IoU/{printable(name)}"] = value
        return percent(results)


def _nanmean(values: NDArray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
