"""The whole network of Fig. 2: parts and detections of an image, joined by the Instance CRF.

Shape letters: P parts, D detections, H, W size of an image as the network gets it, H', W' the
size wanted for the output, h, w and C those of the identity head's vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    build_backbone,
    build_roi_heads,
    build_sem_seg_head,
)
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ..crf.labelling import resize_maps
from .detections import (
    detections_from_ground_truth,
    keep_best,
    keep_classes,
    masks_as_instances,
    no_detections,
    nothing_labelled,
    without_masks,
)
from .detector import all_but_masks, build_proposals, detector_losses, find_detections
from .evidence import EVIDENCE_SOURCES, join_evidence, mask_evidence
from .identity_head import build_identity_head
from .instance_crf_head import build_instance_crf_head

__all__ = ["InstanceCRF"]

DETECTION_SOURCES = ("detector", "record", "ground_truth")
PART_SOURCES = ("head", "ground_truth")
FREEZABLE = ("backbone", "part_head", "identity_head", "detector", "boxes", "crf_head")


@META_ARCH_REGISTRY.register()
class InstanceCRF(nn.Module):
    """Backbone -> part head (Q), identity head (evidence), detector (boxes) -> Instance CRF.

    Gradients of the CRF's loss reach the CRF's weights and, through Q and the evidence, both heads
    and the backbone; they never reach the detector, which learns from its own losses, nor through
    its boxes and masks.

    Attributes:
        keep_evidence: inference also gives the vote and the evidence; False at first.
        keep_whose: inference also gives what :meth:`InstanceCRFHead.whose` does; False at first.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        part_head: nn.Module,
        crf_head: nn.Module | None,
        identity_head: nn.Module | None = None,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module | None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        freeze: Sequence[str] = (),
        channels_last: bool = False,
        class_ids: Sequence[int] = (),
        detection_source: str = "detector",
        score_thresh: float = 0.5,
        max_detections: int = 20,
        jitter: float = 0.1,
        warmup_iters: int = 0,
        part_source: str = "head",
        evidence: Sequence[str] = EVIDENCE_SOURCES,
    ):
        """
        Args:
            backbone: a Detectron2 backbone.
            part_head: gives Q, see :class:`~.part_head.PartHead`.
            crf_head: gives the labelling; None learns parts, votes and boxes only.
            identity_head: says whose a pixel is, see :class:`~.identity_head.IdentityHead`.
            proposal_generator, roi_heads: Detectron2's two-stage detector; both or neither.
            pixel_mean, pixel_std: normalisation of the backbone's input. The CRF sees 0-255.
            freeze: any of "backbone", "part_head", "identity_head", "detector", "boxes" (all of the
                detector but its mask head), "crf_head".
            channels_last: memory order of the convolutions.
            class_ids: the detector's class of each object class of the data set; empty: the same.
            detection_source: "detector", "record" or "ground_truth".
            score_thresh, max_detections: see :func:`~.detections.keep_best`.
            jitter: of ground-truth boxes in training, a fraction of their size.
            warmup_iters: so many iterations train on jittered ground-truth boxes.
            part_source: "head", or "ground_truth" for a one-hot Q.
            evidence: which of "vote" and "masks" say whose a pixel is, where they are.

        Raises:
            ValueError: unknown names, half a detector, a source that the model lacks.
        """
        super().__init__()
        _check_one_of("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", detection_source, DETECTION_SOURCES)
        _check_one_of("MODEL.INSTANCE_CRF.PARTS.SOURCE", part_source, PART_SOURCES)
        for source in evidence:
            _check_one_of("MODEL.INSTANCE_CRF.IDENTITY.EVIDENCE", source, EVIDENCE_SOURCES)
        if (proposal_generator is None) != (roi_heads is None):
            raise ValueError("proposal_generator and roi_heads come together: give both or none.")
        if detection_source == "detector" and roi_heads is None and crf_head is not None:
            raise ValueError(
                "MODEL.INSTANCE_CRF.DETECTIONS.SOURCE is 'detector' but MODEL.DETECTOR.ENABLED is "
                "False: enable it, or take the boxes from 'record' or 'ground_truth'."
            )
        self.backbone = backbone
        self.part_head = part_head
        self.identity_head = identity_head
        self.crf_head = crf_head
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.register_buffer("class_ids", torch.tensor(list(class_ids), dtype=torch.int64), False)
        self.detection_source = detection_source
        self.score_thresh = score_thresh
        self.max_detections = max_detections
        self.jitter = jitter
        self.warmup_iters = warmup_iters
        self.part_source = part_source
        self.evidence = tuple(evidence)
        self.keep_evidence = False
        self.keep_whose = False
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.frozen = tuple(freeze)
        for module in self._modules_named(self.frozen):
            module.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES < 2:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}: it "
                "follows from the data set, call instance_crf.config.follow_datasets(cfg)."
            )
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        crf = cfg.MODEL.INSTANCE_CRF
        detector = cfg.MODEL.DETECTOR.ENABLED
        part_head = build_sem_seg_head(cfg, shape)
        identity_head = None
        if cfg.MODEL.IDENTITY_HEAD.ENABLED:
            identity_head = build_identity_head(
                cfg, input_channels=part_head.feature_channels, stride=part_head.feature_stride
            )
        return {
            "backbone": backbone,
            "part_head": part_head,
            "identity_head": identity_head,
            "crf_head": build_instance_crf_head(cfg) if crf.ENABLED else None,
            "proposal_generator": build_proposals(cfg, shape) if detector else None,
            "roi_heads": build_roi_heads(cfg, shape) if detector else None,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "freeze": cfg.MODEL.FREEZE,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
            "class_ids": cfg.MODEL.DETECTOR.CLASS_IDS,
            "detection_source": crf.DETECTIONS.SOURCE,
            "score_thresh": crf.DETECTIONS.SCORE_THRESH,
            "max_detections": crf.DETECTIONS.MAX_PER_IMAGE,
            "jitter": crf.DETECTIONS.JITTER,
            "warmup_iters": crf.DETECTIONS.WARMUP_ITERS,
            "part_source": crf.PARTS.SOURCE,
            "evidence": crf.IDENTITY.EVIDENCE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @property
    def size_divisibility(self) -> int:
        """Images are padded until their height and width are divisible by this."""
        return lcm(self.backbone.size_divisibility or 1, self.part_head.size_divisibility)

    def train(self, mode: bool = True) -> InstanceCRF:
        """Frozen parts stay in evaluation mode, so that their statistics do not move."""
        super().train(mode)
        for module in self._modules_named(self.frozen):
            module.eval()
        return self

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image, as :class:`~.data.mapper.PartInstanceMapper`
                makes it: ``image`` (3, H, W) in 0-255; wanted size ``height``, ``width``
                (default H, W); in training ``instances`` (gt_boxes, gt_classes,
                gt_object_ids), ``part_seg`` and ``object_seg`` (H, W), perhaps ``ignored``;
                ``detections`` when they come with the record.

        Returns:
            In training, the losses. Otherwise one dict an image, see :meth:`inference`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        # Nothing here needs no_grad: autograd keeps no graph of what has frozen weights alone,
        # and must keep that of a frozen head on a backbone that learns.
        features = self.backbone(images.tensor)
        losses = self._detector_losses(batched_inputs, images, features)

        part_feature = self.part_head.part_features(features)
        logits = self.part_head.predict(part_feature)
        vote = None if self.identity_head is None else self.identity_head(part_feature)
        if "part_head" not in self.frozen:
            losses.update(self.part_head.losses(logits, self._part_targets(batched_inputs)))
        if vote is not None and "identity_head" not in self.frozen:
            objects = self._ground_truth(batched_inputs)
            object_segs = self._maps(batched_inputs, "object_seg")
            losses.update(self.identity_head.losses(vote, objects, object_segs))
        if self.crf_head is not None:
            detections = self.detect(batched_inputs, images, features)
            losses.update(
                self.crf_head.losses(
                    self._part_probs(logits, images, batched_inputs),
                    detections,
                    self._raw_images(batched_inputs),
                    self._maps(batched_inputs, "part_seg"),
                    self._maps(batched_inputs, "object_seg"),
                    evidence=self._evidence(vote, detections, images),
                )
            )
        return losses

    @torch.no_grad()
    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Returns:
            One dict an image, every key always there, also when nothing is found:

            * ``part_instances``: :class:`~instance_crf.structures.PartInstances`, (H', W').
            * ``sem_seg``: Q, (P+1, H', W').
            * ``panoptic_seg``: (H', W') int32 ids and a dict a segment.
            * ``instances``: the labelled objects, ``pred_boxes, scores, pred_classes,
              pred_masks``, masks disjoint; boxes are the detections'.
            * ``detections``: all boxes that the CRF was given, without their masks.
            * with ``keep_evidence``, where there are: ``vote`` (C, h, w) of the identity head, of
              the padded image; ``evidence`` (D, H, W), of the detections that the CRF was given.
            * with ``keep_whose``: ``whose_before`` and ``object_prob``, likewise (D, H, W).

            Without a CRF head, no object is labelled and only ``sem_seg`` and ``detections``
            say anything.

        Raises:
            ValueError: the network's numbers are not finite.
        """
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        part_feature = self.part_head.part_features(features)
        logits = self.part_head.predict(part_feature)
        _check_finite(logits, batched_inputs)
        part_probs = self._part_probs(logits, images, batched_inputs)
        detections = self.detect(batched_inputs, images, features)
        vote, evidence = None, [None] * len(detections)
        if self.crf_head is not None or self.keep_evidence:
            if self.identity_head is not None:
                vote = self.identity_head(part_feature)
            evidence = self._evidence(vote, detections, images)
        sizes = [
            (int(x.get("height", size[0])), int(x.get("width", size[1])))
            for x, size in zip(batched_inputs, images.image_sizes, strict=True)
        ]
        if self.crf_head is None:
            results = [nothing_labelled(size, self.device) for size in sizes]
        else:
            results = self.crf_head.inference(
                part_probs,
                detections,
                self._raw_images(batched_inputs),
                sizes,
                evidence=evidence,
            )
        whose = [{}] * len(sizes)
        if self.keep_whose:  # before the detections are scaled, in place
            raw = self._raw_images(batched_inputs)
            whose = self.crf_head.whose(part_probs, detections, raw, evidence=evidence)
        outputs = [
            {
                "part_instances": result,
                "sem_seg": resize_maps(q, size),
                "panoptic_seg": result.panoptic(),
                "instances": masks_as_instances(result),
                "detections": detector_postprocess(without_masks(boxes), *size),
            }
            for result, q, boxes, size in zip(results, part_probs, detections, sizes, strict=True)
        ]
        if self.keep_evidence:
            votes = [None] * len(outputs) if vote is None else vote
            for output, *own in zip(outputs, votes, evidence, strict=True):
                kept = zip(("vote", "evidence"), own, strict=True)
                output.update({name: value for name, value in kept if value is not None})
        for output, own in zip(outputs, whose, strict=True):
            output.update(own)
        return outputs

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad, batch."""
        images = [
            (image - self.pixel_mean) / self.pixel_std for image in self._raw_images(batched_inputs)
        ]
        images = ImageList.from_tensors(images, self.size_divisibility)
        if self.channels_last:
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def detect(
        self, batched_inputs: list[dict], images: ImageList, features: dict[str, Tensor]
    ) -> list[Instances]:
        """The detections of each image, best first, without a gradient.

        Returns:
            Instances with ``pred_boxes`` (pixels of the network's input), ``scores``,
            ``pred_classes``; ``pred_masks`` where the detector or the record has some, see
            :func:`~.evidence.mask_evidence`.
        """
        # Only a CRF needs boxes that are given.
        source = "detector" if self.crf_head is None else self.detection_source
        if self.training and has_event_storage() and get_event_storage().iter < self.warmup_iters:
            source = "ground_truth"
        if source == "ground_truth":
            jitter = self.jitter if self.training else 0.0
            objects = [_get(x, "instances", source).to(self.device) for x in batched_inputs]
            return [detections_from_ground_truth(x, jitter=jitter) for x in objects]
        if source == "record":
            detections = [_get(x, "detections", source).to(self.device) for x in batched_inputs]
        elif self.roi_heads is None:
            detections = [no_detections(size, self.device) for size in images.image_sizes]
        else:
            detections = find_detections(self.proposal_generator, self.roi_heads, images, features)
            if len(self.class_ids):
                detections = [keep_classes(d, self.class_ids) for d in detections]
        return [
            keep_best(d, score_thresh=self.score_thresh, max_per_image=self.max_detections)
            for d in detections
        ]

    def _detector_losses(
        self, batched_inputs: list[dict], images: ImageList, features: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        if self.roi_heads is None or "detector" in self.frozen:
            return {}
        ground_truth = self._ground_truth(batched_inputs)
        if len(self.class_ids):
            for objects in ground_truth:
                objects.gt_classes = self.class_ids[objects.gt_classes]
        ignored = [x.get("ignored") for x in batched_inputs]
        rpn_losses, roi_losses = detector_losses(
            self.proposal_generator, self.roi_heads, images, features, ground_truth, ignored
        )
        if "boxes" in self.frozen:  # Detectron2 computes all losses or none
            roi_losses = {k: loss for k, loss in roi_losses.items() if k.startswith("loss_mask")}
        return {**rpn_losses, **roi_losses}

    def _evidence(
        self, vote: Tensor | None, detections: list[Instances], images: ImageList
    ) -> list[Tensor | None]:
        """(D, H, W) of each image, or None where there is none."""
        votes = masks = [None] * len(detections)
        if vote is not None and "vote" in self.evidence:
            votes = self.identity_head.evidence(vote, detections, images.image_sizes)
        if "masks" in self.evidence:
            masks = [mask_evidence(found) for found in detections]
        return [join_evidence(*both) for both in zip(votes, masks, strict=True)]

    def _part_probs(
        self, logits: Tensor, images: ImageList, batched_inputs: list[dict]
    ) -> list[Tensor]:
        """Q of each image without its padding, (P+1, H, W), float32."""
        if self.part_source == "ground_truth":
            num_classes = logits.shape[1]
            part_segs = self._maps(batched_inputs, "part_seg")
            return [_one_hot(part_seg, num_classes) for part_seg in part_segs]
        return [
            logits[i, :, :height, :width].float().softmax(0)
            for i, (height, width) in enumerate(images.image_sizes)
        ]

    def _part_targets(self, batched_inputs: list[dict]) -> Tensor:
        """(N, H, W) padded with the ignore value."""
        return ImageList.from_tensors(
            self._maps(batched_inputs, "part_seg"),
            self.size_divisibility,
            self.part_head.part_loss.ignore_value,
        ).tensor

    def _ground_truth(self, batched_inputs: list[dict]) -> list[Instances]:
        return [_get(x, "instances", "training").to(self.device) for x in batched_inputs]

    def _maps(self, batched_inputs: list[dict], name: str) -> list[Tensor]:
        return [_get(x, name, "training").to(self.device).long() for x in batched_inputs]

    def _raw_images(self, batched_inputs: list[dict]) -> list[Tensor]:
        return [x["image"].to(self.device).float() for x in batched_inputs]

    def _modules_named(self, names: Sequence[str]) -> list[nn.Module]:
        known = {
            "backbone": [self.backbone],
            "part_head": [self.part_head],
            "identity_head": [self.identity_head],
            "crf_head": [self.crf_head],
            "detector": [self.proposal_generator, self.roi_heads],
            "boxes": [self.proposal_generator, *all_but_masks(self.roi_heads)],
        }
        for name in names:
            _check_one_of("MODEL.FREEZE", name, FREEZABLE)
        return [module for name in names for module in known[name] if module is not None]


def _get(inputs: dict, key: str, wanted_by: str):
    if key not in inputs:
        raise KeyError(
            f"{wanted_by!r} needs {key!r} with every image, but "
            f"{inputs.get('file_name', 'an image')} has only {sorted(inputs)}."
        )
    return inputs[key]


def _check_one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} has {value!r}; it is one of {', '.join(allowed)}.")


def _check_finite(logits: Tensor, inputs: list[dict]) -> None:
    """
    Raises:
        ValueError: an image whose part scores are NaN or infinite, as diverged weights make them.
    """
    finite = logits.isfinite().flatten(1).all(1).tolist()
    if not all(finite):
        name = inputs[finite.index(False)].get("file_name", "an image")
        raise ValueError(
            f"The network's part scores of {name} are not finite (NaN or infinite): its training "
            "has diverged. Use an earlier checkpoint, or train with a lower SOLVER.BASE_LR."
        )


def _one_hot(part_seg: Tensor, num_classes: int) -> Tensor:
    """(H, W) part ids, 255 = ignore -> (P+1, H, W); ignored pixels count as background."""
    part_seg = torch.where(part_seg < num_classes, part_seg, 0)
    return F.one_hot(part_seg, num_classes).permute(2, 0, 1).float()
