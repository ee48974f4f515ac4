"""Taxonomies as text, for people."""

from __future__ import annotations

from collections.abc import Sequence

from .registry import KNOWN
from .schema import BACKGROUNDS, PartTaxonomy

__all__ = ["format_table", "format_taxonomies", "format_taxonomy"]


def format_taxonomies() -> str:
    """A line for each taxonomy that has a name: parts, pairs of left and right, users."""
    rows = [("name", "parts", "left/right", "used by")]
    for name, known in KNOWN.items():
        pairs = len(known.taxonomy.flip_pairs)
        rows.append((name, str(known.taxonomy.num_parts), str(pairs or ""), known.used_by))
    return format_table(rows)


def format_taxonomy(taxonomy: PartTaxonomy, background: str = "first") -> str:
    """A line for each part.

    Args:
        taxonomy: to be listed.
        background: where it is in the model's channels, one of BACKGROUNDS. If not first, a column
            tells each part's channel from its id.

    Raises:
        ValueError: another ``background``.
    """
    if background not in BACKGROUNDS:
        raise ValueError(
            f"background is {background!r}; it must be one of {', '.join(BACKGROUNDS)}."
        )
    channel = {"first": "0", "last": str(taxonomy.num_parts), "none": ""}[background]
    rows = [
        ("id", "channel", "part", "of", "region", "mirrored", "colour"),
        ("0", channel, "background", "", "", "", ""),
    ]
    for part, name, owner, color, mirror, region in taxonomy.legend():
        mirrored = taxonomy.part_names[mirror - 1] if mirror != part else ""
        color = "#{:02x}{:02x}{:02x}".format(*color)
        rows.append((str(part), str(part - 1), name, owner, region or "anywhere", mirrored, color))
    if background == "first":
        rows = [(part, *rest) for part, _, *rest in rows]
    return format_table(rows)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, each as wide as its widest cell, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
