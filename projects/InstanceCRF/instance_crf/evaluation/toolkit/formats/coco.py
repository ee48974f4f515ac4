"""COCO instance results: masks as RLE or polygons, which may overlap.

Predictions: ``parts.json`` (``category_id`` the part, 1..P) and ``objects.json``
(``category_id`` the object class plus 1), either may be missing, each COCO's list of results.
Ground truth: the same names, each COCO's dictionary of ``images``, ``annotations``,
``categories``. Masks are compared by pycocotools (the extra ``eval``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....data.coco_masks import encode_masks
from ....data.coco_tables import categories_of, check_categories, sizes_of
from ....entries import (
    as_finite,
    as_kind,
    as_name,
    as_whole,
    is_crowd,
    refuse_repeated,
    require_keys,
)
from ....extras import require
from ....files import read_json, write_json
from ....taxonomies.schema import PartTaxonomy
from ...parsing import Parsing
from .base import PredictionWriter, only, segment_map_of
from .panoptic import coco_categories

__all__ = ["COCOPredictions", "COCOTruth", "COCOWriter", "Regions", "write_coco_truth"]

KINDS = ("parts", "objects")


@dataclass(frozen=True)
class Regions:
    """Regions of one kind in one image.

    Attributes:
        masks: M compressed RLEs.
        classes: (M,) 0-based.
        scores: (M,); NaN for ground truth.
        crowd: (M,) bool.
    """

    masks: list[dict]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def iou(self, truth: Regions) -> NDArray[np.float64]:
        """(M, G) IoU; with a crowd, the share of the prediction that lies in it."""
        if not self.masks or not truth.masks:
            return np.zeros((len(self.masks), len(truth.masks)))
        return _masks().iou(self.masks, truth.masks, truth.crowd.astype(np.uint8).tolist())


class COCOWriter(PredictionWriter):
    """Writes ``parts.json`` and ``objects.json``; masks are kept as RLE until :meth:`close`."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self._results: dict[str, list[dict]] = {kind: [] for kind in KINDS}

    def add(self, image_id: str, prediction: Parsing) -> None:
        for kind, rows in regions_of(prediction).items():
            self._results[kind] += [result_of(image_id, *row) for row in rows]

    def merge(self, other: COCOWriter) -> None:
        for kind in KINDS:
            self._results[kind] += other._results[kind]

    def close(self) -> None:
        for kind in KINDS:
            write_json(self.root / f"{kind}.json", self._results[kind], indent=None)


def write_coco_truth(
    root: str | Path, taxonomy: PartTaxonomy, truths: Sequence[tuple[str, Parsing]]
) -> None:
    """Write ground truth as COCO's dictionaries ``parts.json`` and ``objects.json``."""
    images = [
        {
            "id": image_id,
            "file_name": f"{image_id}.jpg",
            "height": truth.part_map.shape[0],
            "width": truth.part_map.shape[1],
        }
        for image_id, truth in truths
    ]
    annotations: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for image_id, truth in truths:
        for kind, rows in regions_of(truth).items():
            crowd = truth.crowd if kind == "objects" else np.zeros(len(rows), dtype=bool)
            for (mask, category, _), absorbs in zip(rows, crowd, strict=True):
                annotations[kind].append(
                    {
                        "id": len(annotations[kind]) + 1,
                        "image_id": image_id,
                        "category_id": category,
                        "segmentation": _as_text(mask),
                        "bbox": [float(v) for v in _masks().toBbox(mask)],
                        "area": float(_masks().area(mask)),
                        "iscrowd": int(absorbs),
                    }
                )
    objects = [{"id": c, "name": n} for c, n in enumerate(taxonomy.object_names, start=1)]
    for kind, categories in (("parts", coco_categories(taxonomy)), ("objects", objects)):
        content = {"images": images, "annotations": annotations[kind], "categories": categories}
        write_json(Path(root) / f"{kind}.json", content, indent=None)


def result_of(image_id: str | int, mask: dict, category: int, score: float) -> dict:
    """One region as COCO's results have it."""
    return {
        "image_id": image_id,
        "category_id": category,
        "segmentation": _as_text(mask),
        "bbox": [float(v) for v in _masks().toBbox(mask)],
        "score": float(score),
    }


def regions_of(parsing: Parsing) -> dict[str, list[tuple[dict, int, float]]]:
    """(mask, category, score) of every part segment and every object of a labelling."""
    return {"parts": part_regions(parsing), "objects": object_regions(parsing)}


def part_regions(parsing: Parsing) -> list[tuple[dict, int, float]]:
    """(mask, category, score) of every part segment; the score is NaN where there is none."""
    count = len(parsing.segment_ids)
    segments = segment_map_of(parsing, 65535, "at most 65535 are written.")
    scores = np.full(count, np.nan) if parsing.segment_scores is None else parsing.segment_scores
    rows = enumerate(zip(parsing.segment_parts, scores, strict=True), start=1)
    return [(_encode(segments == k), int(part), float(score)) for k, (part, score) in rows]


def object_regions(parsing: Parsing) -> list[tuple[dict, int, float]]:
    """(mask, category, score) of every object; the score is NaN where there is none."""
    if parsing.object_map is None:
        return []
    count, scores = len(parsing.object_ids), parsing.object_scores
    scores = np.full(count, np.nan) if scores is None else scores
    rows = zip(parsing.object_ids, parsing.object_classes, scores, strict=True)
    return [(_encode(parsing.object_map == i), int(c) + 1, float(s)) for i, c, s in rows]


