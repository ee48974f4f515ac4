"""Unary potentials of the Instance CRF: Eq. 1-3 of the paper, and our identity potential.

Eq. 2 and 3 are both Q_k(j) times a factor that does not depend on the part, so that
``w1 psi_Box + w2 psi_Global = (w1 s_i [k in B_i] + w2) Q_k(j)``. The functions here give the
factors, of D numbers per pixel, and multiply by Q once. The identity potential, which says whose a
pixel is when what it is has been settled, is a weighted sum of cues, one function each. Everything
is differentiable tensor code.

Shape letters: D detections, P parts, L labels, C cues, G grid of a template, H, W image height and
width, h rows of it.

Box convention: boxes are ``x1, y1, x2, y2`` in pixel edges, so an image spans [0, W] x [0, H] and a
box around the pixels x = a..b has x1 = a, x2 = b + 1. Pixel (x, y) has its centre at
(x + 0.5, y + 0.5) and lies in a box when the centre does: x1 <= x + 0.5 < x2, likewise for y. A box
that is tight around an object thus contains each of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .label_space import LabelSpace

__all__ = [
    "CUES",
    "IMPOSSIBLE",
    "PLACE_RANGE",
    "SCORE_TRANSFORMS",
    "box_cue",
    "box_masks",
    "box_term",
    "centre_cue",
    "consistency_energy",
    "evidence_cue",
    "global_term",
    "identity_energy",
    "place_cue",
    "score_cue",
    "size_cue",
    "transform_scores",
    "unary_energy",
]

SCORE_TRANSFORMS = ("identity", "tvg")

CUES = ("score", "box", "centre", "size", "place", "evidence")
"""The terms of the identity potential."""

IMPOSSIBLE = 100.0
"""An energy that no message outweighs: stands for infinity, and a gradient never asks for more."""

PLACE_RANGE = (-0.25, 1.25)
"""What of a box's coordinates, 0 left or top and 1 right or bottom, a place template covers."""

_LEAST_SCORE = 1e-3
_OUTSIDE = 1e-3
"""delta: what being outside of a box is worth, against being inside."""
_FARTHEST = 12.0
"""The square of the elliptic distance beyond which all is equally far."""
_LEAST_PLACE = 0.15
"""What is added to a template, so that an unusual pose is not impossible."""

_NUMBERS_AT_A_TIME = 2**18
"""In a backward pass: what stays in the cache."""


