"""Part names, colours, left and right, owners and body regions, by name. NumPy only."""

from .registry import TAXONOMY_NAMES, get_taxonomy, read_taxonomy
from .schema import BACKGROUND, IGNORE_LABEL, PartTaxonomy

__all__ = [
    "BACKGROUND",
    "IGNORE_LABEL",
    "TAXONOMY_NAMES",
    "PartTaxonomy",
    "get_taxonomy",
    "read_taxonomy",
]
