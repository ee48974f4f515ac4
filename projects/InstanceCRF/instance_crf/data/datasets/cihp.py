"""CIHP (Crowd Instance-level Human Parsing) and LIP: 19 parts of clothes and body."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.schema import PartTaxonomy
from .register import register_canonical

__all__ = ["CIHP_TAXONOMY", "LIP_TAXONOMY", "register_cihp", "register_lip"]

_PARTS = (
    "hat",
    "hair",
    "glove",
    "sunglasses",
    "upper clothes",
    "dress",
    "coat",
    "socks",
    "pants",
    "torso skin",
    "scarf",
    "skirt",
    "face",
    "left arm",
    "right arm",
    "left leg",
    "right leg",
    "left shoe",
    "right shoe",
)
_PAIRS = ((14, 15), (16, 17), (18, 19))

CIHP_TAXONOMY = PartTaxonomy(part_names=_PARTS, flip_pairs=_PAIRS)
#: The same list but for one: part 10 is jumpsuits.
LIP_TAXONOMY = PartTaxonomy(
    part_names=tuple("jumpsuits" if name == "torso skin" else name for name in _PARTS),
    flip_pairs=_PAIRS,
)


def register_cihp(root: str | Path) -> None:
    """Register ``cihp_{train,val,test}``; the test split has no labels."""
    for split in ("train", "val", "test"):
        folder = Path(root) / "instance-level_human_parsing"
        register_canonical(f"cihp_{split}", folder, split, CIHP_TAXONOMY)


def register_lip(root: str | Path) -> None:
    """Register ``lip_{train,val}``: one person an image."""
    for split in ("train", "val"):
        register_canonical(f"lip_{split}", Path(root) / "lip", split, LIP_TAXONOMY)