def box_masks(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixel sets B_i of the detections.

    Args:
        boxes: (D, 4) ``x1, y1, x2, y2`` in pixels; what lies outside the image has no pixels.
        height, width: size of the image in pixels.

    Returns:
        (H, W, D) bool: whether the centre of the pixel lies in the box.
    """
    x = torch.arange(width, device=boxes.device)[:, None]
    y = torch.arange(height, device=boxes.device)[:, None]
    # First column and row, and one beyond the last, whose centres lie in the box.
    left, top, right, bottom = torch.ceil(boxes - 0.5).unbind(dim=1)
    in_columns = (left <= x) & (x < right)
    in_rows = (top <= y) & (y < bottom)
    return in_rows[:, None] & in_columns[None, :]


def transform_scores(scores: Tensor, score_transform: str = "identity") -> Tensor:
    """What stands for s_i in Eq. 2.

    Args:
        scores: (D,) detection scores in [0, 1].
        score_transform: "identity" is the paper's s_i; "tvg" is sigmoid(2 s_i - 1), which the
            authors' release computes.

    Raises:
        ValueError: if the transform is unknown.
    """
    if score_transform == "identity":
        return scores
    if score_transform == "tvg":
        return torch.sigmoid(2 * scores - 1)
    raise ValueError(f"score_transform is {score_transform!r}, but must be in {SCORE_TRANSFORMS}.")


def box_term(
    boxes: Tensor, scores: Tensor, height: int, width: int, *, background_score: float = 0.0
) -> Tensor:
    """Box consistency term, Eq. 2, as what it multiplies Q_k(j) by: s_i for k in B_i, otherwise 0.

    Args:
        boxes: (D, 4) in pixels, see the module's box convention.
        scores: (D,) s_i.
        height, width: size of the image in pixels.
        background_score: the background is "the 0-th detection". 0 leaves it without a box; another
            number gives it the whole image as its box with that score, which a CRF without the
            global term needs.

    Returns:
        (H, W, D + 1): the background, then the detections.
    """
    inside = box_masks(boxes, height, width) * scores
    background = inside.new_full((height, width, 1), background_score)
    return torch.cat([background, inside], dim=2)


def global_term(boxes: Tensor, height: int, width: int) -> Tensor:
    """Global term, Eq. 3, as what it multiplies Q_k(j) by: 1, whichever the detection.

    Returns:
        (H, W, D + 1) ones, which take no memory.
    """
    return boxes.new_ones(()).expand(height, width, len(boxes) + 1)


def unary_energy(
    part_prob: Tensor,
    factor: Tensor,
    label_space: LabelSpace,
    epsilon: float,
) -> Tensor:
    """Unary energy, the first sum of Eq. 1: -ln[factor_i Q_k(j) + epsilon].

    Args:
        part_prob: (P + 1, H, W) Q, the probability of background and of each part.
        factor: (H, W, D + 1) ``w1 box_term + w2 global_term``, or one of the two.
        label_space: the labels of the image.
        epsilon: keeps the logarithm finite, > 0.

    Returns:
        (H, W, L) energy of each label at each pixel. Differentiable with respect to ``part_prob``
        and ``factor``, so to w1 and w2.
    """
    q = part_prob.permute(1, 2, 0)
    return _MinusLogPotential.apply(factor, q, label_space, epsilon)


class _MinusLogPotential(torch.autograd.Function):
    """-ln[factor_i Q(j) + epsilon], written once, and a backward pass in pieces.

    With hundreds of labels an array of them is a gigabyte: torch's own operations would make three
    in the forward pass, keep two for the backward pass and make four there. 1/potential is read off
    the result, so that nothing else of that size is kept.
    """

    @staticmethod
    def forward(ctx, factor: Tensor, q: Tensor, label_space: LabelSpace, epsilon: float) -> Tensor:
        """(H, W, D + 1) and (H, W, P + 1) -> (H, W, L)."""
        factor, q = factor.contiguous(), q.contiguous()
        if label_space.is_product:
            # (0, 0), then an outer product: several times faster than gathering.
            counts = label_space.num_detections, label_space.num_parts
            energy = q.new_empty(*q.shape[:2], label_space.num_labels)
            torch.mul(factor[..., 0], q[..., 0], out=energy[..., 0])
            foreground = energy[..., 1:].unflatten(-1, counts)
            torch.mul(factor[..., 1:, None], q[..., None, 1:], out=foreground)
        else:
            energy = factor[..., label_space.label_instance] * q[..., label_space.label_part]
        energy.add_(epsilon).log_().neg_()
        ctx.save_for_backward(factor, q, energy)
        ctx.label_space = label_space
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        factor, q, energy = ctx.saved_tensors
        space = ctx.label_space
        grad_factor, grad_q = torch.zeros_like(factor), torch.zeros_like(q)
        rows = max(1, _NUMBERS_AT_A_TIME // max(1, energy[0].numel()))
        arrays = grad, energy, factor, q, grad_factor, grad_q
        pieces = zip(*(array.split(rows) for array in arrays), strict=True)
        for grad_piece, energy_piece, f, p, out_f, out_p in pieces:
            slope = energy_piece.exp().mul_(grad_piece).neg_()  # of the potential
            if space.is_product:
                out_f[..., 0], out_p[..., 0] = slope[..., 0] * p[..., 0], slope[..., 0] * f[..., 0]
                counts = space.num_detections, space.num_parts
                foreground = slope[..., 1:].unflatten(-1, counts)
                out_f[..., 1:] = (foreground @ p[..., 1:, None])[..., 0]
                out_p[..., 1:] = (f[..., None, 1:] @ foreground)[..., 0, :]
            else:
                out_f.index_add_(2, space.label_instance, slope * p[..., space.label_part])
                out_p.index_add_(2, space.label_part, slope * f[..., space.label_instance])
        return grad_factor, grad_q, None, None


def score_cue(scores: Tensor) -> Tensor:
    """log s_i, floored at s = 0.001. (D,) -> (D, 1, 1)."""
    return scores.clamp(min=_LEAST_SCORE).log()[:, None, None]


def box_cue(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """log([k in B_i] + delta), delta = 0.001. (D, 4), (h,), (W,) pixel centres -> (D, h, W)."""
    inside = _in_boxes(boxes, y, x).to(boxes.dtype)
    return inside.mul_(math.log1p(_OUTSIDE) - math.log(_OUTSIDE)).add_(math.log(_OUTSIDE))


def centre_cue(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """-r^2, r the distance to the box's centre in half widths and heights, up to r^2 = 12.

    (D, 4), (h,), (W,) -> (D, h, W).
    """
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    across = ((x - centre[:, :1]) / half[:, :1]).square()
    down = ((y - centre[:, 1:]) / half[:, 1:]).square()
    return (-down[:, :, None] - across[:, None, :]).clamp_(min=-_FARTHEST)


def size_cue(boxes: Tensor, height: int, width: int) -> Tensor:
    """-log(area of B_i / area of the picture) / 2: of two boxes the smaller one is in front.

    (D, 4) -> (D, 1, 1).
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return (-0.5 * torch.log(area / (height * width)))[:, None, None]


def place_cue(
    boxes: Tensor, part_given_someone: Tensor, templates: Tensor, y: Tensor, x: Tensor
) -> Tensor:
    """sum_j q_k(j | someone) log(t_j(u, v) + 0.15): whether a box has such parts at such places.

    Args:
        boxes: (D, 4).
        part_given_someone: (P, h, W), sums to 1 over the parts.
        templates: (P, G, G) t_j in [0, 1], rows v and columns u over PLACE_RANGE; 0 beyond it.
        y, x: (h,), (W,) pixel centres.

    Returns:
        (D, h, W).
    """
    nowhere = math.log(_LEAST_PLACE)
    excess = torch.log(templates + _LEAST_PLACE) - nowhere
    cue = boxes.new_full((len(boxes), len(y), len(x)), nowhere)
    rows = _interpolation(boxes[:, 1::2], y, templates.shape[1])
    columns = _interpolation(boxes[:, 0::2], x, templates.shape[2])
    windows = zip(_windows(rows.any(2)), _windows(columns.any(2)), strict=True)
    for i, ((top, bottom), (left, right)) in enumerate(windows):
        if bottom > top and right > left:
            here = rows[i, top:bottom] @ excess @ columns[i, left:right].t()
            here *= part_given_someone[:, top:bottom, left:right]
            cue[i, top:bottom, left:right] += here.sum(0)
    return cue


def evidence_cue(evidence: Tensor, floor: Tensor) -> Tensor:
    """log(A_k(i) + floor), A in [0, 1] from a vote or a mask. (D, h, W), () -> (D, h, W)."""
    return torch.log(evidence + floor)


def identity_energy(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    cue_weights: Mapping[str, Tensor],
    *,
    reach: float = math.inf,
    part_given_someone: Tensor | None = None,
    templates: Tensor | None = None,
    evidence: Tensor | None = None,
    evidence_floor: Tensor | None = None,
    nobody: Tensor | None = None,
) -> Tensor:
    """Energy of *whose*: minus the identity potential, the sum of the cues times their lambda.

    Args:
        boxes: (D, 4), D >= 1.
        scores: (D,) s_i.
        size: (H, W).
        cue_weights: () lambda of each cue of CUES that is used. "place" and "evidence" say nothing
            where there are no templates or is no evidence.
        reach: a detection is impossible outside of its box scaled by so much about the centre.
        part_given_someone: (P, H, W), see `place_cue`; constant for the gradient.
        templates: (P, G, G), likewise.
        evidence: (D, H, W) A in [0, 1].
        evidence_floor: () see `evidence_cue`.
        nobody: () its potential beta; None: nobody is an answer where no detection is within reach,
            and nowhere else.

    Returns:
        (H, W, D + 1): nobody, then the detections. Differentiable with respect to the weights, the
        evidence, its floor and beta.
    """
    height, width = size
    y = torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5
    x = torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5
    known = {
        "score": lambda rows: score_cue(scores),
        "box": lambda rows: box_cue(boxes, y[rows], x),
        "centre": lambda rows: centre_cue(boxes, y[rows], x),
        "size": lambda rows: size_cue(boxes, height, width),
        "place": lambda rows: place_cue(
            boxes, part_given_someone[:, rows], templates, y[rows], x
        ),
    }  # fmt: skip
    if templates is None:
        del known["place"]
    used = [name for name in cue_weights if name in known]
    learned = [cue_weights[name] for name in used]
    if "evidence" not in cue_weights:
        evidence = None
    if evidence is not None:
        learned += [cue_weights["evidence"], evidence_floor]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    within = torch.cat([centre - reach * half, centre + reach * half], dim=1)
    return _IdentityEnergy.apply(
        [known[name] for name in used],
        lambda rows: _in_boxes(within, y[rows], x),
        (height, width, len(boxes)),
        evidence,
        nobody,
        *learned,
    )


def consistency_energy(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], w1: Tensor, w2: Tensor
) -> Tensor:
    """Eq. 2 and 3 in the place of the identity potential: -log(w1 s_i [k in B_i] + w2).

    Returns:
        (H, W, D + 1): nobody, who is impossible, then the detections.
    """
    factor = w1 * box_term(boxes, scores, *size) + w2 * global_term(boxes, *size)
    energy = -torch.log(factor[..., 1:])
    return torch.cat([energy.new_full((*size, 1), IMPOSSIBLE), energy], dim=2)


