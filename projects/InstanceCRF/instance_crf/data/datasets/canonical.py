"""The canonical layout on disk, and the records that everything downstream reads.

    <root>/Training/Images/<id>.jpg          photo
    <root>/Training/Category_ids/<id>.png    part map: uint8, 0 background, 255 ignored
    <root>/Training/Human_ids/<id>.png       object map: uint8 (255 ignored), uint16 (65535)
    <root>/Training/train_id.txt             one id a line
    <root>/Training/object_classes.json      only with several object classes, and only for objects
                                             whose class no part tells: {id: {object: class}}
    <root>/Validation/... val_id.txt,  <root>/Testing/... test_id.txt

This is CIHP's own layout. ``root`` is the folder of one data set. A split without both label
folders is unlabelled (test sets). Boxes are computed from the object maps once and kept in
`index.json`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ..schema import PartTaxonomy
from .index import ImageFiles, load_index

__all__ = ["SPLIT_FOLDERS", "load_canonical", "read_id_list", "split_folder"]

logger = logging.getLogger(__name__)

#: split name -> folder. Other split names are folders of that very name.
SPLIT_FOLDERS = {"train": "Training", "val": "Validation", "test": "Testing"}
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
    files = list_files(folder, ids)
    return load_index(
        files, taxonomy, cache=folder / "index.json", classes=folder / "object_classes.json"
    )


def read_id_list(path: Path) -> list[str]:
    """The ids of a list file. Empty lines are skipped; a repeated id is an error."""
    if not path.is_file():
        raise FileNotFoundError(
            f"The id list {path} does not exist. Is the data set at {path.parent}, and complete? "
            "The preparing scripts write this list last. DETECTRON2_DATASETS names the folder that "
            "holds all data sets (default ./datasets); docs/DATASETS.md shows the trees."
        )
    ids = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if len(set(ids)) != len(ids):
        repeated = next(i for n, i in enumerate(ids) if i in ids[:n])
        raise ValueError(f"{path} lists the id {repeated!r} more than once.")
    if not ids:
        raise ValueError(f"{path} is empty; it must list one image id a line.")
    return ids


def list_files(folder: Path, ids: list[str]) -> list[ImageFiles]:
    """The files of every id, found by listing each folder once.

    Raises:
        FileNotFoundError: names the first missing files and how many there are.
    """
    photos = files_by_stem(folder / "Images", IMAGE_SUFFIXES)
    label_folders = [folder / "Category_ids", folder / "Human_ids"]
    present = [path.is_dir() for path in label_folders]
    if any(present) and not all(present):
        missing = label_folders[present.index(False)]
        raise FileNotFoundError(f"{missing} does not exist, but its sibling does: both are needed.")
    if not any(present):
        logger.info("%s has no Category_ids and Human_ids: read as an unlabelled split.", folder)
        absent = [str(folder / "Images" / i) for i in ids if i not in photos]
        _refuse_missing(absent)
        return [ImageFiles(i, photos[i], None, None) for i in ids]
    parts, objects = (files_by_stem(path, (".png",)) for path in label_folders)
    absent = [
        str(path / (i + suffix))
        for path, found, suffix in (
            (folder / "Images", photos, ".*"),
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
