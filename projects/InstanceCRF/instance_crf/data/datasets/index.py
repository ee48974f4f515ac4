"""The cached index: image sizes and object boxes, computed once from the label maps.

Legend: H, W image size in pixels. Boxes are XYXY in pixels with exclusive ends.

An entry is kept while the size and the modification time of its files stay the same; other entries
are computed again. The file is written at once, under a temporary name first, so that several
processes may start together. A folder that cannot be written is no error; the index is then
computed at every start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from ...entries import as_kind
from ...files import read_json, write_text
from ...taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ..image_io import upright_size
from ..label_io import (
    object_ids,
    read_label_png,
    read_part_map,
)
from ..parallel import parallel_map

__all__ = [
    "ImageFiles",
    "index_image",
    "load_index",
    "make_record",
    "object_boxes",
    "read_classes",
]

logger = logging.getLogger(__name__)
_FORMAT = 2
#: Luminance of the first six VOC colours, as `cv2.imread(path, 0)` makes it of a palette PNG.
_VOC_GREYS = {38, 75, 113, 14, 52, 89}
#: Up to this id it is faster to look for each of them than to make a histogram first.
_FEW_IDS = 8
#: Of photos whose label maps may be wrong without that anything tells.
TURNED = (
    "turned by an EXIF orientation when read, so label maps must be drawn on the upright photo, as "
    "viewers show it; these have a size that fits both ways, please look at one (docs/DATASETS.md)"
)
_warned: set[str] = set()
_XYXY_ABS = 0  # detectron2.structures.BoxMode.XYXY_ABS; this module does not need Detectron2


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image; ``parts`` and ``objects`` are None in an unlabelled set."""

    image_id: str
    photo: str
    parts: str | None
    objects: str | None

    def stamp(self) -> list[int]:
        """Modification time and size of each file."""
        stats = [
            os.stat(path) for path in (self.photo, self.parts, self.objects) if path is not None
        ]
        return [value for s in stats for value in (s.st_mtime_ns, s.st_size)]


def load_index(
    files: Sequence[ImageFiles],
    taxonomy: PartTaxonomy,
    *,
    cache: Path | None,
    classes: Path | None = None,
    workers: int | None = None,
) -> list[dict]:
    """Records of ``files``, from ``cache`` where it is up to date.

    Args:
        files: the images of the set.
        taxonomy: known part ids, and the object class that owns each part.
        cache: JSON file to read and refresh, or None.
        classes: optional JSON ``{image id: {object id: class name}}``; wins over what the parts
        tell. workers: threads that read; default one a core.

    Raises:
        ValueError: lists the first broken files and how many there are. Nothing is cached then.
    """
    given = read_classes(classes, taxonomy)
    key = _cache_key(taxonomy, given)
    known = _read_cache(cache, key)
    stamps = [f.stamp() for f in files]
    stale = [i for i, f in enumerate(files) if known.get(f.image_id, {}).get("stamp") != stamps[i]]
    if stale:
        entries = parallel_map(
            partial(_entry_or_error, taxonomy=taxonomy, given=given),
            [files[i] for i in stale],
            description=f"Indexing {cache.parent if cache else 'images'}",
            workers=workers,
        )
        _refuse_broken([e for e in entries if isinstance(e, str)], len(stale))
        for i, entry in zip(stale, entries, strict=True):
            known[files[i].image_id] = entry | {"stamp": stamps[i]}
        known = {f.image_id: known[f.image_id] for f in files}
        _write_cache(cache, key, known)
    turned = [f.photo for f in files if "turned" in known[f.image_id]]
    if turned and turned[0] not in _warned:  # once, however often the records are asked for
        _warned.add(turned[0])
        many = f"{len(turned)} of {len(files)}"
        logger.warning("%s photos are %s. The first: %s", many, TURNED, turned[0])
    return [make_record(f, known[f.image_id]) for f in files]


