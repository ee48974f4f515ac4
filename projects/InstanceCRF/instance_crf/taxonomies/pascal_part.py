"""PASCAL-Part: the parts of all twenty PASCAL VOC object classes.

Two levels: *fine* has every part that the annotation names (numbered ones, such as ``wheel_3``,
count as one part); *coarse*, the default, merges them to what can be seen in most pictures. The
four classes that were annotated without parts (boat, chair, table, sofa) are one part each. Ids are
this project's own but for those of people alone, which are the annotation's; background is first.
"""

from __future__ import annotations

import re

from .names import mirror_pairs
from .schema import PartTaxonomy

__all__ = [
    "COARSE_GROUPS",
    "COARSE_LUT",
    "COARSE_TAXONOMY",
    "FINE_TAXONOMY",
    "PASCAL_CLASSES",
    "PERSON_24_TAXONOMY",
    "fine_part_name",
]

_FACE = "head leye reye lear rear"
_HOOFED_LEGS = "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg"
_PAWED = f"{_FACE} nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail"
_HORNED = f"{_FACE} muzzle lhorn rhorn torso neck {_HOOFED_LEGS} tail"
_VEHICLE = (
    "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate "
    "door wheel headlight window"
)
#: Object class -> part names as in the annotation files, numbers left out.
_ANNOTATED = {
    "aeroplane": "body stern lwing rwing tail engine wheel",
    "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "boat": "",
    "bottle": "cap body",
    "bus": _VEHICLE,
    "car": _VEHICLE,
    "cat": _PAWED,
    "chair": "",
    "cow": _HORNED,
    "table": "",
    "dog": f"{_PAWED} muzzle",
    "horse": f"{_FACE} muzzle lfho rfho lbho rbho torso neck {_HOOFED_LEGS} tail",
    "motorbike": "fwheel bwheel handlebar saddle headlight",
    "person": (
        "head leye reye lear rear lebrow rebrow nose mouth hair torso neck llarm luarm lhand "
        "rlarm ruarm rhand llleg luleg lfoot rlleg ruleg rfoot"
    ),
    "pottedplant": "pot plant",
    "sheep": _HORNED,
    "sofa": "",
    "train": (
        "head hfrontside hleftside hrightside hbackside hroofside headlight coach cfrontside "
        "cleftside crightside cbackside croofside"
    ),
    "tvmonitor": "screen",
}
_READABLE = {
    "fwheel": "front wheel",
    "bwheel": "back wheel",
    "fliplate": "front plate",
    "bliplate": "back plate",
    "chainwheel": "chain wheel",
}
_SIDED = {
    "eye": "eye",
    "ear": "ear",
    "ebrow": "eyebrow",
    "horn": "horn",
    "wing": "wing",
    "leg": "leg",
    "foot": "foot",
    "larm": "lower arm",
    "uarm": "upper arm",
    "hand": "hand",
    "lleg": "lower leg",
    "uleg": "upper leg",
    "fleg": "front leg",
    "bleg": "back leg",
    "fpa": "front paw",
    "bpa": "back paw",
    "fho": "front hoof",
    "bho": "back hoof",
    "fuleg": "front upper leg",
    "flleg": "front lower leg",
    "buleg": "back upper leg",
    "blleg": "back lower leg",
}
PASCAL_CLASSES = tuple(_ANNOTATED)


def fine_part_name(object_class: str, annotated: str) -> str:
    """Readable name of a part as the annotation calls it: ("dog", "lfpa") -> "dog left front paw".

    Raises:
        ValueError: the class has no such part.
    """
    short = re.sub(r"_\d+$", "", annotated)
    if object_class not in _ANNOTATED:
        raise ValueError(f"Unknown object class {object_class!r}; known: {', '.join(_ANNOTATED)}.")
    if short not in _ANNOTATED[object_class].split():
        known = _ANNOTATED[object_class] or "none"
        raise ValueError(f"A {object_class} has no part {annotated!r}; its parts: {known}.")
    return f"{object_class} {_readable(short)}"


