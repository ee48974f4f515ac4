"""Which taxonomy saved files have: by name, by file, or by what lies beside them."""

from __future__ import annotations

from pathlib import Path

from ...data.coco_tables import categories_of, taxonomy_of_categories
from ...files import read_json
from ...taxonomies import (
    TAXONOMY_NAMES,
    PartTaxonomy,
    get_taxonomy,
    read_taxonomy,
)
from .formats.panoptic import find_json

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
        if (folder / "taxonomy.json").exists():
            return read_taxonomy(folder / "taxonomy.json")
    if truth_format == "panoptic":
        path = find_json(truth)
        return taxonomy_of_categories(_categories(path), path)
    if truth_format == "coco":
        return _of_coco(truth)
    return get_taxonomy(_OF_FORMAT[truth_format])


def _categories(path: Path) -> list[dict]:
    return categories_of(read_json(path, dict), path)


def _of_coco(truth: Path) -> PartTaxonomy:
    taxonomy = taxonomy_of_categories(_categories(truth / "parts.json"), truth / "parts.json")
    objects_path = truth / "objects.json"
    if not objects_path.exists():
        return taxonomy
    rows = sorted(_categories(objects_path), key=lambda c: c["id"])
    names = [c["name"] for c in rows]
    missing = sorted(set(taxonomy.object_names) - set(names))
    if missing:
        raise ValueError(
            f"{objects_path} has the categories {names}, but {truth / 'parts.json'} has parts of "
            f"{missing[0]!r} (supercategory)."
        )
    owners = [names.index(taxonomy.object_names[c]) for c in taxonomy.part_owner]
    try:
        return PartTaxonomy(taxonomy.part_names, tuple(names), tuple(owners))
    except ValueError as error:
        raise ValueError(f"{objects_path}: categories: {error}") from None
