"""Detections of transformers: segments of an instance segmentation, and the pipelines' lists.

The dicts of ``post_process_object_detection`` are read as plain ones.
Letters: D detections; H, W size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..inputs import Detections
from ..tensors import as_tensor
from .classes import name_classes
from .convert import as_boxes, as_floats, boxes_of_masks

__all__ = ["matches", "read"]


def matches(value) -> bool:
    """A dict with ``segments_info``, a list of dicts with ``box`` and ``label``, or raw outputs."""
    if isinstance(value, Mapping):
        return "segments_info" in value or {"logits", "pred_boxes"} <= value.keys()
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, Mapping) and {"box", "label"} <= v.keys() for v in value)
    )


def read(value, size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet. Boxes are those around the masks."""
    if isinstance(value, Mapping) and "segments_info" not in value:
        raise ValueError(
            "These are the raw outputs of a model of transformers; give what its processor makes "
            "of them: processor.post_process_object_detection(outputs, threshold=0.05, "
            f"target_sizes=[({size[0]}, {size[1]})])[0]."
        )
    if isinstance(value, Mapping):
        return _read_segments(value, size, class_names)
    boxes = [_corners(entry["box"]) for entry in value]
    names, known = name_classes([v["label"] for v in value], len(value), class_names)
    return Detections(
        boxes=as_boxes(boxes),
        scores=_scores(value),
        class_names=names,
        known_classes=known,
    )


def _read_segments(value: Mapping, size: tuple[int, int], class_names) -> Detections:
    segments = value["segments_info"]
    masks = _masks(value.get("segmentation"), segments, size)
    if not all("label_id" in segment for segment in segments):
        raise ValueError("The segments_info lack a label_id, the number of the segment's class.")
    labels = [segment["label_id"] for segment in segments]
    names, known = name_classes(labels, len(segments), class_names)
    return Detections(
        boxes=boxes_of_masks(masks),
        scores=_scores(segments),
        class_names=names,
        masks=masks,
        known_classes=known,
    )


def _corners(box) -> list:
    sides = ("xmin", "ymin", "xmax", "ymax")
    if not isinstance(box, Mapping) or not {*sides} <= box.keys():
        raise ValueError(f"There is the box {box!r}; it must have {', '.join(sides)}.")
    return [box[side] for side in sides]


def _masks(segmentation, segments, size: tuple[int, int]) -> Tensor:
    """(D, H, W) bool, from a map of ids or from one map a segment."""
    if not segments:
        return torch.zeros((0, *size), dtype=torch.bool)
    if isinstance(segmentation, list):
        raise ValueError(
            "The segmentation is a list of run lengths; leave return_coco_annotation out of "
            "post_process_instance_segmentation."
        )
    maps = as_tensor(segmentation, "segmentation").cpu()
    if tuple(maps.shape[-2:]) != size:
        height, width = size
        raise ValueError(
            f"The segmentation is {maps.shape[-1]}x{maps.shape[-2]} pixels, but the image is "
            f"{width}x{height}: give post_process_instance_segmentation target_sizes="
            f"[({height}, {width})]."
        )
    if maps.dim() == 2:
        return torch.stack([maps == segment["id"] for segment in segments])
    if maps.dim() != 3 or len(maps) != len(segments):
        raise ValueError(
            f"The segmentation has shape {tuple(maps.shape)} for {len(segments)} segments; it must "
            "be a map of ids, (H, W), or one map a segment."
        )
    return maps > 0.5


def _scores(entries) -> Tensor:
    return as_floats([entry.get("score", 1.0) for entry in entries], "scores")
