"""The result of one image: one labelling, and the views of it (Sec. 3.4 of the paper).

Shape letters: H, W image size; D detections; n objects with at least one pixel; P parts;
S segments, a segment being the pixels of one part of one object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SCORE_NAMES", "PartInstances"]

SCORE_NAMES = ("mean_q", "mean_marginal", "detection", "product", "share", "product_share")
"""What may rank segments and objects: the mean of the part head's Q over the pixels (the paper's
authors' choice), the mean CRF marginal over the pixels, the detection's score, the product of
the three; the detection's score times the object's share of its box, and the product times it.

The *share*, 0..1: of the pixels in the object's box that have a part, those that are the
object's. A segment has its object's share. It is small for the second box on one person."""


@dataclass(frozen=True)
class PartInstances:
    """Every pixel's part and the object that it belongs to, with scores to rank them by.

    A part may belong to *nobody*: ``part_map`` has it, ``object_map`` is 0 there. So the part
    segmentation is ``part_map``, while objects, segments, masks and the panoptic view leave such
    pixels out. Every pixel of an object has a part.

    Attributes:
        object_map: (H, W) int32, 0 where no object is, i for the i-th object (1..n).
        part_map: (H, W) int32, 0 background, 1..P parts, also those of nobody.
        boxes: (n, 4) the detections' boxes, x1 y1 x2 y2 in pixels of this map.
        classes: (n,) int64 contiguous object classes.
        object_scores: name in :data:`SCORE_NAMES` -> (n,) scores.
        segment_object: (S,) int64 object of each segment, 1..n, ascending.
        segment_part: (S,) int64 part of each segment, 1..P, ascending within an object.
        segment_area: (S,) int64 pixels.
        segment_scores: name in :data:`SCORE_NAMES` -> (S,) scores.
        score_name: the score that ``scores`` and ``segment_info`` use.
    """

    object_map: Tensor
    part_map: Tensor
    boxes: Tensor
    classes: Tensor
    object_scores: Mapping[str, Tensor]
    segment_object: Tensor
    segment_part: Tensor
    segment_area: Tensor
    segment_scores: Mapping[str, Tensor]
    score_name: str = "mean_q"

    @classmethod
    def from_label_maps(
        cls,
        object_map: Tensor,
        part_map: Tensor,
        *,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        part_prob: Tensor | None = None,
        confidence: Tensor | None = None,
        score_name: str = "mean_q",
        min_share: float = 0.0,
    ) -> PartInstances:
        """Collect the segments of a labelling; detections that won no pixel are left out.

        So are those whose share of their box is below ``min_share``. Their pixels keep their part
        and become nobody's: they say that there is a person, not that it is another one's.

        Args:
            object_map: (H, W) integers, 0 none, i+1 for detection i.
            part_map: (H, W) integers, 0 background, 1..P; where it has a part and ``object_map``
                is 0, the part is nobody's.
            boxes: (D, 4) x1 y1 x2 y2 in pixels of the maps; a pixel lies in a box when its centre
                does (x1 <= x + 0.5 < x2).
            scores: (D,) detection scores.
            classes: (D,) contiguous object classes.
            part_prob: (P+1, H, W) Q, for ``mean_q``; 1 everywhere when not given (as for a
                ground truth).
            confidence: (H, W) marginal of each pixel's label, for ``mean_marginal``; 1 likewise.
            score_name: one of :data:`SCORE_NAMES`.
            min_share: least share (see :data:`SCORE_NAMES`) of an object, 0..1; 0 keeps all.

        Raises:
            ValueError: maps of different sizes, an object without a detection, a pixel of an
                object without a part, a part that Q does not have, an unknown score, a
                ``min_share`` that is no share.
        """
        _check_label_maps(object_map, part_map, boxes, scores, classes, part_prob)
        _check_choices(score_name, min_share)
        device = object_map.device
        num_parts = int(part_prob.shape[0]) - 1 if part_prob is not None else _largest(part_map)
        num_detections = len(scores)

        share = _shares(object_map, part_map, boxes)
        flat_object = object_map.reshape(-1).long()
        if min_share > 0:
            # Entry 0 stands for "no object", which stays.
            output = F.pad(share >= min_share, (1, 0), value=True)
            flat_object = torch.where(output[flat_object], flat_object, 0)
        flat_part = part_map.reshape(-1).long()
        foreground = flat_object.nonzero().squeeze(1)
        # One code per (detection, part); a bincount over the codes is all that is needed.
        codes = (flat_object[foreground] - 1) * num_parts + flat_part[foreground] - 1
        size = num_detections * num_parts

        def total(values: Tensor | None) -> Tensor:
            weights = None if values is None else values.double()
            return torch.bincount(codes, weights=weights, minlength=size).view(
                num_detections, num_parts
            )

        area = total(None)
        ones = area.double()
        q_of_label = None
        if part_prob is not None:
            q_of_label = part_prob.reshape(num_parts + 1, -1)[flat_part[foreground], foreground]
        sum_q = ones if q_of_label is None else total(q_of_label)
        sum_marginal = ones if confidence is None else total(confidence.reshape(-1)[foreground])

        object_area = area.sum(1)
        kept = object_area.nonzero().squeeze(1)
        new_id = torch.zeros(num_detections + 1, dtype=torch.int32, device=device)
        new_id[kept + 1] = torch.arange(1, len(kept) + 1, dtype=torch.int32, device=device)
        area, sum_q, sum_marginal = area[kept], sum_q[kept], sum_marginal[kept]
        detection, share = scores[kept].to(device=device, dtype=torch.float32), share[kept]
        row, column = area.nonzero(as_tuple=True)

        return cls(
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
            score_name=score_name,
        )

    def __len__(self) -> int:
        """The number of objects, n."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.object_map.shape
        return int(height), int(width)

    @property
    def scores(self) -> Tensor:
        """(n,) the objects' scores, by ``score_name``."""
        return self.object_scores[self.score_name]

    def object_masks(self) -> Tensor:
        """(n, H, W) bool, disjoint: labels (i, j) mapped to i."""
        ids = torch.arange(1, len(self) + 1, device=self.object_map.device, dtype=torch.int32)
        return self.object_map[None] == ids[:, None, None]

    def segment_masks(self) -> Tensor:
        """(S, H, W) bool, disjoint: one mask for every part of every object."""
        return (self.object_map[None] == self.segment_object[:, None, None]) & (
            self.part_map[None] == self.segment_part[:, None, None]
        )

    def panoptic(self) -> tuple[Tensor, list[dict]]:
        """The labelling as Detectron2's panoptic output.

        Returns:
            (H, W) int32 segment ids (0 no object, k for the k-th segment) and one dict a
            segment: ``id, category_id`` (part, contiguous: part id - 1), ``isthing, instance_id,
            object_category_id, score, area``. Plain Python numbers only.
        """
        num_parts = _largest(self.part_map)
        table = torch.zeros(
            (len(self) + 1, num_parts + 1), dtype=torch.int32, device=self.object_map.device
        )
        ids = torch.arange(1, len(self.segment_part) + 1, device=table.device, dtype=torch.int32)
        table[self.segment_object, self.segment_part] = ids
        id_map = table[self.object_map.long(), self.part_map.long()]
        columns = (
            self.segment_object.tolist(),
            self.segment_part.tolist(),
            self.segment_area.tolist(),
            self.segment_scores[self.score_name].tolist(),
        )
        classes = self.classes.tolist()
        segments = [
            {
                "id": index,
                "category_id": part - 1,
                "isthing": True,
                "instance_id": owner,
                "object_category_id": classes[owner - 1],
                "score": score,
                "area": area,
            }
            for index, (owner, part, area, score) in enumerate(zip(*columns, strict=True), start=1)
        ]
        return id_map, segments

    def to(self, device: torch.device | str) -> PartInstances:
        """The same result with every tensor on ``device``."""

        def move(value):
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, Mapping):
                return {name: tensor.to(device) for name, tensor in value.items()}
            return value

        return PartInstances(**{name: move(value) for name, value in vars(self).items()})


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


