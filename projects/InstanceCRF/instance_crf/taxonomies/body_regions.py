"""Which region of a standing body a part belongs to, by the words of its name.

For the place templates of a taxonomy that was never trained on. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["body_regions"]

#: The first line with a word of the part's name wins; the regions are those of crf/place.py.
_WORDS = (
    ("upper_arms", "upper-arm upperarm sleeve"),
    ("lower_arms", "lower-arm lowerarm forearm hand glove wrist watch bracelet"),
    ("upper_legs", "upper-leg upperleg thigh shorts skirt"),
    ("lower_legs", "lower-leg lowerleg calf foot feet shoe boot sandal heel sock"),
    ("arms", "arm arms elbow"),
    ("legs", "leg legs knee pants trousers jeans stockings leggings"),
    (
        "head",
        "head face hair hat cap helmet eye ear nose mouth lip eyebrow sunglasses glasses "
        "eyewear mask headband beard neck scarf bandana tie necklace collar",
    ),
    ("body", "dress jumpsuit jumpsuits coat robe singlet bodysuit swimwear"),
    ("torso", "torso body upper clothes jacket shirt top vest belt bag backpack suit sweater"),
)


def body_regions(part_names: Sequence[str]) -> tuple[str, ...]:
    """The region of each part, "" where its name says nothing.

    >>> body_regions(["upper arms", "left shoe", "face", "wheel"])
    ('upper_arms', 'lower_legs', 'head', '')
    """
    return tuple(_region(name) for name in part_names)


def _region(name: str) -> str:
    words = re.findall(r"[a-z]+", name.lower())
    words += [word.removesuffix("s") for word in words]
    pairs = {f"{one}-{other}" for one in words for other in words}
    for region, keys in _WORDS:
        if not pairs.union(words).isdisjoint(keys.split()):
            return region
    return ""
