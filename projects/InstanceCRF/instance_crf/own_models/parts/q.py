"""Q, the part probabilities at the working size, from what a part model says.

Letters: C channels of the model, P parts of its taxonomy, P' parts after merging; h, w the working
size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...taxonomies import IGNORE_LABEL
from ..inputs import PartScores
from .resampling import area_axis, linear_axis

__all__ = ["to_q"]

_NUMBERS_AT_A_TIME = 2**21
"""Float32 numbers of a strip of rows: what is converted at once."""


@torch.no_grad()
def to_q(
    scores: PartScores,
    size: tuple[int, int],
    num_parts: int,
    *,
    smoothing: float = 0.1,
    lut: np.ndarray | None = None,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Q at the working size, background first.

    Logits smaller than the working size are enlarged (bilinear) and then put through the softmax,
    sums of probabilities are enlarged and then normalised; larger ones are made probabilities
    first, then averaged over each pixel's area. A map is averaged as if it were one channel a part.
    Rows are converted a few at a time: beside Q, some 100 MB are needed, whatever the sizes.

    Args:
        scores: of one image, as :func:`.read.read_part_scores` gives them.
        size: h, w.
        num_parts: P, of the model's own taxonomy, before merging.
        smoothing: what is taken from the given label of a map and shared by the other labels. A
            pixel of 255 (unknown) gets the same probability for every label.
        lut: (256,) old part id -> new one, as ``PartTaxonomy.merge`` returns it: probabilities of
            merged parts are summed. What becomes 255 is shared by all labels.
        image_size: H, W of the image, for ``align_corners``; default ``size``.

    Returns:
        (P'+1, h, w) float32 on the device of ``scores``, sums to 1; P' is P without ``lut``.

    Raises:
        ValueError: channels or ids that do not fit the taxonomy; a table that does not.
    """
    _check_arguments(size, num_parts, smoothing, lut)
    is_map = scores.kind == "map"
    if not is_map:
        _check_channels(scores, num_parts)
    samples, device = scores.values.shape[-2:], scores.values.device
    grows = not is_map and samples[0] <= size[0] and samples[1] <= size[1]
    rows, columns = (
        (linear_axis if not is_map and n <= m else area_axis)(
            n, m, image=pixels, align_corners=scores.align_corners, device=device
        )
        for n, m, pixels in zip(samples, size, image_size or size, strict=True)
    )
    table = _merge_table(num_parts, lut, device)
    num_labels = len(table) if table is not None else num_parts + 1
    q = torch.empty((num_labels, *size), device=device)
    for top, bottom in _strips(scores, size, num_labels):
        first, last = rows.window(top, bottom)
        if is_map:
            ids = _merged_ids(scores, first, last, num_parts, lut)
            strip = _one_hot(ids, num_labels)
        else:
            strip = _float_rows(scores, first, last)
            if not grows:
                strip = _merged(_probabilities(strip, scores), table)
        strip = rows.apply(strip, 1, top, bottom, first)
        strip = columns.apply(strip, 2, 0, size[1])
        q[:, top:bottom] = _merged(_probabilities(strip, scores), table) if grows else strip
    if is_map:
        # The label keeps 1 - smoothing, and what is unknown stays uniform.
        others = smoothing / (num_labels - 1)
        q.mul_(1 - smoothing - others).add_(others)
    return q


def _strips(scores: PartScores, size: tuple[int, int], num_labels: int):
    """Yields first row and one beyond the last, of Q."""
    height, width = scores.values.shape[-2:]
    channels = max(num_labels, scores.values.shape[0] + 1 if scores.kind != "map" else 0)
    numbers = channels * max(width, size[1]) * max(height / size[0], 1)
    step = max(1, int(_NUMBERS_AT_A_TIME / numbers))
    for top in range(0, size[0], step):
        yield top, min(top + step, size[0])


def _float_rows(scores: PartScores, first: int, last: int) -> Tensor:
    """(C, rows, w) float32; without a background channel, the person's logit comes first."""
    strip = scores.values[:, first:last].float()
    if scores.person_logit is not None and scores.background == "none":
        strip = torch.cat([scores.person_logit[:, first:last].float(), strip])
    return strip


