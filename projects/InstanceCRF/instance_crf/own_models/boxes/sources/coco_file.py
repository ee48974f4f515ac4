"""Detections of many images in one JSON file, looked up by the name of the photo's file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ....data.coco_tables import categories_of, sizes_of
from ....entries import as_kind, as_name, is_crowd, require_keys
from ....files import read_json
from ...inputs import Detections, Source
from ...resources import existing_file
from ..classes import class_table
from ..reading import read_detections

__all__ = ["load"]


class _CocoFile(Source):
    """
    Args:
        file: for messages.
        found: image id -> what :func:`read_detections` takes.
        names: what photos are called -> image id.
        sizes: image id -> (H, W), where the file says.
        complete: ``names`` has all images, also those without a detection.
    """

    def __init__(self, file, found, names, sizes, complete, class_names, least_score) -> None:
        self.file, self.found, self.sizes = file, found, sizes
        self.names, self.complete = _Names(names), complete
        self.class_names, self.least_score = class_names, least_score
        self._known_folders: set[Path] = set()

    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> Detections:
        if path is None:
            raise ValueError(f"{self.file} has detections by the photo's file; give its path.")
        size = pixels.shape[:2]
        image_id = self._image_id(Path(path))
        known = self.sizes.get(image_id, size)
        if known != size:
            raise ValueError(
                f"{self.file} says that {path} is {known[1]}x{known[0]} pixels, but it is "
                f"{size[1]}x{size[0]}."
            )
        entries = self.found.get(image_id, [])
        try:
            found = read_detections(entries, size=size, class_names=self.class_names)
        except ValueError as error:
            raise ValueError(f"{self.file}, image {image_id}: {error}") from None
        return found.take(found.scores >= self.least_score)

    def _image_id(self, path: Path) -> str | None:
        """None for a photo without detections, in a file that lists only detections."""
        image_id = self.names.find(path, self.file)
        if image_id is not None:
            return image_id
        listed = ", ".join(list(self.names.ids)[:3]) or "nothing"
        if self.complete:
            raise ValueError(f"{self.file} has no image {path.name}; it has {listed}, ...")
        if path.parent not in self._known_folders:
            siblings = path.parent.iterdir() if path.parent.is_dir() else ()
            if not any(self.names.find(other, self.file) for other in siblings):
                raise ValueError(
                    f"{self.file} has no detections of {path} nor of any other file beside it: "
                    f"its image ids are {listed}, .... They must be the names of the photos; if "
                    "they are numbers, give images=, the COCO file whose table says which is which."
                )
            self._known_folders.add(path.parent)
        return None


class _Names:
    """Image ids by what a photo's file may be called: the end of its path, its name without the
    extension, its number."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self.ids = dict(ids)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.ids:
            self._by_stem[PurePosixPath(name).stem].append(name)

    def find(self, path: Path, file) -> str | None:
        """ValueError: several images may be meant."""
        parts = path.parts[-8:]
        ends = ["/".join(parts[i:]) for i in range(len(parts))]
        number = str(int(path.stem)) if path.stem.isascii() and path.stem.isdigit() else None
        for name in (*ends, path.stem, number):
            if name in self.ids:
                return self.ids[name]
        same = self._by_stem.get(path.stem, ())
        if len(same) > 1:
            raise ValueError(f"{file} has several images for {path}: {', '.join(same[:5])}.")
        return self.ids[same[0]] if same else None


def load(name: str, *, least_score: float, class_names=None, images=None) -> Source:
    """``FILE.json``, one of

    * COCO results, a list of ``{"image_id", "category_id", "bbox", "score"}``: image ids are names
      of files, with or without the extension, or numbers that the names are; or ``images`` says
      what they mean. Results do not list images without detections: a photo that is not in the
      list has none, unless no file beside it is in the list either, which is an error;
    * a COCO file with ``images`` and ``annotations`` (or ``predictions``), whose ``categories`` are
      the table; crowds are left out;
    * ``{NAME: {"boxes": x1 y1 x2 y2 of each, "scores"[, "labels"]}}``.

    In the last two all images are listed: another photo is an error.

    Args:
        name: the file.
        least_score: detections below it are left out.
        class_names: name of each category; default: the file's ``categories``.
        images: a COCO file, for its ``images`` and ``categories``.
    """
    path = existing_file(name, "The file of detections")
    content, table = read_json(path), None
    if images is not None:
        table = read_json(existing_file(images, "The COCO file"))
        if not isinstance(table, dict) or not isinstance(table.get("images"), list):
            raise ValueError(f"{images} has no table 'images'; it must be a COCO file.")
    sizes: dict[str, tuple[int, int]] = {}
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        table = content if table is None else table
        content = content.get("predictions", content.get("annotations"))
    if isinstance(content, list):
        found = _by_image(content, path)
        names = {image_id: image_id for image_id in found}
        if table is not None:
            names, sizes = _image_table(table, path)
            _check_ids(found, names, path)
            class_names = _categories(table, path) if class_names is None else class_names
    elif isinstance(content, dict) and all(_has_boxes(entry) for entry in content.values()):
        found, names = content, {image_id: image_id for image_id in content}
    else:
        raise ValueError(
            f"{path} is neither a list of COCO results, nor a COCO file with images and "
            "annotations, nor {NAME: {boxes, scores}}."
        )
    complete = table is not None or isinstance(content, dict)
    class_table(class_names)  # a wrong one is told now
    return _CocoFile(path, found, names, sizes, complete, class_names, least_score)


def _by_image(entries: Iterable, path: Path) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = defaultdict(list)
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        require_keys(entry, ("image_id",), where)
        image_id = as_name(entry["image_id"], f"{where}: image_id")
        if not is_crowd(entry, where):
            found[image_id].append(entry)
    return dict(found)


def _image_table(table: dict, path: Path):
    """File name -> id, and id -> (H, W)."""
    sizes, names = sizes_of(table, path, needed=False), {}
    for number, image in enumerate(table["images"]):
        where = f"{path}: image {number}"
        require_keys(image, ("file_name",), where)
        name = as_kind(image["file_name"], str, f"{where}: file_name")
        image_id = as_name(image["id"], f"{where}: id")
        if names.setdefault(name, image_id) != image_id:
            raise ValueError(f"{where} is {name!r} again, as image {image_id}.")
    return names, sizes


def _check_ids(found: dict, names: dict, path: Path) -> None:
    foreign = sorted(found.keys() - set(names.values()))
    if foreign:
        raise ValueError(
            f"{path}: {len(foreign)} image ids of the detections, e.g. {foreign[0]}, are not in "
            f"the table of {len(names)} images."
        )


def _categories(table: dict, path: Path) -> dict[int, str] | None:
    return {row["id"]: row["name"] for row in categories_of(table, path)} or None


def _has_boxes(entry) -> bool:
    return isinstance(entry, dict) and "boxes" in entry
