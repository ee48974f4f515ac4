"""The files of the paper's authors' evaluation (the dynamically instantiated network's code).

Predictions: ``<id>.png``, a segment map, and ``<id>.txt`` with a line "class score" for each
segment, in the ascending order of the values in the PNG. Released options for
Pascal-Person-Part count the background (value 0) as such a value, so that the first line is the
background's; those for VOC do not. Both are read; which one is written is an option.

Ground truth: ``SegmentationPartInstance/<id>.png`` and ``SegmentationPart/<id>.png``, and, for
numbers about objects, ``SegmentationObject/<id>.png``. 255 is ignored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ....data.label_io import read_label_png, read_object_map
from ....files import write_text
from ....taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ...contingency import IGNORE
from ...parsing import Parsing
from .base import (
    ParsingReader,
    PredictionWriter,
    as_part_map,
    check_parts,
    check_same_size,
    files_by_id,
    lookup,
    optional_folder,
    read_table,
    segment_map_of,
    write_png,
)

__all__ = ["TVGPredictions", "TVGTruth", "TVGWriter", "write_tvg_truth"]

_LIMIT = 254


class TVGWriter(PredictionWriter):
    """Writes predictions.

    Args:
        background_line: begin each text file with the background's line, as the released
            options for Pascal-Person-Part need.
    """

    def __init__(
        self, root: str | Path, taxonomy: PartTaxonomy, *, background_line: bool = True
    ) -> None:
        super().__init__(root, taxonomy)
        self.background_line = background_line

    def add(self, image_id: str, prediction: Parsing) -> None:
        segments = segment_map_of(
            prediction, _LIMIT, f"the tvg format holds {_LIMIT}: 0 is background, 255 is ignored."
        )
        rows = zip(prediction.segment_parts, prediction.segment_scores, strict=True)
        lines = [f"{part} {float(score)!r}\n" for part, score in rows]
        if self.background_line and (segments == 0).any():
            lines.insert(0, "0 0.0\n")
        write_png(self.root / f"{image_id}.png", segments.astype(np.uint8))
        write_text(self.root / f"{image_id}.txt", "".join(lines))


class TVGPredictions(ParsingReader):
    """Reads predictions, with or without the background's line."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        if not files_by_id(self.root, ".txt"):
            raise FileNotFoundError(
                f"{self.root} has no .txt file; the tvg format has <id>.png and <id>.txt."
            )

    def image_ids(self) -> list[str]:
        return sorted({*files_by_id(self.root, ".txt"), *files_by_id(self.root, ".png")})

    def read(self, image_id: str) -> Parsing:
        png, table = self.root / f"{image_id}.png", self.root / f"{image_id}.txt"
        rows = read_table(table, (("class", int), ("score", float)))
        segments = read_label_png(png)
        values = np.unique(segments)
        values = values[values != IGNORE_LABEL]
        if len(rows) == len(values) and len(rows) and values[0] == 0 and rows[0][0] == 0:
            rows = rows[1:]
        values = values[values > 0]
        if len(rows) != len(values):
            raise ValueError(
                f"{table} has {len(rows)} line(s) for the {len(values)} segment(s) of {png}; "
                "expected one line 'class score' a segment, in the order of their values."
            )
        parts = np.array([part for part, _ in rows], dtype=np.int64)
        check_parts(parts, self.taxonomy, table)
        return Parsing(
            part_map=lookup(segments, values, parts),
            segment_map=lookup(segments, values, values),
            segment_ids=values.astype(np.int64),
            segment_parts=parts,
            segment_scores=np.array([score for _, score in rows], dtype=np.float64),
        )


class TVGTruth(ParsingReader):
    """Reads ground truth."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.segments = self.root / "SegmentationPartInstance"
        self.parts = self.root / "SegmentationPart"
        self.objects = optional_folder(self.root / "SegmentationObject")
        for folder in (self.segments, self.parts):
            if optional_folder(folder) is None:
                raise FileNotFoundError(f"The folder {folder} does not exist.")
        if self.objects is not None and taxonomy.num_objects > 1:
            raise ValueError(
                f"{self.objects} does not tell the classes of objects, and the taxonomy has "
                f"{', '.join(taxonomy.object_names)}."
            )

    def image_ids(self) -> list[str]:
        return sorted(files_by_id(self.segments, ".png"))

    def read(self, image_id: str) -> Parsing:
        segment_path = self.segments / f"{image_id}.png"
        part_path = self.parts / f"{image_id}.png"
        segments = read_label_png(segment_path).astype(np.int32)
        segments[segments == IGNORE_LABEL] = IGNORE
        part_map = as_part_map(part_path, self.taxonomy, ignored=IGNORE_LABEL)
        check_same_size(segments, segment_path, part_map, part_path)
        # The class of a segment is that of its first pixel, as in the authors' code: MATLAB goes
        # down the columns.
        ids, first = np.unique(segments.T, return_index=True)
        parts = part_map.T.reshape(-1)[first]
        is_segment = (ids > 0) & (parts > 0)
        objects, object_ids = self._read_objects(image_id, segments, segment_path)
        return Parsing(
            part_map=part_map,
            object_map=objects,
            segment_map=segments,
            segment_ids=ids[is_segment].astype(np.int64),
            segment_parts=parts[is_segment].astype(np.int64),
            object_ids=object_ids,
            object_classes=np.zeros(len(object_ids), dtype=np.int64),
        )

    def _read_objects(self, image_id: str, segments: np.ndarray, segment_path: Path):
        if self.objects is None:
            return None, np.zeros(0, dtype=np.int64)
        path = self.objects / f"{image_id}.png"
        objects = read_object_map(path)
        check_same_size(objects, path, segments, segment_path)
        ids = np.unique(objects)
        return objects, ids[ids > 0].astype(np.int64)


def write_tvg_truth(root: str | Path, image_id: str, truth: Parsing) -> None:
    """Write ground truth as the authors' code reads it.

    Raises:
        ValueError: more than 254 segments or objects.
    """
    root = Path(root)
    segments = segment_map_of(truth, _LIMIT, f"the tvg format holds {_LIMIT}.")
    void = truth.part_map == IGNORE
    if truth.object_map is not None:
        void = void | (truth.object_map == IGNORE)
        if truth.object_map.max(initial=0) > _LIMIT:
            raise ValueError(f"Object id {truth.object_map.max()}; the tvg format holds {_LIMIT}.")
        objects = np.where(truth.object_map == IGNORE, IGNORE_LABEL, truth.object_map)
        write_png(root / "SegmentationObject" / f"{image_id}.png", objects.astype(np.uint8))
    segments = np.where(void, IGNORE_LABEL, segments).astype(np.uint8)
    parts = np.where(truth.part_map == IGNORE, IGNORE_LABEL, truth.part_map).astype(np.uint8)
    write_png(root / "SegmentationPartInstance" / f"{image_id}.png", segments)
    write_png(root / "SegmentationPart" / f"{image_id}.png", parts)