class _IdentityEnergy(torch.autograd.Function):
    """Cues of some rows at a time, which stay in the cache, and again in the backward pass: with
    fifty detections each array of all rows is 38 MB, and there would be dozens."""

    @staticmethod
    def forward(ctx, cues, reachable, shape, evidence, nobody, *learned) -> Tensor:
        """(H, W, D + 1), from functions of rows, constant for the gradient, and what is learned:
        a weight for each, then, if there is evidence, its weight and floor."""
        ctx.save_for_backward(evidence, nobody, *learned)
        ctx.cues, ctx.reachable, ctx.shape = cues, reachable, shape
        height, width, detections = shape
        energy = torch.empty(
            height, width, detections + 1, dtype=learned[0].dtype, device=learned[0].device
        )
        for rows in _slices_of_rows(shape):
            within = reachable(rows)
            potential = torch.zeros_like(within, dtype=energy.dtype)
            for cue, weight in zip(cues, learned, strict=False):
                potential += cue(rows).mul_(weight)
            if evidence is not None:
                potential += evidence_cue(evidence[:, rows], learned[-1]).mul_(learned[-2])
            potential.masked_fill_(~within, -IMPOSSIBLE)
            torch.neg(potential.permute(1, 2, 0), out=energy[rows, :, 1:])
            energy[rows, :, 0] = within.any(0) * IMPOSSIBLE if nobody is None else -nobody
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        evidence, nobody, *learned = ctx.saved_tensors
        grad_evidence = None if evidence is None else torch.zeros_like(evidence)
        grad_nobody = None if nobody is None else -grad[..., 0].sum()
        grad_learned = [torch.zeros_like(each) for each in learned]
        for rows in _slices_of_rows(ctx.shape):
            slope = -grad[rows, :, 1:].permute(2, 0, 1) * ctx.reachable(rows)  # of the potential
            for total, cue in zip(grad_learned, ctx.cues, strict=False):
                total += (slope * cue(rows)).sum()
            if evidence is not None:
                weight, floor = learned[-2:]
                grad_learned[-2] += (slope * evidence_cue(evidence[:, rows], floor)).sum()
                grad_evidence[:, rows] = slope * weight / (evidence[:, rows] + floor)
        if evidence is not None:
            grad_learned[-1] += grad_evidence.sum()
        return None, None, None, grad_evidence, grad_nobody, *grad_learned


