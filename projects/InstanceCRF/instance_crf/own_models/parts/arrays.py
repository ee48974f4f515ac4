"""Raw arrays as part scores: their shape, and whether the numbers are what they are said to be.

Letters: C channels, h, w size of the model's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...taxonomies.schema import IGNORE_LABEL, MAX_PARTS

__all__ = ["ARGUMENTS", "Given", "check_values", "guess_kind", "one_image"]

ARGUMENTS = {"prob": "part_prob", "logits": "part_logits", "map": "part_map"}
"""The argument of ``parse`` that a kind comes from, for messages."""

_SUM_TOLERANCE = 0.02
_SAME_SUM = 0.01
_ROUNDING = 1e-3
_NUMBERS_AT_A_TIME = 2**22


@dataclass
class Given:
    """What an adapter found, before it is checked.

    Attributes:
        values: as an array or a tensor, perhaps with a batch of one.
        kind: "prob", "logits" or "map".
        sums: probabilities that need not sum to 1, of a mask classifier.
        background, align_corners, person_logit: where the source says them; see ``PartScores``.
    """

    values: object
    kind: str
    sums: bool = False
    background: str | None = None
    align_corners: bool | None = None
    person_logit: object = None


def one_image(values: Tensor, kind: str) -> Tensor:
    """(C, h, w) of "prob" and "logits", (h, w) of "map", without the batch of one.

    Raises:
        ValueError: another number of dimensions, several images, channels that are clearly last.
    """
    name, dims = ARGUMENTS[kind], 2 if kind == "map" else 3
    shape = tuple(values.shape)
    wanted = "(h, w)" if kind == "map" else "(C, h, w)"
    if len(shape) == 4 and shape[0] != 1:
        raise ValueError(f"{name} is {shape}: {shape[0]} images. Give one at a time, {wanted}.")
    while values.dim() > dims and values.shape[0] == 1:
        values = values[0]
    if values.dim() != dims:
        hint = ""
        if kind == "map" and shape[-1:] == (1,):
            hint = " Leave the last dimension out."
        elif kind == "map" and len(shape) in (3, 4):
            hint = " Channels of probabilities are part_prob, of logits part_logits."
        elif kind != "map" and len(shape) == 2:
            hint = " A map of part ids is part_map."
        raise ValueError(f"{name} is {shape}; it must be {wanted}, or with a batch of 1.{hint}")
    if not values.numel():
        raise ValueError(f"{name} is {shape}: it is empty.")
    if kind != "map":
        _check_channels_first(values, name)
    return values


def _check_channels_first(values: Tensor, name: str) -> None:
    shape = tuple(values.shape)
    too_many = shape[0] > MAX_PARTS + 1
    if too_many and shape[2] <= MAX_PARTS + 1:
        raise ValueError(
            f"{name} is {shape}: its channels seem to be the last dimension ({shape[2]}). Give "
            "them first: permute(2, 0, 1), or transpose(2, 0, 1) of an array."
        )
    if too_many:
        raise ValueError(
            f"{name} is {shape}: {shape[0]} channels, but there may be {MAX_PARTS} parts and the "
            "background."
        )


def check_values(values: Tensor, kind: str, *, sums: bool = False) -> None:
    """Whether the numbers are probabilities, logits or ids, as they are said to be.

    Args:
        values: of :func:`one_image`.
        sums: whether probabilities need not sum to 1.

    Raises:
        ValueError: they are not; the message says what they seem to be.
    """
    if kind == "map":
        _check_ids(values)
        return
    name = ARGUMENTS[kind]
    if not values.dtype.is_floating_point:
        raise ValueError(
            f"{name} is {values.dtype}, it must be floating point. Ids of parts are part_map; "
            "quantised numbers are to be scaled first."
        )
    least, most = (float(v) for v in values.aminmax())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError(
            f"{name} has numbers that are not finite (NaN or infinite). Check the model's input, "
            "and half precision."
        )
    if kind == "logits":
        _check_logits(values, least, most)
    else:
        _check_probabilities(values, least, most, sums)


def guess_kind(values: Tensor) -> str | None:
    """The kind of an array whose file does not say it, where that is clear; else None."""
    if not values.dtype.is_floating_point:
        return "map" if values.dtype != torch.bool and values.squeeze().dim() == 2 else None
    if values.dim() < 3:
        return None
    if float(values.min()) < -_ROUNDING:
        return "logits"
    low, high = _range_of_sums(values if values.dim() == 3 else values[0])
    return "prob" if 1 - _SUM_TOLERANCE <= low and high <= 1 + _SUM_TOLERANCE else None


def _check_logits(values: Tensor, least: float, most: float) -> None:
    if least < -_ROUNDING or most > 1 + _SUM_TOLERANCE:
        return
    low, high = _range_of_sums(values)
    if 1 - _SAME_SUM <= low and high <= 1 + _SAME_SUM:
        raise ValueError(
            f"part_logits lie in {least:.4g}..{most:.4g} and sum to {low:.4g}..{high:.4g} at every "
            "pixel: they are probabilities, which another softmax would flatten. Pass them as "
            "part_prob."
        )


def _check_probabilities(values: Tensor, least: float, most: float, sums: bool) -> None:
    if least < -_ROUNDING or (most > 1 + _SUM_TOLERANCE and not sums):
        raise ValueError(
            f"part_prob goes from {least:.4g} to {most:.4g}, probabilities from 0 to 1: these look "
            "like logits, which are part_logits. (If a cubic resize overshot: clamp, and divide by "
            "the sum.)"
        )
    low, high = _range_of_sums(values)
    if low <= 0:
        raise ValueError(
            "part_prob sums to 0 over the channels at some pixels: no label is possible there. "
            "Give such pixels to the background."
        )
    if sums or max(1 - low, high - 1) <= _SUM_TOLERANCE:
        return
    last_low, last_high = _range_of_sums(values.permute(2, 0, 1))
    if max(1 - last_low, last_high - 1) <= _SUM_TOLERANCE:
        raise ValueError(
            f"part_prob is {tuple(values.shape)} and sums to 1 over its last dimension: its "
            "channels are last. Give them first: permute(2, 0, 1), or transpose(2, 0, 1)."
        )
    raise ValueError(
        f"part_prob sums to {low:.4g}..{high:.4g} over the channels, probabilities to 1. If each "
        "channel has a sigmoid of its own, pass what it was taken of as part_logits; if the "
        "background's channel is missing, add it; else divide by the sum."
    )


def _check_ids(values: Tensor) -> None:
    if values.dtype == torch.bool:
        raise ValueError(
            "part_map is boolean: a mask of the foreground, not ids of parts. (Sapiens writes the "
            "mask as NAME.npy, the ids as NAME_seg.npy. For one part, pass integers.)"
        )
    if values.dtype.is_floating_point:
        raise ValueError(
            f"part_map is {values.dtype}; ids of parts are integers, 0 background. A model's "
            "numbers are part_prob or part_logits."
        )
    least, most = (int(v) for v in values.aminmax())
    if least < 0 or most > IGNORE_LABEL:
        raise ValueError(
            f"part_map has ids {least}..{most}; they are 0..{MAX_PARTS}, and {IGNORE_LABEL} for "
            "unknown."
        )


def _range_of_sums(values: Tensor) -> tuple[float, float]:
    """The least and the largest sum over the first dimension, a few rows at a time."""
    step = max(1, _NUMBERS_AT_A_TIME // (values.shape[0] * values.shape[2]))
    low, high = np.inf, -np.inf
    for rows in values.split(step, dim=1):
        least, most = rows.sum(0, dtype=torch.float32).aminmax()
        low, high = min(low, float(least)), max(high, float(most))
    return low, high
