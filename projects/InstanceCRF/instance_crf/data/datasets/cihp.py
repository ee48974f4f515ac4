"""CIHP (Crowd Instance-level Human Parsing) and LIP: 19 parts of clothes and body."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.lip import CIHP_TAXONOMY, LIP_TAXONOMY
from .register import register_canonical

__all__ = ["CIHP_TAXONOMY", "LIP_TAXONOMY", "register_cihp", "register_lip"]


def register_cihp(root: str | Path) -> None:
    """Register ``cihp_{train,val,test}``; the test split has no labels."""
    for split in ("train", "val", "test"):
        folder = Path(root) / "instance-level_human_parsing"
        register_canonical(f"cihp_{split}", folder, split, CIHP_TAXONOMY)


def register_lip(root: str | Path) -> None:
    """Register ``lip_{train,val}``: one person an image."""
    for split in ("train", "val"):
        register_canonical(f"lip_{split}", Path(root) / "lip", split, LIP_TAXONOMY)
