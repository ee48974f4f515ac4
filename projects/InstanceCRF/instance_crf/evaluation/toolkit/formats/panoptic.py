"""COCO panoptic files: one JSON and a folder of PNGs whose colour is the segment's id.

``<name>.json`` with the folder ``<name>/`` beside it, as COCO publishes them; a segment is one
part of one object, its category the part. The background is one more segment, of the stuff
category ``background``, because COCO takes pixels of id 0 in a ground truth as void: ignored
pixels, and pixels of an object that belong to none of its parts, are written as 0.

Beyond COCO's keys a segment of ours has ``score``, ``instance_id`` (its object),
``object_category_id`` and ``object_score``. Files of others that lack them are read all the
same; the numbers that need them are then left out. Crowd segments of a ground truth are ignored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....data.coco_tables import BACKGROUND_NAME, categories_of, check_categories, sizes_of
from ....data.label_io import read_rgb_png
from ....entries import (
    as_finite,
    as_kind,
    as_name,
    as_whole,
    is_crowd,
    refuse_repeated,
    require_keys,
)
from ....files import inside, read_json, write_json
from ....taxonomies.schema import PartTaxonomy
from ...contingency import IGNORE
from ...parsing import Parsing
from .base import (
    ParsingReader,
    PredictionWriter,
    lookup,
    numbered,
    only,
    segment_map_of,
    segment_owners,
    write_png,
)

__all__ = [
    "PanopticPredictions",
    "PanopticTruth",
    "PanopticWriter",
    "coco_categories",
    "id_to_color",
    "panoptic_segments",
]


_MAX_SEGMENT = 2**24 - 1


def coco_categories(taxonomy: PartTaxonomy) -> list[dict]:
    """COCO's ``categories``: the category of a part has the part's id, background P + 1."""
    rows = zip(taxonomy.part_names, taxonomy.part_owner, taxonomy.part_colors, strict=True)
    parts = [
        {
            "id": part,
            "name": name,
            "supercategory": taxonomy.object_names[owner],
            "isthing": 1,
            "color": list(color),
        }
        for part, (name, owner, color) in enumerate(rows, start=1)
    ]
    background = {"id": taxonomy.num_parts + 1, "name": BACKGROUND_NAME, "isthing": 0}
    return [*parts, background | {"supercategory": BACKGROUND_NAME, "color": [0, 0, 0]}]


class PanopticWriter(PredictionWriter):
    """Writes predictions, or ground truth (which has no scores).

    Args:
        name: of the JSON and of the folder.
    """

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy, *, name: str = "panoptic") -> None:
        super().__init__(root, taxonomy)
        self.name = name
        self._images: list[dict] = []
        self._annotations: list[dict] = []

    def add(self, image_id: str, prediction: Parsing) -> None:
        try:
            ids, segments = panoptic_segments(prediction, self.taxonomy)
        except ValueError as error:
            raise ValueError(f"Image {image_id}: {error}") from None
        write_png(self.root / self.name / f"{image_id}.png", id_to_color(ids))
        height, width = ids.shape
        self._images.append(
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width}
        )
        self._annotations.append(
            {
                "image_id": image_id,
                "file_name": f"{image_id}.png",
                "segments_info": segments,
            }
        )

    def merge(self, other: PanopticWriter) -> None:
        self._images += other._images
        self._annotations += other._annotations

    def close(self) -> None:
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": coco_categories(self.taxonomy),
        }
        write_json(self.root / f"{self.name}.json", content, indent=None)


def panoptic_segments(
    prediction: Parsing, taxonomy: PartTaxonomy | None
) -> tuple[NDArray[np.int32], list[dict]]:
    """(H, W) segment ids, 0 void, and COCO's ``segments_info``; without a taxonomy the
    background, whose category is not known then, is void, too.

    Raises:
        ValueError: segments that are not parts of objects, or too many of them.
    """
    if prediction.object_map is None or prediction.segment_map is not None:
        raise ValueError("the panoptic writer needs segments that are parts of objects.")
    ids = segment_map_of(prediction, 65535, "at most 65535 are written.")
    segments = _segments(prediction, ids)
    # A part of nobody is neither: it stays void, id 0.
    background = (prediction.part_map == 0) & (prediction.object_map == 0)
    if taxonomy is not None and background.any():
        ids[background] = len(segments) + 1
        segments.append(_segment(ids, len(segments) + 1, taxonomy.num_parts + 1))
    return ids, segments


def _segments(prediction: Parsing, ids: NDArray) -> list[dict]:
    row_of = {int(i): row for row, i in enumerate(prediction.object_ids)}
    segments = []
    rows = zip(segment_owners(prediction).tolist(), prediction.segment_parts, strict=True)
    for k, (owner, part) in enumerate(rows, start=1):
        row = row_of[owner]
        segment = _segment(ids, k, int(part))
        segment["instance_id"] = owner
        segment["object_category_id"] = int(prediction.object_classes[row])
        if prediction.segment_scores is not None:
            segment["score"] = float(prediction.segment_scores[k - 1])
        if prediction.object_scores is not None:
            segment["object_score"] = float(prediction.object_scores[row])
        segments.append(segment)
    return segments


class _PanopticFiles(ParsingReader):
    """The JSON and the PNGs of a folder."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.json_path = path = find_json(self.root)
        content = read_json(path, dict)
        self.folder = path.with_suffix("")
        require_keys(content, ("annotations",), str(path))
        self._annotations: dict[str, tuple[Path, list]] = {}
        annotations = as_kind(content["annotations"], list, f"{path}: annotations")
        for number, annotation in enumerate(annotations):
            where = f"{path}: annotation {number}"
            require_keys(annotation, ("image_id", "file_name", "segments_info"), where)
            image_id = as_name(annotation["image_id"], f"{where}: image_id")
            if image_id in self._annotations:
                raise ValueError(f"{path} has image {image_id} twice.")
            self._annotations[image_id] = (
                inside(self.folder, annotation["file_name"], f"{where}: file_name"),
                as_kind(annotation["segments_info"], list, f"{where}: segments_info"),
            )
        refuse_repeated((str(png) for png, _ in self._annotations.values()), f"{path} names")
        self._sizes = sizes_of(content, path, needed=False) if "images" in content else {}
        categories = categories_of(content, path)
        check_categories(categories, taxonomy.part_names, path)
        # Results of others may come without categories; the background's id is then ours.
        self._background = {
            c["id"] for c in categories or coco_categories(taxonomy) if c["name"] == BACKGROUND_NAME
        }

    def restricted_to(self, image_ids: Sequence[str]) -> _PanopticFiles:
        part = copy.copy(self)
        part._annotations = only(self._annotations, image_ids)
        part._sizes = only(self._sizes, image_ids)
        return part

    def image_ids(self) -> list[str]:
        return sorted(self._annotations)

    def _read(self, image_id: str) -> tuple[NDArray, list[dict]]:
        """The PNG's ids and its segments, checked, with whole numbers."""
        path, rows = self._annotations[image_id]
        ids = _read_ids(path)
        if self._sizes.get(image_id, ids.shape) != ids.shape:
            raise ValueError(
                f"{path} is {ids.shape} pixels (height, width), but {self.json_path} says "
                f"{self._sizes[image_id]} of image {image_id}."
            )
        segments = [self._segment(row, image_id) for row in rows]
        where = f"{self.json_path}: image {image_id} lists segment"
        refuse_repeated((s["id"] for s in segments), where)
        known = {s["id"] for s in segments}
        present = set(np.unique(ids).tolist()) - {0}
        for extra in sorted(present - known):
            raise ValueError(
                f"{path} has segment {extra}, which {self.json_path} does not list for image "
                f"{image_id}."
            )
        for absent in sorted(known - present):
            raise ValueError(
                f"{self.json_path}: segment {absent} of image {image_id} has no pixel in {path}."
            )
        return ids, segments

    def _segment(self, row: object, image_id: str) -> dict:
        where = f"{self.json_path}: a segment of image {image_id}"
        require_keys(row, ("id", "category_id"), where)
        segment_id = as_whole(row["id"], f"{where}: id", 1, _MAX_SEGMENT)
        where = f"{self.json_path}: segment {segment_id} of image {image_id}"
        category = as_whole(row["category_id"], f"{where}: category_id", 0)
        if category not in self._background and not 1 <= category <= self.taxonomy.num_parts:
            raise ValueError(
                f"{where} has category {category}, expected 1..{self.taxonomy.num_parts}, or the "
                "category called background."
            )
        crowd = is_crowd(row, where)
        return row | {"id": segment_id, "category_id": category, "iscrowd": crowd}

    def _values(
        self, segments: list[dict], key: str, image_id: str, check: Callable, dtype: type
    ) -> NDArray | None:
        """The values of an optional key, or None when no segment has it."""
        if segments and not any(key in s for s in segments):
            return None
        where = f"{self.json_path}: {key} of a segment of image {image_id}"
        return np.array([check(s.get(key), where) for s in segments], dtype=dtype)

    def _parsing(self, ids: NDArray, rows: list[dict], image_id: str) -> Parsing:
        segments = [
            s for s in rows if s["category_id"] not in self._background and not s["iscrowd"]
        ]
        segment_ids = np.array([s["id"] for s in segments], dtype=np.int64)
        parts = np.array([s["category_id"] for s in segments], dtype=np.int64)
        parsing = Parsing(
            part_map=lookup(ids, segment_ids, parts),
            segment_map=lookup(ids, segment_ids, segment_ids),
            segment_ids=segment_ids,
            segment_parts=parts,
            segment_scores=self._values(segments, "score", image_id, as_finite, np.float64),
        )
        owners = self._values(segments, "instance_id", image_id, as_whole, np.int64)
        if owners is None:
            return parsing
        numbers, object_ids = numbered(owners)
        classes = self._values(
            segments, "object_category_id", image_id, self._object_class, np.int64
        )
        scores = self._values(segments, "object_score", image_id, as_finite, np.float64)
        if classes is None:
            classes = np.zeros(len(owners), dtype=np.int64)
        return replace(
            parsing,
            object_map=lookup(ids, segment_ids, numbers),
            object_ids=object_ids,
            object_classes=self._of_objects(classes, owners, "object_category_id", image_id),
            object_scores=None
            if scores is None
            else self._of_objects(scores, owners, "object_score", image_id),
        )

    def _object_class(self, value: object, where: str) -> int:
        return as_whole(value, where, 0, self.taxonomy.num_objects - 1)

    def _of_objects(self, values: NDArray, owners: NDArray, key: str, image_id: str) -> NDArray:
        """One value an object, in the order of their ids; all its segments must agree."""
        unique, first, position = np.unique(owners, return_index=True, return_inverse=True)
        differs = values != values[first][position.reshape(-1)]
        if differs.any():
            k = int(np.argmax(differs))
            raise ValueError(
                f"{self.json_path}: object {owners[k]} of image {image_id} has the {key} "
                f"{values[k]} and {values[first][np.searchsorted(unique, owners[k])]}."
            )
        return values[first]