def _shares(object_map: Tensor, part_map: Tensor, boxes: Tensor) -> Tensor:
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


def _largest(part_map: Tensor) -> int:
    return int(part_map.max()) if part_map.numel() else 0


def _check_choices(score_name, min_share) -> None:
    if score_name not in SCORE_NAMES:
        raise ValueError(f"Unknown score {score_name!r}; it is one of {', '.join(SCORE_NAMES)}.")
    if not 0 <= min_share <= 1:
        raise ValueError(
            f"min_share is {min_share}; it is a share of a box, from 0 (every object) to 1 (only "
            "those that nobody shares a box with)."
        )


def _check_label_maps(object_map, part_map, boxes, scores, classes, part_prob) -> None:
    if object_map.dim() != 2 or object_map.shape != part_map.shape:
        raise ValueError(
            "object_map and part_map must both be (H, W), got "
            f"{tuple(object_map.shape)} and {tuple(part_map.shape)}."
        )
    if not len(boxes) == len(scores) == len(classes):
        raise ValueError(
            "boxes, scores and classes must have one row a detection, got "
            f"{len(boxes)}, {len(scores)} and {len(classes)}."
        )
    if part_prob is not None and part_prob.shape[1:] != object_map.shape:
        raise ValueError(
            f"part_prob is {tuple(part_prob.shape)}, which does not fit maps of "
            f"{tuple(object_map.shape)}."
        )
    if not object_map.numel():
        return
    if not 0 <= int(object_map.min()) <= int(object_map.max()) <= len(scores):
        raise ValueError(
            f"object_map holds ids {int(object_map.min())}..{int(object_map.max())}, but there "
            f"are {len(scores)} detections."
        )
    if part_prob is not None and _largest(part_map) >= part_prob.shape[0]:
        raise ValueError(
            f"part_map holds part {_largest(part_map)}, but part_prob has "
            f"{part_prob.shape[0] - 1} parts."
        )
    partless = int(((object_map != 0) & (part_map == 0)).sum())
    if partless:
        raise ValueError(
            f"{partless} pixels of {object_map.numel()} have an object without a part: set "
            "object_map to 0 there, or give them a part."
        )
