"""The result of one image: one labelling, and the views of it (Sec. 3.4 of the paper).

Shape letters: H, W image size; D detections; n objects with at least one pixel; P parts;
S segments, a segment being the pixels of one part of one object.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .results import annotations, files, labelme, names, text, views
from .segments import (
    SCORE_NAMES,
    check_label_maps,
    check_min_share,
    check_score_name,
    collect,
    largest,
)
from .taxonomies.schema import PartTaxonomy

__all__ = ["SCORE_NAMES", "PartInstances"]


@dataclass(frozen=True)
class PartInstances:
    """Every pixel's part and the object that it belongs to, with scores to rank them by.

    A part may belong to *nobody*: ``part_map`` has it, ``object_map`` is 0 there. So the part
    segmentation is ``part_map``, while objects, segments, masks and the panoptic view leave such
    pixels out. Every pixel of an object has a part.

    The *id* of an object in maps and files counts from 1; the *k* of :meth:`person` from 0, as
    rows of tensors do. Where there is no taxonomy, parts and classes are named by number.

    Attributes:
        object_map: (H, W) int32, 0 where no object is, i for the i-th object (1..n).
        part_map: (H, W) int32, 0 background, 1..P parts, also those of nobody.
        boxes: (n, 4) the detections' boxes, x1 y1 x2 y2 in pixels of this map.
        classes: (n,) int64 contiguous object classes.
        object_scores: name in :data:`SCORE_NAMES` -> (n,) scores.
        segment_object: (S,) int64 object of each segment, 1..n, ascending.
        segment_part: (S,) int64 part of each segment, 1..P, ascending within an object.
        segment_area: (S,) int64 pixels.
        segment_scores: name in :data:`SCORE_NAMES` -> (S,) scores.
        score_name: the score that ``scores`` and ``panoptic`` use.
        taxonomy: what parts and classes are called.
        image: (H, W, 3) uint8 RGB, the picture, to draw on and to cut from.
        detection_index: (n,) int64 row of each object in the detections that were given; 0..n-1
            when left out.
        left_out_boxes: (m, 4) the given detections that are no object, in their order.
        left_out_scores: (m,) their scores.
        notes: what was assumed or left out on the way here, in words.

    Raises:
        ValueError: an unknown ``score_name``; parts or classes that the taxonomy does not have; an
            image of another size.
    """

    object_map: Tensor
    part_map: Tensor
    boxes: Tensor
    classes: Tensor
    object_scores: Mapping[str, Tensor]
    segment_object: Tensor
    segment_part: Tensor
    segment_area: Tensor
    segment_scores: Mapping[str, Tensor]
    score_name: str = "mean_q"
    taxonomy: PartTaxonomy | None = None
    image: np.ndarray | None = None
    detection_index: Tensor | None = None
    left_out_boxes: Tensor | None = None
    left_out_scores: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        new = self.boxes.new_zeros
        defaults = {
            "detection_index": torch.arange(len(self.classes), device=self.classes.device),
            "left_out_boxes": new(0, 4),
            "left_out_scores": new(0),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_score_name(self.score_name)
        if self.taxonomy is not None:
            names.check_taxonomy(self)
        if self.image is not None:
            views.check_image(self.image, self.image_size)

    @classmethod
    def from_label_maps(
        cls,
        object_map: Tensor,
        part_map: Tensor,
        *,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        part_prob: Tensor | None = None,
        confidence: Tensor | None = None,
        score_name: str = "mean_q",
        min_share: float = 0.0,
        taxonomy: PartTaxonomy | None = None,
    ) -> PartInstances:
        """Collect the segments of a labelling; detections that won no pixel are left out.

        So are those whose share of their box is below ``min_share``. Their pixels keep their part
        and become nobody's: they say that there is a person, not that it is another one's.

        Args:
            object_map: (H, W) integers, 0 none, i+1 for detection i.
            part_map: (H, W) integers, 0 background, 1..P; where it has a part and ``object_map``
                is 0, the part is nobody's.
            boxes: (D, 4) x1 y1 x2 y2 in pixels of the maps; a pixel lies in a box when its centre
                does (x1 <= x + 0.5 < x2).
            scores: (D,) detection scores.
            classes: (D,) contiguous object classes.
            part_prob: (P+1, H, W) Q, for ``mean_q``; 1 everywhere when not given (as for a
                ground truth).
            confidence: (H, W) marginal of each pixel's label, for ``mean_marginal``; 1 likewise.
            score_name: one of :data:`SCORE_NAMES`.
            min_share: least share (see :data:`SCORE_NAMES`) of an object, 0..1; 0 keeps all.
            taxonomy: what parts and classes are called.

        Raises:
            ValueError: maps of different sizes or of no ids, an object without a detection, a
                pixel of an object without a part, a part that Q or the taxonomy does not have, an
                unknown score, a ``min_share`` that is no share.
        """
        check_label_maps(object_map, part_map, boxes, scores, classes, part_prob, confidence)
        check_min_share(min_share)
        fields = collect(
            object_map, part_map, boxes, scores, classes, part_prob, confidence, min_share
        )
        return cls(**fields, score_name=score_name, taxonomy=taxonomy)

    def __len__(self) -> int:
        """The number of objects, n."""
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.object_map.shape
        return int(height), int(width)

    @property
    def scores(self) -> Tensor:
        """(n,) the objects' scores, by ``score_name``."""
        return self.object_scores[self.score_name]

    def object_masks(self) -> Tensor:
        """(n, H, W) bool, disjoint: labels (i, j) mapped to i."""
        ids = torch.arange(1, len(self) + 1, device=self.object_map.device, dtype=torch.int32)
        return self.object_map[None] == ids[:, None, None]

    def segment_masks(self) -> Tensor:
        """(S, H, W) bool, disjoint: one mask for every part of every object."""
        return (self.object_map[None] == self.segment_object[:, None, None]) & (
            self.part_map[None] == self.segment_part[:, None, None]
        )

    def panoptic(self) -> tuple[Tensor, list[dict]]:
        """The labelling as Detectron2's panoptic output.

        Returns:
            (H, W) int32 segment ids (0 no object, k for the k-th segment) and one dict a
            segment: ``id, category_id`` (part, contiguous: part id - 1), ``isthing, instance_id,
            object_category_id, score, area``. Plain Python numbers only.
        """
        num_parts = largest(self.part_map)
        table = torch.zeros(
            (len(self) + 1, num_parts + 1), dtype=torch.int32, device=self.object_map.device
        )
        ids = torch.arange(1, len(self.segment_part) + 1, device=table.device, dtype=torch.int32)
        table[self.segment_object, self.segment_part] = ids
        id_map = table[self.object_map.long(), self.part_map.long()]
        columns = (
            self.segment_object.tolist(),
            self.segment_part.tolist(),
            self.segment_area.tolist(),
            self.segment_scores[self.score_name].tolist(),
        )
        classes = self.classes.tolist()
        segments = [
            {
                "id": index,
                "category_id": part - 1,
                "isthing": True,
                "instance_id": owner,
                "object_category_id": classes[owner - 1],
                "score": score,
                "area": area,
            }
            for index, (owner, part, area, score) in enumerate(zip(*columns, strict=True), start=1)
        ]
        return id_map, segments

    def person(self, k: int) -> np.ndarray:
        """(H, W) uint8 part ids of the k-th object (0..n-1), whatever its class; 0 elsewhere.

        Raises:
            ValueError: there is no such object; the message says how many there are.
        """
        return views.person_map(self, k)

    def crop(self, k: int, *, margin: float = 0.0, image: np.ndarray | None = None) -> views.Crop:
        """The k-th object, cut out along the box around its pixels.

        Args:
            k: 0..n-1.
            margin: room on every side, as a share of the box's width and height; what would lie
                outside the picture is left out.
            image: (H, W, 3) uint8 RGB; None: the result's own.

        Returns:
            ``image, part_map, box``: the picture there, the object's part ids there (everyone
            else's are 0), and x1 y1 x2 y2 in whole pixels.

        Raises:
            ValueError: no such object, no picture, a picture of another size, a bad margin.
        """
        return views.crop(self, k, margin=margin, image=image)

    def draw(
        self,
        image: np.ndarray | None = None,
        *,
        legend: bool = False,
        labels: bool = True,
        alpha: float = 0.7,
        scale: int | None = 1,
        max_size: int | None = None,
    ) -> np.ndarray:
        """The picture with the parts' colours and every object's outline. Needs OpenCV.

        Args:
            image: (H, W, 3) uint8 RGB; None: the result's own.
            legend: whether the parts' names stand below the picture.
            labels: whether ids (from 1) and scores stand at the objects.
            alpha: opacity of the parts' colours, 0..1.
            scale: whole factor of enlargement; None: as much as a small picture needs, and a
                large one is reduced to 1600 pixels.
            max_size: at least 1; a larger picture is drawn at so many pixels of its longer side.

        Returns:
            (H, W, 3) uint8 RGB, unless it is told otherwise; higher with a legend.

        Raises:
            ValueError: no picture, or one of another size; numbers that are none of these.
            ImportError: no OpenCV.
        """
        return views.draw(
            self,
            image,
            legend=legend,
            labels=labels,
            alpha=alpha,
            scale=scale,
            max_size=max_size,
        )

    def to_supervision(self, *, segments: bool = False) -> Any:
        """``supervision.Detections``, one an object; with ``segments``, one a part of an object.

        ``xyxy`` are the boxes around the masks, in pixel edges; ``data`` has ``class_name`` and
        ``person_id`` (1..n), and ``part_id`` (1..P) with ``segments``. ``class_id`` counts from 0.

        Raises:
            ImportError: supervision is not installed.
        """
        return annotations.to_supervision(self, segments=segments)

    def to_coco(self, image_id: int | str, *, segments: bool = False) -> list[dict]:
        """COCO's results, one an object; with ``segments``, one a part of an object.

        ``image_id, category_id, segmentation, bbox, area, score``, ready for ``json.dump``:
        ``category_id`` is the object class + 1, or the part id; ``segmentation`` a compressed RLE
        as text; ``bbox`` x y w h around the mask; ``area`` the mask's, in pixels (pycocotools'
        ``loadRes`` puts the box's in its place, unless ``bbox`` is taken out before).

        Raises:
            ImportError: pycocotools is not installed.
        """
        return annotations.to_coco(self, image_id, segments=segments)

    def to_coco_panoptic(
        self, file_name: str, *, image_id: int | str | None = None
    ) -> tuple[np.ndarray, dict]:
        """COCO's panoptic format, a segment being a part of an object.

        Args:
            file_name: of the PNG.
            image_id: None: ``file_name`` without its suffix.

        Returns:
            (H, W, 3) uint8 to be saved as the PNG, id = R + 256 G + 65536 B, 0 void (parts of
            nobody; the background, too, where there is no taxonomy, else its category is P + 1);
            and ``image_id, file_name, segments_info``, the latter with ``id, category_id`` (the
            part id), ``area, bbox, iscrowd``, and of objects ``instance_id, score`` and more.
        """
        return annotations.to_coco_panoptic(self, file_name, image_id=image_id)

    def to_labelme(
        self, image_path: str | os.PathLike | None = None, *, tolerance: float = 0.3
    ) -> dict:
        """labelme's JSON: polygons labelled by the part, grouped by the object. Needs OpenCV.

        ``group_id`` is the object's id (1..n), None for parts of nobody. A region with holes,
        which labelme does not have, comes in several pieces.

        Args:
            image_path: of the picture, as seen from the JSON; labelme opens nothing without it.
            tolerance: how far, in pixels, outlines may be off in order to have fewer vertices;
                with 0.3, labelme still gives the same masks. 1 is good for correcting by hand.

        Raises:
            ValueError: a negative tolerance.
            ImportError: no OpenCV.
        """
        return labelme.to_labelme(self, image_path, tolerance=tolerance)

    def save(
        self,
        folder: str | os.PathLike,
        name: str = "result",
        *,
        image: np.ndarray | None = None,
        picture: bool = True,
    ) -> list[Path]:
        """Write the result to ``folder``, each file whole or not at all, the JSON last.

        * ``NAME.png``: object ids, 0 nobody, i the i-th object; 16 bits if there are over 254.
        * ``NAME_parts.png``: part ids, with the parts' colours as the palette.
        * ``NAME_picture.jpg``: :meth:`draw`, of at most 1600 pixels; if OpenCV is there and the
          picture is known.
        * ``NAME.json``: ``height, width``; ``objects``, ``segments`` (a segment is where the maps
          have its ``instance_id`` and ``part_id``) with names and scores; all detections that
          were given, the objects' first, as ``boxes`` (x1 y1 x2 y2), ``scores`` and
          ``person_scores`` (0 for those left out); ``notes``.

        Args:
            folder: made if need be.
            name: of the files, without a suffix.
            image: (H, W, 3) uint8 RGB; None: the result's own.
            picture: False: no ``NAME_picture.jpg``.

        Returns:
            The files written.

        Raises:
            ValueError: a name with a folder in it, an image of another size, more objects or parts
                than PNGs hold.
        """
        return files.save(self, folder, name, image=image, picture=picture)

    def __repr__(self) -> str:
        return text.summarize(self)

    def to(self, device: torch.device | str) -> PartInstances:
        """The same result with every tensor on ``device``; the image stays where it is."""

        def move(value):
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, Mapping):
                return {name: tensor.to(device) for name, tensor in value.items()}
            return value

        return PartInstances(**{name: move(value) for name, value in vars(self).items()})
