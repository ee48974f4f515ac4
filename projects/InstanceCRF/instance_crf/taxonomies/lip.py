"""LIP (Look into Person) and CIHP (Crowd Instance-level Human Parsing): 19 parts.

LIP is written by SCHP (``--dataset lip``), CIHP by PGN, Graphonomy, M2FP and others; background is
first.

Traps: the two lists differ in part 10, jumpsuits here and torso skin (the neck) there, and nothing
else tells the maps apart. Left and right are the person's own.
"""

from __future__ import annotations

from .schema import PartTaxonomy

__all__ = ["CIHP_TAXONOMY", "LIP_TAXONOMY"]

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
#: Of the pictures that PGN and Graphonomy draw.
_COLORS = (
    *((128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85)),
    *((0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0)),
    *((0, 0, 255), (51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85)),
    *((255, 255, 0), (255, 170, 0)),
)

CIHP_TAXONOMY = PartTaxonomy(part_names=_PARTS, flip_pairs=_PAIRS, part_colors=_COLORS)
#: The same list but for one: part 10 is jumpsuits.
LIP_TAXONOMY = PartTaxonomy(
    part_names=tuple("jumpsuits" if name == "torso skin" else name for name in _PARTS),
    flip_pairs=_PAIRS,
    part_colors=_COLORS,
)
