"""Top-down parsing: a box for every object, and in every box a part head of its own.

The scheme of Parsing R-CNN (Yang et al., CVPR 2019) in the size of Mask R-CNN's mask head.

Shape letters: D detections, P parts, n objects of the ground truth, R regions, M side of the head's
output, H, W size of an image, h, w of a window in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from torch import Tensor, nn

from ..structures import PartInstances
from ..taxonomies.schema import IGNORE_LABEL
from .detections import no_detections
from .part_rcnn import PartRCNN

__all__ = ["PartMaps", "RoIPartHead", "TopDownRCNN"]


@META_ARCH_REGISTRY.register()
class TopDownRCNN(PartRCNN):
    """Detectron2's detector of objects, with :class:`RoIPartHead` as its mask head."""

    def targets(self, inputs: dict) -> tuple[Instances, Tensor | None]:
        """The objects with their part maps."""
        objects = inputs["instances"]
        found = Instances(objects.image_size)
        found.gt_boxes, found.gt_classes = objects.gt_boxes, objects.gt_classes
        found.gt_parts = PartMaps(inputs["part_seg"], inputs["object_seg"], objects.gt_object_ids)
        return found, inputs.get("ignored")

    def parse(self, found: Instances) -> tuple[PartInstances, Tensor, Instances]:
        """The objects' parts, better objects painted over others.

        A pixel is someone's if background has less than half. With "product" as score, a segment
        has its box's score times the part's mean probability.
        """
        found = found[found.scores.argsort(descending=True)]
        object_map = torch.zeros(found.image_size, dtype=torch.int64, device=self.device)
        part_map = torch.zeros_like(object_map)
        sem_seg = found.pred_boxes.tensor.new_zeros(len(self.part_owner) + 1, *found.image_size)
        sem_seg[0] = 1
        classes = found.pred_classes.tolist()
        for i in reversed(range(len(found))):
            probs, window = paste(
                found.pred_parts[i], found.pred_boxes.tensor[i].tolist(), found.image_size
            )
            mine = (self.part_owner == classes[i])[:, None, None]
            part = torch.where(mine, probs[1:], 0).argmax(0) + 1
            mask = (probs[0] < 0.5) & mine.any()
            object_map[window][mask] = i + 1
            part_map[window][mask] = part[mask]
            sem_seg[(slice(None), *window)][:, mask] = probs[:, mask]
        result = PartInstances.from_label_maps(
            object_map,
            part_map,
            boxes=found.pred_boxes.tensor,
            scores=found.scores,
            classes=found.pred_classes,
            part_prob=sem_seg,
            score_name=self.score_name,
        )
        boxes = no_detections(found.image_size, self.device)
        fields = {name: found.get(name) for name in boxes.get_fields()}
        return result, sem_seg, Instances(found.image_size, **fields)


