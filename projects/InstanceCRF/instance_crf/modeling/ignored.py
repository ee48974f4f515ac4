"""Where nobody knows who is there, a detector learns neither "somebody" nor "nobody".

Shape letters: H, W size of an image as the network gets it; N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from torch import Tensor, nn

__all__ = ["IgnoringRPN", "ignored_share", "without_ignored"]

#: A box lies on ignored pixels if more than this share of it does.
_MOST = 0.5


class IgnoringRPN(RPN):
    """Detectron2's RPN, but anchors on ignored pixels are no negatives.

    An anchor there that matches an annotated object stays positive: that object is known. Without
    ignored pixels everything is as in Detectron2, random numbers included.
    """

    _ignored: Sequence[Tensor | None] = ()

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
        ignored: Sequence[Tensor | None] = (),
    ):
        """As Detectron2's; ``ignored``: (H, W) bool of each image, or None, in training."""
        self._ignored = ignored
        try:
            return super().forward(images, features, gt_instances)
        finally:
            self._ignored = ()

    def label_and_sample_anchors(self, anchors: list[Boxes], gt_instances: list[Instances]):
        boxes = Boxes.cat(anchors).tensor
        maps = self._ignored or [None] * len(gt_instances)
        self._unknown = (None if m is None else ignored_share(boxes, m) > _MOST for m in maps)
        return super().label_and_sample_anchors(anchors, gt_instances)

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Detectron2 calls it once an image, in order, between matching and sampling."""
        unknown = next(self._unknown)
        if unknown is not None:
            label[(label == 0) & unknown] = -1
        return super()._subsample_labels(label)


def without_ignored(
    proposals: Instances, objects: Instances, ignored: Tensor | None, matcher: nn.Module
) -> Instances:
    """The proposals to train ROI heads on: none on ignored pixels but those that match an object.

    Args:
        proposals: with ``proposal_boxes``.
        objects: with ``gt_boxes``.
        ignored: (H, W) bool, or None: all are kept.
        matcher: of the ROI heads; gives 1 where a proposal matches.
    """
    if ignored is None:
        return proposals
    boxes = proposals.proposal_boxes
    _, labels = matcher(pairwise_iou(objects.gt_boxes, boxes))
    return proposals[(ignored_share(boxes.tensor, ignored) <= _MOST) | (labels == 1)]


def ignored_share(boxes: Tensor, ignored: Tensor) -> Tensor:
    """(N,) the share of each box's pixels that are ignored; what is outside of the image is none.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in pixels; they are rounded.
        ignored: (H, W) bool.
    """
    height, width = ignored.shape
    sums = F.pad(ignored.to(boxes.device).cumsum(0).cumsum(1), (1, 0, 1, 0)).flatten()
    most = torch.tensor([width, height, width, height], device=boxes.device)
    x1, y1, x2, y2 = boxes.round().long().clamp(min=0).minimum(most).unbind(1)
    upper, lower = y1 * (width + 1), y2 * (width + 1)
    found = sums[lower + x2] - sums[upper + x2] - sums[lower + x1] + sums[upper + x1]
    return found / ((x2 - x1) * (y2 - y1)).clamp(min=1)
