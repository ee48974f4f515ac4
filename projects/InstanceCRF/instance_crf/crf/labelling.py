"""The result of the Instance CRF on one image: joint over (i, j), or *what* times *whose*.

Shape letters: D detections, P parts, L labels, H, W image size, H', W' another size, C object
classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .label_space import LabelSpace
from .potentials import IMPOSSIBLE

__all__ = ["FactoredLabelling", "JointLabelling", "Labelling", "Whose", "resize_maps"]

_NUMBERS_AT_A_TIME = 2**25
"""When resizing: L can be in the hundreds and the output large."""
_LEAST_WEIGHT = 1e-6
"""Of *whose* where nobody is, when it is averaged over pixels."""


class Labelling(ABC):
    """One distribution over the labels of the image per pixel.

    Args:
        label_space: what the labels mean.
        size: (H, W).
    """

    def __init__(self, label_space: LabelSpace, size: tuple[int, int]) -> None:
        self.label_space = label_space
        self.size = size

    @abstractmethod
    def marginals(self) -> Tensor:
        """(L, H, W) probabilities, label 0 background; differentiable."""

    @abstractmethod
    def _log_prob(self, labels: Tensor) -> Tensor:
        """(H, W) log-probability of (H, W) labels that are all >= 0."""

    @abstractmethod
    def label_maps(self, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The answer, without gradient, at any size: probabilities are resized, never labels.

        Args:
            size: (H', W'); None: (H, W).

        Returns:
            (H', W') int64 object map: 0 background or nobody, i + 1 for detection i; (H', W') int64
            part map: 0 background, 1..P; (H', W') probability of each pixel's label. Ties go to the
            label that comes first.
        """

    @abstractmethod
    def distributions(self) -> Tensor:
        """(H W, C) what :meth:`label_maps` is read from, without gradient: may be averaged over
        pixels, and then :meth:`read`."""

    @abstractmethod
    def read(self, distributions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The answer of each row, as :meth:`label_maps` gives it.

        Args:
            distributions: (N, C) weighted means of rows of :meth:`distributions`.

        Returns:
            (N,) int64 whose, (N,) int64 what, (N,) probability of that label.
        """

    def log_prob(self, labels: Tensor) -> Tensor:
        """Log-probability of a given label at each pixel, for the loss; differentiable.

        Args:
            labels: (H, W) int64 indices into the label space; negative means "ignored".

        Returns:
            (H, W); 0 where the label is negative.

        Raises:
            ValueError: if the shape is not (H, W) or a label is beyond the label space.
        """
        check_labels(labels, self.size, self.label_space)
        picked = self._log_prob(labels.clamp(min=0))
        return torch.where(labels < 0, torch.zeros_like(picked), picked)

    def argmax(self) -> tuple[Tensor, Tensor]:
        """The first two of :meth:`label_maps`, (H, W) each: whose, and what."""
        return self.label_maps()[:2]

    def confidence(self) -> Tensor:
        """(H, W) probability of the label that :meth:`argmax` gives, without gradient."""
        return self.label_maps()[2]


class JointLabelling(Labelling):
    """The paper's: a distribution over all (i, j), answered by its largest probability.

    Args:
        label_space: what the labels mean.
        log_marginals: (H, W, L) log-probabilities.
    """

    def __init__(self, label_space: LabelSpace, log_marginals: Tensor) -> None:
        height, width = log_marginals.shape[:2]
        super().__init__(label_space, (height, width))
        self._log_marginals = log_marginals

    def marginals(self) -> Tensor:
        """See Labelling."""
        return self._log_marginals.permute(2, 0, 1).contiguous().exp()

    def _log_prob(self, labels: Tensor) -> Tensor:
        return self._log_marginals.gather(2, labels[..., None])[..., 0]

    def label_maps(self, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See Labelling."""
        log_marginals = self._log_marginals.detach()
        if size is None or tuple(size) == self.size:
            best, label = log_marginals.max(dim=2)
            best = best.exp()
        else:
            best, label = _largest_resized(log_marginals.permute(2, 0, 1).exp(), size)
        return self.label_space.label_instance[label], self.label_space.label_part[label], best

    def distributions(self) -> Tensor:
        """See Labelling: the marginals."""
        return self._log_marginals.detach().exp().flatten(0, 1)

    def read(self, distributions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Labelling."""
        best, label = distributions.max(dim=1)
        return self.label_space.label_instance[label], self.label_space.label_part[label], best


@dataclass(frozen=True)
class Whose:
    """Whose the pixels of one object class's parts are.

    Attributes:
        detections: (D_c,) int64, the image's detections of the class.
        parts: (P_c,) int64, its parts, 1..P.
        log_prob: (H, W, D_c + 1) log-probabilities: nobody, then the detections.
    """

    detections: Tensor
    parts: Tensor
    log_prob: Tensor


class FactoredLabelling(Labelling):
    """Ours: q(i, j) = q_what(j) q_whose(i), read in that order.

    A pixel is someone's if background has less than half of *what*. Then it is the best part, then
    the best detection among those that own the part, or nobody. The best product would be the
    wrong question: a foreground whose mass is shared by many (i, j) loses to the one background.

    Args:
        label_space: with nobody's labels.
        log_what: (H, W, P + 1) log-probabilities, background first.
        whose: one entry for each object class that owns parts and was detected.
        nobody: whether nobody is a label of *whose* that is learned. It always is an answer, beyond
            the reach of all boxes at least.
    """

    def __init__(
        self, label_space: LabelSpace, log_what: Tensor, whose: Sequence[Whose], *, nobody: bool
    ) -> None:
        height, width = log_what.shape[:2]
        super().__init__(label_space, (height, width))
        self.log_what = log_what
        self.whose = tuple(whose)
        self.nobody = nobody

    def marginals(self) -> Tensor:
        """See Labelling."""
        space = self.label_space
        nobodys = (space.label_instance == 0) & (space.label_part > 0)
        log_whose = self.log_what.new_zeros(*self.size, space.num_labels)
        for whose in self.whose:
            column = self._columns(whose)
            mine = (column[space.label_instance] > 0) | (
                nobodys & torch.isin(space.label_part, whose.parts)
            )
            index = mine.nonzero()[:, 0]
            values = whose.log_prob[..., column[space.label_instance[index]]]
            log_whose = log_whose.index_copy(2, index, values)
        log_marginals = self.log_what[..., space.label_part] + log_whose
        return log_marginals.permute(2, 0, 1).contiguous().exp()

    def whose_prob(self) -> Tensor:
        """(D, H, W) q_whose of each detection, without gradient; 0 if its class owns no part."""
        prob = self.log_what.new_zeros(self.label_space.num_detections, *self.size)
        for whose in self.whose:
            prob[whose.detections] = whose.log_prob.detach()[..., 1:].permute(2, 0, 1).exp()
        return prob

    def object_prob(self) -> Tensor:
        """(D, H, W) probability that a pixel is a detection's: q_whose times *what* of the parts
        that the detection may own, without gradient."""
        prob, what = self.whose_prob(), self.log_what.detach().exp()
        for whose in self.whose:
            prob[whose.detections] *= what[..., whose.parts].sum(2)
        return prob

    def _log_prob(self, labels: Tensor) -> Tensor:
        """As the loss wants it: nobody's parts, and those of a detection out of reach, are judged
        by *what* alone, unless nobody is a label that is learned."""
        instance = self.label_space.label_instance[labels]
        part = self.label_space.label_part[labels]
        log_prob = self.log_what.gather(2, part[..., None])[..., 0]
        for whose in self.whose:
            mine = torch.isin(part, whose.parts)
            column = self._columns(whose)[instance]
            picked = whose.log_prob.gather(2, column[..., None])[..., 0]
            picked = torch.where(picked > -IMPOSSIBLE / 2, picked, whose.log_prob[..., 0])
            mine &= (picked > -IMPOSSIBLE / 2) & (self.nobody | (column > 0))
            log_prob = log_prob + torch.where(mine, picked, torch.zeros_like(picked))
        return log_prob

    def _columns(self, whose: Whose) -> Tensor:
        """(D + 1,) where in ``whose.log_prob`` an instance stands; nobody's column if not there."""
        columns = whose.detections.new_zeros(self.label_space.num_detections + 1)
        columns[whose.detections + 1] = torch.arange(
            1, len(whose.detections) + 1, device=columns.device
        )
        return columns

    def label_maps(self, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See Labelling. *Whose* is resized with the foreground as its weight: resize(f q) /
        resize(f), or silhouettes would take the identities of the background behind them."""
        size = self.size if size is None else tuple(size)
        what = self.log_what.detach().permute(2, 0, 1).exp()
        background = resize_maps(what[:1], size)[0]
        best, part = _largest_resized(what[1:], size)
        someone = background < 0.5
        part = torch.where(someone, part + 1, 0)
        owner, confidence = torch.zeros_like(part), torch.where(someone, best, background)
        for whose in self.whose:
            q = whose.log_prob.detach().permute(2, 0, 1)
            if size == self.size:
                best, column = q.max(dim=0)
                best = best.exp()
            else:
                weight = what[whose.parts].sum(0, keepdim=True).clamp(min=_LEAST_WEIGHT)
                best, column = _largest_resized(q.exp().mul_(weight), size)
                best = best / resize_maps(weight, size)[0]
            instances = torch.cat([whose.detections.new_zeros(1), whose.detections + 1])
            mine = torch.isin(part, whose.parts)
            owner = torch.where(mine, instances[column], owner)
            confidence = torch.where(mine, confidence * best, confidence)
        return owner, part, confidence

    def distributions(self) -> Tensor:
        """See Labelling: q_what, then q_whose of each class times q_what of its parts."""
        what = self.log_what.detach().exp().flatten(0, 1)
        columns = [what]
        for whose in self.whose:
            weight = what[:, whose.parts].sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT)
            columns.append(whose.log_prob.detach().exp().flatten(0, 1).mul_(weight))
        return torch.cat(columns, dim=1)

    def read(self, distributions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Labelling."""
        sizes = [self.log_what.shape[2], *(len(whose.detections) + 1 for whose in self.whose)]
        what, *columns = distributions.split(sizes, dim=1)
        background = what[:, 0]
        best, part = what[:, 1:].max(dim=1)
        someone = background < 0.5
        part = torch.where(someone, part + 1, 0)
        owner, confidence = torch.zeros_like(part), torch.where(someone, best, background)
        for whose, column in zip(self.whose, columns, strict=True):
            best, which = column.max(dim=1)
            best = best / column.sum(dim=1)
            instances = torch.cat([whose.detections.new_zeros(1), whose.detections + 1])
            mine = torch.isin(part, whose.parts)
            owner = torch.where(mine, instances[which], owner)
            confidence = torch.where(mine, confidence * best, confidence)
        return owner, part, confidence


def _largest_resized(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(C, H, W) -> the largest of the maps at (H', W'), and which it is."""
    best = maps.new_full(size, -1.0)
    index = torch.zeros(size, dtype=torch.int64, device=maps.device)
    step = max(1, _NUMBERS_AT_A_TIME // (size[0] * size[1]))
    for start in range(0, len(maps), step):
        value, which = resize_maps(maps[start : start + step], size).max(0)
        torch.where(value > best, which.add_(start), index, out=index)
        torch.maximum(best, value, out=best)
    return best, index


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, H', W'), bilinear."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def check_labels(labels: Tensor, size: tuple[int, int], label_space: LabelSpace) -> None:
    """Raises ValueError unless ``labels`` is an (H, W) map of the label space's indices."""
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels.dtype}.")
    if tuple(labels.shape) != size:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, but the image is {size}.")
    largest = int(labels.max())
    if largest >= label_space.num_labels:
        raise ValueError(
            f"labels go up to {largest}, but the image has the "
            f"{label_space.num_labels} labels 0..{label_space.num_labels - 1}."
        )
