"""Detections of Detectron2's ``Instances``.

Letters: D detections; M side of a mask over a box; H, W size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...extras import require
from ..inputs import Detections
from .classes import name_classes
from .convert import as_boxes, as_floats, as_keypoints, as_masks

__all__ = ["matches", "read"]


def matches(value) -> bool:
    """Instances, or a dict with ``instances``."""
    if isinstance(value, Mapping):
        return "instances" in value and matches(value["instances"])
    return hasattr(value, "image_size") and callable(getattr(value, "get_fields", None))


def read(value, size: tuple[int, int], class_names) -> Detections:
    """See :func:`..reading.read_detections`; not checked yet.

    Masks may be of the image, or (D, 1, M, M) over the boxes, as mask heads give them.

    Raises:
        ValueError: instances of another image size (they are not scaled), without ``pred_boxes``,
            or with turned boxes.
    """
    instances = value["instances"] if isinstance(value, Mapping) else value
    if tuple(instances.image_size) != size:
        height, width = instances.image_size
        raise ValueError(
            f"The Instances are of an image of {width}x{height} pixels, but the image is "
            f"{size[1]}x{size[0]}: give the model the dict's 'height' and 'width', or call "
            f"detector_postprocess(instances, {size[0]}, {size[1]})."
        )
    fields = instances.get_fields()
    if "pred_boxes" not in fields:
        raise ValueError(
            f"The Instances have no pred_boxes; their fields are {', '.join(fields) or 'none'}."
        )
    boxes = as_boxes(fields["pred_boxes"].tensor)
    names, known = name_classes(fields.get("pred_classes"), len(boxes), class_names)
    scores, keypoints = fields.get("scores"), fields.get("pred_keypoints")
    return Detections(
        boxes=boxes,
        scores=torch.ones(len(boxes)) if scores is None else as_floats(scores, "scores"),
        class_names=names,
        masks=_masks(fields.get("pred_masks"), fields["pred_boxes"], size),
        keypoints=None if keypoints is None else as_keypoints(keypoints),
        known_classes=known,
    )


def _masks(masks, boxes, size: tuple[int, int]) -> Tensor | None:
    """Tensors, BitMasks and ROIMasks as masks of the image; soft where they were pasted."""
    if masks is None:
        return None
    over_boxes = hasattr(masks, "to_bitmasks") or (isinstance(masks, Tensor) and masks.dim() == 4)
    tensor = getattr(masks, "tensor", masks)
    if not isinstance(tensor, Tensor):
        raise ValueError(
            f"pred_masks are {type(masks).__name__}; they must be tensors or BitMasks."
        )
    if not over_boxes:
        return as_masks(tensor)
    tensor = tensor[:, 0] if tensor.dim() == 4 else tensor
    paste = require("detectron2.layers", "train").paste_masks_in_image
    pasted = paste(tensor.detach().float(), boxes.tensor.detach(), size, threshold=-1)
    return pasted.cpu().float() / 255
