"""Part segmentation: the mean intersection over union of Table 3.

Letters: K classes, background included.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .contingency import IGNORE, Contingency

__all__ = ["MeanIoU"]


class MeanIoU:
    """Confusion of parts over all pixels of all images, background included.

    Pixels that the ground truth ignores do not count. A class without a pixel in ground truth
    and prediction has no IoU: it is NaN and left out of the mean. A class that is only predicted
    has IoU 0, in the mean.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        """(K, K) pixels, ground truth by prediction."""

    def add(self, image_id: Hashable, table: Contingency) -> None:
        """Add the parts of one image.

        Raises:
            ValueError: a part id that does not exist.
        """
        predicted, true = table.prediction.part, table.truth.part
        for side, parts in (("predicted", predicted), ("ground-truth", true)):
            if parts.max(initial=0) >= self.num_classes:
                raise ValueError(
                    f"Image {image_id!r}: {side} part id {parts.max()}, expected "
                    f"0..{self.num_classes - 1}."
                )
        counted = true != IGNORE
        # A pixel that was predicted as ignored is a miss for its class and a hit for none.
        rows = np.broadcast_to(true[None], table.counts.shape)[:, counted]
        columns = np.broadcast_to(predicted[:, None], table.counts.shape)[:, counted]
        np.add.at(self.confusion, (rows, np.maximum(columns, 0)), table.counts[:, counted])

    def merge(self, other: MeanIoU) -> None:
        """Add the pixels of an accumulator of another process."""
        self.confusion += other.confusion

    def iou(self) -> NDArray[np.float64]:
        """(K,) IoU of each class, NaN for a class that occurs nowhere."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    def compute(self, class_names: Sequence[str]) -> dict[str, float]:
        """``mIoU``, ``mIoU_parts`` (without background), ``pixel_accuracy`` and ``IoU/<class>``,
        in percent."""
        iou = self.iou()
        total = self.confusion.sum()
        results = {
            "mIoU": _nanmean(iou),
            "mIoU_parts": _nanmean(iou[1:]),
            "pixel_accuracy": np.diag(self.confusion).sum() / total if total else np.nan,
        }
        for name, value in zip(class_names, iou, strict=True):
            results[f"IoU/{name.replace('-', '_').replace(' ', '_')}"] = value
        return {key: 100.0 * float(value) for key, value in results.items()}


def _nanmean(values: NDArray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
