"""Which adapter reads what: by what a value has, without any library.

Letters: D detections; H, W size of the image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...files import read_json
from ..inputs import Detections
from ..resources import existing_file, read_arrays
from . import (
    arrays,
    coco_results,
    detectron2_instances,
    supervision_detections,
    transformers_output,
    ultralytics_results,
)
from .checks import check_detections
from .classes import class_table, name_classes

__all__ = ["read_detections"]

# The first that `matches` reads; plain arrays match almost everything, so they come last.
_ADAPTERS = (
    detectron2_instances,
    ultralytics_results,
    supervision_detections,
    transformers_output,
    coco_results,
    arrays,
)
_KNOWN = (
    "an array (D, 4) of x1, y1, x2, y2; (boxes, scores) or (boxes, scores, classes); a dict with "
    "boxes[, scores, labels, masks, keypoints]; what a detector of torchvision, transformers, "
    "Detectron2 or ultralytics gave for one image; supervision.Detections; a list of COCO "
    "results; a .json, .npy or .npz file of one image"
)


def read_detections(value, *, size: tuple[int, int], class_names=None) -> Detections:
    """Detections of one image, whatever they come as, checked.

    Args:
        value: one of

            * (D, 4) array or tensor of x1 y1 x2 y2 in pixels of the image; ``(boxes, scores)``;
              ``(boxes, scores, classes)``; a dict with ``boxes`` and, perhaps, ``scores`` (else
              1), ``labels`` or ``classes`` (names, or numbers of the model's table), ``masks``,
              ``keypoints``;
            * torchvision's dict; transformers' of ``post_process_object_detection`` or
              ``post_process_instance_segmentation``, or what its pipeline gives; ultralytics'
              ``Results``; ``supervision.Detections``; Detectron2's ``Instances``, or a dict with
              ``instances``; a list of COCO results of the image;
            * a file of one image: ``.json`` of such a dict or list, ``.npz`` of such a dict,
              ``.npy`` of boxes;
            * :class:`Detections`.

            A list with the output of one image is taken as that output.
        size: (H, W) of the image.
        class_names: the model's own table: names in the order of its numbers, or a mapping from
            numbers to names. It goes before a table that comes with ``value``.

    Returns:
        See :func:`check_detections`. ``class_names`` is None where ``value`` has no classes: then
        all are of the taxonomy's only object class.

    Raises:
        ValueError: not such a value; numbers of classes whose table is not known; see also
            :func:`check_detections`.
        FileNotFoundError: no such file.
    """
    height, width = (int(n) for n in size)
    if isinstance(value, (str, os.PathLike)):
        value = _read_file(Path(value).expanduser())
    value = _only_output(value)
    if isinstance(value, Detections):
        return check_detections(_with_table(value, class_names), (height, width))
    for adapter in _ADAPTERS:
        if adapter.matches(value):
            found = adapter.read(value, (height, width), class_names)
            return check_detections(found, (height, width))
    raise ValueError(
        f"Detections cannot be read from a {type(value).__module__}.{type(value).__qualname__}"
        f"{_keys(value)}; they may be {_KNOWN}."
    )


def _read_file(path: Path):
    if path.suffix.lower() not in (".json", ".npy", ".npz"):
        raise ValueError(
            f"Detections cannot be read from {str(path)!r}: a file is .json, .npy or .npz. (A "
            "model such as 'torchvision:NAME' is loaded by load_detector.)"
        )
    path = existing_file(path, "The file of detections")
    return read_json(path) if path.suffix.lower() == ".json" else read_arrays(path)


def _only_output(value):
    """The output itself where models give a list of one for each image."""
    if not isinstance(value, (list, tuple)) or not value:
        return value
    single = [
        isinstance(v, Detections)
        or any(a.matches(v) for a in _ADAPTERS[:-1])
        or (isinstance(v, Mapping) and arrays.matches(v))
        for v in value
    ]
    if not all(single):
        return value
    if len(value) > 1:
        raise ValueError(
            f"There is a list of {len(value)} outputs, one of each image of a batch; give the one "
            "of this image."
        )
    return value[0]


def _with_table(detections: Detections, class_names) -> Detections:
    if class_names is None:
        return detections
    if detections.class_names is not None:
        known = tuple(class_table(class_names).values())
        return replace(detections, known_classes=detections.known_classes or known)
    names, known = name_classes(None, len(detections), class_names)
    return replace(detections, class_names=names, known_classes=known)


def _keys(value) -> str:
    return f" with the keys {', '.join(map(repr, value))}" if isinstance(value, Mapping) else ""
