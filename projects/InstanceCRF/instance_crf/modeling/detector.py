"""Detectron2's two-stage detector beside heads that it takes no gradient from.

Shape letters: H, W size of an image as the network gets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_proposal_generator
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from .ignored import IgnoringRPN, without_ignored

__all__ = [
    "BoxDetector",
    "all_but_masks",
    "build_proposals",
    "detector_losses",
    "find_detections",
]


def build_proposals(cfg: CfgNode, input_shape: dict) -> nn.Module:
    """Detectron2's proposal generator of ``cfg``; its RPN learns nothing from ignored pixels."""
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        return IgnoringRPN(cfg, input_shape)
    return build_proposal_generator(cfg, input_shape)


def detector_losses(
    proposal_generator: nn.Module,
    roi_heads: nn.Module,
    images: ImageList,
    features: dict[str, Tensor],
    objects: list[Instances],
    ignored: Sequence[Tensor | None],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the detector learns from: the losses of its proposals, and of its ROI heads.

    Args:
        objects: with ``gt_boxes`` and ``gt_classes``.
        ignored: (H, W) bool of each image, where an object may be or not; None: nowhere.
    """
    more = {"ignored": ignored} if isinstance(proposal_generator, IgnoringRPN) else {}
    proposals, losses = proposal_generator(images, features, objects, **more)
    proposals = [
        without_ignored(*of_image, roi_heads.proposal_matcher)
        for of_image in zip(proposals, objects, ignored, strict=True)
    ]
    return losses, roi_heads(images, features, proposals, objects)[1]


@torch.no_grad()
def find_detections(
    proposal_generator: nn.Module,
    roi_heads: nn.Module,
    images: ImageList,
    features: dict[str, Tensor],
) -> list[Instances]:
    """What the detector finds in each image, in training, too.

    Returns:
        Instances with ``pred_boxes`` (pixels of (H, W)), ``scores``, ``pred_classes`` and, of a
        detector with a mask head, ``pred_masks``.
    """
    with _in_eval_mode(proposal_generator, roi_heads):
        features = {name: feature.detach() for name, feature in features.items()}
        proposals, _ = proposal_generator(images, features, None)
        return roi_heads(images, features, proposals, None)[0]


class BoxDetector(nn.Module):
    """The detector of a model alone: pictures in, detections out.

    Args:
        model: has a two-stage detector as Detectron2's ``GeneralizedRCNN`` has it.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        if getattr(model, "proposal_generator", None) is None or model.roi_heads is None:
            raise ValueError(
                f"{type(model).__name__} has no detector of its own: MODEL.DETECTOR.ENABLED is "
                "False, or its boxes come from elsewhere."
            )
        self.model = model

    @property
    def roi_heads(self) -> nn.Module:
        return self.model.roi_heads

    def forward(self, batched_inputs: list[dict]) -> list[Instances]:
        """All that the ROI heads give, ``pred_boxes`` in pixels of ``height, width`` of each input,
        and ``pred_masks``, if there are, of that size."""
        model = self.model
        images = model.preprocess_image(batched_inputs)
        features = model.backbone(images.tensor)
        found = find_detections(model.proposal_generator, model.roi_heads, images, features)
        return [
            detector_postprocess(detections, inputs["height"], inputs["width"])
            for detections, inputs in zip(found, batched_inputs, strict=True)
        ]


def all_but_masks(roi_heads: nn.Module | None) -> list[nn.Module]:
    """The parts of ROI heads that a mask head can learn without."""
    parts = [] if roi_heads is None else roi_heads.named_children()
    return [part for name, part in parts if not name.startswith("mask_")]


@contextmanager
def _in_eval_mode(*modules: nn.Module) -> Iterator[None]:
    was_training = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in was_training.items():
            part.training = mode  # each as it was: some of them may be frozen
