"""Names of parts: made alike, left, right and background found in them. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

__all__ = ["has_side", "is_background", "mirror_pairs", "name_key", "plain_name"]

_BACKGROUND = ("background", "bg", "unlabeled", "unlabelled", "void", "none", "everythingelse")
_SIDES = (("left", "right"), ("lft", "rgt"), ("lt", "rt"), ("l", "r"))
_MIRRORED = {a: b for pair in _SIDES for a, b in (pair, pair[::-1])}


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


def is_background(name: str) -> bool:
    """Whether a name says that a pixel is no part.

    >>> [is_background(name) for name in ("Background", "__background__", "bag")]
    [True, True, False]
    """
    return name_key(name) in _BACKGROUND


def has_side(name: str) -> bool:
    """Whether a name clearly says left or right.

    >>> [has_side(name) for name in ("Left_arm", "armRight", "bright top", "l arm")]
    [True, True, False, False]
    """
    return not {"left", "right", "lft", "rgt"}.isdisjoint(plain_name(name).split())


def mirror_pairs(part_names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of ids (1..P) of the parts whose names differ in left and right alone.

    >>> mirror_pairs(["right hand", "left hand", "L_eye", "R_eye", "lefthip", "righthip", "lift"])
    ((1, 2), (3, 4), (5, 6))
    """
    ids: dict[str, int] = {}
    for part, name in enumerate(part_names, 1):
        ids.setdefault(plain_name(name), part)
    pairs = set()
    for name, part in ids.items():
        images = [image for image in _mirror_images(name) if image in ids and image != name]
        if images:
            pairs.add(tuple(sorted((part, ids[images[0]]))))
    return tuple(sorted(pairs))


def _mirror_images(name: str) -> Iterator[str]:
    """What the mirrored part of a plain name may be called: right hand, righthand, rhand."""
    yield " ".join(_MIRRORED.get(word, word) for word in name.split())
    yield re.sub("left|right", lambda found: _MIRRORED[found[0]], name)
    yield _MIRRORED.get(name[:1], name[:1]) + name[1:]
