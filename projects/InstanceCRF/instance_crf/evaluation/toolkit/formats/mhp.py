"""The files of Multi-Human Parsing (MHP).

Predictions::

    results.txt            a line an image: "<id> <person> <score> <person> <score> …"
    global_seg/<id>.png    part of each pixel, also where global_tag has no person
    global_tag/<id>.png    person of each pixel

A person is what ``global_seg`` has under its tag; a segment has its person's score.

Ground truth: ``parsing_annos/<id>_NN_II.png``, one part map for each person (NN persons, II the
index); persons may overlap. Version 2's PNGs have three channels with the part in the first.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....data.label_io import read_label_png
from ....entries import refuse_repeated
from ....files import inside, read_text, write_text
from ....taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ...contingency import IGNORE
from ...parsing import Parsing, present_pairs
from .base import (
    ParsingReader,
    PredictionWriter,
    as_part_map,
    check_same_size,
    files_by_id,
    lookup,
    only,
    optional_folder,
    parse_number,
    write_png,
)

__all__ = ["MHPPredictions", "MHPTruth", "MHPWriter"]

_PERSON_FILE = re.compile(r"(?P<image>.+)_(?P<count>\d\d)_(?P<index>\d\d)")


class MHPWriter(PredictionWriter):
    """Writes a submission of MHP v2. Segments are ranked by their person's score."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.require_one_object_class("mhp")
        self._lines: dict[str, str] = {}

    def add(self, image_id: str, prediction: Parsing) -> None:
        if prediction.object_map is None:
            raise ValueError(f"Image {image_id}: the mhp format needs to know the persons.")
        if re.search(r"\s", image_id):
            raise ValueError(f"Image {image_id!r}: results.txt cannot hold a name with a space.")
        count = len(prediction.object_ids)
        if count > 255:
            raise ValueError(f"{count} persons in image {image_id}; the mhp format holds 255.")
        persons = lookup(prediction.object_map, prediction.object_ids, np.arange(1, count + 1))
        part_map = np.ascontiguousarray(prediction.part_map, dtype=np.uint8)
        write_png(self.root / "global_seg" / f"{image_id}.png", part_map)
        write_png(self.root / "global_tag" / f"{image_id}.png", persons.astype(np.uint8))
        scores = enumerate(prediction.object_scores, start=1)
        words = [image_id, *(f"{person} {float(score)!r}" for person, score in scores)]
        self._lines[image_id] = " ".join(words) + "\n"

    def merge(self, other: MHPWriter) -> None:
        self._lines |= other._lines

    def close(self) -> None:
        write_text(self.root / "results.txt", "".join(self._lines.values()))


class MHPPredictions(ParsingReader):
    """Reads a submission of MHP v2."""

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.table = self.root / "results.txt"
        if not self.table.exists():
            raise FileNotFoundError(f"{self.table} does not exist; the mhp format needs it.")
        self._persons: dict[str, list[tuple[int, float]]] = {}
        for number, line in enumerate(read_text(self.table).splitlines(), start=1):
            if not line.split():
                continue
            key, *values = line.split()
            where = f"{self.table}, line {number}:"
            inside(self.root, key, f"{where} <id>")
            if len(values) % 2:
                raise ValueError(f"{where} expected '<id> <person> <score> …', got {line!r:.60}.")
            if key in self._persons:
                raise ValueError(f"{where} image {key} has a line already.")
            persons = [parse_number(v, f"{where} person", int, 1) for v in values[::2]]
            scores = [parse_number(v, f"{where} score", float) for v in values[1::2]]
            refuse_repeated(persons, f"{where} image {key} lists person")
            self._persons[key] = list(zip(persons, scores, strict=True))

    def restricted_to(self, image_ids: Sequence[str]) -> MHPPredictions:
        part = copy.copy(self)
        part._persons = only(self._persons, image_ids)
        return part

    def image_ids(self) -> list[str]:
        # Persons without a line are an error when they are read, not an image left out.
        tags = optional_folder(self.root / "global_tag")
        return sorted({*self._persons, *(files_by_id(tags, ".png") if tags else ())})

    def read(self, image_id: str) -> Parsing:
        part_path = self.root / "global_seg" / f"{image_id}.png"
        tag_path = self.root / "global_tag" / f"{image_id}.png"
        part_map = as_part_map(part_path, self.taxonomy)
        persons = read_label_png(tag_path)
        check_same_size(part_map, part_path, persons, tag_path)
        rows = self._persons.get(image_id, [])
        ids = np.array([person for person, _ in rows], dtype=np.int64)
        scores = np.array([score for _, score in rows], dtype=np.float64)
        self._check_persons(image_id, ids, persons, tag_path)
        parsing = Parsing.of_maps(
            part_map,
            persons,
            object_ids=ids,
            object_classes=np.zeros(len(ids), dtype=np.int64),
            object_scores=scores,
        )
        owners, _ = present_pairs(part_map, persons)
        score_of = dict(rows)
        segment_scores = np.array([score_of[int(i)] for i in owners], dtype=np.float64)
        return replace(parsing, segment_scores=segment_scores)

    def _check_persons(self, image_id: str, ids: NDArray, persons: NDArray, path: Path) -> None:
        present = np.unique(persons)
        present = present[present > 0]
        for absent in np.setdiff1d(ids, present):
            raise ValueError(
                f"{self.table}: image {image_id} lists person {absent}, which has no pixel in "
                f"{path}."
            )
        for unlisted in np.setdiff1d(present, ids):
            raise ValueError(
                f"{path} has person {unlisted}, whose score {self.table} does not give."
            )


