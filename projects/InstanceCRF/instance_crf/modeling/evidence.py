"""Whose a pixel looks like: votes of the identity head and the detections' masks as one evidence.

Shape letters: D detections, H, W size of an image as the network gets it, M side of a mask head's
output.
"""

from __future__ import annotations

from functools import reduce

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances
from torch import Tensor

__all__ = ["EVIDENCE_SOURCES", "join_evidence", "mask_evidence"]

EVIDENCE_SOURCES = ("vote", "masks")


def mask_evidence(detections: Instances) -> Tensor | None:
    """The detections' masks in the image, soft as they are.

    Args:
        detections: with ``pred_boxes`` and, perhaps, ``pred_masks``: (D, 1, M, M) in [0, 1] over
            each box, as Detectron2's mask heads give them, or (D, H, W) of the whole image.

    Returns:
        (D, H, W) in [0, 1], in steps of 1/255 where masks were pasted, 0 beyond their boxes;
        None where the detections have no masks.
    """
    if not detections.has("pred_masks"):
        return None
    masks = detections.pred_masks
    if masks.dim() == 3:
        return masks.float()
    pasted = paste_masks_in_image(
        masks[:, 0].float(), detections.pred_boxes, detections.image_size, threshold=-1
    )
    return pasted.float() / 255


def join_evidence(*sources: Tensor | None) -> Tensor | None:
    """The product of all evidence there is, (D, H, W) in [0, 1] each; None if there is none."""
    known = [source for source in sources if source is not None]
    return reduce(torch.mul, known) if known else None
