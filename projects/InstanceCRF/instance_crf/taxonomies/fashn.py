"""FASHN human parser: 17 parts for virtual try-on, without left and right.

Written by ``fashn-ai/fashn-human-parser``, a SegFormer; background is first. Its package returns
maps of ids, the model itself logits.

Trap: the list lacks shoes and coats, and says top, glasses and feet where ATR and LIP say upper
clothes, sunglasses and shoes.
"""

from __future__ import annotations

from .schema import PartTaxonomy

__all__ = ["FASHN_TAXONOMY"]

FASHN_TAXONOMY = PartTaxonomy(
    part_names=(
        "face",
        "hair",
        "top",
        "dress",
        "skirt",
        "pants",
        "belt",
        "bag",
        "hat",
        "scarf",
        "glasses",
        "arms",
        "hands",
        "legs",
        "feet",
        "torso",
        "jewelry",
    ),
)