class _COCOFiles:
    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        self.root = Path(root).expanduser()
        self.num_classes = {"parts": taxonomy.num_parts, "objects": taxonomy.num_objects}
        self.kinds = [kind for kind in KINDS if (self.root / f"{kind}.json").exists()]
        if not self.kinds:
            raise FileNotFoundError(f"{self.root} has neither parts.json nor objects.json.")
        self.sizes: dict[str, tuple[int, int]] = {}
        self._rows: dict[str, dict[str, list[dict]]] = {}

    def restricted_to(self, image_ids: Sequence[str]) -> _COCOFiles:
        """The same of these images alone."""
        part = copy.copy(self)
        part.sizes = only(self.sizes, image_ids)
        part._rows = {kind: only(rows, image_ids) for kind, rows in self._rows.items()}
        return part

    def _rows_of(self, kind: str, image_id: str) -> tuple[list[dict], str]:
        """The regions of an image, and what opens messages about them."""
        where = f"{self.root / kind}.json: image {image_id}"
        return self._rows[kind].get(image_id, []), where

    def _masks_and_classes(self, rows: list[dict], kind: str, image_id: str, where: str) -> dict:
        high, key = self.num_classes[kind], f"{where}: category_id"
        classes = [as_whole(row.get("category_id"), key, 1, high) for row in rows]
        segmentations = [row.get("segmentation") for row in rows]
        masks = encode_masks(segmentations, self.sizes[image_id], where)
        return {"masks": masks, "classes": np.array(classes, dtype=np.int64) - 1}


class COCOTruth(_COCOFiles):
    """Reads ground truth: ``sizes`` (image -> (H, W)), :meth:`regions`, and whether the images'
    ids are ``numbers``."""

    numbers = True

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        for kind in self.kinds:
            path = self.root / f"{kind}.json"
            content = read_json(path)
            if not isinstance(content, dict) or "images" not in content:
                raise ValueError(f"{path} is not a COCO ground truth: it has no 'images'.")
            require_keys(content, ("annotations",), str(path))
            sizes = sizes_of(content, path)
            self.numbers &= all(isinstance(image["id"], int) for image in content["images"])
            self._refuse_other_sizes(sizes, path)
            self.sizes = sizes
            rows = as_kind(content["annotations"], list, f"{path}: annotations")
            self._rows[kind] = _by_image(rows, sizes, path)
            key = f"{path}: id of an annotation"
            ids = (as_name(row["id"], key) for row in rows if "id" in row)
            refuse_repeated(ids, f"{path} has annotation")
            names = taxonomy.part_names if kind == "parts" else taxonomy.object_names
            check_categories(categories_of(content, path), names, path)

    def _refuse_other_sizes(self, sizes: dict, path: Path) -> None:
        """Both files must have the same images: one of them would lack the truth of some."""
        if self.sizes and sizes != self.sizes:
            other = self.root / f"{KINDS[0]}.json"
            image_id = next(i for i in {**self.sizes, **sizes} if sizes.get(i) != self.sizes.get(i))
            raise ValueError(
                f"Image {image_id} is {self.sizes.get(image_id, 'missing')} in {other}, but "
                f"{sizes.get(image_id, 'missing')} in {path} (height, width); both must list the "
                "same images."
            )

    def image_ids(self) -> list[str]:
        """All images, sorted."""
        return sorted(self.sizes)

    def regions(self, kind: str, image_id: str) -> Regions:
        """The ground truth of one kind in one image."""
        rows, where = self._rows_of(kind, image_id)
        return Regions(
            **self._masks_and_classes(rows, kind, image_id, where),
            scores=np.full(len(rows), np.nan),
            crowd=np.array([is_crowd(row, where) for row in rows], dtype=bool),
        )


class COCOPredictions(_COCOFiles):
    """Reads predictions for the images of a ground truth."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy, truth: COCOTruth) -> None:
        super().__init__(root, taxonomy)
        self.sizes = truth.sizes
        for kind in self.kinds:
            path = self.root / f"{kind}.json"
            content = read_json(path)
            if not isinstance(content, list):
                raise ValueError(f"{path} is not a COCO result: expected a list of regions.")
            self._rows[kind] = _by_image(content, self.sizes, path)

    def regions(self, kind: str, image_id: str) -> Regions:
        """The predictions of one kind in one image."""
        rows, where = self._rows_of(kind, image_id)
        key = f"{where}: score of a region"
        return Regions(
            **self._masks_and_classes(rows, kind, image_id, where),
            scores=np.array([as_finite(row.get("score"), key) for row in rows], dtype=np.float64),
            crowd=np.zeros(len(rows), dtype=bool),
        )


def _by_image(rows: list[dict], sizes: dict, path: Path) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for number, row in enumerate(rows):
        image_id = row.get("image_id") if isinstance(row, dict) else None
        if type(image_id) is not str:
            require_keys(row, ("image_id",), f"{path}: region {number}")
            image_id = as_name(row["image_id"], f"{path}: region {number}: image_id")
        if image_id not in sizes:
            raise ValueError(f"{path} has a region of image {image_id}, which has no ground truth.")
        found.setdefault(image_id, []).append(row)
    return found


def _masks():
    """pycocotools' functions of run-length encoded masks."""
    return require("pycocotools.mask", "eval")


def _encode(mask: NDArray) -> dict:
    return _masks().encode(np.asfortranarray(mask, dtype=np.uint8))


def _as_text(mask: dict) -> dict:
    return {"size": [int(v) for v in mask["size"]], "counts": mask["counts"].decode("ascii")}
