"""The detections that the CRF is given (Sec. 3.2): a box, a score, a class and perhaps a mask each;
and the objects that come out, as Detectron2 has them.

Shape letters: D detections.
"""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..structures import PartInstances

__all__ = [
    "detections_from_ground_truth",
    "jitter_boxes",
    "keep_best",
    "keep_classes",
    "masks_as_instances",
    "no_detections",
    "nothing_labelled",
    "without_masks",
]


def detections_from_ground_truth(instances: Instances, *, jitter: float = 0.0) -> Instances:
    """Ground-truth objects as detections of score 1.

    Args:
        instances: with ``gt_boxes`` and ``gt_classes``.
        jitter: see :func:`jitter_boxes`; 0 leaves the boxes alone.

    Returns:
        Instances with ``pred_boxes``, ``scores`` and ``pred_classes``.
    """
    boxes = instances.gt_boxes.tensor
    if jitter > 0:
        boxes = jitter_boxes(boxes, jitter)
    result = Instances(instances.image_size)
    result.pred_boxes = Boxes(boxes)
    result.pred_boxes.clip(instances.image_size)
    result.scores = boxes.new_ones(len(boxes))
    result.pred_classes = instances.gt_classes
    return result[result.pred_boxes.nonempty()]


def jitter_boxes(
    boxes: Tensor, fraction: float, generator: torch.Generator | None = None
) -> Tensor:
    """Move and scale boxes at random, as a weak detector would.

    Args:
        boxes: (D, 4) x1 y1 x2 y2.
        fraction: centre and size change by up to this fraction of the width and the height,
            each independently and uniformly.
        generator: of the boxes' device; None: PyTorch's own.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    draws = torch.rand(2, len(boxes), 2, device=boxes.device, generator=generator)
    shift, scale = (draws * 2 - 1) * fraction
    centre = centre + shift * size
    half = size * (1 + scale) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def keep_best(detections: Instances, *, score_thresh: float, max_per_image: int) -> Instances:
    """The best-scoring detections, best first; boxes without an area are dropped.

    Args:
        detections: with ``pred_boxes`` and ``scores``.
        score_thresh: detections below it are dropped.
        max_per_image: and at most so many kept.
    """
    detections = detections[detections.pred_boxes.nonempty()]
    order = detections.scores.argsort(descending=True)
    order = order[detections.scores[order] >= score_thresh]
    return detections[order[:max_per_image]]


def keep_classes(detections: Instances, class_ids: Tensor) -> Instances:
    """The detections of some of the detector's classes, with ``pred_classes`` counted among these.

    Args:
        detections: with ``pred_classes`` of the detector.
        class_ids: (C,) the detector's class of each object class of the data set.
    """
    matches = detections.pred_classes[:, None] == class_ids
    kept = matches.any(1)
    detections = detections[kept]
    detections.pred_classes = matches[kept].int().argmax(1)
    return detections


def no_detections(image_size: tuple[int, int], device: torch.device) -> Instances:
    """Detections of an image, (H, W), that has none."""
    empty = Instances(image_size)
    empty.pred_boxes = Boxes(torch.zeros(0, 4, device=device))
    empty.scores = torch.zeros(0, device=device)
    empty.pred_classes = torch.zeros(0, dtype=torch.int64, device=device)
    return empty


def without_masks(detections: Instances) -> Instances:
    """The same boxes, scores and classes."""
    fields = {name: x for name, x in detections.get_fields().items() if name != "pred_masks"}
    return Instances(detections.image_size, **fields)


def nothing_labelled(size: tuple[int, int], device: torch.device) -> PartInstances:
    """The result for an image of ``size`` (H, W) in which no pixel is anybody's."""
    empty = no_detections(size, device)
    zeros = torch.zeros(size, dtype=torch.int64, device=device)
    return PartInstances.from_label_maps(
        zeros,
        zeros,
        boxes=empty.pred_boxes.tensor,
        scores=empty.scores,
        classes=empty.pred_classes,
    )


def masks_as_instances(result: PartInstances) -> Instances:
    """The labelled objects as Detectron2 has them, with ``pred_masks``."""
    instances = Instances(result.image_size)
    instances.pred_boxes = Boxes(result.boxes)
    instances.scores = result.scores
    instances.pred_classes = result.classes
    instances.pred_masks = result.object_masks()
    return instances
