"""Synthetic people: articulated figures with the six parts of Pascal-Person-Part, drawn on the fly.

The embedded data set: nothing to download, pixel-exact ground truth, as hard as wanted. Needs
NumPy and OpenCV only.
"""

from ...taxonomies.schema import PartTaxonomy
from .scene import SPLITS, SyntheticPeople, SyntheticSample

__all__ = ["SPLITS", "TAXONOMY", "SyntheticPeople", "SyntheticSample"]

TAXONOMY = PartTaxonomy(
    part_names=("head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    object_names=("person",),
    part_owner=(0, 0, 0, 0, 0, 0),
    flip_pairs=(),
)
"""Part ids 1..6 in this order; left and right are one class, so a flip swaps nothing."""
