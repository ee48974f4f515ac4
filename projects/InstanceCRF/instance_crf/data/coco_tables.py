"""The tables that COCO's files have beside their annotations: images and categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..entries import as_kind, as_name, as_whole, refuse_repeated, require_keys
from ..taxonomies.names import is_background
from ..taxonomies.schema import PartTaxonomy
from .coco_masks import as_image_size

__all__ = [
    "BACKGROUND_NAME",
    "categories_of",
    "check_categories",
    "sizes_of",
    "taxonomy_of_categories",
]

BACKGROUND_NAME = "background"


def sizes_of(content: dict, path: Path, *, needed: bool = True) -> dict[str, tuple[int, int]]:
    """Image id -> (H, W), of the ``images`` of a COCO file.

    Args:
        content: of the file.
        path: the file.
        needed: whether every image must say its size; those that do not are left out else.

    Raises:
        ValueError: images without an id, or of no size; an id that comes twice.
    """
    sizes, ids = {}, []
    for number, image in enumerate(as_kind(content["images"], list, f"{path}: images")):
        where = f"{path}: image {number}"
        require_keys(image, ("id", "height", "width") if needed else ("id",), where)
        ids.append(as_name(image["id"], f"{where}: id"))
        if needed or {"height", "width"} <= image.keys():
            sizes[ids[-1]] = as_image_size(image["height"], image["width"], where)
    refuse_repeated(ids, f"{path} has image")
    return sizes


def categories_of(content: dict, path: Path) -> list[dict]:
    """The ``categories`` of a COCO file; empty if it has none.

    Raises:
        ValueError: categories without a whole id and a name, or an id that comes twice.
    """
    rows = as_kind(content.get("categories", []), list, f"{path}: categories")
    for number, row in enumerate(rows):
        where = f"{path}: category {number}"
        require_keys(row, ("id", "name"), where)
        as_whole(row["id"], f"{where}: id", 0)
        as_kind(row["name"], str, f"{where}: name")
        if row.get("supercategory") is not None:
            as_kind(row["supercategory"], str, f"{where}: supercategory")
    refuse_repeated((row["id"] for row in rows), f"{path} has category")
    return rows


def check_categories(categories: list[dict], names: Sequence[str], path: Path) -> None:
    """Refuse a class that has another id in the file than in the taxonomy.

    Args:
        categories: of :func:`categories_of`.
        names: of the taxonomy's classes 1, 2, 3, …
        path: the file.

    Raises:
        ValueError: names both.
    """
    for known, name in enumerate(names, start=1):
        ids = [row["id"] for row in categories if row["name"] == name]
        if ids and known not in ids:
            raise ValueError(
                f"{path}: category {ids[0]} is called {name!r}, which is number {known} of the "
                "taxonomy."
            )


def taxonomy_of_categories(categories: list[dict], path: Path) -> PartTaxonomy:
    """The taxonomy that a JSON's ``categories`` describe.

    Args:
        categories: of :func:`categories_of`.
        path: the file.

    Raises:
        ValueError: ids that are not 1..P, or names that make no taxonomy.
    """
    rows = [c for c in categories if c.get("isthing", 1) or c["name"] != BACKGROUND_NAME]
    if not rows:
        raise ValueError(f"{path} has no categories of parts; name the taxonomy (--taxonomy).")
    rows.sort(key=lambda c: c["id"])
    if [c["id"] for c in rows] != list(range(1, len(rows) + 1)):
        background = [c["name"] for c in rows if is_background(c["name"])]
        hint = f" {background[0]!r} is no part: leave it out." if background else ""
        raise ValueError(
            f"{path}: category ids {[c['id'] for c in rows]}; expected 1, 2, 3, ..., one a part."
            f"{hint}"
        )
    objects = list(dict.fromkeys(c.get("supercategory") or "person" for c in rows))
    try:
        return PartTaxonomy(
            part_names=tuple(c["name"] for c in rows),
            object_names=tuple(objects),
            part_owner=tuple(objects.index(c.get("supercategory") or "person") for c in rows),
        )
    except ValueError as error:
        raise ValueError(f"{path}: categories: {error}") from None
