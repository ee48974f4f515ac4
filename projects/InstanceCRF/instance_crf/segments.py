"""The objects and the segments of a labelling, and what ranks them.

Shape letters as in :mod:`.structures`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "SCORE_NAMES",
    "check_label_maps",
    "check_min_share",
    "check_score_name",
    "collect",
    "largest",
]

SCORE_NAMES = ("mean_q", "mean_marginal", "detection", "product", "share", "product_share")
"""What may rank segments and objects: the mean of the part head's Q over the pixels (the paper's
authors' choice), the mean CRF marginal over the pixels, the detection's score, the product of
the three; the detection's score times the object's share of its box, and the product times it.

The *share*, 0..1: of the pixels in the object's box that have a part, those that are the
object's. A segment has its object's share. It is small for the second box on one person."""


def collect(
    object_map: Tensor,
    part_map: Tensor,
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    part_prob: Tensor | None,
    confidence: Tensor | None,
    min_share: float,
) -> dict[str, Any]:
    """What :meth:`PartInstances.from_label_maps` finds out, by the names of the attributes."""
    device = object_map.device
    num_parts = int(part_prob.shape[0]) - 1 if part_prob is not None else largest(part_map)
    share = _box_shares(object_map, part_map, boxes)
    flat_object = object_map.reshape(-1).long()
    if min_share > 0:
        # Entry 0 stands for "no object", which stays.
        output = F.pad(share >= min_share, (1, 0), value=True)
        flat_object = torch.where(output[flat_object], flat_object, 0)
    area, sum_q, sum_marginal = _sums(
        flat_object, part_map.reshape(-1), (len(scores), num_parts), part_prob, confidence
    )
    object_area = area.sum(1)
    kept, left_out = object_area.nonzero().squeeze(1), (object_area == 0).nonzero().squeeze(1)
    new_id = torch.zeros(len(scores) + 1, dtype=torch.int32, device=device)
    new_id[kept + 1] = torch.arange(1, len(kept) + 1, dtype=torch.int32, device=device)
    area, sum_q, sum_marginal = area[kept], sum_q[kept], sum_marginal[kept]
    detection, share = scores[kept].to(device=device, dtype=torch.float32), share[kept]
    row, column = area.nonzero(as_tuple=True)

    return dict(
        object_map=new_id[flat_object].view_as(object_map),
        part_map=part_map.to(torch.int32),
        boxes=boxes[kept].float(),
        classes=classes[kept].long(),
        object_scores=_all_scores(
            sum_q.sum(1), sum_marginal.sum(1), object_area[kept], detection, share
        ),
        segment_object=row + 1,
        segment_part=column + 1,
        segment_area=area[row, column],
        segment_scores=_all_scores(
            sum_q[row, column],
            sum_marginal[row, column],
            area[row, column],
            detection[row],
            share[row],
        ),
        detection_index=kept,
        left_out_boxes=boxes[left_out].float(),
        left_out_scores=scores[left_out].to(device=device, dtype=torch.float32),
    )


def _sums(
    object_ids: Tensor,
    part_ids: Tensor,
    shape: tuple[int, int],
    part_prob: Tensor | None,
    confidence: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Over the pixels of each (detection, part): their number, and the sums of their labels' Q and
    marginals.

    Args:
        object_ids: (HW,) 0 none, i+1 for detection i.
        part_ids: (HW,) parts of these, 1..P.
        shape: D, P.
        part_prob: (P+1, H, W); None: 1 everywhere.
        confidence: (H, W); None likewise.

    Returns:
        (D, P) int64, and (D, P) float64 twice.
    """
    foreground = object_ids.nonzero().squeeze(1)
    part_ids = part_ids[foreground].long()
    # One code per (detection, part); a bincount over the codes is all that is needed.
    codes = (object_ids[foreground] - 1) * shape[1] + part_ids - 1

    def total(values: Tensor | None) -> Tensor:
        weights = None if values is None else values.double()
        return torch.bincount(codes, weights=weights, minlength=shape[0] * shape[1]).view(shape)

    area = total(None)
    ones = area.double()
    sum_q, sum_marginal = ones, ones
    if part_prob is not None:
        sum_q = total(part_prob.flatten(1)[part_ids, foreground])
    if confidence is not None:
        sum_marginal = total(confidence.reshape(-1)[foreground])
    return area, sum_q, sum_marginal


