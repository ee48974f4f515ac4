"""Which taxonomy saved files have: by name, by file, or by what lies beside them."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from ...data.schema import PartTaxonomy
from .formats.panoptic import find_json, load_json, taxonomy_of_categories

__all__ = ["TAXONOMY_NAMES", "find_taxonomy", "read_taxonomy"]

_MODULES = {
    "cihp": ("cihp", "CIHP_TAXONOMY"),
    "lip": ("cihp", "LIP_TAXONOMY"),
    "mhp_v1": ("mhp", "MHP_V1_TAXONOMY"),
    "mhp_v2": ("mhp", "MHP_V2_TAXONOMY"),
    "pascal_person_part": ("pascal_person_part", "PERSON_PART_TAXONOMY"),
    "synthetic_people": ("pascal_person_part", "PERSON_PART_TAXONOMY"),
}
TAXONOMY_NAMES = tuple(_MODULES)
_OF_FORMAT = {"cihp": "cihp", "mhp": "mhp_v2", "tvg": "pascal_person_part"}


def find_taxonomy(wanted: str | None, truth: Path, truth_format: str) -> PartTaxonomy:
    """The taxonomy of an evaluation.

    Args:
        wanted: one of :data:`TAXONOMY_NAMES`, a JSON file, or None: ``taxonomy.json`` in the
            folder of ground truth or its parent; then the categories of a COCO file; then the
            taxonomy of the data set after which the format is named.
        truth: folder of ground truth.
        truth_format: its format.

    Raises:
        FileNotFoundError, ValueError: no such taxonomy, or a broken file.
    """
    if wanted in _MODULES:
        return _named(wanted)
    if wanted is not None:
        return read_taxonomy(Path(wanted))
    for folder in (truth, truth.parent):
        if (folder / "taxonomy.json").is_file():
            return read_taxonomy(folder / "taxonomy.json")
    if truth_format == "panoptic":
        path = find_json(truth)
        return taxonomy_of_categories(load_json(path).get("categories", []), path)
    if truth_format == "coco":
        return _of_coco(truth)
    return _named(_OF_FORMAT[truth_format])


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


def _named(name: str) -> PartTaxonomy:
    module, attribute = _MODULES[name]
    try:
        return getattr(import_module(f"...data.datasets.{module}", __package__), attribute)
    except ImportError as error:
        raise ValueError(
            f"The taxonomy {name!r} needs a package that is not installed ({error}); give a "
            "taxonomy.json instead."
        ) from error
