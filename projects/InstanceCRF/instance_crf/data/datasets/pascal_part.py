"""PASCAL-Part: the parts of all twenty PASCAL VOC object classes."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.pascal_part import (
    COARSE_GROUPS,
    COARSE_LUT,
    COARSE_TAXONOMY,
    FINE_TAXONOMY,
    PASCAL_CLASSES,
    PERSON_24_TAXONOMY,
    fine_part_name,
)
from .register import register_canonical

__all__ = [
    "COARSE_LUT",
    "COARSE_TAXONOMY",
    "FINE_TAXONOMY",
    "PASCAL_CLASSES",
    "PERSON_24_TAXONOMY",
    "fine_part_name",
    "register_pascal_part",
]


def register_pascal_part(root: str | Path) -> None:
    """Register ``pascal_part_{train,val}`` (coarse) and ``pascal_part_fine_{train,val}``."""
    coarse, fine = Path(root) / "pascal_part", Path(root) / "pascal_part_fine"
    for split in ("train", "val"):
        register_canonical(
            f"pascal_part_{split}", coarse, split, COARSE_TAXONOMY, merged_from=COARSE_GROUPS
        )
        register_canonical(f"pascal_part_fine_{split}", fine, split, FINE_TAXONOMY)
