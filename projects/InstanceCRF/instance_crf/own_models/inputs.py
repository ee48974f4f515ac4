"""What the adapters make of the outputs of all kinds of models, and `parse` takes.

Letters: H, W size of the image; h, w size of a model's output; C channels; D detections; K
keypoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..taxonomies import BACKGROUNDS, PartTaxonomy
from .tensors import as_tensor

__all__ = ["BACKGROUNDS", "KINDS", "Detections", "PartScores", "Source"]

KINDS = ("prob", "logits", "map")


@dataclass(frozen=True)
class PartScores:
    """What a part model says of one image, all of it, at whatever size.

    Attributes:
        values: (C, h, w) float for "prob" and "logits"; (h, w) integer ids for "map".
        kind: one of :data:`KINDS`. "prob": non-negative, proportional to probabilities (sums of
            probabilities of a mask classifier are, too). "map": 0 background, 1..P.
        background: where the background's channel is: "first", "last", or "none" (then
            ``person_logit`` says what is background).
        align_corners: the outer samples lie at the centres of the outer pixels of the image, not
            half a sample inside.
        person_logit: (1, h, w), with "none": Q_0 = 1 - sigmoid(person), Q_j = sigmoid(person) times
            the part's probability among the parts.
        taxonomy: of the model, where it is known.
        votes: (D, 4) boxes in pixels of the image -> (D, h', w') in [0, 1], how well each pixel's
            own vote agrees with each box; where the model votes.

    Raises:
        ValueError: another ``kind``, ``background`` or ``align_corners``; shapes that do not fit
            them; no numbers.
    """

    values: Tensor
    kind: str
    background: str = "first"
    align_corners: bool = False
    person_logit: Tensor | None = None
    taxonomy: PartTaxonomy | None = None
    votes: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for name in ("values", "person_logit"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_tensor(getattr(self, name), name))
        for name, choices in (("kind", KINDS), ("background", BACKGROUNDS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; it is one of {', '.join(choices)}."
                )
        if self.align_corners not in (True, False):
            raise ValueError(f"align_corners is {self.align_corners!r}; it is True or False.")
        shape, is_map = tuple(self.values.shape), self.kind == "map"
        if len(shape) != (2 if is_map else 3) or not self.values.numel():
            wanted = "(h, w)" if is_map else "(C, h, w)"
            raise ValueError(f"Part scores of kind {self.kind!r} are {wanted}, got {shape}.")
        if self.background != "none":
            return
        if is_map:
            raise ValueError(
                "A part map says itself where no part is: background is 'first' or 'last' "
                "(id 0 or id P)."
            )
        if self.person_logit is None:
            raise ValueError(
                "background='none' needs person_logit, (1, h, w): nothing else says where no part "
                "is."
            )
        if self.person_logit.shape != (1, *shape[1:]):
            raise ValueError(
                f"person_logit is {tuple(self.person_logit.shape)}, the part scores are {shape}: "
                f"it must be {(1, *shape[1:])}."
            )


@dataclass(frozen=True)
class Detections:
    """What a detector says of one image.

    Attributes:
        boxes: (D, 4) float x1 y1 x2 y2 in pixels of the image.
        scores: (D,) float in [0, 1].
        class_names: D names of the model's own classes; None: all are of the one object class.
        masks: (D, H, W) bool, or float in [0, 1], over the whole image.
        keypoints: (D, K, 3) x, y in pixels of the image and the confidence in [0, 1].
        notes: what was left out, in words.
        doubts: what is unlikely about them, in sentences; ``parse`` warns of it.
        known_classes: the model's table, all names that ``class_names`` may hold, if it is known.
        index: (D,) int64 row of each in what was given, where some were left out.
        given: how many there were before.
    """

    boxes: Tensor
    scores: Tensor
    class_names: tuple[str, ...] | None = None
    masks: Tensor | None = None
    keypoints: Tensor | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    known_classes: tuple[str, ...] | None = None
    index: Tensor | None = None
    given: int | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: Tensor) -> Detections:
        """Some of the detections, in the order of ``rows``.

        Args:
            rows: (D',) int64, or (D,) bool.
        """
        rows = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        everything = torch.equal(rows, torch.arange(len(self)))  # masks may be large
        taken = {
            name: value if everything else value[rows]
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "index"
        }
        if self.class_names is not None:
            taken["class_names"] = tuple(self.class_names[i] for i in rows.tolist())
        if self.index is None:
            return replace(self, **taken, index=rows, given=len(self))
        return replace(self, **taken, index=self.index[rows])


class Source(ABC):
    """A model, or a folder of files, as a function of an image that may want to know its file.

    ``parse`` calls any other function with the pixels alone.
    """

    taxonomy: PartTaxonomy | None = None
    """Of a part model, where it is known before the first image."""

    @abstractmethod
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores | Detections:
        """Args:
        pixels: (H, W, 3) uint8 RGB.
        path: the file that the pixels come from.
        """
