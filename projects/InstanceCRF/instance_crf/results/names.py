"""What the part ids and the classes of a result are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..segments import largest
from ..taxonomies.schema import PartTaxonomy

if TYPE_CHECKING:
    from ..structures import PartInstances

__all__ = ["check_taxonomy", "taxonomy_of"]


def taxonomy_of(result: PartInstances) -> PartTaxonomy:
    """The result's taxonomy; where it has none, one of the parts "part 1", "part 2", ... and of
    the object class "object", or "class 0", "class 1", ... where there are several.

    Raises:
        ValueError: no taxonomy, and more than 254 parts.
    """
    if result.taxonomy is not None:
        return result.taxonomy
    num_parts = max(1, largest(result.part_map))
    num_classes = max(1, largest(result.classes) + 1)
    classes = tuple(f"class {c}" for c in range(num_classes))
    return PartTaxonomy(
        part_names=tuple(f"part {j}" for j in range(1, num_parts + 1)),
        object_names=classes if num_classes > 1 else ("object",),
        part_owner=(0,) * num_parts,
    )


def check_taxonomy(result: PartInstances) -> None:
    """
    Raises:
        ValueError: a part or an object class that the result's taxonomy does not have.
    """
    taxonomy = result.taxonomy
    if (part := largest(result.part_map)) > taxonomy.num_parts:
        raise ValueError(
            f"part_map holds part {part}, but the taxonomy has {taxonomy.num_parts} parts."
        )
    if (category := largest(result.classes)) >= taxonomy.num_objects:
        raise ValueError(
            f"classes has {category}, but the taxonomy has {taxonomy.num_objects} object "
            f"classes (0..{taxonomy.num_objects - 1})."
        )
