"""Resampling along one axis, a few rows at a time: bilinear, or the mean over a pixel's area.

Letters: n samples, m pixels wanted, K samples that a pixel depends on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Axis", "area_axis", "linear_axis"]


@dataclass(frozen=True)
class Axis:
    """Each pixel as a weighted mean of samples.

    Attributes:
        index: (m, K) int64, ascending along m.
        weight: (m, K) float32, sums to 1 over K.
    """

    index: Tensor
    weight: Tensor

    def window(self, first: int, last: int) -> tuple[int, int]:
        """The samples, first and one beyond the last, that pixels ``first..last - 1`` need."""
        return int(self.index[first].min()), int(self.index[last - 1].max()) + 1

    def apply(self, values: Tensor, dim: int, first: int, last: int, start: int = 0) -> Tensor:
        """Pixels ``first..last - 1`` along ``dim`` of ``values``, whose first sample is ``start``.

        Args:
            values: float; along ``dim``, the samples of :meth:`window`.
        """
        shape = [1] * values.dim()
        shape[dim] = last - first
        total = None
        for index, weight in zip(
            (self.index[first:last] - start).unbind(1),
            self.weight[first:last].unbind(1),
            strict=True,
        ):
            term = values.index_select(dim, index).mul_(weight.view(shape))
            total = term if total is None else total.add_(term)
        return total


def linear_axis(
    samples: int, size: int, *, image: int, align_corners: bool, device: torch.device | None = None
) -> Axis:
    """Bilinear along one axis: as ``F.interpolate``, where ``size`` is that of the image.

    Args:
        samples: n.
        size: m.
        image: pixels of the image along the axis. With ``align_corners`` the outer samples lie at
            the centres of its outer pixels, not of those of the m wanted pixels.
    """
    edges = _edges(samples, size, image, align_corners)
    centres = ((edges[:-1] + edges[1:]) / 2 - 0.5).clamp(0, samples - 1)
    below = centres.floor()
    fraction = centres - below
    index = torch.stack([below, (below + 1).clamp(max=samples - 1)], dim=1).long()
    weight = torch.stack([1 - fraction, fraction], dim=1)
    if not fraction.any():
        index, weight = index[:, :1], weight[:, :1]
    return Axis(index.to(device), weight.float().to(device))


def area_axis(
    samples: int, size: int, *, image: int, align_corners: bool, device: torch.device | None = None
) -> Axis:
    """The mean over what a pixel covers, each sample standing for its surroundings.

    The arguments are those of :func:`linear_axis`.
    """
    edges = _edges(samples, size, image, align_corners).clamp(0, samples)
    left, right = edges[:-1, None], edges[1:, None]
    first = left.floor().clamp(max=samples - 1)
    count = int((right.ceil() - first).max().clamp(min=1))
    index = first + torch.arange(count)
    weight = (torch.minimum(right, index + 1) - torch.maximum(left, index)).clamp(min=0)
    weight /= weight.sum(dim=1, keepdim=True)
    index = index.clamp(max=samples - 1).long()
    return Axis(index.to(device), weight.float().to(device))


def _edges(samples: int, size: int, image: int, align_corners: bool) -> Tensor:
    """(m + 1,) the pixels' edges, where sample i covers i..i + 1."""
    position = torch.arange(size + 1, dtype=torch.float64) / size
    if not align_corners or samples == 1 or image == 1:
        return position * samples
    return (position * image - 0.5) * ((samples - 1) / (image - 1)) + 0.5