def _slices_of_rows(shape: tuple[int, int, int]) -> list[slice]:
    """(H, W, D) -> slices of H whose (D, h, W) arrays stay in the cache."""
    height, width, detections = shape
    step = max(1, 4 * _NUMBERS_AT_A_TIME // (width * detections))
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _in_boxes(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(D, 4), (h,), (W,) pixel centres -> (D, h, W) bool."""
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    in_rows, in_columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
    return in_rows[:, :, None] & in_columns[:, None, :]


def _interpolation(sides: Tensor, at: Tensor, grid: int) -> Tensor:
    """How much each of G cells, centred evenly in PLACE_RANGE, counts at each pixel of a row.

    (D, 2) left and right (or top and bottom) sides, (n,) pixel centres -> (D, n, G): hats, so that
    a template is 0 beyond its outermost cells.
    """
    low, high = PLACE_RANGE
    along = (at - sides[:, :1]) / (sides[:, 1:] - sides[:, :1])  # 0 and 1 at the sides
    cell = (along - low) / (high - low) * grid - 0.5
    return (1 - (cell[..., None] - torch.arange(grid, device=at.device)).abs()).clamp_(min=0)


def _windows(reached: Tensor) -> list[list[int]]:
    """(D, n) bool, a stretch of each row -> its first and one beyond its last index; equal if there
    is none."""
    count = reached.sum(1)
    first = reached.to(torch.uint8).argmax(1)
    return torch.stack([first, first + count], dim=1).tolist()