class MHPTruth(ParsingReader):
    """Reads ``parsing_annos``.

    APp compares every person with its own map. Where a metric needs one map of the image, a
    later person covers an earlier one.
    """

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        super().__init__(root, taxonomy)
        self.folder = optional_folder(self.root / "parsing_annos") or self.root
        self._files: dict[str, list[tuple[int, Path]]] = {}
        self._counts: dict[str, int] = {}
        for name, path in files_by_id(self.folder, ".png").items():
            match = _PERSON_FILE.fullmatch(name)
            if match is None:
                continue
            image_id, count, index = match["image"], int(match["count"]), int(match["index"])
            if index > count:
                raise ValueError(f"{path} is person {index} of {count}.")
            if self._counts.setdefault(image_id, count) != count:
                other = self._files[image_id][0][1]
                raise ValueError(f"{path} is one of {count} persons, {other.name} is not.")
            self._files.setdefault(image_id, []).append((index, path))
        if not self._files:
            raise FileNotFoundError(
                f"{self.folder} has no file <id>_NN_II.png; the mhp format has one for each person."
            )

    def restricted_to(self, image_ids: Sequence[str]) -> MHPTruth:
        part = copy.copy(self)
        part._files = only(self._files, image_ids)
        part._counts = only(self._counts, image_ids)
        return part

    def image_ids(self) -> list[str]:
        return sorted(self._files)

    def read(self, image_id: str) -> Parsing:
        paths = [path for _, path in sorted(self._files[image_id])]
        if len(paths) != self._counts[image_id]:
            raise ValueError(
                f"{self.folder} has {len(paths)} of the {self._counts[image_id]} person files of "
                f"image {image_id}."
            )
        maps = [self._read_person(path) for path in paths]
        for path, person in zip(paths[1:], maps[1:], strict=True):
            check_same_size(maps[0], paths[0], person, path)
        kept = [m for m in maps if (m > 0).any()]  # an empty person is left out, as officially
        part_map = np.zeros(maps[0].shape, dtype=np.int32)
        object_map = np.zeros_like(part_map)
        for index, person in enumerate(kept, start=1):
            covered = person > 0
            part_map[covered] = person[covered]
            object_map[covered] = index
        for person in maps:
            part_map[(person == IGNORE) & (part_map == 0)] = IGNORE
        return Parsing.of_maps(
            part_map,
            object_map,
            object_ids=np.arange(1, len(kept) + 1),
            object_classes=np.zeros(len(kept), dtype=np.int64),
            person_maps=np.stack(kept) if kept else np.zeros((0, *part_map.shape), np.int32),
        )

    def _read_person(self, path: Path) -> NDArray[np.int32]:
        label_map = read_label_png(path, of_colors=("RGB", "RGBA")).astype(np.int32)
        label_map[label_map == IGNORE_LABEL] = IGNORE
        if label_map.max(initial=0) > self.taxonomy.num_parts:
            raise ValueError(
                f"{path} has part id {label_map.max()}; expected 0..{self.taxonomy.num_parts}."
            )
        return label_map
