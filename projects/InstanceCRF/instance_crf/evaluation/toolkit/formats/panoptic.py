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
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....taxonomies.schema import PartTaxonomy
from ...contingency import IGNORE
from ...parsing import Parsing
from .base import (
    ParsingReader,
    PredictionWriter,
    lookup,
    only,
    parse_number,
    segment_map_of,
    segment_owners,
    write_png,
    write_text,
)

__all__ = [
    "PanopticPredictions",
    "PanopticTruth",
    "PanopticWriter",
    "coco_categories",
    "id_to_color",
    "panoptic_segments",
    "taxonomy_of_categories",
]


BACKGROUND_NAME = "background"


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


def taxonomy_of_categories(categories: list[dict], path: Path) -> PartTaxonomy:
    """The taxonomy that a JSON's ``categories`` describe.

    Raises:
        ValueError: ids that are not 1..P.
    """
    rows = [c for c in categories if c.get("isthing", 1) or c["name"] != BACKGROUND_NAME]
    rows.sort(key=lambda c: c["id"])
    if [c["id"] for c in rows] != list(range(1, len(rows) + 1)):
        raise ValueError(
            f"{path}: category ids {[c['id'] for c in rows]}; expected 1..{len(rows)}, one a part."
        )
    objects = list(dict.fromkeys(c.get("supercategory") or "person" for c in rows))
    return PartTaxonomy(
        part_names=tuple(c["name"] for c in rows),
        object_names=tuple(objects),
        part_owner=tuple(objects.index(c.get("supercategory") or "person") for c in rows),
    )


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
        write_text(self.root / f"{self.name}.json", json.dumps(content))


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
        self.json_path = find_json(self.root)
        content = load_json(self.json_path)
        self.folder = self.json_path.with_suffix("")
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"The folder {self.folder} does not exist; it must hold the PNGs of "
                f"{self.json_path}."
            )
        require_keys(content, ("annotations",), str(self.json_path))
        for annotation in content["annotations"]:
            keys = ("image_id", "file_name", "segments_info")
            require_keys(annotation, keys, f"{self.json_path}: an annotation")
        self._annotations = {str(a["image_id"]): a for a in content["annotations"]}
        # Results of others may come without categories; the background's id is then ours.
        self._background = {
            c["id"]
            for c in content.get("categories", coco_categories(taxonomy))
            if c["name"] == BACKGROUND_NAME
        }

    def restricted_to(self, image_ids: Sequence[str]) -> _PanopticFiles:
        part = copy.copy(self)
        part._annotations = only(self._annotations, image_ids)
        return part

    def image_ids(self) -> list[str]:
        return sorted(self._annotations)

    def _read(self, image_id: str) -> tuple[NDArray, list[dict], Path]:
        annotation = self._annotations[image_id]
        path = self.folder / annotation["file_name"]
        ids = _read_ids(path)
        segments = annotation["segments_info"]
        for segment in segments:
            where = f"{self.json_path}: a segment of image {image_id}"
            require_keys(segment, ("id", "category_id"), where)
        known = {int(s["id"]) for s in segments}
        if len(known) < len(segments):
            raise ValueError(f"{self.json_path}: image {image_id} lists a segment twice.")
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
        for segment in segments:
            if not self._is_background(segment) and not (
                1 <= segment["category_id"] <= self.taxonomy.num_parts
            ):
                raise ValueError(
                    f"{self.json_path}: segment {segment['id']} of image {image_id} has category "
                    f"{segment['category_id']}, expected 1..{self.taxonomy.num_parts}, or the "
                    "category called background."
                )
        return ids, segments, path

    def _is_background(self, segment: dict) -> bool:
        return segment["category_id"] in self._background

    def _numbers(self, segments: list[dict], key: str, image_id: str) -> NDArray | None:
        """The values of an optional key, or None when no segment has it."""
        if segments and not any(key in s for s in segments):
            return None
        where = f"{self.json_path}: {key} of a segment of image {image_id}"
        return np.array(
            [parse_number(s.get(key), float, where) for s in segments], dtype=np.float64
        )

    def _parsing(self, image_id: str) -> Parsing:
        ids, rows, _ = self._read(image_id)
        segments = [s for s in rows if not self._is_background(s) and not s.get("iscrowd", 0)]
        segment_ids = np.array([s["id"] for s in segments], dtype=np.int64)
        parts = np.array([s["category_id"] for s in segments], dtype=np.int64)
        parsing = Parsing(
            part_map=lookup(ids, segment_ids, parts),
            segment_map=lookup(ids, segment_ids, segment_ids),
            segment_ids=segment_ids,
            segment_parts=parts,
            segment_scores=self._numbers(segments, "score", image_id),
        )
        owners = self._numbers(segments, "instance_id", image_id)
        if owners is None:
            return parsing
        owners = owners.astype(np.int64)
        object_ids, first = np.unique(owners, return_index=True)
        classes = self._numbers(segments, "object_category_id", image_id)
        scores = self._numbers(segments, "object_score", image_id)
        return replace(
            parsing,
            object_map=lookup(ids, segment_ids, owners),
            object_ids=object_ids,
            object_classes=np.zeros(len(object_ids), np.int64)
            if classes is None
            else classes[first].astype(np.int64),
            object_scores=None if scores is None else scores[first],
        )


class PanopticPredictions(_PanopticFiles):
    """Reads predictions."""

    def read(self, image_id: str) -> Parsing:
        return self._parsing(image_id)


class PanopticTruth(_PanopticFiles):
    """Reads ground truth; pixels of id 0 and of crowd segments are ignored."""

    def read(self, image_id: str) -> Parsing:
        truth = self._parsing(image_id)
        ids, rows, _ = self._read(image_id)
        void = [0, *(s["id"] for s in rows if s.get("iscrowd", 0))]
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


def load_json(path: Path):
    """A JSON's content; a broken file is an error that names it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or is cut short: {error}") from None


def require_keys(row: object, keys: Sequence[str], where: str) -> None:
    """Refuse what is no JSON object with ``keys``; ``where`` opens the message."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object with {', '.join(keys)}; got {row!r:.60}.")
    missing = [key for key in keys if key not in row]
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}.")


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
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise ValueError(
                    f"{path} has mode {image.mode}; a panoptic PNG is RGB, id R + 256 G + 65536 B."
                )
            color = np.asarray(image).astype(np.int32)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"Cannot read the panoptic PNG {path}: {error}.") from error
    return color[..., 0] + 256 * color[..., 1] + 65536 * color[..., 2]
