"""How much a pixel looks like each detection: of the detections' masks, of their keypoints.

Letters: D detections; K keypoints; L limbs; H, W size of the masks; h, w working size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COCO_LIMBS", "LIMB_WIDTH", "keypoint_evidence", "mask_evidence"]

#: Pairs of COCO's 17 keypoints (0 nose, 1 2 eyes, 3 4 ears, 5 6 shoulders, 7 8 elbows, 9 10 wrists,
#: 11 12 hips, 13 14 knees, 15 16 ankles) that a limb, or another piece of the body, joins.
COCO_LIMBS = (
    *((0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12)),
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
#: Standard deviation of a limb, in side lengths of a square of the box's area.
LIMB_WIDTH = 0.1
#: In standard deviations: pixels further away get nothing, in place of next to nothing.
_REACH = 4


def mask_evidence(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks at the working size: the mean over each pixel's area, or bilinear to a larger size.

    Args:
        masks: (D, H, W) bool, or in [0, 1].
        size: (h, w).

    Returns:
        (D, h, w) float32 in [0, 1].
    """
    size = int(size[0]), int(size[1])
    smaller = size[0] <= masks.shape[1] and size[1] <= masks.shape[2]
    how = {"mode": "area"} if smaller else {"mode": "bilinear", "align_corners": False}
    result = torch.empty((len(masks), *size), device=masks.device)
    for row, mask in zip(result, masks, strict=True):  # one by one: floats of all would be large
        row[:] = F.interpolate(mask[None, None].float(), size, **how)[0, 0]
    return result


def keypoint_evidence(keypoints: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """How near each pixel is to the detections' skeletons.

    A limb is the line between two keypoints; a pixel at distance r of it has
    exp(-r² / (2 s²)), s being :data:`LIMB_WIDTH` of the side of a square as large as the box, times
    the smaller confidence of the limb's ends, relative to the detection's most certain keypoint.
    The evidence is the largest over the limbs: each keypoint by itself and, where K is 17, those of
    :data:`COCO_LIMBS`. A detection whose confidences are all 0 says nothing: 1.

    Args:
        keypoints: (D, K, 3) x, y in pixels of a map of ``size`` (the centre of the first one is at
            0.5, 0.5), and the confidence.
        boxes: (D, 4) x1 y1 x2 y2 in the same pixels.
        size: (h, w).

    Returns:
        (D, h, w) float32 in [0, 1].
    """
    height, width = int(size[0]), int(size[1])
    device = keypoints.device
    count = keypoints.shape[1]
    pairs = [(k, k) for k in range(count)] + (list(COCO_LIMBS) if count == 17 else [])
    first, last = torch.tensor(pairs, device=device).reshape(-1, 2).T
    rows, columns = (torch.arange(n, device=device) + 0.5 for n in (height, width))
    result = torch.ones((len(keypoints), height, width), device=device)
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6).sqrt()
    for row, points, side in zip(result, keypoints.float(), sides.tolist(), strict=True):
        confidence = points[:, 2] / points[:, 2].max() if count and points[:, 2].max() > 0 else None
        if confidence is None:
            continue
        row.zero_()
        weight = torch.minimum(confidence[first], confidence[last])
        for a, b, share in zip(points[first, :2], points[last, :2], weight.tolist(), strict=True):
            if share > 0:
                x, y = (
                    _near(at, a[axis], b[axis], _REACH * LIMB_WIDTH * side)
                    for axis, at in enumerate((columns, rows))
                )
                window = row[y, x]
                squared = _squared_distance(columns[x], rows[y], a, b)
                near = share * torch.exp(-squared / (2 * (LIMB_WIDTH * side) ** 2))
                torch.maximum(window, near, out=window)
    return result


def _near(at: Tensor, start: Tensor, end: Tensor, reach: float) -> slice:
    """Of (n,) pixels' centres along one axis, those no further from a limb than ``reach``."""
    first, last = sorted((float(start), float(end)))
    last_index = int(min(max(last + reach + 0.5, 0), len(at)))
    return slice(int(min(max(first - reach - 0.5, 0), len(at))), last_index)


def _squared_distance(x: Tensor, y: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(h, w) squared distance of (x, y), (w,) and (h,), to the line from start to end."""
    dx, dy = x - start[0], (y - start[1])[:, None]
    (ux, uy), length = end - start, (end - start).square().sum()
    along = ((dx * ux + dy * uy) / length.clamp(min=1e-12)).clamp(0, 1)
    return (dx - along * ux) ** 2 + (dy - along * uy) ** 2
