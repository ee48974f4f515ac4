"""Pascal-Person-Part: six parts of people in PASCAL VOC 2010 pictures, without left and right.

Written by SCHP (``--dataset pascal``) and by most that train on the data set; background is first.

Trap: two orders of the six classes are in circulation, see OTHER_ORDER_TO_OURS. Maps in the wrong
order load without any error.
"""

from __future__ import annotations

from .schema import PartTaxonomy

__all__ = ["OTHER_ORDER_TO_OURS", "PERSON_PART_GROUPS", "PERSON_PART_TAXONOMY"]

#: The order of the original release.
PERSON_PART_TAXONOMY = PartTaxonomy(
    part_names=("head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
    object_names=("person",),
    part_colors=(
        (230, 57, 70),
        (247, 178, 51),
        (88, 196, 106),
        (42, 157, 184),
        (72, 98, 214),
        (165, 87, 201),
    ),
)

#: How the 24 person parts of PASCAL-Part become six.
PERSON_PART_GROUPS = {
    "head": (
        *("person head", "person left eye", "person right eye", "person left ear"),
        *("person right ear", "person left eyebrow", "person right eyebrow"),
        *("person nose", "person mouth", "person hair"),
    ),
    "torso": ("person torso", "person neck"),
    "upper arms": ("person left upper arm", "person right upper arm"),
    "lower arms": (
        *("person left lower arm", "person left hand"),
        *("person right lower arm", "person right hand"),
    ),
    "upper legs": ("person left upper leg", "person right upper leg"),
    "lower legs": (
        *("person left lower leg", "person left foot"),
        *("person right lower leg", "person right foot"),
    ),
}
#: The other order in circulation (lower arm, head, upper leg, torso, lower leg, upper arm) -> ours.
OTHER_ORDER_TO_OURS = {1: 4, 2: 1, 3: 5, 4: 2, 5: 6, 6: 3}
