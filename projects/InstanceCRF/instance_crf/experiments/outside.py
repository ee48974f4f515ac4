"""Recall of people outside their shrunk boxes: what a labelling gives them that boxes cannot.

Legend: H, W image size in pixels. A pixel lies in a box when its centre does.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["OutsideRecall"]


class OutsideRecall:
    """Of the true people's pixels outside their shrunk boxes, the share that is labelled theirs.

    The box is that of a person's visible pixels, shrunk about its centre. A person's are the pixels
    of the predicted object that has most of the whole person's; of equal ones, the first. Each
    person takes its own, whomever others take; it does not matter how the labelling was made.

    Args:
        scale: of a box's sides, 0..1.

    Raises:
        ValueError: another ``scale``.
    """

    def __init__(self, scale: float = 0.75) -> None:
        if not 0 <= scale <= 1:
            raise ValueError(
                f"scale is {scale}; boxes are shrunk to a share in 0..1 of their sides."
            )
        self.scale = scale
        self.right = 0
        self.total = 0

    def add(
        self, object_map: ArrayLike, true_object_map: ArrayLike, true_ids: Iterable[int]
    ) -> None:
        """Add one image.

        Args:
            object_map: (H, W) predicted objects, 0 none.
            true_object_map: (H, W) true people.
            true_ids: the people that count, without crowds; those without a pixel are left out.

        Raises:
            ValueError: maps of different sizes.
        """
        predicted, true = np.asarray(object_map), np.asarray(true_object_map)
        if predicted.shape != true.shape:
            raise ValueError(
                f"The predicted object map is {predicted.shape} (height, width), but the true one "
                f"is {true.shape}."
            )
        for true_id in true_ids:
            rows, columns = np.nonzero(true == true_id)
            if not len(rows):
                continue
            labels = predicted[rows, columns]
            outside = ~(self._is_inside(rows) & self._is_inside(columns))
            self.total += int(np.count_nonzero(outside))
            found, counts = np.unique(labels[labels > 0], return_counts=True)
            if len(found):
                best = found[counts.argmax()]
                self.right += int(np.count_nonzero(outside & (labels == best)))

    def _is_inside(self, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of a person's pixels along one axis, whether they lie in the shrunk box."""
        low, high = int(pixels.min()), int(pixels.max()) + 1
        margin = (1 - self.scale) / 2 * (high - low)
        return (low + margin <= pixels + 0.5) & (pixels + 0.5 < high - margin)

    def compute(self) -> dict[str, float]:
        """``recall`` in percent; NaN if there is no such pixel."""
        return {"recall": 100 * self.right / self.total if self.total else float("nan")}
