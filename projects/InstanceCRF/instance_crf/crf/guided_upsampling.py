"""The answer at the size of the picture, with borders where the picture has them.

The labelling is inferred at a working size. A pixel of the picture takes the mean of the
distributions of the four working pixels around it, weighted as in bilinear interpolation and by
likeness of colour: joint bilateral upsampling (Kopf et al., SIGGRAPH 2007). Where all four have one
label, so has their mean, and nothing need be computed.

Shape letters: H, W picture; h, w working size; C columns of the distributions; M pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .labelling import Labelling

__all__ = ["guided_label_maps", "joint_bilateral_weights"]

SIGMA_COLOR = 32.0
"""Bandwidth of colour, in units of 0-255."""
_PIXELS_AT_A_TIME = 1 << 18
_LEAST_WEIGHT = 1e-3
"""Of a colour unlike the pixel's: where nothing is alike, nearness decides."""


def guided_label_maps(
    labelling: Labelling, small: Tensor, picture: Tensor, *, sigma_color: float = SIGMA_COLOR
) -> tuple[Tensor, Tensor, Tensor]:
    """`Labelling.label_maps` at the picture's size, without gradient.

    Args:
        labelling: of the picture at (h, w).
        small: (3, h, w) the picture at the working size, colours in 0-255.
        picture: (3, H, W) colours in 0-255, any dtype.
        sigma_color: see SIGMA_COLOR.

    Returns:
        (H, W) int32 object map, (H, W) int32 part map, (H, W) float32 confidence.

    Raises:
        ValueError: the small picture is not of the labelling's size.
    """
    if tuple(small.shape[1:]) != tuple(labelling.size):
        raise ValueError(
            f"The picture at the working size is {tuple(small.shape[1:])}, the "
            f"labelling {tuple(labelling.size)}."
        )
    if small.shape == picture.shape:
        owner, part, confidence = labelling.label_maps()
        return owner.int(), part.int(), confidence
    distributions = labelling.distributions()
    owner, part, confidence = labelling.read(distributions)
    owner, part = owner.int(), part.int()
    size = tuple(picture.shape[1:])
    rows, columns = (
        (torch.arange(length, device=small.device) + 0.5) * (less / length) - 0.5
        for length, less in zip(size, labelling.size, strict=True)
    )
    nearest = [
        at.round().long().clamp(0, n - 1)
        for at, n in zip((rows, columns), labelling.size, strict=True)
    ]
    maps = [
        each.view(labelling.size)[nearest[0]][:, nearest[1]] for each in (owner, part, confidence)
    ]
    label = (owner * (int(part.max()) + 1) + part).view(labelling.size)
    undecided = _borders(label)[rows.floor().long() + 1][:, columns.floor().long() + 1]
    colors = small.flatten(1).T.float().contiguous()
    for pixels in undecided.flatten().nonzero()[:, 0].split(_PIXELS_AT_A_TIME):
        y, x = pixels // size[1], pixels % size[1]
        neighbours, weights = joint_bilateral_weights(
            rows[y], columns[x], picture[:, y, x].T.float(), colors, labelling.size, sigma_color
        )
        means = F.embedding_bag(neighbours, distributions, per_sample_weights=weights, mode="sum")
        for target, value in zip(maps, labelling.read(means), strict=True):
            target[y, x] = value.to(target.dtype)
    return tuple(maps)


def joint_bilateral_weights(
    rows: Tensor,
    columns: Tensor,
    colors: Tensor,
    small: Tensor,
    size: tuple[int, int],
    sigma_color: float,
) -> tuple[Tensor, Tensor]:
    """The four working pixels around some pixels, and what each counts.

    Args:
        rows, columns: (M,) where the pixels lie, in pixels of the working size, 0 the centre of the
            first.
        colors: (M, 3) of the pixels, 0-255.
        small: (h w, 3) of the working pixels.
        size: (h, w).
        sigma_color: see SIGMA_COLOR.

    Returns:
        (M, 4) int64 indices into the h w working pixels and (M, 4) weights that sum to 1: those of
        bilinear interpolation times a Gaussian of the distance of colours.
    """
    steps = torch.arange(2, device=rows.device)
    indices, tents = [], []
    for at, length in zip((rows, columns), size, strict=True):
        near = at.floor().long()[:, None] + steps
        tents.append(1 - (near - at[:, None]).abs())
        indices.append(near.clamp(0, length - 1))
    neighbours = (indices[0][:, :, None] * size[1] + indices[1][:, None, :]).flatten(1)
    distance = (small[neighbours] - colors[:, None, :]).square_().sum(2)
    alike = (distance * (-0.5 / sigma_color**2)).exp_().add_(_LEAST_WEIGHT)
    weights = (tents[0][:, :, None] * tents[1][:, None, :]).flatten(1) * alike
    return neighbours, weights / weights.sum(1, keepdim=True)


def _borders(label: Tensor) -> Tensor:
    """(h, w) labels -> (h + 1, w + 1) bool: whether the four pixels around each corner of the
    pixels differ; beyond the border of the map are its outer pixels again."""
    padded = F.pad(label[None, None].float(), (1, 1, 1, 1), mode="replicate")
    return (F.max_pool2d(padded, 2, 1) != -F.max_pool2d(-padded, 2, 1))[0, 0]
