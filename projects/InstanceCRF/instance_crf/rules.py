"""Whose a pixel is by a simple rule: what one would do without a CRF.

Letters: H, W size of the image; h, w of the pixels in one box; D detections; P parts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "NEAREST",
    "SIMPLE_RULES",
    "Owners",
    "Preference",
    "box_owners",
    "by_centre",
    "by_score",
    "by_smallness",
    "mask_owners",
    "owners_by_class",
]

Preference = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""How much a box wants the pixels that lie in it: (4,) box, () score, (h, 1) y and (1, w) x of the
pixels' centres -> what broadcasts to (h, w)."""

Owners = Callable[[Tensor, Tensor], Tensor]
"""Some of the detections, by (n,) their numbers, and the (H, W) bool pixels that may be theirs ->
(H, W), i + 1 for the i-th of them."""


def by_score(box: Tensor, score: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The surest."""
    return score


def by_centre(box: Tensor, score: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The nearest: by the distance to its centre, in half widths and heights of it."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return -(((x - centre[0]) / half[0]) ** 2) - ((y - centre[1]) / half[1]) ** 2


def by_smallness(box: Tensor, score: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The smallest."""
    return -(box[2:] - box[:2]).prod()


NEAREST = "nearest box centre"
SIMPLE_RULES: dict[str, Preference] = {
    "best-scoring box wins": by_score,
    NEAREST: by_centre,
    "smallest box": by_smallness,
}


def box_owners(preference: Preference, boxes: Tensor, scores: Tensor, foreground: Tensor) -> Tensor:
    """Each foreground pixel to the box that wants it most, of those that its centre lies in.

    Args:
        preference: one of :data:`SIMPLE_RULES`; of equals, the first box wins.
        boxes: (D, 4) x1 y1 x2 y2 in pixels of the map.
        scores: (D,).
        foreground: (H, W) bool.

    Returns:
        (H, W) int64: i + 1 for detection i; 0 for the background and outside of all boxes.
    """
    boxes = boxes.to(foreground.device, torch.float64)
    scores = scores.to(boxes)
    y, x = (torch.arange(n).to(boxes) + 0.5 for n in foreground.shape)
    owner = torch.zeros(foreground.shape, dtype=torch.int64, device=boxes.device)
    best = boxes.new_full(foreground.shape, -torch.inf)
    # First column and row, and one beyond the last, whose centres lie in the box.
    corners = torch.ceil(boxes - 0.5).clamp(min=0).long().tolist()
    for index, (left, top, right, bottom) in enumerate(corners):
        rows, columns = slice(top, bottom), slice(left, right)
        value = preference(boxes[index], scores[index], y[rows, None], x[None, columns])
        better = value > best[rows, columns]
        best[rows, columns] = torch.where(better, value, best[rows, columns])
        owner[rows, columns] = torch.where(better, index + 1, owner[rows, columns])
    return torch.where(foreground, owner, 0)


def mask_owners(masks: Tensor, scores: Tensor, foreground: Tensor) -> Tensor:
    """Each foreground pixel to the best-scoring of the masks that cover it.

    Args:
        masks: (D, H, W) bool, or float, where a half covers.
        scores: (D,); of equals, the first wins.
        foreground: (H, W) bool.

    Returns:
        (H, W) int64: i + 1 for detection i; 0 for the background and outside of all masks.
    """
    owner = torch.zeros(foreground.shape, dtype=torch.int64, device=foreground.device)
    for index in scores.argsort(descending=True, stable=True).tolist()[::-1]:
        owner[masks[index].to(owner.device) >= 0.5] = index + 1
    return torch.where(foreground, owner, 0)


def owners_by_class(
    owners: Owners, part_map: Tensor, classes: Tensor, part_owner: Tensor
) -> Tensor:
    """Each part's pixels to detections of the class that owns it.

    Args:
        owners: a rule.
        part_map: (H, W) integers, 0 background, 1..P.
        classes: (D,) object class of each detection.
        part_owner: (P,) object class that owns each part.

    Returns:
        (H, W) int64: i + 1 for detection i; 0 for the background and for nobody.
    """
    object_class = F.pad(part_owner.to(part_map.device), (1, 0), value=-1)[part_map.long()]
    owner = torch.zeros_like(object_class)
    classes = classes.cpu()
    for each in classes.unique().tolist():
        mine = (classes == each).nonzero()[:, 0]
        found = owners(mine, object_class == each)
        owner = torch.where(found > 0, F.pad(mine + 1, (1, 0)).to(owner.device)[found], owner)
    return owner
