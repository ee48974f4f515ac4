"""MHP (Multi-Human Parsing) v1 with 18 parts and v2 with 58 parts."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies.schema import PartTaxonomy
from .register import register_canonical

__all__ = ["MHP_V1_TAXONOMY", "MHP_V2_TAXONOMY", "register_mhp"]

MHP_V1_TAXONOMY = PartTaxonomy(
    part_names=(
        "hat",
        "hair",
        "sunglasses",
        "upper clothes",
        "skirt",
        "pants",
        "dress",
        "belt",
        "left shoe",
        "right shoe",
        "face",
        "left leg",
        "right leg",
        "left arm",
        "right arm",
        "bag",
        "scarf",
        "torso skin",
    ),
    flip_pairs=((9, 10), (12, 13), (14, 15)),
)

MHP_V2_TAXONOMY = PartTaxonomy(
    part_names=(
        "cap or hat",
        "helmet",
        "face",
        "hair",
        "left arm",
        "right arm",
        "left hand",
        "right hand",
        "protector",
        "bikini or bra",
        "jacket or windbreaker or hoodie",
        "t shirt",
        "polo shirt",
        "sweater",
        "singlet",
        "torso skin",
        "pants",
        "shorts or swim shorts",
        "skirt",
        "stockings",
        "socks",
        "left boot",
        "right boot",
        "left shoe",
        "right shoe",
        "left highheel",
        "right highheel",
        "left sandal",
        "right sandal",
        "left leg",
        "right leg",
        "left foot",
        "right foot",
        "coat",
        "dress",
        "robe",
        "jumpsuit",
        "other full body clothes",
        "headwear",
        "backpack",
        "ball",
        "bats",
        "belt",
        "bottle",
        "carrybag",
        "cases",
        "sunglasses",
        "eyewear",
        "glove",
        "scarf",
        "umbrella",
        "wallet or purse",
        "watch",
        "wristband",
        "tie",
        "other accessory",
        "other upper body clothes",
        "other lower body clothes",
    ),
    flip_pairs=((5, 6), (7, 8), (22, 23), (24, 25), (26, 27), (28, 29), (30, 31), (32, 33)),
)


def register_mhp(root: str | Path) -> None:
    """Register ``mhp_v1_{train,val,test}`` and ``mhp_v2_{train,val,test}``."""
    for name, taxonomy in (("mhp_v1", MHP_V1_TAXONOMY), ("mhp_v2", MHP_V2_TAXONOMY)):
        for split in ("train", "val", "test"):
            register_canonical(f"{name}_{split}", Path(root) / name, split, taxonomy)
