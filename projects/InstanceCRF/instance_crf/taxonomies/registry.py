"""Taxonomies by name, or from a file."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from .schema import PartTaxonomy

__all__ = ["TAXONOMY_NAMES", "get_taxonomy", "read_taxonomy"]

_MODULES = {
    "cihp": ("cihp", "CIHP_TAXONOMY"),
    "lip": ("cihp", "LIP_TAXONOMY"),
    "mhp_v1": ("mhp", "MHP_V1_TAXONOMY"),
    "mhp_v2": ("mhp", "MHP_V2_TAXONOMY"),
    "pascal_person_part": ("pascal_person_part", "PERSON_PART_TAXONOMY"),
    "synthetic_people": ("pascal_person_part", "PERSON_PART_TAXONOMY"),
}
TAXONOMY_NAMES = tuple(_MODULES)


def get_taxonomy(name: str) -> PartTaxonomy:
    """The taxonomy of one of :data:`TAXONOMY_NAMES`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in _MODULES:
        raise ValueError(f"There is no taxonomy {name!r}; there are {', '.join(TAXONOMY_NAMES)}.")
    module, attribute = _MODULES[name]
    return getattr(import_module(f"..data.datasets.{module}", __package__), attribute)


def read_taxonomy(path: Path) -> PartTaxonomy:
    """The taxonomy in a JSON of :meth:`PartTaxonomy.to_dict`'s keys.

    Raises:
        FileNotFoundError, ValueError: no such file; not a taxonomy.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The taxonomy {path} is neither a file nor one of {', '.join(TAXONOMY_NAMES)}."
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    known = {"part_names", "object_names", "part_owner", "flip_pairs", "part_colors"}
    if not isinstance(content, dict) or "part_names" not in content:
        raise ValueError(f"{path} is not a taxonomy: it has no part_names.")
    return PartTaxonomy(**{key: value for key, value in content.items() if key in known})
