"""The LIP/CIHP challenge's files, and the canonical (CIHP) layout of ground truth.

Predictions::

    global_parsing/<id>.png          part of each pixel, also where it is no person's
    instance_parsing/<id>.png        part segment of each pixel, 8 bits, 0 background
    instance_parsing/<id>.txt        line k describes value k: "part score"
    instance_segmentation/<id>.png   person of each pixel (as the LIP video track and QANet)
    instance_segmentation/<id>.txt   line k describes value k: "score y1 x1 y2 x2"

Only ``instance_parsing`` is needed for APr; without ``global_parsing`` the part segmentation is
that of the segments, and without ``instance_segmentation`` there are no numbers about people.
The challenge's mean IoU reads ``global_parsing`` alone, its APr ``instance_parsing`` alone: a part
of nobody is in the first and in none of the others.

Ground truth: ``Category_ids/<id>.png`` and ``Human_ids/<id>.png`` (with several object classes also
``object_classes.json``, where the parts do not tell the class), or the official evaluator's own
``Instance_part_val``: ``<id>.png`` and ``<id>.txt`` with lines "segment part human".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....data.datasets.index import read_classes
from ....data.label_io import read_label_png, read_object_map
from ....entries import refuse_repeated
from ....files import write_text
from ....taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ...parsing import Parsing
from .base import (
    ParsingReader,
    PredictionWriter,
    as_part_map,
    check_dense_ids,
    check_parts,
    check_same_size,
    files_by_id,
    lookup,
    numbered,
    only,
    optional_folder,
    read_table,
    segment_map_of,
    segment_owners,
    write_png,
)

__all__ = ["CIHPPredictions", "CIHPTruth", "CIHPWriter", "write_cihp_truth"]

_LIMIT = 255


class CIHPWriter(PredictionWriter):
    """Writes what the challenge's evaluator reads; zip the three folders to submit them."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.require_one_object_class("cihp")

    def add(self, image_id: str, prediction: Parsing) -> None:
        segments = segment_map_of(
            prediction,
            _LIMIT,
            f"the cihp format numbers them in 8 bits, at most {_LIMIT}. Keep fewer detections.",
        )
        rows = zip(prediction.segment_parts, prediction.segment_scores, strict=True)
        write_png(self.root / "global_parsing" / f"{image_id}.png", _uint8(prediction.part_map))
        folder = self.root / "instance_parsing"
        write_png(folder / f"{image_id}.png", _uint8(segments))
        write_text(folder / f"{image_id}.txt", "".join(f"{c} {float(s)!r}\n" for c, s in rows))
        if prediction.object_map is not None:
            self._add_people(image_id, prediction)

    def _add_people(self, image_id: str, prediction: Parsing) -> None:
        if len(prediction.object_ids) > _LIMIT:
            raise ValueError(
                f"{len(prediction.object_ids)} people in image {image_id}; the cihp format numbers "
                f"them in 8 bits, at most {_LIMIT}."
            )
        ids = np.arange(1, len(prediction.object_ids) + 1)
        people = lookup(prediction.object_map, prediction.object_ids, ids)
        lines = []
        for number, score in zip(ids, prediction.object_scores, strict=True):
            rows, columns = np.nonzero(people == number)
            box = (rows.min(), columns.min(), rows.max(), columns.max())
            lines.append(" ".join([repr(float(score)), *(str(int(v)) for v in box)]))
        folder = self.root / "instance_segmentation"
        write_png(folder / f"{image_id}.png", _uint8(people))
        write_text(folder / f"{image_id}.txt", "".join(f"{line}\n" for line in lines))


