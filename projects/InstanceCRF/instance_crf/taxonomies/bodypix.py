"""BodyPix 2.0: 24 parts of the body, most of them in front and back.

Written by Google's networks for TensorFlow.js and their conversions. There is no background
channel: a head of its own says where people are. Channel c is part c + 1.

Traps: id maps of the JavaScript package count from 0, with -1 for nobody. Left and right are the
person's own, unless ``flipHorizontal`` was on. Early versions had the parts in another
order.
"""

from __future__ import annotations

from .names import mirror_pairs
from .schema import PartTaxonomy

__all__ = ["BODYPIX_TAXONOMY"]

_PARTS = (
    "left face",
    "right face",
    "left upper arm front",
    "left upper arm back",
    "right upper arm front",
    "right upper arm back",
    "left lower arm front",
    "left lower arm back",
    "right lower arm front",
    "right lower arm back",
    "left hand",
    "right hand",
    "torso front",
    "torso back",
    "left upper leg front",
    "left upper leg back",
    "right upper leg front",
    "right upper leg back",
    "left lower leg front",
    "left lower leg back",
    "right lower leg front",
    "right lower leg back",
    "left foot",
    "right foot",
)
BODYPIX_TAXONOMY = PartTaxonomy(part_names=_PARTS, flip_pairs=mirror_pairs(_PARTS))
