"""What one would do without a CRF, as a head in its place: parts by Q, people by a simple rule.

Shape letters: D detections, P parts, H, W image size, H', W' output size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from detectron2.config import configurable
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..crf.labelling import resize_maps
from ..rules import box_owners, by_centre, by_score, by_smallness, mask_owners, owners_by_class
from ..segments import check_score_name
from ..structures import PartInstances
from .instance_crf_head import INSTANCE_CRF_HEADS_REGISTRY, part_owner_from_config

__all__ = ["RULES", "RuleHead"]

_BOX_RULES = {"best_box": by_score, "nearest_centre": by_centre, "smallest_box": by_smallness}
RULES = (*_BOX_RULES, "masks", "masks_then_centre", "whole_masks")


@INSTANCE_CRF_HEADS_REGISTRY.register()
class RuleHead(nn.Module):
    """What a pixel is, is the argmax of Q; whose, a rule says. It has no weights.

    * "best_box", "nearest_centre", "smallest_box": of the boxes that hold the pixel, see
      :data:`instance_crf.rules.SIMPLE_RULES`.
    * "masks": the best-scoring of the masks that cover the pixel; "masks_then_centre": where none
      does, "nearest_centre".
    * "whole_masks": as "masks", but what the masks cover is never background: there, a pixel is
      its best part.

    Only detections whose class owns the part are asked; a pixel that none of them has is nobody's.
    """

    @configurable
    def __init__(
        self,
        *,
        rule: str,
        part_owner: Sequence[int],
        score_name: str = "product",
        min_share: float = 0.0,
    ):
        """
        Args:
            rule: one of :data:`RULES`.
            part_owner: (P,) contiguous object class that owns each part.
            score_name: one of :data:`instance_crf.structures.SCORE_NAMES`; marginals are 1.
            min_share: see :meth:`instance_crf.structures.PartInstances.from_label_maps`.

        Raises:
            ValueError: an unknown rule or score.
        """
        super().__init__()
        if rule not in RULES:
            raise ValueError(
                f"MODEL.INSTANCE_CRF.RULE is {rule!r}; it is one of {', '.join(RULES)}."
            )
        check_score_name(score_name)
        self.register_buffer("part_owner", torch.tensor(list(part_owner)), persistent=False)
        self.rule = rule
        self.score_name = score_name
        self.min_share = min_share

    @classmethod
    def from_config(cls, cfg) -> dict:
        crf = cfg.MODEL.INSTANCE_CRF
        detector = cfg.MODEL.DETECTOR.ENABLED and crf.DETECTIONS.SOURCE == "detector"
        if crf.RULE not in _BOX_RULES and detector and not cfg.MODEL.MASK_ON:
            raise ValueError(
                f"MODEL.INSTANCE_CRF.RULE is {crf.RULE!r}, but MODEL.MASK_ON is False, so the "
                "detector has no masks: take a model with a mask head, or another rule."
            )
        return {
            "rule": crf.RULE,
            "part_owner": part_owner_from_config(cfg),
            "score_name": crf.SCORE,
            "min_share": crf.MIN_SHARE,
        }

    def losses(self, *inputs, **options) -> dict[str, Tensor]:
        """None: it has nothing to learn, and what is below it learns from losses of its own."""
        return {}

    @torch.no_grad()
    def inference(
        self,
        part_probs: Sequence[Tensor],
        detections: Sequence[Instances],
        images: Sequence[Tensor],
        output_sizes: Sequence[tuple[int, int]],
        *,
        evidence: Sequence[Tensor | None] | None = None,
    ) -> list[PartInstances]:
        """Label every image, at the size wanted.

        Args:
            part_probs: Q of each image, (P+1, H, W).
            detections: ``pred_boxes``, ``scores``, ``pred_classes`` of each image and, for masks,
                ``pred_masks``: see :func:`~.evidence.mask_evidence`.
            images: not looked at.
            output_sizes: (H', W') of each image. Q, boxes and masks are brought to it before they
                are asked.
            evidence: not looked at.

        Raises:
            ValueError: the rule asks masks, and detections have none.
        """
        inputs = zip(part_probs, detections, output_sizes, strict=True)
        return [self._label(*of_image) for of_image in inputs]

    def _label(self, q: Tensor, found: Instances, size: tuple[int, int]) -> PartInstances:
        scale = q.new_tensor([size[1] / q.shape[2], size[0] / q.shape[1]] * 2)
        boxes = found.pred_boxes.tensor * scale
        q = resize_maps(q, size)
        whole = self.rule == "whole_masks"
        part_map = q[1:].argmax(0) + 1 if whole else q.argmax(0)
        owners = partial(self._owners, found, boxes)
        owner = owners_by_class(owners, part_map, found.pred_classes, self.part_owner)
        return PartInstances.from_label_maps(
            owner,
            torch.where(owner > 0, part_map, 0) if whole else part_map,
            boxes=boxes,
            scores=found.scores,
            classes=found.pred_classes,
            part_prob=q,
            score_name=self.score_name,
            min_share=self.min_share,
        )

    def _owners(self, found: Instances, boxes: Tensor, mine: Tensor, free: Tensor) -> Tensor:
        """See :data:`instance_crf.rules.Owners`; ``boxes`` are in pixels of ``free``."""
        boxes, found = boxes[mine], found[mine]
        if self.rule in _BOX_RULES:
            return box_owners(_BOX_RULES[self.rule], boxes, found.scores, free)
        masks = masks_in_image(found, boxes, tuple(free.shape))
        owner = mask_owners(masks, found.scores, free)
        if self.rule != "masks_then_centre":
            return owner
        return owner + box_owners(by_centre, boxes, found.scores, free & (owner == 0))


def masks_in_image(found: Instances, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The detections' masks at a size, as Detectron2 has them in its output.

    Args:
        found: with ``pred_masks`` as :func:`~.evidence.mask_evidence` takes them.
        boxes: (D, 4) x1 y1 x2 y2 in pixels of that size.
        size: (H', W').

    Returns:
        (D, H', W') bool.

    Raises:
        ValueError: there are no masks.
    """
    if not found.has("pred_masks"):
        raise ValueError(
            "MODEL.INSTANCE_CRF.RULE asks the detections' masks, but they have none: give some "
            "with masks, or take a rule of boxes."
        )
    masks = found.pred_masks
    if masks.dim() == 3:
        return resize_maps(masks.float(), size) >= 0.5
    return paste_masks_in_image(masks[:, 0].float(), Boxes(boxes), size, threshold=0.5)
