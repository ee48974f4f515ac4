"""What the file formats of evaluation have in common.

A format has up to three classes: a writer of predictions, a reader of predictions, and a reader
of ground truth. Readers give a :class:`Parsing` an image, checked: what the files contradict is
an error that names the file, never a silently different number.

Letters: H, W image size; M part segments; n objects.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....data.label_io import read_label_png
from ....entries import MAX_ID
from ....files import atomic_path, read_text
from ....taxonomies.schema import PartTaxonomy
from ...contingency import IGNORE
from ...parsing import Parsing

__all__ = [
    "ParsingReader",
    "PredictionWriter",
    "as_part_map",
    "check_dense_ids",
    "files_by_id",
    "lookup",
    "numbered",
    "only",
    "optional_folder",
    "read_table",
    "write_png",
]


class ParsingReader(ABC):
    """Reads the parsings of a folder.

    Args:
        root: the folder.
        taxonomy: what part ids and object classes mean.

    Raises:
        FileNotFoundError: the folder, or what makes it one of this format, does not exist.
        ValueError: a file that all images share is broken.
    """

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        self.root = Path(root).expanduser()
        self.taxonomy = taxonomy
        if optional_folder(self.root) is None:
            raise FileNotFoundError(f"The folder {self.root} does not exist.")

    @abstractmethod
    def image_ids(self) -> list[str]:
        """The images that the folder has files of, sorted."""

    @abstractmethod
    def read(self, image_id: str) -> Parsing:
        """One image.

        Raises:
            FileNotFoundError, ValueError: missing, broken or contradictory files, by name.
        """

    def restricted_to(self, image_ids: Sequence[str]) -> ParsingReader:
        """A reader of these images that is cheap to send to another process."""
        return self


class PredictionWriter(ABC):
    """Writes predictions to a folder; use it as a context manager, or call :meth:`close`.

    Args:
        root: the folder; made if need be.
        taxonomy: what part ids and object classes mean.
    """

    def __init__(self, root: str | Path, taxonomy: PartTaxonomy) -> None:
        self.root = Path(root).expanduser()
        self.taxonomy = taxonomy
        self.root.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def add(self, image_id: str, prediction: Parsing) -> None:
        """Write one image.

        Raises:
            ValueError: the format cannot hold it (too many segments, several object classes).
        """

    def merge(self, other: PredictionWriter) -> None:  # noqa: B027  most formats share nothing
        """Take over what a writer of another process holds for :meth:`close`."""

    def close(self) -> None:  # noqa: B027
        """Write what all images share."""

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()

    def require_one_object_class(self, format_name: str) -> None:
        """Refuse a taxonomy that a format for people alone cannot hold."""
        if self.taxonomy.num_objects > 1:
            raise ValueError(
                f"The {format_name} format holds one object class; the taxonomy has "
                f"{', '.join(self.taxonomy.object_names)}."
            )


def optional_folder(path: Path) -> Path | None:
    """The folder, or None where there is none.

    Raises:
        NotADirectoryError: a file in its place.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} must be a folder, but is a file.")
    return path if path.is_dir() else None


def files_by_id(folder: Path, suffix: str) -> dict[str, Path]:
    """{name without suffix: path} of the files in ``folder``; hidden files are left out."""
    return {
        path.name.removesuffix(suffix): path
        for path in sorted(folder.iterdir())
        if path.name.endswith(suffix) and not path.name.startswith(".")
    }


def only(table: Mapping[str, Any], image_ids: Iterable[str]) -> dict[str, Any]:
    """The entries of some images, where there are any."""
    return {image_id: table[image_id] for image_id in image_ids if image_id in table}


def read_table(path: Path, columns: Sequence[tuple]) -> list[tuple]:
    """The lines of a text file as tuples; empty lines are skipped.

    Args:
        path: the file.
        columns: name, int or float, and perhaps the least of each whitespace-separated value.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file and the line, and what was expected.
    """
    text = read_text(path)
    expected = " ".join(name for name, *_ in columns)
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        values = line.split()
        if not values:
            continue
        if len(values) != len(columns):
            raise ValueError(f"{path}, line {number}: expected '{expected}', got {line!r}.")
        row = []
        for (name, *kind), value in zip(columns, values, strict=True):
            row.append(parse_number(value, f"{path}, line {number}: {name}", *kind))
        rows.append(tuple(row))
    return rows


def parse_number(text: str, where: str, kind: Callable, least: int = -MAX_ID):
    """A word of a text file as a finite number.

    Args:
        text: the word.
        where: opens the message.
        kind: float, or int, which has 31 bits at most.
        least: of an int.

    Raises:
        ValueError: it is not.
    """
    noun = "a whole number" if kind is int else "a number"
    try:
        number = kind(text)
        known = "_" not in text  # which Python reads between digits
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{where} must be {noun}, got {text!r:.60}.")
    if kind is int and not least <= number <= MAX_ID:
        raise ValueError(f"{where} must be in {least}..{MAX_ID}, got {text!r:.60}.")
    if not math.isfinite(number):
        raise ValueError(f"{where} must be finite, got {text!r:.60}.")
    return number


