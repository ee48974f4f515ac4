"""The synthetic people of `datasets/prepare_synthetic.py`: parts as in Pascal-Person-Part."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.pascal_person_part import PERSON_PART_TAXONOMY
from .register import register_canonical

__all__ = ["register_synthetic"]

FOLDERS = ("synthetic_people", "synthetic_crowd")


def register_synthetic(root: str | Path) -> None:
    """Register ``synthetic_{people,crowd}_{train,val}`` under ``root``."""
    for folder in FOLDERS:
        for split in ("train", "val"):
            register_canonical(
                f"{folder}_{split}", Path(root) / folder, split, PERSON_PART_TAXONOMY
            )
