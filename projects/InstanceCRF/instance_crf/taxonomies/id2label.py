"""A taxonomy from the table of classes that a model brings, such as ``config.id2label``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from .names import is_background, mirror_pairs, name_key, plain_name
from .registry import KNOWN
from .schema import BACKGROUNDS, PartTaxonomy

__all__ = ["named_background", "taxonomy_from_id2label"]


def taxonomy_from_id2label(
    id2label: Mapping[int | str, str] | Sequence[str], *, background: str | None = None
) -> tuple[PartTaxonomy, str]:
    """The parts of a model, of one object class "person", and where its background is.

    Args:
        id2label: channel -> name; keys may be strings, as in JSON.
        background: one of BACKGROUNDS; by default it is found by its name.

    Returns:
        The taxonomy, with names in lower case and left and right paired by them, or, where a known
        one has the same names in the same order, that one, with its colours, regions and owners.
        And where background is: "first", "last", or "none" where no class is called so.

    Raises:
        ValueError: ids that are not 0, 1, 2, ...; background in the middle, more than once, or not
            where ``background`` says; placeholders (LABEL_0) instead of names.
    """
    labels = _in_order(id2label)
    where = _find_background(labels, background)
    names = {"first": labels[1:], "last": labels[:-1], "none": labels}[where]
    if not names:
        raise ValueError(f"id2label has no part beside the background: {labels}.")
    keys = [name_key(name) for name in names]
    for known in KNOWN.values():
        if keys == [name_key(name) for name in known.taxonomy.part_names]:
            return known.taxonomy, where
    part_names = _unique(names)
    return PartTaxonomy(part_names, flip_pairs=mirror_pairs(part_names)), where


def _in_order(id2label: Mapping[int | str, str] | Sequence[str]) -> list[str]:
    if isinstance(id2label, str) or not isinstance(id2label, Mapping | Sequence):
        raise ValueError(f"id2label must be a table or a list of names; it is {id2label!r}.")
    rows = id2label.items() if isinstance(id2label, Mapping) else enumerate(id2label)
    by_id: dict[int, str] = {}
    for key, label in rows:
        if not re.fullmatch(r"\d+", str(key)) or int(key) in by_id:
            raise ValueError(f"id2label has the id {key!r}; ids are 0, 1, 2, ..., each once.")
        if not isinstance(label, str) or not name_key(label):
            raise ValueError(f"id2label calls id {key} {label!r}, which is no name.")
        by_id[int(key)] = label
    top = max(by_id, default=0)
    gaps = list(islice((i for i in range(top + 1) if i not in by_id), 10))
    if gaps:
        raise ValueError(
            f"id2label has {len(by_id)} classes up to id {top}, but none for id "
            f"{', '.join(map(str, gaps))}: give a name to each channel."
        )
    return [by_id[i] for i in range(len(by_id))]


def named_background(labels: Sequence[str]) -> str | None:
    """Where a model's background is, by the names of its channels: "first" or "last", or None if
    none is called so.

    Raises:
        ValueError: it is in the middle, or more than once.
    """
    found, last = _backgrounds(labels), len(labels) - 1
    if not found:
        return None
    if len(found) > 1 or found[0] not in (0, last):
        called = ", ".join(f"{i} ({labels[i]})" for i in found)
        raise ValueError(
            f"id2label has background at id {called} of 0..{last}; it must be one, the first or "
            "the last: reorder the channels, or say background='first' or 'last'."
        )
    return "first" if found[0] == 0 else "last"


def _backgrounds(labels: Sequence[str]) -> list[int]:
    return [i for i, label in enumerate(labels) if is_background(label)]


def _find_background(labels: Sequence[str], wanted: str | None) -> str:
    if wanted is None:
        where = named_background(labels)
        if where is None:
            _refuse_placeholders(labels)
        return where or "none"
    if wanted not in BACKGROUNDS:
        raise ValueError(f"background is {wanted!r}; it must be one of {', '.join(BACKGROUNDS)}.")
    found, last = _backgrounds(labels), len(labels) - 1
    if found and {"first": 0, "last": last, "none": None}[wanted] not in found:
        raise ValueError(
            f"background is {wanted!r}, but id2label calls id {found[0]} of 0..{last} "
            f"{labels[found[0]]!r}."
        )
    return wanted


def _refuse_placeholders(labels: Sequence[str]) -> None:
    if not all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return
    fitting = [
        name
        for name, known in KNOWN.items()
        if known.taxonomy.num_parts + (known.background != "none") == len(labels)
    ]
    raise ValueError(
        f"id2label has no names, only placeholders ({labels[0]} .. {labels[-1]}): give a taxonomy, "
        f"or say where background is. Known with {len(labels)} channels: "
        f"{', '.join(fitting) or 'none'}."
    )


def _unique(labels: Iterable[str]) -> tuple[str, ...]:
    """Plain names; a name that came before gets a number."""
    names: list[str] = []
    for label in labels:
        name, number = plain_name(label), 2
        while name in names:
            name, number = f"{plain_name(label)} {number}", number + 1
        names.append(name)
    return tuple(names)
