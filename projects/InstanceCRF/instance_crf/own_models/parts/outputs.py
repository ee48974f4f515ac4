"""The outputs of libraries, recognised by what they have; none of the libraries is imported.

Letters: N images, C channels, U queries of a mask classifier, h, w size of the output.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...taxonomies import named_background
from .arrays import ARGUMENTS, Given

__all__ = ["UNSAID", "mask_classifier", "read_output"]

UNSAID = "unsaid"
"""A background that has to be said, since there is no usual place."""

_PASS_SCORES = (
    "Give what its processor makes of it: "
    "post_process_semantic_segmentation(..., return_segmentation_scores=True)[0]"
)


def read_output(value, kind: str) -> Given | None:
    """What an output object holds; None if it is none that is known.

    Args:
        value: of transformers: an output with ``logits`` (N, C, h, w), a mask classifier's with
            ``class_queries_logits`` and ``masks_queries_logits``, or an element of what
            ``post_process_semantic_segmentation`` returns; of torchvision: a dict with ``out``; of
            ultralytics: results with ``semantic_mask``.
        kind: what it is said to be.

    Raises:
        ValueError: it is another kind, or of several images, or not a semantic segmentation.
    """
    if getattr(value, "semantic_mask", None) is not None:
        _expect(kind, ("map",), "Results.semantic_mask holds ids of parts")
        return _of_ultralytics(value)
    if _field(value, "class_queries_logits") is not None:
        _expect(kind, ("prob", "logits"), "The output of a mask classifier holds probabilities")
        return _of_mask_classifier(value)
    if _field(value, "pred_masks") is not None:
        raise ValueError(
            f"{type(value).__name__} is a detector's: its logits are of boxes. {_PASS_SCORES}."
        )
    if _field(value, "segmentation") is not None:
        return _of_processor(value, kind)
    if _field(value, "logits") is not None:
        _expect(kind, ("logits",), f"{type(value).__name__} holds logits")
        return Given(_images(_field(value, "logits"), type(value).__name__), "logits")
    if isinstance(value, Mapping) and "out" in value:
        _expect(kind, ("logits",), 'A dict with "out" (torchvision) holds logits')
        return Given(_images(value["out"], 'The dict\'s "out"'), "logits")
    if isinstance(value, Mapping):
        raise ValueError(
            f"A dict with {', '.join(map(str, value)) or 'nothing'} is no known output of parts: "
            "torchvision's has out, transformers' has logits, segmentation or "
            "class_queries_logits. Pass its array."
        )
    return None


def mask_classifier(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """(C, h, w) sums over queries of the class' probability times the mask's: not yet normalised.

    Args:
        class_logits: (U, C + 1), "no object" last.
        mask_logits: (U, h, w).
    """
    classes = class_logits.float().softmax(dim=-1)[:, :-1]
    return torch.einsum("uc,uhw->chw", classes, mask_logits.float().sigmoid())


def _of_mask_classifier(value) -> Given:
    if _field(value, "patch_offsets") is not None:
        raise ValueError(f"{type(value).__name__} is of patches of an image. {_PASS_SCORES}.")
    classes, masks = _field(value, "class_queries_logits"), _field(value, "masks_queries_logits")
    if len(classes) != 1:
        raise ValueError(f"The output is of {len(classes)} images. Give one at a time.")
    return Given(mask_classifier(classes.detach()[0], masks.detach()[0]), "prob", sums=True)


def _of_processor(value, kind: str) -> Given:
    """An element of what transformers' processors return."""
    if _field(value, "segments_info") is not None:
        raise ValueError(
            "The segmentation's ids are of segments, not of parts: use "
            "post_process_semantic_segmentation, not the panoptic or instance one."
        )
    if kind == "map":
        return Given(_field(value, "segmentation"), "map")
    scores = _field(value, "segmentation_scores")
    if scores is None:
        raise ValueError(
            f"The segmentation has no segmentation_scores, but is passed as {ARGUMENTS[kind]}: ask "
            "for return_segmentation_scores=True, or pass it as part_map."
        )
    # Of a mask classifier they are sums of probabilities, of others logits, and nothing says which.
    if kind == "logits" and float(scores.min()) >= 0:
        raise ValueError(
            "segmentation_scores passed as part_logits are nowhere negative: of a mask classifier "
            "(Mask2Former, MaskFormer, OneFormer) they are sums of probabilities. Pass them as "
            "part_prob."
        )
    return Given(scores, kind, sums=kind == "prob")


def _of_ultralytics(value) -> Given:
    mask = value.semantic_mask
    ids = mask if isinstance(mask, Tensor | np.ndarray) else mask.data
    # Trained on polygons, a model has the background as its last id, and no name for it.
    names = getattr(value, "names", None) or {}
    names = [names[i] for i in sorted(names)] if isinstance(names, Mapping) else names
    return Given(ids, "map", background=named_background(names) or UNSAID)


def _images(values, source: str):
    if len(values.shape) != 4:
        raise ValueError(
            f"{source} has logits of {tuple(values.shape)}; those of parts are (1, C, h, w)."
        )
    return values


def _field(value, name: str):
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _expect(kind: str, kinds: tuple[str, ...], what: str) -> None:
    if kind not in kinds:
        wanted = " or ".join(ARGUMENTS[k] for k in kinds)
        raise ValueError(f"{what}: pass it as {wanted}, not as {ARGUMENTS[kind]}.")
