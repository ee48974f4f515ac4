"""Which region of a standing body a part belongs to, by the words of its name.

For the place templates of a taxonomy that was never trained on. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["BODY_REGIONS", "body_region", "body_regions"]

#: The first line with a word of the part's name wins; the regions are those of crf/place.py.
_WORDS = (
    ("upper_arms", "upper-arm upperarm sleeve"),
    ("lower_arms", "lower-arm lowerarm forearm hand glove wrist wristband watch bracelet"),
    ("upper_legs", "upper-leg upperleg thigh shorts skirt"),
    (
        "lower_legs",
        "lower-leg lowerleg calf foot feet shoe boot sandal sneaker heel highheel sock",
    ),
    ("arms", "arm arms elbow"),
    (
        "legs",
        "leg legs knee pants trousers jeans stockings tights leggings lower-clothes lower-clothing",
    ),
    (
        "head",
        "head face hair hat cap helmet hood headwear eye ear nose mouth lip teeth tongue eyebrow "
        "brow sunglasses glasses eyeglass eyeglasses eyewear mask headband beard neck scarf "
        "bandana tie necklace collar",
    ),
    (
        "body",
        "dress jumpsuit jumpsuits coat robe singlet bodysuit swimwear full-body",
    ),
    (
        "torso",
        "torso body upper top clothes jacket shirt blouse vest bra sweater sweatshirt cardigan "
        "hoodie suit belt bag backpack",
    ),
)
BODY_REGIONS = tuple(region for region, _ in _WORDS)


def body_regions(part_names: Sequence[str]) -> tuple[str, ...]:
    """The region of each part, see `body_region`.

    >>> body_regions(["upper arms", "left shoe", "face", "wheel"])
    ('upper_arms', 'lower_legs', 'head', '')
    """
    return tuple(body_region(name) for name in part_names)


def body_region(name: str) -> str:
    """One of BODY_REGIONS, or "" where the name says nothing."""
    words = re.findall(r"[a-z]+", name.lower())
    words += [word.removesuffix("s") for word in words]
    pairs = {f"{one}-{other}" for one in words for other in words}
    for region, keys in _WORDS:
        if not pairs.union(words).isdisjoint(keys.split()):
            return region
    return ""
