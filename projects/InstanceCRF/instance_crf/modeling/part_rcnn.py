"""What the baselines share: Detectron2's R-CNN with the inputs and outputs of :class:`InstanceCRF`.

Shape letters: P parts, H, W size of an image as the network gets it, H', W' the size wanted for
the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import GeneralizedRCNN, build_backbone, build_roi_heads
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor

from ..structures import PartInstances
from .detections import masks_as_instances
from .detector import build_proposals, detector_losses, find_detections
from .instance_crf_head import part_owner_from_config

__all__ = ["PartRCNN"]


class PartRCNN(GeneralizedRCNN):
    """Parts of people from regions of interest, without a CRF.

    A subclass says what its regions are (:meth:`targets`) and reads the parsing from what its ROI
    heads find (:meth:`parse`).
    """

    @configurable
    def __init__(
        self,
        *,
        part_owner: Sequence[int],
        score_name: str = "product",
        channels_last: bool = False,
        **rcnn,
    ):
        """
        Args:
            part_owner: (P,) contiguous object class that owns each part.
            score_name: one of :data:`instance_crf.structures.SCORE_NAMES`.
            channels_last: memory order of the convolutions.
            rcnn: what Detectron2's GeneralizedRCNN takes.
        """
        super().__init__(**rcnn)
        self.register_buffer("part_owner", torch.tensor(list(part_owner)), persistent=False)
        self.score_name = score_name
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """
        Raises:
            ValueError: a key that :class:`InstanceCRF` knows and a baseline does not.
        """
        _check_keys(cfg)
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generator": build_proposals(cfg, shape),
            "roi_heads": build_roi_heads(cfg, shape),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "part_owner": part_owner_from_config(cfg),
            "score_name": cfg.MODEL.INSTANCE_CRF.SCORE,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
        }

    def targets(self, inputs: dict) -> tuple[Instances, Tensor | None]:
        """What the ROI heads learn to find in an image, and (H, W) bool where nobody knows.

        Args:
            inputs: of :meth:`forward`, on the model's device.
        """
        raise NotImplementedError

    def parse(self, found: Instances) -> tuple[PartInstances, Tensor, Instances]:
        """What was found in an image, its boxes scaled to (H', W'), read as a parsing.

        Returns:
            The parsing; scores of background and parts, (P+1, H', W'); the objects' boxes.
        """
        raise NotImplementedError

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As :meth:`InstanceCRF.forward`."""
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        objects, ignored = [], []
        for inputs in batched_inputs:
            one, unknown = self.targets(_on(self.device, inputs))
            objects.append(one)
            ignored.append(unknown)
        rpn_losses, roi_losses = detector_losses(
            self.proposal_generator, self.roi_heads, images, features, objects, ignored
        )
        return {**rpn_losses, **roi_losses}

    @torch.no_grad()
    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """As :meth:`InstanceCRF.inference`."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        detections = find_detections(self.proposal_generator, self.roi_heads, images, features)
        outputs = []
        for found, inputs, size in zip(detections, batched_inputs, images.image_sizes, strict=True):
            size = int(inputs.get("height", size[0])), int(inputs.get("width", size[1]))
            result, sem_seg, boxes = self.parse(detector_postprocess(found, *size))
            outputs.append(
                {
                    "part_instances": result,
                    "sem_seg": sem_seg,
                    "panoptic_seg": result.panoptic(),
                    "instances": masks_as_instances(result),
                    "detections": boxes,
                }
            )
        return outputs

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad, batch."""
        images = super().preprocess_image(batched_inputs)
        if self.channels_last:
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images


def _on(device: torch.device, inputs: dict) -> dict:
    return {k: v.to(device) if hasattr(v, "to") else v for k, v in inputs.items()}


def _check_keys(cfg) -> None:
    """
    Raises:
        ValueError: see :meth:`PartRCNN.from_config`.
    """
    model = cfg.MODEL
    if not model.MASK_ON:
        raise ValueError(f"MODEL.MASK_ON is False, but {model.META_ARCHITECTURE} needs it.")
    source = model.INSTANCE_CRF.DETECTIONS.SOURCE
    wanted = {
        "MODEL.FREEZE": (list(model.FREEZE), []),
        "MODEL.DETECTOR.CLASSES": (list(model.DETECTOR.CLASSES), []),
        "MODEL.INSTANCE_CRF.DETECTIONS.SOURCE": (source, "detector"),
    }
    for key, (value, known) in wanted.items():
        if value != known:
            raise ValueError(
                f"{key} is {value!r}, which {model.META_ARCHITECTURE} does not know: "
                f"it must be {known!r}."
            )
