"""Sapiens: 27 parts of body, mouth and clothes; and Sapiens2 with a 28th, eyeglasses.

Written by Meta's models ("Goliath" and "Dome 29" in their sources) as logits, or as ``.npy`` of
classes and probabilities by their scripts; background is first.

Traps: Sapiens2 puts eyeglasses at 2, so from there on each id is one more than in Sapiens, and maps
of the one read as the other look plausible. Checkpoints of Sapiens2 have no names in their
``id2label`` (LABEL_0 and so on). Ids are alphabetical, left and right apart, the mouth at the end.
"""

from __future__ import annotations

from .names import mirror_pairs
from .schema import PartTaxonomy

__all__ = ["SAPIENS2_TAXONOMY", "SAPIENS_TAXONOMY"]

#: In the colours of the models' own pictures.
_PARTS = {
    "apparel": (255, 218, 0),
    "eyeglass": (14, 204, 182),
    "face neck": (128, 200, 255),
    "hair": (255, 0, 109),
    "left foot": (189, 0, 204),
    "left hand": (255, 0, 218),
    "left lower arm": (0, 160, 204),
    "left lower leg": (0, 255, 145),
    "left shoe": (204, 0, 131),
    "left sock": (182, 0, 255),
    "left upper arm": (255, 109, 0),
    "left upper leg": (0, 255, 255),
    "lower clothing": (72, 0, 255),
    "right foot": (204, 131, 0),
    "right hand": (255, 0, 0),
    "right lower arm": (72, 255, 0),
    "right lower leg": (189, 204, 0),
    "right shoe": (182, 255, 0),
    "right sock": (102, 0, 204),
    "right upper arm": (32, 72, 204),
    "right upper leg": (0, 145, 255),
    "torso": (14, 204, 0),
    "upper clothing": (0, 128, 72),
    "lower lip": (235, 205, 119),
    "upper lip": (115, 227, 112),
    "lower teeth": (157, 113, 143),
    "upper teeth": (132, 93, 50),
    "tongue": (82, 21, 114),
}


def _taxonomy(without: tuple[str, ...] = ()) -> PartTaxonomy:
    parts = {name: color for name, color in _PARTS.items() if name not in without}
    return PartTaxonomy(
        part_names=tuple(parts),
        flip_pairs=mirror_pairs(tuple(parts)),
        part_colors=tuple(parts.values()),
    )


SAPIENS2_TAXONOMY = _taxonomy()
SAPIENS_TAXONOMY = _taxonomy(without=("eyeglass",))
