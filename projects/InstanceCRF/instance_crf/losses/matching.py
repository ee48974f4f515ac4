"""The "matched" ground truth Y* of Eq. 4: ground-truth objects get the numbers of detections.

How the objects of an image are numbered does not matter, so the ground truth is renumbered to
agree with the prediction as well as it can before the loss compares the two.

Shape letters: H, W image size; D detections; G ground-truth objects; P parts; L labels.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["IGNORED", "MATCHINGS", "UNMATCHED", "match_ground_truth", "segment_iou"]

IGNORED = -1
"""The target of a pixel that the loss leaves out."""

PART_IGNORE_VALUE = 255

MATCHINGS = ("person", "segment")
UNMATCHED = ("ignore", "background")


def match_ground_truth(
    pred_object: Tensor,
    pred_part: Tensor,
    gt_object: Tensor,
    gt_part: Tensor,
    *,
    label_table: Tensor,
    mode: str = "person",
    unmatched: str = "ignore",
) -> Tensor:
    """The matched ground truth Y* (Eq. 4) as label indices of the CRF.

    ``mode="person"`` assigns whole ground-truth objects to detections by the sum over parts of
    the IoU, so that all parts of an object keep one identity. ``mode="segment"`` is Eq. 4 to the
    letter: it permutes single segments, and may send the arm and the torso of one person to two
    detections. Segments with no overlap are not matched: the IoU of 0 says nothing.

    Args:
        pred_object: (H, W) integers, 0 none, i+1 for detection i: the prediction's argmax.
        pred_part: (H, W) integers, 0 background, 1..P.
        gt_object: (H, W) integers, 0 none, ids >= 1, negative = ignore.
        gt_part: (H, W) integers, 0 background, 1..P, 255 = ignore.
        label_table: (D+1, P+1) int64, the label index of (object, part); negative where the
            class of the detection does not own the part (``LabelSpace.label_index``). Where it
            has labels (nobody, part), in row 0, these are the target of parts that belong to no
            object, or to one without a detection.
        mode: "person" or "segment".
        unmatched: where there are no such labels, "ignore" leaves pixels of objects without a
            detection out of the loss, "background" teaches them to be background.

    Returns:
        (H, W) int64: label index of every pixel, :data:`IGNORED` where the loss must not look:
        ignored pixels, and, without labels for it, part pixels that belong to no object.

    Raises:
        ValueError: an unknown mode or policy, maps of different sizes, a part beyond P.
    """
    num_parts = label_table.shape[1] - 1
    _check(pred_object, pred_part, gt_object, gt_part, num_parts, mode, unmatched)
    gt_object, gt_part = gt_object.long(), gt_part.long()
    target = torch.zeros_like(gt_part)
    target[(gt_part == PART_IGNORE_VALUE) | (gt_object < 0)] = IGNORED
    labelled = (target != IGNORED) & (gt_part > 0)
    label_table = label_table.to(target.device)
    nobodys = label_table[0].clamp(min=IGNORED)
    lone = labelled & (gt_object == 0)
    target[lone] = nobodys[gt_part[lone]]
    labelled &= gt_object > 0
    if not bool(labelled.any()):
        return target

    ids, compact = torch.unique(gt_object[labelled], return_inverse=True)
    compact_object = torch.zeros_like(gt_object)
    compact_object[labelled] = compact + 1
    iou = segment_iou(
        pred_object.long(),
        pred_part.long(),
        compact_object,
        torch.where(labelled, gt_part, 0),
        num_detections=label_table.shape[0] - 1,
        num_objects=len(ids),
        num_parts=num_parts,
        ignore=target == IGNORED,
    )
    detection = torch.from_numpy(_MODES[mode](iou.cpu().numpy())).to(target.device)

    pixel_detection = detection[compact, gt_part[labelled] - 1]
    labels = label_table[pixel_detection, gt_part[labelled]]
    if unmatched == "background":
        labels[(pixel_detection == 0) & (labels < 0)] = 0
    target[labelled] = labels.clamp(min=IGNORED)
    return target


def segment_iou(
    pred_object: Tensor,
    pred_part: Tensor,
    gt_object: Tensor,
    gt_part: Tensor,
    *,
    num_detections: int,
    num_objects: int,
    num_parts: int,
    ignore: Tensor | None = None,
) -> Tensor:
    """IoU of every predicted with every ground-truth segment of the same part.

    Args:
        pred_object, gt_object: (H, W) int64, 0 none, 1..D and 1..G.
        pred_part, gt_part: (H, W) int64, 0 background, 1..P.
        ignore: (H, W) bool, pixels that do not count for either side.

    Returns:
        (P, G, D) float64. The IoU of segments of different parts is 0 (Sec. 3.3) and not stored.
    """
    keep = slice(None) if ignore is None else ~ignore.reshape(-1)
    pred = _segment_code(pred_object, pred_part, num_parts)[keep]
    gt = _segment_code(gt_object, gt_part, num_parts)[keep]
    num_pred, num_gt = num_detections * num_parts + 1, num_objects * num_parts + 1
    joint = torch.bincount(gt * num_pred + pred, minlength=num_gt * num_pred)
    joint = joint.view(num_gt, num_pred).double()
    gt_area, pred_area = joint.sum(1)[1:], joint.sum(0)[1:]

    intersection = joint[1:, 1:].view(num_objects, num_parts, num_detections, num_parts)
    intersection = intersection.diagonal(dim1=1, dim2=3).permute(2, 0, 1)
    union = (
        gt_area.view(num_objects, num_parts).t()[:, :, None]
        + pred_area.view(num_detections, num_parts).t()[:, None, :]
        - intersection
    )
    return intersection / union.clamp(min=1)


def _segment_code(object_map: Tensor, part_map: Tensor, num_parts: int) -> Tensor:
    """(H*W,) int64: 0 background, 1 + (object-1)*P + part-1 for the segments."""
    code = (object_map - 1) * num_parts + part_map
    return torch.where((object_map > 0) & (part_map > 0), code, 0).reshape(-1)


def _match_persons(iou: np.ndarray) -> np.ndarray:
    """(P, G, D) IoU -> (G, P) detection (1..D, 0 unmatched), one for all parts of an object."""
    detection = _assign(iou.sum(0))
    return np.repeat(detection[:, None], iou.shape[0], axis=1)


def _match_segments(iou: np.ndarray) -> np.ndarray:
    """(P, G, D) IoU -> (G, P) detection of every segment. Different parts never match, so the
    assignment of Eq. 4 falls apart into one a part."""
    return np.stack([_assign(part_iou) for part_iou in iou], axis=1)


def _assign(similarity: np.ndarray) -> np.ndarray:
    """(G, D) similarity -> (G,) the column, 1..D, that the best assignment gives each row; 0 for
    rows with none or with similarity 0."""
    detection = np.zeros(similarity.shape[0], dtype=np.int64)
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    matched = similarity[rows, columns] > 0
    detection[rows[matched]] = columns[matched] + 1
    return detection


_MODES = dict(zip(MATCHINGS, (_match_persons, _match_segments), strict=True))


def _check(pred_object, pred_part, gt_object, gt_part, num_parts, mode, unmatched) -> None:
    if mode not in MATCHINGS:
        raise ValueError(f"Unknown matching mode {mode!r}; it is one of {', '.join(MATCHINGS)}.")
    if unmatched not in UNMATCHED:
        raise ValueError(f"unmatched is {unmatched!r}; it is 'ignore' or 'background'.")
    shapes = {
        "pred_object": tuple(pred_object.shape),
        "pred_part": tuple(pred_part.shape),
        "gt_object": tuple(gt_object.shape),
        "gt_part": tuple(gt_part.shape),
    }
    if len(set(shapes.values())) != 1:
        raise ValueError(f"The four maps must have one size, got {shapes}.")
    parts = gt_part[gt_part != PART_IGNORE_VALUE]
    low, high = (int(parts.min()), int(parts.max())) if parts.numel() else (0, 0)
    if low < 0 or high > num_parts:
        raise ValueError(
            f"The ground truth holds part id {low if low < 0 else high}, but the model has "
            f"{num_parts} parts (MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1)."
        )