def object_boxes(objects: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """{object id: (x1, y1, x2, y2)} of an (H, W) map; x2 and y2 are exclusive.

    Args:
        objects: ids as stored (uint8 with 255 ignored, uint16 with 65535 ignored), or signed ids,
            of which those below 1 are left out.
    """
    if objects.dtype == np.uint8:  # a few passes of OpenCV are faster than one of SciPy
        import cv2  # here, so that the taxonomies beside the loaders can be had without it

        largest = int(objects.max(initial=0))
        ids = label_ids(objects, 1, IGNORE_LABEL) if largest > _FEW_IDS else range(1, largest + 1)
        boxes = {}
        for i in ids:
            x, y, width, height = cv2.boundingRect(cv2.inRange(objects, i, i))
            if width:
                boxes[i] = (x, y, x + width, y + height)
        return boxes
    if objects.dtype == np.uint16:
        objects = object_ids(objects)
    # find_objects takes a table as long as the largest id: ids may be sparse, but have 16 bits.
    return {
        i: (s[1].start, s[0].start, s[1].stop, s[0].stop)
        for i, s in enumerate(ndimage.find_objects(objects), 1)
        if s is not None
    }


def label_ids(labels: np.ndarray, start: int = 0, stop: int = 256) -> list[int]:
    """The ids start <= id < stop that occur in an (H, W) uint8 map, in order."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return [int(i) for i in np.flatnonzero(counts[start:stop]) + start]


def object_class_by_parts(
    object_mask: np.ndarray, parts: np.ndarray, taxonomy: PartTaxonomy
) -> int:
    """The class that owns most of the part pixels under ``object_mask``; -1 if there are none."""
    owners = taxonomy.owner_lut()[parts[object_mask]]
    votes = np.bincount(owners[owners >= 0], minlength=taxonomy.num_objects)
    return int(votes.argmax()) if votes.any() else -1


def _entry_or_error(files: ImageFiles, *, taxonomy: PartTaxonomy, given: dict) -> dict | str:
    try:
        return index_image(files, taxonomy, given.get(files.image_id, {}))
    except (OSError, ValueError) as error:
        return str(error)


def index_image(files: ImageFiles, taxonomy: PartTaxonomy, given: dict[str, int]) -> dict:
    """The entry of one image: ``size`` and, if labelled, ``objects`` (id, x1, y1, x2, y2, class).

    And ``turned``, the EXIF orientation, if the label maps may be drawn on the photo as stored.

    Args:
        files: of the image.
        taxonomy: known parts.
        given: object id -> class, where the parts do not tell.

    Raises:
        FileNotFoundError, ValueError: names the file and both values.
    """
    (height, width), orientation = upright_size(files.photo)
    if files.parts is None:
        return {"size": [height, width]}
    parts, objects = read_part_map(files.parts), read_label_png(files.objects)
    for path, array in ((files.parts, parts), (files.objects, objects)):
        if array.shape != (height, width):
            raise ValueError(
                f"{path} is {array.shape[1]}x{array.shape[0]} pixels, but its image {files.photo} "
                f"is {width}x{height}{_how_turned(orientation)}. A label map must have the size of "
                "its image."
            )
    _check_part_ids(files.parts, parts, taxonomy)
    rows = []
    for object_id, box in object_boxes(objects).items():
        object_class = 0
        if taxonomy.num_objects > 1:
            object_class = given.get(str(object_id), -1)
        if object_class < 0:
            window = (slice(box[1], box[3]), slice(box[0], box[2]))
            mask = objects[window] == object_id
            object_class = object_class_by_parts(mask, parts[window], taxonomy)
        if object_class < 0:
            raise ValueError(
                f"{files.objects}: object {object_id} has no part pixel in {files.parts}, so its "
                "class is unknown. Name it in object_classes.json."
            )
        rows.append([object_id, *box, object_class])
    fits_both_ways = orientation in (2, 3, 4) or (orientation > 4 and height == width)
    turned = {"turned": orientation} if fits_both_ways else {}
    return {"size": [height, width], "objects": rows} | turned


def _how_turned(orientation: int) -> str:
    return f" after the rotation of its EXIF orientation {orientation}" if orientation > 1 else ""


def _check_part_ids(path: str, parts: np.ndarray, taxonomy: PartTaxonomy) -> None:
    first, last = taxonomy.num_parts + 1, IGNORE_LABEL - 1
    if not ((parts >= first) & (parts <= last)).any():
        return
    unknown = label_ids(parts, first, IGNORE_LABEL)
    hint = ""
    if set(unknown) <= _VOC_GREYS:
        hint = (
            " These are grey levels of the VOC colours: a palette PNG was read as colours and "
            "saved "
            "as grey. Take the original file."
        )
    pixels = int(np.isin(parts, unknown).sum())
    raise ValueError(
        f"{path} has unknown part id(s) {unknown[:5]} ({pixels} pixels); the taxonomy has parts "
        f"1..{taxonomy.num_parts}, 0 is background, 255 is ignored.{hint}"
    )


def make_record(files: ImageFiles, entry: dict) -> dict:
    """The record of an image, from its entry in the index."""
    height, width = entry["size"]
    record = {
        "file_name": files.photo,
        "height": height,
        "width": width,
        "image_id": files.image_id,
    }
    if files.parts is not None:
        record["part_file_name"] = files.parts
        record["object_file_name"] = files.objects
        record["annotations"] = [
            {
                "bbox": box,
                "bbox_mode": _XYXY_ABS,
                "category_id": object_class,
                "object_id": object_id,
                "iscrowd": 0,
            }
            for object_id, *box, object_class in entry["objects"]
        ]
    return record


def _refuse_broken(problems: list[str], total: int) -> None:
    if problems:
        shown = "\n  ".join(problems[:5])
        raise ValueError(
            f"{len(problems)} of {total} images cannot be used; the first:\n  {shown}\n"
            "datasets/verify.py lists them all."
        )


def read_classes(path: Path | None, taxonomy: PartTaxonomy) -> dict[str, dict[str, int]]:
    """``object_classes.json`` as {image id: {object id: class}}; empty if there is no such file."""
    if path is None or not path.exists() or taxonomy.num_objects == 1:
        return {}
    ids = {name: c for c, name in enumerate(taxonomy.object_names)}
    table = read_json(path, dict)
    for image, row in table.items():
        where = f"{path}: image {image!r}"
        for object_id, name in as_kind(row, dict, where).items():
            if not object_id.isascii() or not object_id.isdigit() or object_id[0] == "0":
                raise ValueError(f"{where} has the object id {object_id!r}; ids are 1, 2, 3, ….")
            if not isinstance(name, str) or name not in ids:
                raise ValueError(
                    f"{where} names the object class {name!r:.60}; known: {', '.join(ids)}."
                )
    return {image: {o: ids[n] for o, n in row.items()} for image, row in table.items()}


def _cache_key(taxonomy: PartTaxonomy, given: dict) -> str:
    meaning = [_FORMAT, taxonomy.num_parts, taxonomy.num_objects]
    if taxonomy.num_objects > 1:  # only then do the boxes' classes depend on who owns what
        meaning += [taxonomy.part_owner, given]
    return hashlib.sha1(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _read_cache(path: Path | None, key: str) -> dict[str, dict]:
    if path is None or not path.is_file():
        return {}
    try:
        content = read_json(path, dict)
        return dict(content["images"]) if content["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("Ignoring the broken index %s (%s); it is computed again.", path, error)
        return {}


def _write_cache(path: Path | None, key: str, images: dict[str, dict]) -> None:
    if path is None:
        return
    try:
        write_text(path, json.dumps({"key": key, "images": images}, separators=(",", ":")))
    except OSError as error:
        logger.warning("Cannot keep the index %s (%s); it is computed at every start.", path, error)
