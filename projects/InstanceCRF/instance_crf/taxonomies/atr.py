"""ATR: 17 parts, of clothes and body.

Written by SCHP (``--dataset atr``) and by the SegFormers ``mattmdjaga/segformer_b2_clothes`` and
its kin, whose ``id2label`` has the same list; background is first.

Traps: the ids are not those of LIP, though most names are (face is 11 here, 13 there), and legs
come before arms.
"""

from __future__ import annotations

from .schema import PartTaxonomy
from .voc import voc_colors

__all__ = ["ATR_TAXONOMY"]

_PARTS = (
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
)
ATR_TAXONOMY = PartTaxonomy(
    part_names=_PARTS,
    flip_pairs=((9, 10), (12, 13), (14, 15)),
    part_colors=voc_colors(len(_PARTS)),  # the palette of SCHP's PNGs
)
