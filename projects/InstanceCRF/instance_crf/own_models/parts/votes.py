"""Votes of pixels for the keypoints of their person: how well they agree with each box.

Letters: K keypoints; D detections; H, W size of the image; h, w size of the votes, whose corners
are aligned with the image's: the outer samples lie at the centres of its outer pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["follow_offsets", "keypoint_vote_evidence"]

_SPREAD = 0.25
"""Standard deviation of votes in box sizes, as of the identity head's votes for a centre."""
_LEAST_SOMEONE = 1e-6
"""So that a box with nobody in it has a mean, too."""


def follow_offsets(offsets: Tensor, stride: int, *, steps: int = 2) -> Tensor:
    """Where each sample votes its person's keypoints to be.

    Offsets from far away are rough, so a vote is cast again from where it points to, as BodyPix
    does itself.

    Args:
        offsets: (2K, h, w) K times y, then K times x, in pixels of the network's input, where the
            samples are ``stride`` apart.
        steps: how often a vote is cast again.

    Returns:
        (K, 2, h, w) x, y in pixels of the network's input, the first sample being at 0, 0.
    """
    offsets = offsets.unflatten(0, (2, -1)).flip(0).transpose(0, 1)
    y, x = (stride * torch.arange(n, device=offsets.device) for n in offsets.shape[2:])
    here = torch.stack(torch.meshgrid(x, y, indexing="xy")).to(offsets)
    last = here[:, -1:, -1:]
    votes = here + offsets
    for _ in range(steps):
        votes = torch.minimum(votes.clamp(min=0), last)
        place = (2 * votes / last - 1).permute(0, 2, 3, 1)
        votes = votes + F.grid_sample(offsets, place, padding_mode="border", align_corners=True)
    return votes


def keypoint_vote_evidence(
    voted_keypoints: Tensor, boxes: Tensor, someone: Tensor, size: tuple[int, int]
) -> Tensor:
    """How near each sample's votes are to the pose of each box, the mean vote in it.

    With r the root mean square, over the keypoints, of the distance to the pose, and s the root of
    the box's area: exp(-(r / s)^2 / (2 * 0.25^2)). That a keypoint is always voted too high, or
    is out of sight, does not matter: the pose has the same error.

    Args:
        voted_keypoints: (K, 2, h, w) x, y in pixels of the image.
        boxes: (D, 4) x1 y1 x2 y2 in pixels of the image.
        someone: (h, w) in [0, 1], the probability of a person, the weight in the mean.
        size: (H, W).

    Returns:
        (D, h, w) in [0, 1].
    """
    height, width = voted_keypoints.shape[2:]
    votes = voted_keypoints.flatten(2).flatten(0, 1).T  # (hw, 2K)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    extent = boxes[:, 2:] - boxes[:, :2]
    across = _within(centre[:, 0], extent[:, 0], size[1], width)
    down = _within(centre[:, 1], extent[:, 1], size[0], height)
    inside = (down[:, :, None] & across[:, None, :]).flatten(1)
    weight = inside * someone.clamp(min=_LEAST_SOMEONE).flatten()
    pose = weight @ votes / weight.sum(1, keepdim=True)
    # The default's matrix product cancels digits.
    distance = torch.cdist(pose, votes, compute_mode="donot_use_mm_for_euclid_dist")
    scale = extent.prod(1).clamp(min=1).sqrt()[:, None]
    mean_square = (distance / scale).square() / len(voted_keypoints)
    return (-mean_square / (2 * _SPREAD**2)).exp().unflatten(1, (height, width))


def _within(centre: Tensor, extent: Tensor, length: int, samples: int) -> Tensor:
    """(D,), (D,) -> (D, samples) bool: in the box along one axis; the nearest sample always is."""
    place = torch.linspace(0.5, length - 0.5, samples, device=centre.device, dtype=centre.dtype)
    distance = (place - centre[:, None]).abs()
    return distance <= torch.maximum(extent[:, None] / 2, distance.amin(1, keepdim=True))
