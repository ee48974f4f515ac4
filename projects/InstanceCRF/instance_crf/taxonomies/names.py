"""Names of parts: made alike, and left and right found in them. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["mirror_pairs", "name_key", "plain_name"]

_MIRRORED = {"left": "right", "right": "left", "l": "r", "r": "l"}


def plain_name(name: str) -> str:
    """Lower case, with one space where there was anything but letters and digits.

    >>> [plain_name(name) for name in ("Upper-clothes", "Face_Neck", "leftArm", "shirt, blouse")]
    ['upper clothes', 'face neck', 'left arm', 'shirt blouse']
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.sub(r"[\W_]+", " ", spaced).strip().lower()


def name_key(name: str) -> str:
    """What names of the same part have in common: ``plain_name`` without spaces."""
    return plain_name(name).replace(" ", "")


def mirror_pairs(part_names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of ids (1..P) of the parts whose names differ in left and right alone.

    >>> mirror_pairs(["right hand", "left hand", "l eye", "r eye", "left over"])
    ((1, 2), (3, 4))
    """
    ids = {name: part for part, name in enumerate(part_names, 1)}
    pairs = set()
    for name, part in ids.items():
        mirrored = ids.get(" ".join(_MIRRORED.get(word, word) for word in name.split()), part)
        if mirrored != part:
            pairs.add((min(part, mirrored), max(part, mirrored)))
    return tuple(sorted(pairs))
