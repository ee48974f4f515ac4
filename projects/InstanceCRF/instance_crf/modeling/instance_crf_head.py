"""The Instance CRF as a head without regions of interest: Q and detections -> one labelling.

Shape letters: D detections, P parts, L labels, H, W image size, H', W' output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ..crf import DenseInstanceCRF, FactoredInstanceCRF, Labelling
from ..crf.labelling import resize_maps
from ..crf.place import region_templates
from ..losses import check_top_k, hardest_pixels_loss, match_ground_truth
from ..losses.matching import IGNORED
from ..structures import SCORE_NAMES, PartInstances

__all__ = ["INSTANCE_CRF_HEADS_REGISTRY", "InstanceCRFHead", "build_instance_crf_head"]

INSTANCE_CRF_HEADS_REGISTRY = Registry("INSTANCE_CRF_HEADS")
INSTANCE_CRF_HEADS_REGISTRY.__doc__ = """
Registry for heads that assign every pixel of Q to a detection. The registered object is called
with ``obj(cfg)`` and has the methods ``losses`` and ``inference`` of :class:`InstanceCRFHead`.
"""

FORMS = ("factored", "joint")


def build_instance_crf_head(cfg) -> nn.Module:
    """The head that ``cfg.MODEL.INSTANCE_CRF.NAME`` names."""
    return INSTANCE_CRF_HEADS_REGISTRY.get(cfg.MODEL.INSTANCE_CRF.NAME)(cfg)


@INSTANCE_CRF_HEADS_REGISTRY.register()
class InstanceCRFHead(nn.Module):
    """The Instance CRF (Sec. 3.2) with its matched loss (Sec. 3.3)."""

    @configurable
    def __init__(
        self,
        *,
        crf: DenseInstanceCRF | FactoredInstanceCRF,
        part_owner: Sequence[int],
        num_iterations_train: int = 5,
        num_iterations_test: int = 5,
        matching: str = "person",
        unmatched: str = "ignore",
        ohem_top_k: float = 32768,
        loss_weight: float = 1.0,
        stop_gradient_to_parts: bool = False,
        score_name: str = "mean_q",
        min_share: float = 0.0,
    ):
        """
        Args:
            crf: the CRF; nothing in it depends on D or P.
            part_owner: (P,) contiguous object class that owns each part.
            num_iterations_train, num_iterations_test: mean-field iterations T.
            matching, unmatched: see :func:`instance_crf.losses.match_ground_truth`.
            ohem_top_k: K hardest pixels of each image, see
                :func:`instance_crf.losses.hardest_pixels_loss`.
            loss_weight: factor of the loss.
            stop_gradient_to_parts: the loss teaches the CRF's weights only, not Q or the evidence.
            score_name: one of :data:`instance_crf.structures.SCORE_NAMES`.
            min_share: see :meth:`instance_crf.structures.PartInstances.from_label_maps`.

        Raises:
            ValueError: an unknown ``score_name``, a K that is none.
        """
        super().__init__()
        check_top_k(ohem_top_k)
        if score_name not in SCORE_NAMES:
            raise ValueError(
                f"MODEL.INSTANCE_CRF.SCORE is {score_name!r}; it is one of "
                f"{', '.join(SCORE_NAMES)}."
            )
        self.crf = crf
        self.register_buffer("part_owner", torch.tensor(list(part_owner)), persistent=False)
        self.num_iterations_train = num_iterations_train
        self.num_iterations_test = num_iterations_test
        self.matching = matching
        self.unmatched = unmatched
        self.ohem_top_k = ohem_top_k
        self.loss_weight = loss_weight
        self.stop_gradient_to_parts = stop_gradient_to_parts
        self.score_name = score_name
        self.min_share = min_share

    @classmethod
    def from_config(cls, cfg) -> dict:
        crf = cfg.MODEL.INSTANCE_CRF
        return {
            "crf": crf_from_config(cfg),
            "part_owner": part_owner_from_config(cfg),
            "num_iterations_train": crf.NUM_ITERATIONS.TRAIN,
            "num_iterations_test": crf.NUM_ITERATIONS.TEST,
            "matching": crf.MATCHING,
            "unmatched": crf.UNMATCHED,
            "ohem_top_k": crf.OHEM_TOP_K,
            "loss_weight": crf.LOSS_WEIGHT,
            "stop_gradient_to_parts": crf.STOP_GRADIENT_TO_PARTS,
            "score_name": crf.SCORE,
            "min_share": crf.MIN_SHARE,
        }

    def losses(
        self,
        part_probs: Sequence[Tensor],
        detections: Sequence[Instances],
        images: Sequence[Tensor],
        part_segs: Sequence[Tensor],
        object_segs: Sequence[Tensor],
        *,
        evidence: Sequence[Tensor | None] | None = None,
    ) -> dict[str, Tensor]:
        """The matched, hard-pixel cross-entropy of a mini-batch.

        Args:
            part_probs: Q of each image, (P+1, H, W).
            detections: ``pred_boxes``, ``scores``, ``pred_classes`` of each image.
            images: (3, H, W) in 0-255.
            part_segs: (H, W) int64, 0 background, 1..P, 255 ignore.
            object_segs: (H, W) int64, 0 none, ids >= 1, -1 ignore.
            evidence: (D, H, W) of each image, see :class:`~instance_crf.crf.FactoredInstanceCRF`.

        Returns:
            ``{"loss_crf": scalar}``.
        """
        if self.stop_gradient_to_parts:
            part_probs = [q.detach() for q in part_probs]
            evidence = evidence and [a if a is None else a.detach() for a in evidence]
        labellings = self._labellings(
            part_probs, detections, images, evidence, self.num_iterations_train
        )
        log_probs, valid = [], []
        for labelling, part_seg, object_seg in zip(labellings, part_segs, object_segs, strict=True):
            target = match_ground_truth(
                *labelling.argmax(),
                object_seg,
                part_seg,
                label_table=labelling.label_space.label_index(),
                mode=self.matching,
                unmatched=self.unmatched,
            )
            log_probs.append(labelling.log_prob(target))
            valid.append(target != IGNORED)
        self._log_weights()
        loss = hardest_pixels_loss(log_probs, valid, top_k=self.ohem_top_k)
        return {"loss_crf": loss * self.loss_weight}

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
            part_probs, detections, images, evidence: as in :meth:`losses`.
            output_sizes: (H', W') of each image. Where it is not (H, W), the marginals are
                brought to it before the argmax, never the labels.
        """
        labellings = self._labellings(
            part_probs, detections, images, evidence, self.num_iterations_test
        )
        results = []
        for labelling, q, boxes, size in zip(
            labellings, part_probs, detections, output_sizes, strict=True
        ):
            object_map, part_map, confidence = labelling.label_maps(size)
            scale = boxes.pred_boxes.tensor.new_tensor(
                [size[1] / q.shape[2], size[0] / q.shape[1]] * 2
            )
            results.append(
                PartInstances.from_label_maps(
                    object_map,
                    part_map,
                    boxes=boxes.pred_boxes.tensor * scale,
                    scores=boxes.scores,
                    classes=boxes.pred_classes,
                    part_prob=resize_maps(q, size),
                    confidence=confidence,
                    score_name=self.score_name,
                    min_share=self.min_share,
                )
            )
        return results

    @torch.no_grad()
    def whose(
        self,
        part_probs: Sequence[Tensor],
        detections: Sequence[Instances],
        images: Sequence[Tensor],
        *,
        evidence: Sequence[Tensor | None] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Whose every pixel is, before and after it has asked its neighbours; factored form only.

        Args:
            part_probs, detections, images, evidence: as in :meth:`losses`.

        Returns:
            For each image ``whose_before`` (D, H, W), pi_k(i): the softmax of the identity
            potential; and ``object_prob`` (D, H, W), that a pixel is someone's and detection i's.

        Raises:
            ValueError: the form is joint.
        """
        if not isinstance(self.crf, FactoredInstanceCRF):
            raise ValueError(
                "MODEL.INSTANCE_CRF.FORM is 'joint', which has no distribution over whose a pixel "
                "is: it needs 'factored'."
            )
        inputs = part_probs, detections, images, evidence
        before = self._labellings(*inputs, 0)
        after = self._labellings(*inputs, self.num_iterations_test)
        return [
            {"whose_before": first.whose_prob(), "object_prob": last.object_prob()}
            for first, last in zip(before, after, strict=True)
        ]

    def _labellings(
        self,
        part_probs: Sequence[Tensor],
        detections: Sequence[Instances],
        images: Sequence[Tensor],
        evidence: Sequence[Tensor | None] | None,
        num_iterations: int,
    ) -> list[Labelling]:
        # The paper's form knows boxes and scores only.
        more = {} if isinstance(self.crf, DenseInstanceCRF) else {"evidence": evidence}
        return self.crf(
            list(part_probs),
            [d.pred_boxes.tensor for d in detections],
            [d.scores for d in detections],
            list(images),
            object_classes=[d.pred_classes for d in detections],
            part_owner=self.part_owner,
            num_iterations=num_iterations,
            **more,
        )

    def _log_weights(self) -> None:
        if not has_event_storage():
            return
        for name, value in self.crf.learned_numbers().items():
            get_event_storage().put_scalar(f"crf/{name}", value)


def crf_from_config(cfg) -> DenseInstanceCRF | FactoredInstanceCRF:
    """The CRF of ``MODEL.INSTANCE_CRF.FORM``.

    Raises:
        ValueError: an unknown form, or one of the CRF's options.
    """
    crf = cfg.MODEL.INSTANCE_CRF
    common = {
        "theta_alpha": crf.BILATERAL.THETA_ALPHA,
        "theta_beta": crf.BILATERAL.THETA_BETA,
        "theta_gamma": crf.SPATIAL.THETA_GAMMA,
        "reference_size": crf.REFERENCE_SIZE or None,
        "normalization": crf.NORMALIZATION,
        "backend": crf.BACKEND,
        "box_weight": crf.BOX_WEIGHT,
        "global_weight": crf.GLOBAL_WEIGHT,
    }
    if crf.FORM == "joint":
        return DenseInstanceCRF(
            box_term=crf.BOX_TERM,
            global_term=crf.GLOBAL_TERM,
            pairwise_term=crf.PAIRWISE_TERM,
            background_box_term=crf.BACKGROUND_BOX_TERM,
            epsilon=crf.EPSILON,
            score_transform=crf.SCORE_TRANSFORM,
            bilateral_weight=crf.BILATERAL.WEIGHT,
            spatial_weight=crf.SPATIAL.WEIGHT,
            **common,
        )
    if crf.FORM != "factored":
        raise ValueError(
            f"MODEL.INSTANCE_CRF.FORM is {crf.FORM!r}; it is one of {', '.join(FORMS)}."
        )
    identity = crf.IDENTITY
    if identity.CUE_WEIGHTS and len(identity.CUE_WEIGHTS) != len(identity.CUES):
        raise ValueError(
            f"MODEL.INSTANCE_CRF.IDENTITY.CUE_WEIGHTS has {len(identity.CUE_WEIGHTS)} numbers for "
            f"the cues {list(identity.CUES)}: give one each, or none."
        )
    cue_weights = dict(zip(identity.CUES, identity.CUE_WEIGHTS, strict=False))
    regions = list(crf.PART_REGIONS) or [""] * (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1)
    return FactoredInstanceCRF(
        cues=identity.CUES,
        cue_weights=cue_weights,
        potential=identity.POTENTIAL,
        what_pairwise=crf.PAIRWISE_TERM and crf.WHAT.PAIRWISE_TERM,
        whose_pairwise=crf.PAIRWISE_TERM and identity.PAIRWISE_TERM,
        nobody=identity.NOBODY,
        reach=identity.REACH,
        place_templates=region_templates(regions),
        nobody_potential=identity.NOBODY_POTENTIAL,
        evidence_floor=identity.EVIDENCE_FLOOR,
        what_weights=(crf.WHAT.BILATERAL_WEIGHT, crf.WHAT.SPATIAL_WEIGHT),
        whose_weights=(crf.BILATERAL.WEIGHT, crf.SPATIAL.WEIGHT),
        **common,
    )


def part_owner_from_config(cfg) -> list[int]:
    """``MODEL.INSTANCE_CRF.PART_OWNER``, checked; all parts belong to class 0 when it is empty.

    Raises:
        ValueError: not one owner a part, or an owner that there is not.
    """
    num_parts = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1
    num_objects = len(cfg.MODEL.DETECTOR.CLASS_IDS) or cfg.MODEL.ROI_HEADS.NUM_CLASSES
    owner = list(cfg.MODEL.INSTANCE_CRF.PART_OWNER) or [0] * num_parts
    if len(owner) != num_parts:
        raise ValueError(
            f"MODEL.INSTANCE_CRF.PART_OWNER has {len(owner)} entries, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1 is {num_parts}: give one owner a part."
        )
    if min(owner) < 0 or max(owner) >= num_objects:
        raise ValueError(
            f"MODEL.INSTANCE_CRF.PART_OWNER is {owner}, but MODEL.ROI_HEADS.NUM_CLASSES is "
            f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES} and MODEL.DETECTOR.CLASS_IDS "
            f"{list(cfg.MODEL.DETECTOR.CLASS_IDS)}: owners are 0..{num_objects - 1}."
        )
    return owner
