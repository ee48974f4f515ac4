"""Part names, colours, left and right, owners and body regions, by name. NumPy only."""

from .id2label import named_background, taxonomy_from_id2label
from .listing import format_taxonomies, format_taxonomy
from .registry import (
    TAXONOMY_NAMES,
    get_taxonomy,
    is_taxonomy_name,
    known_taxonomy,
    read_taxonomy,
)
from .schema import BACKGROUND, BACKGROUNDS, IGNORE_LABEL, PartTaxonomy

__all__ = [
    "BACKGROUND",
    "BACKGROUNDS",
    "IGNORE_LABEL",
    "TAXONOMY_NAMES",
    "PartTaxonomy",
    "format_taxonomies",
    "format_taxonomy",
    "get_taxonomy",
    "is_taxonomy_name",
    "known_taxonomy",
    "named_background",
    "read_taxonomy",
    "taxonomy_from_id2label",
]
