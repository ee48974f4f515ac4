"""What the labels of a data set mean: parts, the objects that own them, their mirror images.

Legend: P parts (ids 1..P; 0 is background, 255 is ignored), C object classes (0..C-1).
Standard library and NumPy only.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .body_regions import BODY_REGIONS, body_region

__all__ = [
    "BACKGROUND",
    "BACKGROUNDS",
    "IGNORE_LABEL",
    "MAX_PARTS",
    "PartTaxonomy",
    "distinct_colors",
]

BACKGROUND = 0
IGNORE_LABEL = 255
#: A part map is stored as uint8: 0 is background and 255 is ignored.
MAX_PARTS = 254
#: Where the background's channel is among a model's.
BACKGROUNDS = ("first", "last", "none")


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` RGB colours (0..255), neighbours far apart in hue; the same ones on every call."""
    golden_ratio = 0.618033988749895
    colors = []
    for i in range(count):
        hue = (0.02 + i * golden_ratio) % 1.0
        saturation = (0.85, 0.60, 0.95)[i % 3]
        value = (0.95, 0.80, 0.65)[(i // 3) % 3]
        colors.append(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value)))
    return tuple(colors)


@dataclass(frozen=True)
class PartTaxonomy:
    """Part names, object-class names and how they belong together.

    Args:
        part_names: P unique names; part id ``j`` (1-based) is ``part_names[j - 1]``.
        object_names: C unique names; object class ``c`` is ``object_names[c]``.
        part_owner: (P,) object class that owns each part. May be left out when C is 1.
        flip_pairs: pairs of part ids (1-based) that change places in a mirrored picture.
        part_colors: P RGB colours, 0..255. Generated when left out.
        part_regions: P regions of a standing body, names of BODY_REGIONS, or "" for anywhere. By
            the words of the names of a person's parts when left out.

    Raises:
        ValueError: the pieces contradict one another; the message names them.
    """

    part_names: tuple[str, ...]
    object_names: tuple[str, ...] = ("person",)
    part_owner: tuple[int, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    part_colors: tuple[tuple[int, int, int], ...] = ()
    part_regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("part_names", "object_names", "part_regions"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a list of names.")
        as_tuple = {
            "part_names": tuple(self.part_names),
            "object_names": tuple(self.object_names),
            "part_owner": tuple(int(c) for c in self.part_owner),
            "flip_pairs": tuple(tuple(int(i) for i in pair) for pair in self.flip_pairs),
            "part_colors": tuple(tuple(int(v) for v in rgb) for rgb in self.part_colors),
            "part_regions": tuple(self.part_regions),
        }
        if not as_tuple["part_owner"] and len(as_tuple["object_names"]) == 1:
            as_tuple["part_owner"] = (0,) * len(as_tuple["part_names"])
        if not as_tuple["part_colors"]:
            as_tuple["part_colors"] = distinct_colors(len(as_tuple["part_names"]))
        for name, value in as_tuple.items():
            object.__setattr__(self, name, value)
        self._check_names()
        self._check_owners()
        self._check_flip_pairs()
        self._check_colors()
        if not self.part_regions:
            regions = map(self._region_by_name, self.part_names, self.part_owner)
            object.__setattr__(self, "part_regions", tuple(regions))
        self._check_regions()

    @property
    def num_parts(self) -> int:
        """P, without background."""
        return len(self.part_names)

    @property
    def num_objects(self) -> int:
        """C, the number of object classes."""
        return len(self.object_names)

    def part_id(self, name: str) -> int:
        """The id (1..P) of the part called ``name``; ValueError lists the known names."""
        try:
            return self.part_names.index(name) + 1
        except ValueError:
            known = ", ".join(self.part_names)
            raise ValueError(f"Unknown part {name!r}. Known parts: {known}.") from None

    def parts_of(self, object_class: int) -> tuple[int, ...]:
        """Ids (1..P) of the parts owned by ``object_class``, in order."""
        return tuple(j for j, owner in enumerate(self.part_owner, 1) if owner == object_class)

    def flip_lut(self) -> np.ndarray:
        """(256,) uint8 table: ``lut[part_map]`` swaps left and right; all else stays (255 too)."""
        lut = np.arange(256, dtype=np.uint8)
        for left, right in self.flip_pairs:
            lut[left], lut[right] = right, left
        return lut

    def owner_lut(self) -> np.ndarray:
        """(256,) int64 table from part id to object class; -1 for background, unknown, ignored."""
        lut = np.full(256, -1, dtype=np.int64)
        lut[1 : self.num_parts + 1] = self.part_owner
        return lut

    def merge(
        self,
        groups: Mapping[str, Sequence[str]],
        *,
        rest: str = "error",
        part_colors: Sequence[Sequence[int]] = (),
    ) -> tuple[PartTaxonomy, np.ndarray]:
        """A coarser taxonomy, e.g. 24 PASCAL-Part person parts -> 6.

        Args:
            groups: new part name -> names of the parts it is made of. The order gives new ids.
            rest: what parts in no group become: ``"error"`` (refuse), ``"background"``,
            ``"ignore"``. part_colors: colours of the new parts; generated when left out.

        Returns:
            The new taxonomy (object classes unchanged; the flip pairs follow from the old ones, and
            so do regions on which a group's parts agree) and the (256,) uint8 table old id -> new
            id. Ids outside 0..P map to 255.

        Raises:
            ValueError: an unknown part, one in two groups, a group across two object classes,
                a group whose mirror image is no group, or a part left over under ``"error"``.
        """
        if rest not in ("error", "background", "ignore"):
            raise ValueError(f"rest is {rest!r}; it must be 'error', 'background' or 'ignore'.")
        listed = isinstance(groups, Mapping) and not any(
            isinstance(m, str) for m in groups.values()
        )
        if not groups or not listed:
            raise ValueError(
                f"The groups are {groups!r:.80}; they must be a mapping from each new part to a "
                "list of the old parts' names."
            )
        lut = np.full(256, IGNORE_LABEL, dtype=np.uint8)
        lut[BACKGROUND] = BACKGROUND
        group_of: dict[int, int] = {}
        owners, regions = [], []
        for new_id, (new_name, members) in enumerate(groups.items(), 1):
            ids = [self.part_id(member) for member in members]
            owner = {self.part_owner[i - 1] for i in ids}
            if len(owner) != 1:
                classes = ", ".join(self.object_names[c] for c in sorted(owner)) or "no part at all"
                raise ValueError(
                    f"Group {new_name!r} must have parts of one object; it has {classes}."
                )
            for i in ids:
                if i in group_of:
                    raise ValueError(f"Part {self.part_names[i - 1]!r} is in two groups.")
                group_of[i] = new_id
            owners.append(owner.pop())
            regions.append(self._merged_region(new_name, owners[-1], ids))
        left_over = [i for i in range(1, self.num_parts + 1) if i not in group_of]
        if left_over and rest == "error":
            names = ", ".join(self.part_names[i - 1] for i in left_over)
            raise ValueError(f"Parts in no group: {names}. Add them, or say what the rest becomes.")
        for i in range(1, self.num_parts + 1):
            lut[i] = group_of.get(i, BACKGROUND if rest == "background" else IGNORE_LABEL)
        merged = PartTaxonomy(
            part_names=tuple(groups),
            object_names=self.object_names,
            part_owner=tuple(owners),
            flip_pairs=self._merged_flip_pairs(tuple(groups), group_of),
            part_colors=tuple(tuple(c) for c in part_colors),
            part_regions=tuple(regions),
        )
        return merged, lut

    def legend(self) -> list[tuple[int, str, str, tuple[int, int, int], int, str]]:
        """One row a part: (id, name, owner's name, RGB, id of the mirrored part, region)."""
        mirror = self.flip_lut()
        return [
            (
                j,
                name,
                self.object_names[self.part_owner[j - 1]],
                self.part_colors[j - 1],
                int(mirror[j]),
                self.part_regions[j - 1],
            )
            for j, name in enumerate(self.part_names, 1)
        ]

    def to_dict(self) -> dict:
        """Plain lists, for JSON and YAML."""
        return {
            "part_names": list(self.part_names),
            "object_names": list(self.object_names),
            "part_owner": list(self.part_owner),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "part_colors": [list(rgb) for rgb in self.part_colors],
            "part_regions": list(self.part_regions),
        }

    def _region_by_name(self, name: str, owner: int) -> str:
        return body_region(name) if self.object_names[owner] == "person" else ""

    def _merged_region(self, name: str, owner: int, members: Sequence[int]) -> str:
        regions = {self.part_regions[i - 1] for i in members}
        agreed = len(regions) == 1 and "" not in regions
        return regions.pop() if agreed else self._region_by_name(name, owner)

    def _merged_flip_pairs(self, names: Sequence[str], group_of: Mapping[int, int]):
        mirror = self.flip_lut()
        image: dict[int, int] = {}
        for i, group in group_of.items():
            mirrored = group_of.get(int(mirror[i]))
            if mirrored is None or image.setdefault(group, mirrored) != mirrored:
                raise ValueError(
                    f"Group {names[group - 1]!r} has no mirror image among the groups: it holds "
                    f"{self.part_names[i - 1]!r} but {self.part_names[int(mirror[i]) - 1]!r} "
                    "is not where the mirrored parts of the group are."
                )
        return tuple((a, b) for a, b in sorted(image.items()) if a < b)

    def _check_names(self) -> None:
        if not self.part_names:
            raise ValueError("A taxonomy needs at least one part; part_names is empty.")
        if self.num_parts > MAX_PARTS:
            raise ValueError(f"{self.num_parts} parts; a uint8 part map holds at most {MAX_PARTS}.")
        if not self.object_names:
            raise ValueError("A taxonomy needs at least one object class; object_names is empty.")
        for key in ("part_names", "object_names"):
            names = getattr(self, key)
            wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
            if wrong:
                raise ValueError(f"{key} must be non-empty strings; got {wrong[0]!r}.")
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{key} has {repeated[0]!r} more than once; names must be unique.")

    def _check_owners(self) -> None:
        if len(self.part_owner) != self.num_parts:
            raise ValueError(
                f"part_owner has {len(self.part_owner)} entries for {self.num_parts} parts; "
                "give one object class per part."
            )
        for name, owner in zip(self.part_names, self.part_owner, strict=True):
            if not 0 <= owner < self.num_objects:
                raise ValueError(
                    f"Part {name!r} is owned by object class {owner}, but there are "
                    f"{self.num_objects} classes (0..{self.num_objects - 1})."
                )

    def _check_flip_pairs(self) -> None:
        seen: set[int] = set()
        for pair in self.flip_pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ValueError(f"flip_pairs has {pair}; a pair is two different part ids.")
            for i in pair:
                if not 1 <= i <= self.num_parts:
                    raise ValueError(f"flip_pairs has part id {i}; ids are 1..{self.num_parts}.")
                if i in seen:
                    raise ValueError(
                        f"Part id {i} ({self.part_names[i - 1]}) is in two flip_pairs."
                    )
                seen.add(i)
            first, second = (self.part_owner[i - 1] for i in pair)
            if first != second:
                raise ValueError(
                    f"flip_pairs has {pair}: {self.part_names[pair[0] - 1]!r} belongs to "
                    f"{self.object_names[first]!r}, {self.part_names[pair[1] - 1]!r} to "
                    f"{self.object_names[second]!r}."
                )

    def _check_colors(self) -> None:
        if len(self.part_colors) != self.num_parts:
            raise ValueError(f"{len(self.part_colors)} part_colors for {self.num_parts} parts.")
        for name, rgb in zip(self.part_names, self.part_colors, strict=True):
            if len(rgb) != 3 or not all(0 <= v <= 255 for v in rgb):
                raise ValueError(
                    f"The colour of {name!r} is {rgb}; it must be three values 0..255."
                )

    def _check_regions(self) -> None:
        if len(self.part_regions) != self.num_parts:
            raise ValueError(
                f"{len(self.part_regions)} part_regions for {self.num_parts} parts; give one each, "
                "or none."
            )
        for name, region in zip(self.part_names, self.part_regions, strict=True):
            if region and region not in BODY_REGIONS:
                raise ValueError(
                    f"The region of {name!r} is {region!r}; it must be '' (anywhere) or one of "
                    f"{', '.join(BODY_REGIONS)}."
                )
