"""The truth that answers are compared with: parts of people, or whole people only.

Letters: H, W size of the image; G true people.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.label_io import IGNORED_OBJECT, read_object_map
from ..evaluation.contingency import IGNORE
from ..evaluation.parsing import Parsing
from ..evaluation.toolkit.formats import TRUTH_READERS
from ..evaluation.toolkit.person_maps import without_gaps
from ..evaluation.toolkit.photographs import partly_annotated
from ..evaluation.toolkit.taxonomies import find_taxonomy
from ..taxonomies import PartTaxonomy

__all__ = ["TRUTH_FORMATS", "PartTruth", "PersonTruth", "Truth", "TruthFolder", "open_truth"]

PERSONS = "persons"
TRUTH_FORMATS = (PERSONS, *TRUTH_READERS)
"""Whole people, ``NAME_persons.png``; or parts, the formats of the evaluation."""


@dataclass(frozen=True)
class Truth:
    """Of one image.

    Attributes:
        people: (H, W) int32, 0 nobody, 1..G, negative: does not count.
        complete: whether everybody is annotated.
        parsing: with the parts, where they are known.
    """

    people: NDArray
    complete: bool = True
    parsing: Parsing | None = None


class TruthFolder(ABC):
    """The truth of some images, by their names without suffix."""

    taxonomy: PartTaxonomy | None = None
    """Of the parts; None: there are none."""

    @abstractmethod
    def image_ids(self) -> list[str]:
        """All images with a truth."""

    @abstractmethod
    def read(self, image_id: str) -> Truth:
        """One of them.

        Raises:
            FileNotFoundError, ValueError: missing or contradictory files, by name.
        """

    def check_parts(self, taxonomy: PartTaxonomy) -> None:
        """Refuse to compare different parts.

        Args:
            taxonomy: of the answers.

        Raises:
            ValueError: names both sides' parts.
        """
        mine = self.taxonomy
        if mine is not None and mine.part_names != taxonomy.part_names:
            raise ValueError(
                f"The parts of the truth are {', '.join(mine.part_names)}; those of the answers "
                f"{', '.join(taxonomy.part_names)}. Bring both to the same parts, in the same "
                "order: --merge for the answers, --truth-taxonomy and --truth-merge for the truth."
            )


class PersonTruth(TruthFolder):
    """Whole people: ``NAME_persons.png``, 8 or 16 bits, 0 nobody, 1..n, the largest value does not
    count; and ``photos.csv``, there or one folder up, where ``truth_partial`` is 1 for the ``name``
    of an image in which some people are not annotated."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.name.removesuffix("_persons.png"): path
            for path in sorted(folder.glob("*_persons.png"))
        }
        if not self.files:
            raise FileNotFoundError(f"{folder} has no NAME_persons.png.")
        self.partial = partly_annotated(folder) | partly_annotated(folder.parent)

    def image_ids(self) -> list[str]:
        """See TruthFolder."""
        return list(self.files)

    def read(self, image_id: str) -> Truth:
        """See TruthFolder."""
        people = read_object_map(self.files[image_id])
        return Truth(without_gaps(people), complete=image_id not in self.partial)


class PartTruth(TruthFolder):
    """Parts, in a format of the evaluation, merged into coarser ones if ``merge`` says so."""

    def __init__(
        self,
        folder: Path,
        truth_format: str,
        taxonomy: PartTaxonomy,
        merge: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.reader = TRUTH_READERS[truth_format](folder, taxonomy)
        self.taxonomy, self.lut = taxonomy, None
        if merge is not None:
            self.taxonomy, self.lut = taxonomy.merge(merge, rest="background")

    def image_ids(self) -> list[str]:
        """See TruthFolder."""
        return self.reader.image_ids()

    def read(self, image_id: str) -> Truth:
        """See TruthFolder."""
        parsing = self.reader.read(image_id)
        if parsing.object_map is None:
            raise ValueError(f"The truth of {image_id} does not say whose the parts are.")
        if self.lut is not None:
            parsing = merge_parts(parsing, self.lut)
        return Truth(_people(parsing), parsing=parsing)


def open_truth(
    folder: Path,
    truth_format: str,
    taxonomy: str | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
) -> TruthFolder:
    """The truth in a folder.

    Args:
        folder: with the files.
        truth_format: one of :data:`TRUTH_FORMATS`.
        taxonomy: of the parts, see `evaluation.toolkit.taxonomies.find_taxonomy`.
        merge: coarser part -> names of the parts that it is made of; the rest becomes background.

    Raises:
        FileNotFoundError, ValueError: whatever is missing or contradictory, by name.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder of truth {folder} does not exist.")
    if truth_format == PERSONS:
        return PersonTruth(folder)
    return PartTruth(folder, truth_format, find_taxonomy(taxonomy, folder, truth_format), merge)


def merge_parts(parsing: Parsing, lut: NDArray) -> Parsing:
    """The same with coarser parts; what becomes background is nobody's.

    Args:
        parsing: a truth with objects.
        lut: (256,) old part -> new part, of `PartTaxonomy.merge`.
    """
    table = np.append(lut.astype(np.int32), IGNORE)  # the last one is that of IGNORE, -1
    part_map = table[parsing.part_map]
    lost = (part_map == 0) & (parsing.part_map > 0)
    persons = parsing.person_maps
    return Parsing.of_maps(
        part_map,
        np.where(lost, 0, parsing.object_map),
        object_ids=parsing.object_ids,
        object_classes=parsing.object_classes,
        object_crowd=parsing.object_crowd,
        person_maps=None if persons is None else table[persons],
    )


def _people(parsing: Parsing) -> NDArray:
    """(H, W) whose a pixel is, whatever its part. Crowds, and what may be anybody's, do not
    count."""
    people = parsing.object_map.astype(np.int32)
    unknown = np.isin(people, parsing.object_ids[parsing.crowd])
    unknown |= (people == IGNORE) | ((people == 0) & (parsing.part_map == IGNORE))
    return without_gaps(np.where(unknown, IGNORED_OBJECT, people))