def _probabilities(strip: Tensor, scores: PartScores) -> Tensor:
    """(P+1, rows, w), background first, sums to 1."""
    if scores.background != "none":
        strip = _among(strip, scores.kind)
        return strip.roll(1, 0) if scores.background == "last" else strip
    person = strip[:1].sigmoid()
    return torch.cat([1 - person, _among(strip[1:], scores.kind).mul_(person)])


def _among(strip: Tensor, kind: str) -> Tensor:
    """The channels as probabilities that sum to 1."""
    if kind == "logits":
        return strip.softmax(0)
    strip = strip.clamp(min=0)  # rounding
    return strip.div_(strip.sum(0))


def _merged_ids(scores, first, last, num_parts, lut) -> Tensor:
    """(rows, w) int64 new ids, 255 unknown."""
    ids = scores.values[first:last].long()
    known = ids != IGNORE_LABEL
    wrong = ids[known & ((ids < 0) | (ids > num_parts))]
    if len(wrong):
        raise ValueError(
            f"The part map has id {int(wrong[0])}, the taxonomy has {num_parts} parts: ids are "
            f"0..{num_parts}, and 255 for unknown. Name the model's own parts (parts=)."
        )
    if scores.background == "last":
        ids = torch.where(known, (ids + 1) % (num_parts + 1), ids)
    if lut is not None:
        ids = torch.as_tensor(np.asarray(lut, dtype=np.int64), device=ids.device)[ids]
    return ids


def _one_hot(ids: Tensor, num_labels: int) -> Tensor:
    """(labels, rows, w) float32; uniform where unknown."""
    labels = torch.arange(num_labels, device=ids.device)
    one_hot = (ids == labels[:, None, None]).float()
    return one_hot.masked_fill_(ids == IGNORE_LABEL, 1 / num_labels)


def _merge_table(num_parts: int, lut: np.ndarray | None, device) -> Tensor | None:
    """(P'+1, P+1): how much of each old label a new one gets."""
    if lut is None:
        return None
    new = [int(label) for label in np.asarray(lut)[: num_parts + 1]]
    num_labels = max(label for label in new if label != IGNORE_LABEL) + 1
    table = torch.zeros((num_labels, num_parts + 1))
    for old, label in enumerate(new):
        if label == IGNORE_LABEL:
            table[:, old] = 1 / num_labels
        else:
            table[label, old] = 1
    return table.to(device)


def _merged(prob: Tensor, table: Tensor | None) -> Tensor:
    return prob if table is None else (table @ prob.flatten(1)).view(-1, *prob.shape[1:])


def _check_channels(scores: PartScores, num_parts: int) -> None:
    channels, width = scores.values.shape[0], scores.values.shape[2]
    without = scores.background == "none"
    if channels == num_parts + (not without):
        return
    if channels == num_parts and not without:
        hint = "If it has no channel for the background, pass background='none' and person_logit."
    elif channels == num_parts + 1:
        hint = "If it has a channel for the background, pass background='first' or 'last'."
    elif width in (num_parts, num_parts + 1):
        hint = f"The last of {tuple(scores.values.shape)} fits: permute(2, 0, 1) the channels."
    else:
        hint = (
            "Name the model's own parts (parts=), and merge them afterwards; and say where its "
            "background is (background=)."
        )
    raise ValueError(
        f"The part model has {channels} channels, the taxonomy has {num_parts} parts"
        + ("" if without else f" + background = {num_parts + 1}")
        + f" (background={scores.background!r}). {hint}"
    )


def _check_arguments(size, num_parts: int, smoothing: float, lut) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"The working size is {tuple(size)}; it is (h, w), each at least 1.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}; it is from 0 to below 1.")
    if lut is None:
        return
    lut = np.asarray(lut)
    if lut.shape != (256,) or (lut[num_parts + 1 :] != IGNORE_LABEL).any():
        raise ValueError(
            f"lut does not fit {num_parts} parts: it is the (256,) table that the model's own "
            "taxonomy's merge() returns, and num_parts are the parts before merging."
        )
    if not ((lut[: num_parts + 1] > 0) & (lut[: num_parts + 1] != IGNORE_LABEL)).any():
        raise ValueError("lut leaves no part: every label becomes background or unknown (255).")
