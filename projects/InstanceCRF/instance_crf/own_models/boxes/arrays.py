"""Detections as plain arrays, tuples and dicts; torchvision's are such dicts.

Letters: D detections; K keypoints; H, W size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..inputs import Detections
from .classes import name_classes
from .convert import as_boxes, as_floats, as_keypoints, as_masks, boxes_of_masks

__all__ = ["matches", "read"]

_LABELS = ("text_labels", "labels", "classes")  # the first that there is; names before numbers
_KEYS = ("boxes", "scores", *_LABELS, "masks", "keypoints", "keypoints_scores")
# Parts of keys that say that a dict has scores or classes under names that are not known.
_MISNAMED = {"scores": ("score", "conf", "prob"), "labels": ("label", "class", "categor", "name")}


def matches(value) -> bool:
    """An array, a list or tuple, or a dict with boxes or masks."""
    if isinstance(value, Mapping):
        return value.get("boxes") is not None or value.get("masks") is not None
    return isinstance(value, (list, tuple)) or hasattr(value, "__array__")


def read(value, size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet.

    A dict with masks and no boxes has the boxes around the masks. ``keypoints_scores`` of
    torchvision are logits of a heatmap: their sigmoid is the confidence, which ranks keypoints but
    is no probability.
    """
    if not isinstance(value, Mapping):
        value = _as_dict(value)
    notes = _unused(value)
    if value.get("boxes") is None:
        boxes = boxes_of_masks(as_masks(value["masks"]))
    else:
        boxes = as_boxes(value["boxes"])
    masks, keypoints = (_unless_empty(value, key, boxes) for key in ("masks", "keypoints"))
    scores = value.get("scores")
    labels = next((value[key] for key in _LABELS if value.get(key) is not None), None)
    names, known = name_classes(labels, len(boxes), class_names)
    return Detections(
        boxes=boxes,
        scores=torch.ones(len(boxes)) if scores is None else as_floats(scores, "scores"),
        class_names=names,
        masks=None if masks is None else as_masks(masks),
        keypoints=None if keypoints is None else _keypoints(value),
        known_classes=known,
        notes=notes,
    )


def _as_dict(value) -> dict:
    """{boxes[, scores, labels]} of an array of boxes, or a pair or triple of arrays."""
    if isinstance(value, (list, tuple)) and len(value) in (2, 3) and _are_boxes(value[0]):
        return dict(zip(("boxes", "scores", "labels"), value, strict=False))
    return {"boxes": value}


def _are_boxes(value) -> bool:
    """Two-dimensional, or empty; one box is neither."""
    if getattr(value, "ndim", 1) == 0 or not hasattr(value, "__len__"):
        return False
    return (
        len(value) == 0 or getattr(value[0], "ndim", 0) > 0 or isinstance(value[0], (list, tuple))
    )


def _unless_empty(value: Mapping, key: str, boxes):
    """No detections have no masks, of whatever shape."""
    given = value.get(key)
    return None if given is not None and not len(given) and not len(boxes) else given


def _keypoints(value: Mapping):
    logits = value.get("keypoints_scores")
    confidence = None if logits is None else as_floats(logits, "keypoints' scores").sigmoid()
    return as_keypoints(value["keypoints"], confidence)


def _unused(value: Mapping) -> tuple[str, ...]:
    """A note of the keys that nothing is made of.

    Raises:
        ValueError: the scores or the classes are missing, and another key may be meant.
    """
    unused = [str(key) for key in value if key not in _KEYS]
    known = {
        "scores": value.get("scores"),
        "labels": next((k for k in _LABELS if k in value), None),
    }
    for wanted, parts in _MISNAMED.items():
        meant = [key for key in unused if any(part in key.lower() for part in parts)]
        if known[wanted] is None and meant:
            raise ValueError(
                f"There are no {wanted!r} among the detections, but {meant[0]!r}; the keys are "
                f"{', '.join(_KEYS)}. Rename it, or leave it out."
            )
    return (f"Not used of the detections: {', '.join(unused)}.",) if unused else ()