@ROI_MASK_HEAD_REGISTRY.register()
class RoIPartHead(nn.Module):
    """The layers of Mask R-CNN's mask head, a softmax over background and parts."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        class_weights: Sequence[float] = (),
        loss_weight: float = 1.0,
    ):
        """
        Args:
            input_shape: of the regions' features.
            num_classes: P+1.
            conv_dims, conv_norm: see Detectron2's MaskRCNNConvUpsampleHead.
            class_weights: one weight a class, background first; empty = all 1.
            loss_weight: factor of the loss.
        """
        super().__init__()
        self.net = MaskRCNNConvUpsampleHead(
            input_shape, num_classes=num_classes, conv_dims=list(conv_dims), conv_norm=conv_norm
        )
        weights = torch.tensor(list(class_weights)) if len(class_weights) else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.loss_weight = loss_weight

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        head, parts = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "num_classes": parts.NUM_CLASSES,
            "conv_dims": [head.CONV_DIM] * (head.NUM_CONV + 1),
            "conv_norm": head.NORM,
            "class_weights": parts.CLASS_WEIGHTS,
            "loss_weight": parts.LOSS_WEIGHT,
        }

    def forward(
        self, features: Tensor, instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """
        Args:
            features: (R, channels, M/2, M/2) of the regions of all images.
            instances: these regions: ``proposal_boxes`` and ``gt_parts`` in training.

        Returns:
            In training, ``{"loss_parts": scalar}``; otherwise the instances with ``pred_parts``
            (D, P+1, M, M), probabilities over each box.
        """
        logits = self.net.layers(features).float()
        if not self.training:
            probs = logits.softmax(1).split([len(x) for x in instances])
            for x, of_image in zip(instances, probs, strict=True):
                x.pred_parts = of_image
            return instances
        targets = [
            x.gt_parts.crop(x.proposal_boxes.tensor, logits.shape[-1]) for x in instances if len(x)
        ]
        if not targets:
            return {"loss_parts": logits.sum() * 0}
        target = torch.cat(targets)
        loss = F.cross_entropy(
            logits, target, self.class_weights, ignore_index=IGNORE_LABEL, reduction="sum"
        )
        valid = (target != IGNORE_LABEL).sum().clamp(min=1)
        return {"loss_parts": loss / valid * self.loss_weight}


class PartMaps:
    """The part maps of n objects of one image, as a view of the image's two maps.

    Like Detectron2's masks: has a length, can be indexed, cropped and moved.

    Args:
        part_seg: (H, W) part ids, 255 = ignore.
        object_seg: (H, W) object ids, 0 none, -1 ignore.
        object_ids: (n,).
    """

    def __init__(self, part_seg: Tensor, object_seg: Tensor, object_ids: Tensor) -> None:
        self.part_seg = part_seg
        self.object_seg = object_seg
        self.object_ids = object_ids

    def __len__(self) -> int:
        return len(self.object_ids)

    def __getitem__(self, item) -> PartMaps:
        return PartMaps(self.part_seg, self.object_seg, self.object_ids[item].reshape(-1))

    def to(self, device: torch.device | str) -> PartMaps:
        """The same on ``device``."""
        maps = self.part_seg, self.object_seg, self.object_ids
        return PartMaps(*(x.to(device) for x in maps))

    def crop(self, boxes: Tensor, size: int) -> Tensor:
        """(n, M, M) int64: each object's parts in its box, at the cells' centres.

        Other objects are background; what nobody knows, 255.

        Args:
            boxes: (n, 4) x1 y1 x2 y2 in pixels.
            size: M.
        """
        height, width = self.part_seg.shape
        centres = (torch.arange(size, device=boxes.device) + 0.5) / size
        corner, extent = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        columns, rows = (corner + centres[:, None] * extent).floor().long().unbind(2)
        rows = rows.clamp(0, height - 1)[:, :, None]
        columns = columns.clamp(0, width - 1)[:, None, :]
        parts, owner = self.part_seg[rows, columns].long(), self.object_seg[rows, columns]
        mine = owner == self.object_ids[:, None, None]
        unknown = (owner < 0) | ((owner == 0) & (parts == IGNORE_LABEL))
        return torch.where(mine, parts, torch.where(unknown, IGNORE_LABEL, 0))


def paste(
    probs: Tensor, box: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, tuple[slice, slice]]:
    """A region's probabilities in the image, bilinear, at the pixels whose centres are in the box.

    Args:
        probs: (P+1, M, M) over the box.
        box: x1 y1 x2 y2 in pixels.
        size: (H, W).

    Returns:
        (P+1, h, w), and where this window lies.
    """
    axes, window = [], []
    for low, high, length in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        first, beyond = (min(max(round(x), 0), length) for x in (low, high))
        centres = torch.arange(first, beyond, device=probs.device) + 0.5
        axes.append((centres - low) / (high - low) * 2 - 1)
        window.append(slice(first, beyond))
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([columns, rows], dim=2)[None].to(probs.dtype)
    pasted = F.grid_sample(
        probs[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return pasted[0], (window[0], window[1])
