"""The canonical layout on disk, and the records that everything downstream reads.

    <root>/Training/Images/<id>.jpg          photo
    <root>/Training/Category_ids/<id>.png    part map: uint8, 0 background, 255 ignored
    <root>/Training/Human_ids/<id>.png       object map: uint8 (255 ignored), uint16 (65535)
    <root>/Training/train_id.txt             one id a line
    <root>/Training/object_classes.json      only with several object classes, and only for objects
                                             whose class no part tells: {id: {object: class}}
    <root>/Validation/... val_id.txt,  <root>/Testing/... test_id.txt
    <root>/taxonomy.json                     optional: what the ids mean, as it was prepared

This is CIHP's own layout. ``root`` is the folder of one data set. A split without both label
folders is unlabelled (test sets). Boxes are computed from the object maps once and kept in
`index.json`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ...files import read_json, read_text
from ...taxonomies.schema import PartTaxonomy
from .index import ImageFiles, load_index

__all__ = ["SPLIT_FOLDERS", "load_canonical", "read_id_list", "split_folder"]

logger = logging.getLogger(__name__)

#: split name -> folder. Other split names are folders of that very name.
SPLIT_FOLDERS = {"train": "Training", "val": "Validation", "test": "Testing"}
#: In the root of a prepared data set: what its ids mean.
TAXONOMY_FILE = "taxonomy.json"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def split_folder(root: str | Path, split: str) -> Path:
    """The folder of ``split`` (``train``, ``val``, ``test`` or any other name) under ``root``."""
    return Path(root).expanduser() / SPLIT_FOLDERS.get(split, split)


def load_canonical(root: str | Path, split: str, taxonomy: PartTaxonomy) -> list[dict]:
    """The records of one split.

    Args:
        root: folder of the data set, e.g. ``datasets/instance-level_human_parsing``.
        split: ``train``, ``val``, ``test``, or the name of another folder.
        taxonomy: what the ids mean; unknown part ids are refused.

    Returns:
        One dict an image: ``file_name, height, width, image_id`` and, unless the split is
        unlabelled, ``part_file_name, object_file_name, annotations`` (``bbox`` XYXY_ABS with
        exclusive ends, ``bbox_mode, category_id, object_id, iscrowd``).

    Raises:
        FileNotFoundError: a folder, the id list or a listed file is missing.
        ValueError: a label map is unreadable, has another size than its image, or unknown ids.
    """
    folder = split_folder(root, split)
    ids = read_id_list(folder / f"{split}_id.txt")
    check_taxonomy_file(folder.parent / TAXONOMY_FILE, taxonomy)
    files = list_files(folder / "Images", folder / "Category_ids", folder / "Human_ids", ids)
    return load_index(
        files, taxonomy, cache=folder / "index.json", classes=folder / "object_classes.json"
    )


def check_taxonomy_file(path: Path, taxonomy: PartTaxonomy) -> None:
    """Compare what the preparing script wrote down with ``taxonomy``; no file is no objection.

    Raises:
        ValueError: the ids on disk mean something else.
    """
    if not path.is_file():
        return
    stored = read_json(path, dict)
    expected = taxonomy.to_dict()
    for key in ("part_names", "object_names", "part_owner"):
        if stored.get(key) != expected[key]:
            raise ValueError(
                f"{path} says that {key} is {stored.get(key)}, but the data set has "
                f"{expected[key]}: the same ids mean different things. Prepare the data again, in "
                "another folder or after removing this one."
            )


def read_id_list(path: Path) -> list[str]:
    """The ids of a list file. Empty lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a repeated id, one that is no name of a file, none at all; names the list.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The id list {path} does not exist. Is the data set at {path.parent}, and complete? "
            "The preparing scripts write this list last. DETECTRON2_DATASETS names the folder that "
            "holds all data sets (default ./datasets); docs/DATASETS.md shows the trees."
        )
    ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(set(ids)) != len(ids):
        repeated = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise ValueError(f"{path} lists the id {repeated!r} more than once.")
    for i in ids:
        if i in (".", "..") or re.search(r"[/\\\0]", i):
            raise ValueError(f"{path} lists {i!r}: an id names a file, without a folder.")
    if not ids:
        raise ValueError(f"{path} is empty; it must list one image id a line.")
    return ids


def list_files(
    photo_folder: Path, part_folder: Path, object_folder: Path, ids: list[str]
) -> list[ImageFiles]:
    """The files of every id, found by listing each folder once.

    Without both label folders the images are unlabelled.

    Raises:
        FileNotFoundError: names the first missing files and how many there are.
    """
    photos = files_by_stem(photo_folder, IMAGE_SUFFIXES)
    label_folders = [part_folder, object_folder]
    present = [path.is_dir() for path in label_folders]
    if any(present) and not all(present):
        missing = label_folders[present.index(False)]
        raise FileNotFoundError(f"{missing} does not exist, but its sibling does: both are needed.")
    if not any(present):
        logger.info("There is no %s: reading unlabelled images.", part_folder)
        absent = [str(photo_folder / f"{i}.*") for i in ids if i not in photos]
        _refuse_missing(absent)
        return [ImageFiles(i, photos[i], None, None) for i in ids]
    parts, objects = (files_by_stem(path, (".png",)) for path in label_folders)
    absent = [
        str(path / (i + suffix))
        for path, found, suffix in (
            (photo_folder, photos, ".*"),
            (label_folders[0], parts, ".png"),
            (label_folders[1], objects, ".png"),
        )
        for i in ids
        if i not in found
    ]
    _refuse_missing(absent)
    return [ImageFiles(i, photos[i], parts[i], objects[i]) for i in ids]


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """{id: path} of the files in ``folder`` with one of the suffixes; hidden files are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder {folder} does not exist; docs/DATASETS.md shows the tree."
        )
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(
                    f"Two files for one id: {found[path.stem]} and {path}. Remove one."
                )
            found[path.stem] = str(path)
    return found


def _refuse_missing(absent: list[str]) -> None:
    if absent:
        shown = "\n  ".join(absent[:5])
        raise FileNotFoundError(
            f"{len(absent)} listed file(s) missing, the first:\n  {shown}\n"
            "Copy them, or take their ids out of the list."
        )