def check_dense_ids(label_map: NDArray, count: int, png: Path, table: Path) -> None:
    """Every value 1..count has a pixel, and no other value but 0 occurs.

    Raises:
        ValueError: a line without a segment, or a segment without a line.
    """
    present = np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=count + 1))
    present = present[present > 0]
    if len(present) and present[-1] > count:
        raise ValueError(
            f"{png} has a segment of value {present[-1]}, but {table} has {count} line(s): line k "
            "describes the pixels of value k."
        )
    if len(present) < count:
        absent = np.setdiff1d(np.arange(1, count + 1), present)
        raise ValueError(
            f"{table}, line {absent[0]}: no pixel of {png} has the value {absent[0]}. Write only "
            "segments that have pixels, with values 1, 2, 3 … in the order of the lines."
        )


def as_part_map(path: Path, taxonomy: PartTaxonomy, *, ignored: int | None = None) -> NDArray:
    """Part ids of a PNG as (H, W), ``ignored`` as ``IGNORE``.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_label_png`; an id that is no part.
    """
    label_map = read_label_png(path)
    if label_map.max(initial=0) <= taxonomy.num_parts:
        return label_map
    counts = np.bincount(label_map.reshape(-1), minlength=256)
    unknown = [int(j) for j in np.flatnonzero(counts) if j > taxonomy.num_parts and j != ignored]
    if unknown:
        also = "" if ignored is None else f", {ignored} is ignored"
        raise ValueError(
            f"{path} has part id {unknown[0]} ({counts[unknown[0]]} pixels); expected "
            f"0..{taxonomy.num_parts}{also}."
        )
    if ignored is not None and counts[ignored]:
        label_map = np.where(label_map == ignored, IGNORE, label_map.astype(np.int32))
    return label_map


def check_parts(parts: Iterable[int], taxonomy: PartTaxonomy, path: Path) -> None:
    """Refuse a part outside 1..P, by the line of its file."""
    for number, part in enumerate(parts, start=1):
        if not 1 <= part <= taxonomy.num_parts:
            raise ValueError(
                f"{path}, line {number}: class {part}, expected 1..{taxonomy.num_parts}."
            )


def check_same_size(first: NDArray, first_path: Path, second: NDArray, second_path: Path) -> None:
    """Refuse two maps of one image that differ in size."""
    if first.shape[:2] != second.shape[:2]:
        raise ValueError(
            f"{first_path} is {first.shape[1]}x{first.shape[0]} pixels, but {second_path} is "
            f"{second.shape[1]}x{second.shape[0]}."
        )


def lookup(label_map: NDArray, ids: NDArray, values: NDArray) -> NDArray:
    """``label_map`` with each of ``ids`` replaced by its value, everything else by 0."""
    ids = np.asarray(ids, dtype=np.int64)
    if label_map.dtype.kind != "u":
        label_map = np.maximum(label_map, 0)  # IGNORE would index from the end
    size = int(max(label_map.max(initial=0), ids.max(initial=0))) + 1
    table = np.zeros(size, dtype=np.int32)
    table[ids] = values
    return table[label_map]


def numbered(ids: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of a file as 1, 2, 3 … in their order: what each becomes, and the new ids.

    A file's ids may be as large as they like; maps are counted by their largest.
    """
    unique, position = np.unique(ids, return_inverse=True)
    return position.reshape(-1) + 1, np.arange(1, len(unique) + 1)


def segment_owners(parsing: Parsing) -> NDArray[np.int64]:
    """(M,) the object of each segment, where segments are (object, part) pairs."""
    return np.asarray(parsing.segment_ids, dtype=np.int64) >> 16


def segment_map_of(prediction: Parsing, limit: int, reason: str) -> NDArray[np.int32]:
    """(H, W) with the value k on the k-th segment (1-based).

    Raises:
        ValueError: more than ``limit`` segments; a segment without a pixel.
    """
    count = len(prediction.segment_ids)
    if count > limit:
        raise ValueError(f"{count} segments in one image; {reason}")
    if prediction.segment_map is not None:
        segments = lookup(prediction.segment_map, prediction.segment_ids, np.arange(1, count + 1))
    else:
        owners = segment_owners(prediction)
        parts = np.asarray(prediction.segment_parts, dtype=np.int64)
        table = np.zeros(
            (int(owners.max(initial=0)) + 1, int(parts.max(initial=0)) + 1), dtype=np.int32
        )
        table[owners, parts] = np.arange(1, count + 1)
        inside = (prediction.object_map > 0) & (prediction.object_map < table.shape[0])
        inside &= (prediction.part_map > 0) & (prediction.part_map < table.shape[1])
        segments = np.zeros(prediction.part_map.shape, dtype=np.int32)
        segments[inside] = table[prediction.object_map[inside], prediction.part_map[inside]]
    absent = np.setdiff1d(np.arange(1, count + 1), np.unique(segments))
    if len(absent):
        raise ValueError(f"Segment {absent[0]} of the prediction has no pixel.")
    return segments


def write_png(path: Path, array: NDArray) -> None:
    """Write an 8- or 16-bit PNG; the file appears complete or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG")
