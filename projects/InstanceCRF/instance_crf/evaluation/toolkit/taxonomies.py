"""Which taxonomy saved files have: by name, by file, or by what lies beside them."""

from __future__ import annotations

from pathlib import Path

from ...taxonomies import (
    TAXONOMY_NAMES,
    PartTaxonomy,
    get_taxonomy,
    read_taxonomy,
)
from .formats.panoptic import find_json, load_json, taxonomy_of_categories

__all__ = ["TAXONOMY_NAMES", "find_taxonomy"]

_OF_FORMAT = {"cihp": "cihp", "mhp": "mhp_v2", "tvg": "pascal_person_part"}


def find_taxonomy(wanted: str | None, truth: Path, truth_format: str) -> PartTaxonomy:
    """The taxonomy of an evaluation.

    Args:
        wanted: a name that `get_taxonomy` knows, a JSON file, or None: ``taxonomy.json`` in the
            folder of ground truth or its parent; then the categories of a COCO file; then the
            taxonomy of the data set after which the format is named.
        truth: folder of ground truth.
        truth_format: its format.

    Raises:
        FileNotFoundError, ValueError: no such taxonomy, or a broken file.
    """
    if wanted is not None:
        return get_taxonomy(wanted)
    for folder in (truth, truth.parent):
        if (folder / "taxonomy.json").is_file():
            return read_taxonomy(folder / "taxonomy.json")
    if truth_format == "panoptic":
        path = find_json(truth)
        return taxonomy_of_categories(load_json(path).get("categories", []), path)
    if truth_format == "coco":
        return _of_coco(truth)
    return get_taxonomy(_OF_FORMAT[truth_format])


def _of_coco(truth: Path) -> PartTaxonomy:
    parts = load_json(truth / "parts.json")
    taxonomy = taxonomy_of_categories(parts.get("categories", []), truth / "parts.json")
    objects_path = truth / "objects.json"
    if not objects_path.is_file():
        return taxonomy
    rows = sorted(load_json(objects_path).get("categories", []), key=lambda c: c["id"])
    names = [c["name"] for c in rows]
    missing = sorted(set(taxonomy.object_names) - set(names))
    if missing:
        raise ValueError(
            f"{objects_path} has the categories {names}, but {truth / 'parts.json'} has parts of "
            f"{missing[0]!r} (supercategory)."
        )
    owners = [names.index(taxonomy.object_names[c]) for c in taxonomy.part_owner]
    return PartTaxonomy(taxonomy.part_names, tuple(names), tuple(owners))