def _readable(short: str) -> str:
    if short in _READABLE:
        return _READABLE[short]
    if short[0] in "lr" and short[1:] in _SIDED:
        return f"{'left' if short[0] == 'l' else 'right'} {_SIDED[short[1:]]}"
    side = re.fullmatch(r"(h|c|)(front|left|right|back|roof)(side|mirror)", short)
    if side:
        unit = {"h": "head ", "c": "coach ", "": ""}[side[1]]
        return f"{unit}{side[2]} {side[3]}"
    return short


def _fine_taxonomy(classes: tuple[str, ...]) -> PartTaxonomy:
    names, owners = [], []
    for number, object_class in enumerate(classes):
        parts = [fine_part_name(object_class, p) for p in _ANNOTATED[object_class].split()]
        parts = parts or [object_class]
        names += parts
        owners += [number] * len(parts)
    return PartTaxonomy(tuple(names), classes, tuple(owners), mirror_pairs(names))


FINE_TAXONOMY = _fine_taxonomy(PASCAL_CLASSES)
#: The 24 parts of people alone, ids as in the annotation's own table.
PERSON_24_TAXONOMY = _fine_taxonomy(("person",))

_HEAD = r"head|(left|right) (eye|ear|eyebrow|horn)|nose|mouth|hair|beak|muzzle"
_LIMBS = {
    "person": {
        "upper arms": r"(left|right) upper arm",
        "lower arms": r"(left|right) (lower arm|hand)",
        "upper legs": r"(left|right) upper leg",
        "lower legs": r"(left|right) (lower leg|foot)",
    },
    "bird": {"wings": r"(left|right) wing", "legs": r"(left|right) (leg|foot)", "tail": "tail"},
}
_FOUR_LEGS = {"legs": r"(left|right) (front|back) .*", "tail": "tail"}
_VEHICLE_GROUPS = {
    "sides": r"(front|left|right|back|roof) side",
    "mirrors": r"(left|right) mirror",
    "plates": r"(front|back) plate",
    "doors": "door",
    "wheels": "wheel",
    "headlights": "headlight",
    "windows": "window",
}
_CYCLE_GROUPS = {
    "wheels": "(front|back) wheel",
    "saddle": "saddle",
    "handlebar": "handlebar",
    "headlight": "headlight",
}
#: Object class -> coarse part -> expression for the fine parts; other classes keep the fine parts.
_COARSE = {
    "aeroplane": {
        "body": "body",
        "stern": "stern",
        "wings": "(left|right) wing",
        "tail": "tail",
        "engines": "engine",
        "wheels": "wheel",
    },
    "bicycle": {**_CYCLE_GROUPS, "chain wheel": "chain wheel"},
    "motorbike": _CYCLE_GROUPS,
    "bus": _VEHICLE_GROUPS,
    "car": _VEHICLE_GROUPS,
    "train": {"head": "head( .*)?", "coaches": "coach( .*)?", "headlights": "headlight"},
    **{
        animal: {"head": _HEAD, "torso": "torso|neck", **_LIMBS.get(animal, _FOUR_LEGS)}
        for animal in ("bird", "cat", "cow", "dog", "horse", "person", "sheep")
    },
}


def _coarse_groups(taxonomy: PartTaxonomy) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for owner, name in zip(taxonomy.part_owner, taxonomy.part_names, strict=True):
        object_class = taxonomy.object_names[owner]
        part = name.removeprefix(object_class).strip()
        rules = _COARSE.get(object_class, {})
        matching = [coarse for coarse, rule in rules.items() if re.fullmatch(rule, part)]
        group = f"{object_class} {matching[0]}" if matching else name
        groups.setdefault(group, []).append(name)
    return groups


COARSE_GROUPS = _coarse_groups(FINE_TAXONOMY)
COARSE_TAXONOMY, COARSE_LUT = FINE_TAXONOMY.merge(COARSE_GROUPS)
