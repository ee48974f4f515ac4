"""A part model for single people, run on every box and merged into one Q.

Letters: C channels, P parts, D boxes, H, W size of the image, h, w size of the merged Q.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.image_io import reduced_size
from ...taxonomies import PartTaxonomy, get_taxonomy
from ..boxes import read_detections
from ..images import read_picture
from ..inputs import PartScores
from .q import to_q
from .read import read_part_scores

__all__ = ["parts_from_crops"]


@torch.no_grad()
def parts_from_crops(
    fn: Callable[[np.ndarray], object],
    image: Any,
    boxes: Any,
    kind: str,
    *,
    taxonomy: PartTaxonomy | str | None = None,
    margin: float = 0.2,
    longer_side: int = 1024,
    smoothing: float = 0.1,
    align_corners: bool | None = None,
    background: str | None = None,
) -> PartScores:
    """Part probabilities of a whole image, from those of each box.

    Where crops c overlap, with q_c(0) the probability of the background in crop c:

        Q(0) = product over c of q_c(0),
        Q(j) = (1 - Q(0)) times the sum over c of q_c(j), over the sum over c of 1 - q_c(0).

    One crop that sees a person suffices: to a model of single people the neighbour in a crop is
    background, and the neighbour's own crop contradicts it. What the part is, the crops say in
    proportion to their foreground. Taking the largest score of the crops instead, as is often done
    by hand, lets a confident background of one crop erase the person of another, and leaves scores
    that are no probabilities. Outside of all crops is background.

    Args:
        fn: from a crop, (rows, columns, 3) uint8 RGB, to anything ``read_part_scores`` takes. It
            must cover the crop: a model that pads has to take the padding off again.
        image: a path, (H, W, 3) uint8 RGB, or what else ``parse`` takes.
        boxes: (D, 4) x1 y1 x2 y2 in pixels of the image.
        kind: of what ``fn`` returns: "prob", "logits" or "map".
        taxonomy: of the model, or its name; needed for maps, and where there may be no box.
        margin: added on each side of a box, a share of its width and height.
        longer_side: of the merged Q, in pixels, if the image is larger.
        smoothing: of maps, see ``to_q``.
        align_corners, background: of what ``fn`` returns, see ``PartScores``.

    Returns:
        Of kind "prob", background first, (P+1, h, w).

    Raises:
        ValueError: no image, no boxes, a taxonomy that is needed, crops whose channels differ; and
            what ``read_part_scores`` and ``to_q`` raise.
    """
    if longer_side < 1:
        raise ValueError(f"longer_side is {longer_side}; it is at least 1 pixel.")
    image = read_picture(image)[0]
    boxes = read_detections(boxes, size=image.shape[:2]).boxes
    taxonomy = getattr(fn, "taxonomy", None) if taxonomy is None else get_taxonomy(taxonomy)
    size = reduced_size(image.shape[:2], longer_side)
    num_parts, parts, nobody = taxonomy and taxonomy.num_parts, None, None
    for left, top, right, bottom in _windows(boxes, margin, image.shape[:2], size):
        window = (slice(top, bottom), slice(left, right))
        crop = np.ascontiguousarray(image[_in_image(window, image.shape[:2], size)])
        scores = read_part_scores(
            fn(crop), kind, align_corners=align_corners, background=background
        )
        num_parts = num_parts or _num_parts(scores)
        q = to_q(
            scores,
            (bottom - top, right - left),
            num_parts,
            smoothing=smoothing,
            image_size=crop.shape[:2],
        )
        if parts is None:
            parts, nobody = q.new_zeros((num_parts, *size)), q.new_ones(size)
        parts[(slice(None), *window)] += q[1:]
        nobody[window] *= q[0]
    if parts is None:
        if num_parts is None:
            raise ValueError(
                "There is no box, so nothing says how many parts there are: taxonomy=."
            )
        parts, nobody = torch.zeros((num_parts, *size)), torch.ones(size)
    tiny = torch.finfo(parts.dtype).tiny
    parts *= (1 - nobody) / parts.sum(0).clamp(min=tiny)
    return PartScores(torch.cat([nobody[None], parts]), "prob", taxonomy=taxonomy)


def _windows(boxes: Tensor, margin: float, image_size, size) -> list[list[int]]:
    """left, top, right, bottom in the merged Q of each box, which the image has a part of."""
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin is {margin}; it is a share of a box, at least 0.")
    scale = torch.tensor([size[1] / image_size[1], size[0] / image_size[0]], dtype=torch.float64)
    boxes = boxes.double()
    extent = boxes[:, 2:] - boxes[:, :2]
    first = ((boxes[:, :2] - margin * extent) * scale).floor()
    last = ((boxes[:, 2:] + margin * extent) * scale).ceil()
    last = torch.minimum(last, torch.tensor([size[1], size[0]]))
    return torch.cat([first.clamp(min=0), last], 1).int().tolist()


def _in_image(window, image_size, size) -> tuple[slice, slice]:
    """The pixels of the image that a window of the merged Q covers."""
    return tuple(
        slice(
            round(part.start * n / m), max(round(part.stop * n / m), round(part.start * n / m) + 1)
        )
        for part, n, m in zip(window, image_size, size, strict=True)
    )


def _num_parts(scores: PartScores) -> int:
    if scores.kind == "map":
        raise ValueError("A map does not say how many parts there are: give the taxonomy.")
    return len(scores.values) - (scores.background != "none")
