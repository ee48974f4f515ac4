"""Detections of the package supervision, by their attributes alone.

Letters: D detections; H, W size of the image.
"""

from __future__ import annotations

import numpy as np
import torch

from ..inputs import Detections
from .classes import name_classes
from .convert import as_boxes, as_floats, as_masks

__all__ = ["matches", "read"]


def matches(value) -> bool:
    """It has ``xyxy``, ``confidence`` and ``class_id``."""
    return all(hasattr(value, name) for name in ("xyxy", "confidence", "class_id"))


def read(value, size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet.

    Names are those of ``data["class_name"]``, unless ``class_names`` says what ``class_id`` means.
    """
    boxes = as_boxes(value.xyxy)
    labels, names = value.class_id, (value.data or {}).get("class_name")
    if names is not None and (class_names is None or labels is None):
        labels = [str(name) for name in names]
    names, known = name_classes(labels, len(boxes), class_names)
    scores = value.confidence
    return Detections(
        boxes=boxes,
        scores=torch.ones(len(boxes)) if scores is None else as_floats(scores, "confidence"),
        class_names=names,
        # Compact masks become arrays, too.
        masks=None if value.mask is None else as_masks(np.asarray(value.mask)),
        known_classes=known,
    )