class CIHPPredictions(ParsingReader):
    """Reads predictions as the challenge wants them, ours or anybody's."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.instances = optional_folder(self.root / "instance_parsing") or self.root
        self.categories = optional_folder(self.root / "global_parsing")
        self.people = optional_folder(self.root / "instance_segmentation")
        if not files_by_id(self.instances, ".txt"):
            raise FileNotFoundError(
                f"{self.instances} has no .txt file; the cihp format has instance_parsing/<id>.png "
                "and instance_parsing/<id>.txt."
            )

    def image_ids(self) -> list[str]:
        # A segment map without its lines is an error when it is read, not an image left out.
        return sorted({*files_by_id(self.instances, ".txt"), *files_by_id(self.instances, ".png")})

    def read(self, image_id: str) -> Parsing:
        png, table = self.instances / f"{image_id}.png", self.instances / f"{image_id}.txt"
        rows = read_table(table, (("part", int), ("score", float)))
        segments = read_label_png(png)
        check_dense_ids(segments, len(rows), png, table)
        parts = np.array([part for part, _ in rows], dtype=np.int64)
        check_parts(parts, self.taxonomy, table)
        ids = np.arange(1, len(rows) + 1)
        if self.categories is None:
            part_map = lookup(segments, ids, parts)
        else:
            path = self.categories / f"{image_id}.png"
            part_map = as_part_map(path, self.taxonomy)
            check_same_size(part_map, path, segments, png)
        people, people_scores = self._read_people(image_id, segments, png)
        return Parsing(
            part_map=part_map,
            object_map=people,
            segment_map=segments,
            segment_ids=ids,
            segment_parts=parts,
            segment_scores=np.array([score for _, score in rows], dtype=np.float64),
            object_ids=np.arange(1, len(people_scores) + 1),
            object_classes=np.zeros(len(people_scores), dtype=np.int64),
            object_scores=people_scores,
        )

    def _read_people(
        self, image_id: str, segments: NDArray, segments_path: Path
    ) -> tuple[NDArray | None, NDArray]:
        if self.people is None:
            return None, np.zeros(0)
        png, table = self.people / f"{image_id}.png", self.people / f"{image_id}.txt"
        corners = tuple((name, float) for name in ("y1", "x1", "y2", "x2"))
        rows = read_table(table, (("score", float), *corners))
        people = read_label_png(png)
        check_same_size(people, png, segments, segments_path)
        check_dense_ids(people, len(rows), png, table)
        return people, np.array([row[0] for row in rows], dtype=np.float64)


class CIHPTruth(ParsingReader):
    """Reads ground truth: ``Category_ids`` and ``Human_ids``, or ``Instance_part_val``'s files."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.categories, self.humans = self.root / "Category_ids", self.root / "Human_ids"
        self.canonical = None not in map(optional_folder, (self.categories, self.humans))
        self.given_classes = read_classes(self.root / "object_classes.json", taxonomy)
        if not self.canonical and not files_by_id(self.root, ".txt"):
            raise FileNotFoundError(
                f"{self.root} has neither the folders Category_ids and Human_ids nor the official "
                "evaluator's <id>.png and <id>.txt."
            )

    def restricted_to(self, image_ids: Sequence[str]) -> CIHPTruth:
        part = copy.copy(self)
        part.given_classes = only(self.given_classes, image_ids)
        return part

    def image_ids(self) -> list[str]:
        if self.canonical:
            return sorted(files_by_id(self.categories, ".png"))
        return sorted({*files_by_id(self.root, ".txt"), *files_by_id(self.root, ".png")})

    def read(self, image_id: str) -> Parsing:
        return self._read_canonical(image_id) if self.canonical else self._read_official(image_id)

    def _read_canonical(self, image_id: str) -> Parsing:
        part_path = self.categories / f"{image_id}.png"
        human_path = self.humans / f"{image_id}.png"
        part_map = as_part_map(part_path, self.taxonomy, ignored=IGNORE_LABEL)
        object_map = read_object_map(human_path)
        check_same_size(part_map, part_path, object_map, human_path)
        # Ignored pixels are -1, and counted with "none".
        ids = np.flatnonzero(np.bincount(np.maximum(object_map, 0).reshape(-1))[1:]) + 1
        return Parsing.of_maps(
            part_map,
            object_map,
            object_ids=ids,
            object_classes=self._classes(image_id, part_map, object_map, ids),
        )

    def _classes(
        self, image_id: str, part_map: NDArray, object_map: NDArray, ids: NDArray
    ) -> NDArray:
        """The class given for each object, or the one that owns most of its parts."""
        if self.taxonomy.num_objects == 1 or not len(ids):
            return np.zeros(len(ids), dtype=np.int64)
        owners = self.taxonomy.owner_lut()
        counted = (part_map > 0) & (object_map > 0)
        votes = np.zeros((int(ids.max()) + 1, self.taxonomy.num_objects), dtype=np.int64)
        np.add.at(votes, (object_map[counted], owners[part_map[counted]]), 1)
        for object_id, given in self.given_classes.get(image_id, {}).items():
            if int(object_id) < len(votes):
                votes[int(object_id)] = 0
                votes[int(object_id), given] = 1
        nameless = [int(i) for i in ids if not votes[i].any()]
        if nameless:
            raise ValueError(
                f"{self.humans / image_id}.png: object {nameless[0]} has no part pixel, so its "
                f"class is unknown. Name it in {self.root / 'object_classes.json'}."
            )
        return votes[ids].argmax(axis=1)

    def _read_official(self, image_id: str) -> Parsing:
        png, table = self.root / f"{image_id}.png", self.root / f"{image_id}.txt"
        rows = read_table(table, (("segment", int, 1), ("part", int), ("human", int, 1)))
        segments = read_label_png(png)
        refuse_repeated((segment for segment, _, _ in rows), f"{table} names the segment")
        ids, parts, humans = (np.array([row[k] for row in rows], dtype=np.int64) for k in range(3))
        check_parts(parts, self.taxonomy, table)
        humans, people = numbered(humans)
        present = np.unique(segments)
        unlisted = np.setdiff1d(present[present > 0], ids)
        if len(unlisted):
            raise ValueError(f"{png} has the value {unlisted[0]}, which no line of {table} names.")
        absent = np.setdiff1d(ids, present)
        if len(absent):
            raise ValueError(f"{table} names the segment {absent[0]}, which has no pixel in {png}.")
        return Parsing(
            part_map=lookup(segments, ids, parts),
            object_map=lookup(segments, ids, humans),
            segment_map=segments,
            segment_ids=ids,
            segment_parts=parts,
            object_ids=people,
            object_classes=np.zeros(len(people), dtype=np.int64),
        )


def write_cihp_truth(root: str | Path, image_id: str, truth: Parsing) -> None:
    """Write ground truth as the official evaluator's ``Instance_part_val`` has it.

    Values are numbered densely; CIHP's own, ``(human - 1) * 20 + part``, need 8 bits only up to
    12 people of 20 classes.

    Raises:
        ValueError: more than 255 segments.
    """
    if truth.segment_map is not None:
        raise ValueError(f"Image {image_id}: segments must be (human, part) pairs.")
    segments = segment_map_of(truth, _LIMIT, f"the official evaluator reads at most {_LIMIT}.")
    rows = zip(truth.segment_parts, segment_owners(truth), strict=True)
    lines = [f"{k} {part} {human}\n" for k, (part, human) in enumerate(rows, start=1)]
    write_png(Path(root) / f"{image_id}.png", _uint8(segments))
    write_text(Path(root) / f"{image_id}.txt", "".join(lines))


def _uint8(label_map: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(label_map, dtype=np.uint8)
