"""Pascal-Person-Part: six parts of people in PASCAL VOC 2010 pictures, without left and right."""

from __future__ import annotations

from pathlib import Path

from ..schema import PartTaxonomy
from .register import register_canonical

__all__ = ["PERSON_PART_TAXONOMY", "register_pascal_person_part"]

#: The order of the original release. Another copy in circulation orders the classes otherwise;
#: `datasets/prepare_pascal_person_part.py` recognises it.
PERSON_PART_TAXONOMY = PartTaxonomy(
    part_names=("head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    object_names=("person",),
    part_colors=(
        (230, 57, 70),
        (247, 178, 51),
        (88, 196, 106),
        (42, 157, 184),
        (72, 98, 214),
        (165, 87, 201),
    ),
)

FOLDER = "pascal_person_part"


def register_pascal_person_part(root: str | Path) -> None:
    """Register ``pascal_person_part_{train,val}`` under ``root``."""
    for split in ("train", "val"):
        register_canonical(
            f"pascal_person_part_{split}", Path(root) / FOLDER, split, PERSON_PART_TAXONOMY
        )
