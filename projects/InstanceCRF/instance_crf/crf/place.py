"""Templates of the place cue: where in the box of an object each of its parts is found.

Shape letters: P parts, G grid of a template, D objects, H, W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .potentials import PLACE_RANGE

__all__ = ["REGIONS", "count_places", "region_templates", "templates_from_counts"]

GRID = 32
"""G: cells of 1/21 of a box."""

REGIONS = {
    "head": (0.5, 0.10, 0.30, 0.10),
    "torso": (0.5, 0.33, 0.25, 0.16),
    "arms": (0.5, 0.41, 0.40, 0.20),
    "upper_arms": (0.5, 0.35, 0.38, 0.18),
    "lower_arms": (0.5, 0.47, 0.40, 0.22),
    "legs": (0.5, 0.72, 0.30, 0.20),
    "upper_legs": (0.5, 0.62, 0.28, 0.16),
    "lower_legs": (0.5, 0.83, 0.30, 0.16),
    "body": (0.5, 0.55, 0.30, 0.25),
}
"""Of a standing person: centre u, v and standard deviations of u, v, in units of the box."""


def region_templates(regions: Sequence[str], grid: int = GRID) -> Tensor:
    """Gaussians for parts that were never counted.

    Args:
        regions: of each of P parts, a name in REGIONS, or "" for a part that may be anywhere.
        grid: G.

    Returns:
        (P, G, G) in [0, 1], rows v and columns u over PLACE_RANGE.

    Raises:
        ValueError: an unknown region.
    """
    low, high = PLACE_RANGE
    at = (torch.arange(grid) + 0.5) / grid * (high - low) + low
    templates = torch.ones(len(regions), grid, grid)
    for template, region in zip(templates, regions, strict=True):
        if region == "":
            continue
        if region not in REGIONS:
            raise ValueError(f"The body region {region!r} is not among {', '.join(REGIONS)}.")
        u, v, sigma_u, sigma_v = REGIONS[region]
        across, down = ((at - u) / sigma_u) ** 2, ((at - v) / sigma_v) ** 2
        template.copy_(torch.exp(-0.5 * (across + down[:, None])))
    return templates


def count_places(
    part_map: Tensor,
    object_map: Tensor,
    object_ids: Tensor,
    boxes: Tensor,
    num_parts: int,
    grid: int = GRID,
) -> Tensor:
    """How often each part is seen in each cell of the box of its object, in one image.

    Args:
        part_map: (H, W) integers, 0 background, 1..P; others are ignored.
        object_map: (H, W) integers.
        object_ids: (D,) integers, the objects to count.
        boxes: (D, 4) their boxes.
        num_parts: P.
        grid: G.

    Returns:
        (P, G, G) float64 counts; an object counts as one, whatever its number of pixels.
    """
    low, high = PLACE_RANGE
    counts = torch.zeros(num_parts * grid * grid, dtype=torch.float64)
    for object_id, box in zip(object_ids.tolist(), boxes.double(), strict=True):
        y, x = (object_map == object_id).nonzero(as_tuple=True)
        part = part_map[y, x].long()
        place = (torch.stack([x, y]) + 0.5 - box[:2, None]) / (box[2:] - box[:2])[:, None]
        cell = ((place - low) / (high - low) * grid).floor().long()
        seen = (part >= 1) & (part <= num_parts) & ((cell >= 0) & (cell < grid)).all(0)
        if seen.any():
            index = ((part - 1) * grid + cell[1]) * grid + cell[0]
            counts += torch.bincount(index[seen], minlength=len(counts)) / seen.sum()
    return counts.view(num_parts, grid, grid)


def templates_from_counts(counts: Tensor) -> Tensor:
    """(P, G, G) counts -> t_j: counts over the largest of the part, 1 for parts never seen."""
    peak = counts.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, counts / peak.clamp(min=1e-12), 1.0).float()
