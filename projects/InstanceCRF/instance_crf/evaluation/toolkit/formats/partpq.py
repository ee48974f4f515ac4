"""The three-channel PNGs of the panoptic-parts evaluation (PartPQ).

``<id>.png`` with (scene class, instance within the class, part), 255 unknown, and
``images.json`` with the list of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ....data.coco_tables import sizes_of
from ....data.label_io import read_rgb_png
from ....entries import as_whole, refuse_repeated, require_keys
from ....files import inside, read_json, write_json
from ....taxonomies.schema import PartTaxonomy
from ...parsing import Parsing
from .base import ParsingReader, PredictionWriter, files_by_id, lookup, write_png

__all__ = ["PartPQPredictions", "PartPQWriter", "default_part_ids", "default_scene_ids"]

_UNKNOWN = 255
_CHANNELS = "scene class, instance, part"
_PASCAL_PERSON = 15
# Pascal Panoptic Parts numbers the lower limb before the upper one.
_PASCAL_PARTS = ("head", "torso", "lower arms", "upper arms", "lower legs", "upper legs")


def default_scene_ids(taxonomy: PartTaxonomy) -> tuple[int, ...]:
    """Scene class of each object class: PASCAL's 15 for people, else the class plus 1."""
    if taxonomy.object_names == ("person",):
        return (_PASCAL_PERSON,)
    return tuple(range(1, taxonomy.num_objects + 1))


def default_part_ids(taxonomy: PartTaxonomy) -> tuple[int, ...]:
    """Part id in the files of parts 1..P: Pascal Panoptic Parts' order for its six parts, else
    the same."""
    names = [name.lower().replace("_", " ").replace("-", " ") for name in taxonomy.part_names]
    if sorted(names) == sorted(_PASCAL_PARTS):
        return tuple(_PASCAL_PARTS.index(name) + 1 for name in names)
    return tuple(range(1, taxonomy.num_parts + 1))


class PartPQWriter(PredictionWriter):
    """Writes predictions.

    Args:
        scene_ids: (C,) scene class of each object class; None: :func:`default_scene_ids`.
        part_ids: (P,) id in the files of each part; None: :func:`default_part_ids`.
    """

    def __init__(
        self,
        root: str | Path,
        taxonomy: PartTaxonomy,
        *,
        scene_ids: Sequence[int] | None = None,
        part_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(root, taxonomy)
        self.scene_ids = tuple(scene_ids or default_scene_ids(taxonomy))
        self.part_ids = tuple(part_ids or default_part_ids(taxonomy))
        _check_ids(self.scene_ids, self.part_ids, taxonomy)
        self._images: list[dict] = []

    def add(self, image_id: str, prediction: Parsing) -> None:
        if prediction.object_map is None:
            raise ValueError(f"Image {image_id}: the PartPQ format needs to know the objects.")
        objects = np.asarray(prediction.object_map)
        classes = np.asarray(prediction.object_classes, dtype=np.int64)
        number = np.zeros(len(classes), dtype=np.int64)
        for c in np.unique(classes):
            number[classes == c] = np.arange(np.count_nonzero(classes == c))
        if number.max(initial=0) > 255:
            raise ValueError(
                f"{number.max() + 1} objects of one class in image {image_id}; the PartPQ format "
                "numbers them in 8 bits, at most 256."
            )
        scene = lookup(objects, prediction.object_ids, np.array(self.scene_ids)[classes])
        # Outside objects nothing is claimed: the scene class and the part are unknown.
        inside = scene > 0
        scene[~inside] = _UNKNOWN
        part = np.array((0, *self.part_ids))[prediction.part_map]
        part[~inside] = _UNKNOWN
        channels = (scene, lookup(objects, prediction.object_ids, number), part)
        path = self.root / f"{image_id}.png"
        write_png(path, np.stack(channels, axis=-1).astype(np.uint8))
        height, width = objects.shape
        self._images.append(
            {"id": image_id, "file_name": path.name, "height": height, "width": width}
        )

    def merge(self, other: PartPQWriter) -> None:
        self._images += other._images

    def close(self) -> None:
        write_json(self.root / "images.json", {"images": self._images}, indent=None)


class PartPQPredictions(ParsingReader):
    """Reads predictions. They have no scores, so there is no AP.

    Args:
        scene_ids, part_ids: see :class:`PartPQWriter`.
    """

    def __init__(
        self,
        root: str | Path,
        taxonomy: PartTaxonomy,
        *,
        scene_ids: Sequence[int] | None = None,
        part_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(root, taxonomy)
        self.scene_ids = tuple(scene_ids or default_scene_ids(taxonomy))
        self.part_ids = tuple(part_ids or default_part_ids(taxonomy))
        _check_ids(self.scene_ids, self.part_ids, taxonomy)
        self._files = files_by_id(self.root, ".png")
        if not self._files:
            raise FileNotFoundError(f"{self.root} has no <id>.png.")
        self._check_list(self.root / "images.json")

    def _check_list(self, path: Path) -> None:
        """Refuse an ``images.json`` of other images than the PNGs; it may be missing."""
        if not path.exists():
            return
        content = read_json(path, dict)
        require_keys(content, ("images",), str(path))
        sizes_of(content, path, needed=False)
        listed = set()
        for number, image in enumerate(content["images"]):
            where = f"{path}: image {number}: file_name"
            name = inside(self.root, image.get("file_name", f"{image['id']}.png"), where).stem
            if name not in self._files:
                raise ValueError(f"{where} is {name!r}, but there is no {self.root / name}.png.")
            listed.add(name)
        for name in self._files.keys() - listed:
            raise ValueError(f"{self._files[name]} is not in {path}.")

    def image_ids(self) -> list[str]:
        return sorted(self._files)

    def read(self, image_id: str) -> Parsing:
        path = self.root / f"{image_id}.png"
        scene, number, part = np.moveaxis(read_rgb_png(path, _CHANNELS), -1, 0)
        class_of = np.full(256, -1, dtype=np.int64)
        class_of[list(self.scene_ids)] = np.arange(len(self.scene_ids))
        part_of = np.full(256, -1, dtype=np.int64)
        part_of[[0, *self.part_ids, _UNKNOWN]] = [0, *range(1, len(self.part_ids) + 1), 0]
        classes, parts = class_of[scene], part_of[part]
        inside = classes >= 0
        if (parts[inside] < 0).any():
            wrong = int(part[inside][parts[inside] < 0][0])
            raise ValueError(
                f"{path} has part id {wrong}; expected one of {self.part_ids}, 0, 255."
            )
        objects = np.where(inside, 1 + classes * 256 + number, 0).astype(np.int32)
        part_map = np.where(inside, parts, 0).astype(np.int32)
        ids = np.unique(objects)
        ids = ids[ids > 0]
        return Parsing.of_maps(part_map, objects, object_ids=ids, object_classes=(ids - 1) // 256)


def _check_ids(scene_ids: Sequence[int], part_ids: Sequence[int], taxonomy: PartTaxonomy) -> None:
    if len(scene_ids) != taxonomy.num_objects or len(part_ids) != taxonomy.num_parts:
        raise ValueError(
            f"{len(scene_ids)} scene_ids and {len(part_ids)} part_ids for {taxonomy.num_objects} "
            f"object classes and {taxonomy.num_parts} parts; give one for each."
        )
    for name, ids, low in (("scene_ids", scene_ids, 0), ("part_ids", part_ids, 1)):
        refuse_repeated((as_whole(i, name, low, _UNKNOWN - 1) for i in ids), f"{name} has")
