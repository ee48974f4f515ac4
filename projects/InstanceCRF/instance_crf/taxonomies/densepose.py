"""DensePose: 24 charts of the body's surface, ids of the I of I, U, V.

Written by Detectron2's DensePose project, per box: 25 channels of fine segmentation, background
first. (The 15 channels of coarse segmentation are another list.)

Traps: feet are left, right as in the data set's format; a list that circulates, first in an answer
of its authors, has them the other way round. Hands, legs and heads are right, left; arms left,
right. The format does not say which half of a pair is front: front and back here are what users
found by looking. Of the arms, front is the inner side.
"""

from __future__ import annotations

from .names import mirror_pairs
from .schema import PartTaxonomy

__all__ = ["DENSEPOSE_TAXONOMY"]

_PARTS = (
    "torso back",
    "torso front",
    "right hand",
    "left hand",
    "left foot",
    "right foot",
    "right upper leg back",
    "left upper leg back",
    "right upper leg front",
    "left upper leg front",
    "right lower leg back",
    "left lower leg back",
    "right lower leg front",
    "left lower leg front",
    "left upper arm front",
    "right upper arm front",
    "left upper arm back",
    "right upper arm back",
    "left lower arm front",
    "right lower arm front",
    "left lower arm back",
    "right lower arm back",
    "right head",
    "left head",
)
DENSEPOSE_TAXONOMY = PartTaxonomy(part_names=_PARTS, flip_pairs=mirror_pairs(_PARTS))