class PanopticPredictions(_PanopticFiles):
    """Reads predictions."""

    def read(self, image_id: str) -> Parsing:
        return self._parsing(*self._read(image_id), image_id)


class PanopticTruth(_PanopticFiles):
    """Reads ground truth; pixels of id 0 and of crowd segments are ignored."""

    def read(self, image_id: str) -> Parsing:
        ids, rows = self._read(image_id)
        truth = self._parsing(ids, rows, image_id)
        void = [0, *(s["id"] for s in rows if s["iscrowd"])]
        ignored = np.isin(ids, void)
        if not ignored.any():
            return truth

        def without(label_map: NDArray | None) -> NDArray | None:
            return None if label_map is None else np.where(ignored, IGNORE, label_map)

        return replace(
            truth,
            part_map=without(truth.part_map),
            segment_map=without(truth.segment_map),
            object_map=without(truth.object_map),
        )


def find_json(root: Path) -> Path:
    """The one JSON of a folder that has a folder of the same name.

    Raises:
        FileNotFoundError, ValueError: there is none, or more than one.
    """
    found = [p for p in sorted(root.glob("*.json")) if p.with_suffix("").is_dir()]
    if not found:
        raise FileNotFoundError(
            f"{root} has no <name>.json with a folder <name>/ of PNGs beside it (COCO panoptic)."
        )
    if len(found) > 1:
        raise ValueError(f"{root} has several panoptic JSONs: {', '.join(p.name for p in found)}.")
    return found[0]


def _segment(ids: NDArray, segment_id: int, category: int) -> dict:
    """COCO's description of the pixels of ``segment_id``."""
    rows, columns = np.nonzero(ids == segment_id)
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": segment_id,
        "category_id": category,
        "area": len(rows),
        "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
        "iscrowd": 0,
    }


def id_to_color(ids: NDArray) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of (H, W) ids: id = R + 256 G + 65536 B."""
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)


def _read_ids(path: Path) -> NDArray[np.int32]:
    color = read_rgb_png(path, "the segment's id R + 256 G + 65536 B").astype(np.int32)
    return color[..., 0] + 256 * color[..., 1] + 65536 * color[..., 2]
