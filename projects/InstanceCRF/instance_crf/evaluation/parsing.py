"""One image's labelling as evaluation takes it, and the comparison of a predicted with a true one.

Letters: H, W image size; P parts; C object classes; M part segments; n objects.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .contingency import IGNORE, Contingency, pair_segments, tabulate

__all__ = ["Comparison", "Parsing", "parsing_of_result"]


def _no_ids() -> NDArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Parsing:
    """One image's labelling, predicted or true.

    A part may belong to nobody: ``part_map`` has it, ``object_map`` is 0 there, and it is no
    segment. Mean IoU counts it; APs, PQ and the like, which are about objects and their parts,
    do not.

    Attributes:
        part_map: (H, W) part of each pixel, 0 background, 1..P, ``IGNORE`` (-1) ignored.
        object_map: (H, W) object of each pixel, 0 none, ``IGNORE`` ignored; None when objects
            are not known.
        segment_map: (H, W) part segment of each pixel, 0 none; None: a segment is an
            (object, part) pair.
        segment_ids: (M,) ids in ``segment_map``, or :func:`pair_segments` of object and part.
        segment_parts: (M,) part of each, 1..P.
        segment_scores: (M,); None when unknown, as for ground truth.
        object_ids: (n,) ids in ``object_map``.
        object_classes: (n,) contiguous classes, 0..C-1.
        object_scores: (n,); None when unknown, as for ground truth.
        object_crowd: (n,) bool; None: no object is a crowd.
        person_maps: ground truth only: (n, H, W) part map of each object where they overlap
            (Multi-Human Parsing); None: ``object_map`` and ``part_map`` say it all.
    """

    part_map: NDArray
    object_map: NDArray | None = None
    segment_map: NDArray | None = None
    segment_ids: NDArray = field(default_factory=_no_ids)
    segment_parts: NDArray = field(default_factory=_no_ids)
    segment_scores: NDArray | None = None
    object_ids: NDArray = field(default_factory=_no_ids)
    object_classes: NDArray = field(default_factory=_no_ids)
    object_scores: NDArray | None = None
    object_crowd: NDArray | None = None
    person_maps: NDArray | None = None

    @property
    def maps(self) -> tuple[NDArray, ...]:
        """The maps as :func:`tabulate` takes them."""
        objects = np.zeros_like(self.part_map) if self.object_map is None else self.object_map
        segments = () if self.segment_map is None else (self.segment_map,)
        return (objects, self.part_map, *segments)

    @property
    def crowd(self) -> NDArray[np.bool_]:
        """(n,) crowd flags."""
        if self.object_crowd is None:
            return np.zeros(len(self.object_ids), dtype=bool)
        return np.asarray(self.object_crowd, dtype=bool)

    def check_ids(self) -> None:
        """Refuse ids that no map could tell from "none" or from one another.

        Raises:
            ValueError: an id below 1, or one that comes twice.
        """
        for name in ("segment_ids", "object_ids"):
            ids = np.sort(getattr(self, name))
            if len(ids) and (ids[0] < 1 or (ids[1:] == ids[:-1]).any()):
                raise ValueError(f"{name} must be at least 1, each once; got {ids[:8].tolist()}.")

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Parsing:
        """A prediction of nothing, (H, W) pixels large."""
        nothing = np.zeros(shape, dtype=np.uint8)
        return cls(
            part_map=nothing,
            object_map=nothing,
            segment_scores=np.zeros(0),
            object_scores=np.zeros(0),
        )

    @classmethod
    def of_maps(
        cls,
        part_map: NDArray,
        object_map: NDArray,
        *,
        object_ids: NDArray,
        object_classes: NDArray,
        object_crowd: NDArray | None = None,
        **others,
    ) -> Parsing:
        """Every (object, part) pair with a pixel is a segment, in the order of object and part.

        Parts of crowd objects are no segments, and their pixels are ignored.

        Args:
            part_map, object_map, object_ids, object_classes, object_crowd: see the class.
            **others: other attributes.
        """
        object_ids = np.asarray(object_ids, dtype=np.int64)
        if object_crowd is not None and np.any(object_crowd):
            in_crowd = np.isin(object_map, object_ids[np.asarray(object_crowd, dtype=bool)])
            part_map = np.where(in_crowd, IGNORE, part_map.astype(np.int32))
        owners, parts = present_pairs(part_map, object_map)
        return cls(
            part_map=part_map,
            object_map=object_map,
            segment_ids=pair_segments(owners, parts),
            segment_parts=parts,
            object_ids=object_ids,
            object_classes=np.asarray(object_classes, dtype=np.int64),
            object_crowd=object_crowd,
            **others,
        )


def present_pairs(part_map: NDArray, object_map: NDArray) -> tuple[NDArray, NDArray]:
    """The (object, part) pairs with a pixel: (M,) objects and (M,) parts, in ascending order."""
    width = max(int(part_map.max(initial=0)), 0) + 1
    both = (object_map > 0) & (part_map > 0)
    codes = object_map[both].astype(np.int64) * width + part_map[both]
    codes = np.flatnonzero(np.bincount(codes))
    return codes // width, codes % width


@dataclass(frozen=True)
class Comparison:
    """A prediction and the ground truth of one image, with the pixels that their cells share.

    Attributes:
        image_id: the image's name.
        prediction: empty when there is none.
        truth: ground truth.
        table: pixels of every pair of cells.
        has_prediction: False when nothing was submitted for the image.
    """

    image_id: Hashable
    prediction: Parsing
    truth: Parsing
    table: Contingency
    has_prediction: bool

    @classmethod
    def of(cls, image_id: Hashable, prediction: Parsing | None, truth: Parsing) -> Comparison:
        """Compare.

        Raises:
            ValueError: maps of different sizes; ids that are not 1, 2, 3, …, each once.
        """
        has_prediction = prediction is not None
        if prediction is None:
            prediction = Parsing.empty(truth.part_map.shape)
        try:
            prediction.check_ids()
            truth.check_ids()
            table = tabulate(prediction.maps, truth.maps)
        except ValueError as error:
            raise ValueError(f"Image {image_id!r}: {error}") from None
        return cls(image_id, prediction, truth, table, has_prediction)

    @property
    def objects_known(self) -> bool:
        """Both sides say which object a pixel belongs to."""
        return self.prediction.object_map is not None and self.truth.object_map is not None

    @property
    def unknown_objects(self) -> NDArray[np.bool_]:
        """(B,) true cells that may belong to any object: ignored, or in a crowd."""
        cells = self.table.truth
        # A pixel without an object whose part is ignored may belong to anybody.
        unknown = (cells.object_id == IGNORE) | ((cells.part == IGNORE) & (cells.object_id == 0))
        return unknown | np.isin(cells.object_id, self.truth.object_ids[self.truth.crowd])


def parsing_of_result(result, score_name: str | None = None) -> Parsing:
    """A model's result as evaluation takes it.

    Args:
        result: an :class:`instance_crf.structures.PartInstances`.
        score_name: what ranks it, of :data:`instance_crf.structures.SCORE_NAMES`; None:
            ``result.score_name``.
    """
    result = result.to("cpu")
    name = score_name or result.score_name
    segment_object = result.segment_object.numpy()
    segment_part = result.segment_part.numpy()
    return Parsing(
        part_map=result.part_map.numpy(),
        object_map=result.object_map.numpy(),
        segment_ids=pair_segments(segment_object, segment_part),
        segment_parts=segment_part,
        segment_scores=result.segment_scores[name].double().numpy(),
        object_ids=np.arange(1, len(result) + 1),
        object_classes=result.classes.numpy(),
        object_scores=result.object_scores[name].double().numpy(),
    )
