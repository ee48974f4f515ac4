"""Mask R-CNN whose classes are the objects and the parts; the masks say whose a part is.

The paper's baseline MNC (Sec. 4.2) in today's form.

Shape letters: D objects and N parts that were found, S segments and n objects of the ground truth,
C object classes, P parts, H, W size of an image, H', W' the size wanted for the output.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from ..structures import PartInstances
from ..taxonomies.schema import IGNORE_LABEL
from .detections import without_masks
from .part_rcnn import PartRCNN

__all__ = ["PartMaskRCNN", "owners_of_parts", "part_targets"]

#: A part is an object's if at least this share of its mask lies in the object's.
_LEAST_SHARE = 0.5


@META_ARCH_REGISTRY.register()
class PartMaskRCNN(PartRCNN):
    """Mask R-CNN over C object classes, then P parts."""

    @configurable
    def __init__(self, *, num_objects: int, **rcnn):
        """
        Args:
            num_objects: C; the ROI heads' classes are C + P.
            rcnn: see :class:`~.part_rcnn.PartRCNN`.
        """
        super().__init__(**rcnn)
        self.num_objects = num_objects

    @classmethod
    def from_config(cls, cfg) -> dict:
        num_objects = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        with_parts = cfg.clone()
        with_parts.defrost()
        with_parts.MODEL.ROI_HEADS.NUM_CLASSES += cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1
        return {**super().from_config(with_parts), "num_objects": num_objects}

    def targets(self, inputs: dict) -> tuple[Instances, Tensor]:
        """The objects and their parts; unknown is also what has no known part."""
        part_seg = inputs["part_seg"]
        found = part_targets(inputs["instances"], part_seg, inputs["object_seg"], self.num_objects)
        unknown = part_seg == IGNORE_LABEL
        return found, unknown | inputs["ignored"] if "ignored" in inputs else unknown

    def parse(self, found: Instances) -> tuple[PartInstances, Tensor, Instances]:
        """Every part mask goes to an object; better ones are painted over others.

        Of the masks of one part that go to one object the best is taken. What nobody holds is an
        object of its own, of score 0: as a part it may be right. In ``mean_q``, a segment has the
        score of its part, an object its own times the mean of its parts'.
        """
        found = found[found.scores.argsort(descending=True)]
        is_object = found.pred_classes < self.num_objects
        objects, parts = found[is_object], found[~is_object]
        part_ids = parts.pred_classes - self.num_objects + 1
        owner_class = self.part_owner[part_ids - 1]
        allowed = owner_class[:, None] == objects.pred_classes
        owners = owners_of_parts(parts.pred_masks, objects.pred_masks, allowed)
        objects, owners = _with_orphans(objects, parts, owners, owner_class)

        object_map = torch.zeros(found.image_size, dtype=torch.int64, device=self.device)
        part_map = torch.zeros_like(object_map)
        score_map = torch.ones_like(object_map, dtype=torch.float32)
        for k in best_of_each(owners, part_ids).flip(0).tolist():
            mask = parts.pred_masks[k]
            object_map[mask], part_map[mask] = owners[k], part_ids[k]
            score_map[mask] = parts.scores[k]
        sem_seg = score_map.new_zeros(len(self.part_owner) + 1, *found.image_size)
        sem_seg.scatter_(0, part_map[None], score_map[None])
        result = PartInstances.from_label_maps(
            object_map,
            part_map,
            boxes=objects.pred_boxes.tensor,
            scores=objects.scores,
            classes=objects.pred_classes,
            part_prob=sem_seg,
            score_name=self.score_name,
        )
        scores = {**result.object_scores, "mean_q": result.object_scores["product"]}
        return replace(result, object_scores=scores), sem_seg, without_masks(objects)


def part_targets(
    objects: Instances, part_seg: Tensor, object_seg: Tensor, num_objects: int
) -> Instances:
    """The objects, then every part of each that has pixels.

    Args:
        objects: ``gt_boxes, gt_classes, gt_object_ids, gt_masks`` of n objects.
        part_seg: (H, W) part ids, 255 = ignore.
        object_seg: (H, W) object ids, 0 none, -1 ignore.
        num_objects: C.

    Returns:
        n + S Instances with ``gt_boxes, gt_classes`` (part j is C + j - 1) and ``gt_masks``.
    """
    masks, classes = [], []
    for object_id in objects.gt_object_ids:
        parts = torch.where(object_seg == object_id, part_seg, 0)
        present = parts.unique()
        present = present[(present > 0) & (present != IGNORE_LABEL)]
        masks.append(parts == present[:, None, None])
        classes.append(present.long() + num_objects - 1)
    result = Instances(objects.image_size)
    result.gt_classes = torch.cat([objects.gt_classes, *classes])
    found = BitMasks(torch.cat([objects.gt_masks.tensor, *masks]))
    result.gt_boxes = found.get_bounding_boxes()
    result.gt_masks = found
    return result


def owners_of_parts(part_masks: Tensor, object_masks: Tensor, allowed: Tensor) -> Tensor:
    """(N,) whose each part is: i + 1 for the best object i that holds enough of it, 0 for nobody.

    The one that holds most of it would often be a second, worse mask of the same object.

    Args:
        part_masks: (N, H, W) bool.
        object_masks: (D, H, W) bool, the best object first.
        allowed: (N, D) bool, whether the object's class owns the part.
    """
    if not len(object_masks):
        return allowed.new_zeros(len(part_masks), dtype=torch.int64)
    flat = part_masks.flatten(1).float()
    share = flat @ object_masks.flatten(1).float().T / flat.sum(1, keepdim=True).clamp(min=1)
    held = allowed & (share >= _LEAST_SHARE)
    return torch.where(held.any(1), held.int().argmax(1) + 1, 0)


def _with_orphans(
    objects: Instances, parts: Instances, owners: Tensor, owner_class: Tensor
) -> tuple[Instances, Tensor]:
    """An object for every part that is nobody's, of score 0, after the others; and the owners."""
    orphan = owners == 0
    new = Instances(parts.image_size, **parts[orphan].get_fields())
    new.pred_classes = owner_class[orphan]
    new.scores = torch.zeros_like(new.scores)
    owners = torch.where(orphan, orphan.cumsum(0) + len(objects), owners)
    return Instances.cat([objects, new]), owners


def best_of_each(owners: Tensor, part_ids: Tensor) -> Tensor:
    """The first of all parts that share owner and id, in their order; all (N,)."""
    first = {}
    for k, pair in enumerate(zip(owners.tolist(), part_ids.tolist(), strict=True)):
        first.setdefault(pair, k)
    return torch.tensor(list(first.values()), dtype=torch.int64, device=owners.device)