def _all_scores(
    sum_q: Tensor, sum_marginal: Tensor, area: Tensor, detection: Tensor, share: Tensor
) -> dict[str, Tensor]:
    """Every score of :data:`SCORE_NAMES` from sums over pixels; all arguments have one shape."""
    mean_q, mean_marginal = (sum_q / area).float(), (sum_marginal / area).float()
    product = mean_q * mean_marginal * detection
    return {
        "mean_q": mean_q,
        "mean_marginal": mean_marginal,
        "detection": detection,
        "product": product,
        "share": detection * share,
        "product_share": product * share,
    }


def _box_shares(object_map: Tensor, part_map: Tensor, boxes: Tensor) -> Tensor:
    """(D,) float32: of the pixels in each detection's box that have a part, the share that is the
    detection's; 0 where none has. Boxes and maps as in :meth:`PartInstances.from_label_maps`."""
    shares = torch.zeros(len(boxes), device=object_map.device)
    # Small types, and windows in place of masks: a picture may have 12 megapixels and 50 boxes.
    object_map, has_part = object_map.to(torch.int32), part_map > 0
    # First column and row, and one beyond the last, whose centres lie in the box.
    corners = torch.ceil(boxes - 0.5).clamp(0, max(object_map.shape)).long().tolist()
    for index, (left, top, right, bottom) in enumerate(corners):
        window = (slice(top, bottom), slice(left, right))
        own = (object_map[window] == index + 1).count_nonzero()
        shares[index] = own / has_part[window].count_nonzero().clamp(min=1)
    return shares


def check_score_name(score_name: str) -> None:
    if score_name not in SCORE_NAMES:
        raise ValueError(f"Unknown score {score_name!r}; it is one of {', '.join(SCORE_NAMES)}.")


def check_min_share(min_share: float) -> None:
    if not 0 <= min_share <= 1:
        raise ValueError(
            f"min_share is {min_share}; it is a share of a box, from 0 (every object) to 1 (only "
            "those that nobody shares a box with)."
        )


def largest(values: Tensor) -> int:
    """0 if there are none."""
    return int(values.max()) if values.numel() else 0


def check_label_maps(object_map, part_map, boxes, scores, classes, part_prob, confidence) -> None:
    size = tuple(object_map.shape)
    if object_map.dim() != 2 or object_map.shape != part_map.shape:
        raise ValueError(
            f"object_map and part_map must both be (H, W), got {size} and {tuple(part_map.shape)}."
        )
    if object_map.is_floating_point() or part_map.is_floating_point():
        raise ValueError(
            f"object_map and part_map hold ids, but are {object_map.dtype} and {part_map.dtype}."
        )
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (D, 4), got {tuple(boxes.shape)}.")
    if not len(boxes) == len(scores) == len(classes):
        raise ValueError(
            "boxes, scores and classes must have one row a detection, got "
            f"{len(boxes)}, {len(scores)} and {len(classes)}."
        )
    if part_prob is not None and part_prob.shape[1:] != size:
        raise ValueError(
            f"part_prob is {tuple(part_prob.shape)}, which does not fit maps of {size}."
        )
    if confidence is not None and confidence.shape != size:
        raise ValueError(f"confidence is {tuple(confidence.shape)}, the maps are {size}.")
    if object_map.numel():
        _check_ids(object_map, part_map, len(scores), part_prob)


def _check_ids(object_map, part_map, num_detections: int, part_prob) -> None:
    low, high = (int(value) for value in object_map.aminmax())
    if not 0 <= low <= high <= num_detections:
        raise ValueError(
            f"object_map holds ids {low}..{high}, but there are {num_detections} detections."
        )
    low, high = (int(value) for value in part_map.aminmax())
    if low < 0:
        raise ValueError(f"part_map holds part {low}; parts are 1, 2, ..., and 0 is background.")
    if part_prob is not None and high >= part_prob.shape[0]:
        raise ValueError(
            f"part_map holds part {high}, but part_prob has {part_prob.shape[0] - 1} parts."
        )
    partless = int(((object_map != 0) & (part_map == 0)).sum())
    if partless:
        raise ValueError(
            f"{partless} pixels of {object_map.numel()} have an object without a part: set "
            "object_map to 0 there, or give them a part."
        )
