"""What all preparing scripts share: from some other layout to the canonical one, safely.

Legend: H, W image size in pixels.

A split is built in ``<Split>.partial`` and renamed when it is whole, so what looks complete is
complete. A run that was cut off goes on where it stopped; a finished split is left alone unless it
is to be replaced, and refused if it was made from something else, which ``prepared.json`` tells.
Broken inputs are collected and reported together, and then no split appears. One process at a time
writes to a data set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...files import (
    atomic_path,
    lock_folder,
    read_json,
    read_text,
    remove_temporaries,
    write_json,
    write_text,
)
from ...taxonomies.schema import IGNORE_LABEL, PartTaxonomy
from ..datasets.canonical import TAXONOMY_FILE, check_taxonomy_file, split_folder
from ..image_io import image_size
from ..label_io import write_object_map, write_part_map
from ..parallel import parallel_map

__all__ = [
    "PreparationError",
    "PreparedImage",
    "add_arguments",
    "link_or_copy",
    "merge_person_maps",
    "prepare_split",
    "remove_folder",
    "replace_folder",
    "require_folder",
    "settle_replacement",
    "write_taxonomy",
]


_RECORD = "prepared.json"  # in a finished split: what it was made from


class PreparationError(ValueError):
    """Some inputs cannot be used; the message lists them."""


@dataclass(frozen=True)
class PreparedImage:
    """One image on its way to disk.

    Attributes:
        photo: file of the photo, which is linked or copied.
        parts: (H, W) part ids, 0 background, 255 ignored.
        objects: (H, W) object ids, 0 none, -1 ignored.
        classes: object id -> class name, where the parts do not tell.
    """

    photo: Path
    parts: np.ndarray
    objects: np.ndarray
    classes: dict[int, str] = field(default_factory=dict)


def prepare_split(
    *,
    root: Path,
    split: str,
    ids: Sequence[str],
    convert: Callable[[str], PreparedImage | Path],
    taxonomy: PartTaxonomy,
    settings: dict[str, Any],
    force: bool = False,
    copy: bool = False,
    workers: int | None = None,
) -> bool:
    """Write one split of ``root`` in the canonical layout.

    Args:
        root: folder of the data set to write.
        split: ``train``, ``val``, ``test`` or another name.
        ids: image ids, in the order of the list to write.
        convert: id -> image; it runs in other processes, so it must be picklable. A bare path is
            the photo of an unlabelled image.
        taxonomy: meaning of the ids; written to ``taxonomy.json``.
        settings: what the result depends on; paths are made absolute. A cut-off run with other
            settings is begun anew, a finished split with others refused.
        force: replace a finished split.
        copy: copy the photos; by default they are hard links where the file system allows it.
        workers: processes; default one a core.

    Returns:
        Whether anything was written; False when the split was complete already.

    Raises:
        PreparationError: lists the broken inputs. The split does not exist then. Or a finished
            split has other settings; names them.
        InUseError: another process prepares the data set.
        OSError: a file cannot be written; names it. What is done is kept.
    """
    root = Path(root)
    final = split_folder(root, split)
    if not ids:
        raise PreparationError(f"No images for the split {split!r} of {root}.")
    listed = hashlib.sha1("\n".join(ids).encode()).hexdigest()
    record = json.loads(json.dumps({"ids": listed, **settings}, default=_plain))
    if not force and final.exists() and not os.access(root, os.W_OK):  # nor can it be locked
        _check_finished(final, split, record, taxonomy)
        return False
    with lock_folder(root, f"preparing {final}"):
        folder = final.with_name(final.name + ".partial")
        remove_temporaries(root, below=False)
        remove_temporaries(folder)
        settle_replacement(folder, final, whole=_read_record(folder) == record)
        if final.exists() and not force:
            _check_finished(final, split, record, taxonomy)
            return False
        _check_taxonomy(root, taxonomy)
        if _read_record(folder) != record:
            step = partial(_prepare_one, folder=folder, convert=convert, copy=copy)
            _build(final, split, ids, step, record | {"copy": copy}, workers)
            write_json(folder / _RECORD, record)
        (folder / _JOURNAL).unlink(missing_ok=True)
        write_taxonomy(root, taxonomy)
        replace_folder(folder, final)
    print(f"{final}: {len(ids)} images.")
    _compare_splits(final, record)
    return True


def _build(
    final: Path,
    split: str,
    ids: Sequence[str],
    step: Callable[[str], dict | str],
    header: dict[str, Any],
    workers: int | None,
) -> None:
    """Write what is not there yet of all files of a split, in ``<Split>.partial``."""
    folder = final.with_name(final.name + ".partial")
    journal = _Journal(folder, header)
    if journal.done:
        print(f"{folder}: going on, {len(journal.done)} of {len(ids)} images are done.")
    outcome = parallel_map(
        step,
        [i for i in ids if i not in journal.done],
        description=f"Preparing {final}",
        workers=workers,
        processes=True,
        each=lambda i, result: isinstance(result, str) or journal.add(i, result),
    )
    _refuse([o for o in outcome if isinstance(o, str)], len(ids), final)
    if any(journal.done.values()):
        write_json(folder / "object_classes.json", {i: c for i, c in journal.done.items() if c})
    write_text(folder / f"{split}_id.txt", "".join(f"{i}\n" for i in ids))


def merge_person_maps(
    maps: Iterable[np.ndarray], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One part map for each person -> one part map and one object map for the image.

    Where people overlap, the later one wins. Pixels with 255 are ignored, unless somebody else
    has a part there. A map of 255 alone says nothing and is left out.

    Args:
        maps: (H, W) part ids of each person, in order; ids 1, 2, ... are given to those with parts.
        shape: (H, W).

    Returns:
        (H, W) uint8 parts and (H, W) int32 objects.
    """
    parts = np.zeros(shape, dtype=np.uint8)
    objects = np.zeros(shape, dtype=np.int32)
    ignored = np.zeros(shape, dtype=bool)
    number = 0
    for person in maps:
        void = person == IGNORE_LABEL
        if void.all():
            continue
        ignored |= void
        visible = (person > 0) & ~void
        if visible.any():
            number += 1
            parts[visible] = person[visible]
            objects[visible] = number
    ignored &= objects == 0
    parts[ignored] = IGNORE_LABEL
    objects[ignored] = -1
    return parts, objects


def link_or_copy(source: Path, target: Path, copy: bool = False) -> None:
    """Make ``target`` a hard link to ``source``, or a copy where that is impossible or unwanted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        with suppress(OSError):
            target.unlink(missing_ok=True)
            os.link(os.path.realpath(source), target)
            return
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def add_arguments(parser: argparse.ArgumentParser, splits: Sequence[str]) -> None:
    """The arguments that every preparing script has."""
    parser.add_argument("--output", type=Path, help="folder to write; default as registered")
    parser.add_argument("--splits", nargs="+", default=list(splits), help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="replace finished splits")
    parser.add_argument("--copy", action="store_true", help="copy the photos, no hard links")
    parser.add_argument("--workers", type=int, help="processes; default one a core")


def require_folder(path: Path, what: str) -> Path:
    """``path`` if it is a folder, else FileNotFoundError that says ``what`` it should be."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist: {what}. docs/DATASETS.md shows the tree.")
    return path


def write_taxonomy(root: Path, taxonomy: PartTaxonomy) -> None:
    """Write ``taxonomy.json``; refuse if the folder already holds data with another meaning."""
    _check_taxonomy(root, taxonomy)
    write_json(Path(root) / TAXONOMY_FILE, taxonomy.to_dict())


def _check_taxonomy(root: Path, taxonomy: PartTaxonomy) -> None:
    try:
        check_taxonomy_file(Path(root) / TAXONOMY_FILE, taxonomy)
    except ValueError as error:
        raise PreparationError(str(error)) from None


def _check_finished(final: Path, split: str, record: dict, taxonomy: PartTaxonomy) -> None:
    """PreparationError, unless the finished split is what would be made."""
    if not (final / f"{split}_id.txt").is_file():
        raise PreparationError(
            f"{final} exists but has no {split}_id.txt: it was not made by these scripts. Move "
            "it away, or replace it with --force."
        )
    _check_taxonomy(final.parent, taxonomy)
    found = _read_record(final)
    if found is not None and found != record:  # older splits have no record
        raise PreparationError(
            f"{final} was prepared with other settings: {_differences(found, record)}. --force "
            "prepares it again; --output names another folder."
        )
    print(f"{final} is complete already; --force prepares it again.")


def _compare_splits(final: Path, record: dict) -> None:
    """Say which other splits of the data set were made otherwise."""
    for path in sorted(final.parent.glob(f"*/{_RECORD}")):
        found = _read_record(path.parent) | {"ids": record["ids"]}
        if found != record and path.parent.suffix not in (".partial", ".old"):
            print(
                f"warning: {path.parent} was prepared with other settings than {final}: "
                f"{_differences(found, record)}. Prepare both alike."
            )


def _read_record(folder: Path) -> dict | None:
    path = folder / _RECORD
    return read_json(path, dict) if path.is_file() else None


def _differences(found: dict, record: dict) -> str:
    pairs = {key: (found.get(key), record.get(key)) for key in found | record}
    return "; ".join(
        "the list of images" if key == "ids" else f"{key} was {old!r:.80}, is now {new!r:.80}"
        for key, (old, new) in pairs.items()
        if old != new
    )


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return os.path.abspath(value)
    raise TypeError(f"{value!r} in the settings is neither plain nor a path.")


def replace_folder(new: Path, final: Path) -> None:
    """Rename ``new`` to ``final``; what was there is moved away first and removed last."""
    old = _replaced(final)
    if final.exists():
        if old.exists():
            remove_folder(old)
        final.rename(old)
    new.rename(final)
    if old.exists():
        remove_folder(old)


def settle_replacement(new: Path, final: Path, whole: bool) -> None:
    """End what a `replace_folder` began that was cut off: with ``new`` if ``whole``, or undone."""
    old = _replaced(final)
    if old.exists() and not final.exists():
        (new if whole else old).rename(final)
    if old.exists():
        remove_folder(old)


def remove_folder(folder: Path) -> None:
    """Remove it, what vouches for the rest first: a kill leaves nothing that looks whole."""
    if folder.is_symlink():  # to data of somebody else
        folder.unlink()
        return
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    shutil.rmtree(folder)


def _replaced(final: Path) -> Path:
    return final.with_name(final.name + ".old")


def _prepare_one(image_id: str, *, folder: Path, convert: Callable, copy: bool) -> dict | str:
    """Write one image; returns its classes, or what is wrong with it.

    Raises:
        OSError: it cannot be written, whatever the input.
    """
    try:
        image = convert(image_id)
        photo = image if isinstance(image, Path) else image.photo
        height, width = image_size(photo)
    except (OSError, ValueError) as error:
        return f"{image_id}: {error}"
    try:
        if not isinstance(image, Path):
            for kind, array in (("part", image.parts), ("object", image.objects)):
                if array.shape != (height, width):
                    raise ValueError(
                        f"{photo} is {width}x{height} pixels, but its {kind} map is "
                        f"{array.shape[1]}x{array.shape[0]}."
                    )
            write_part_map(folder / "Category_ids" / f"{image_id}.png", image.parts)
            write_object_map(folder / "Human_ids" / f"{image_id}.png", image.objects)
    except ValueError as error:
        return f"{image_id}: {error}"
    link_or_copy(photo, folder / "Images" / f"{image_id}{photo.suffix}", copy)
    return {} if isinstance(image, Path) else {str(i): c for i, c in image.classes.items()}


def _refuse(problems: list[str], total: int, final: Path) -> None:
    if problems:
        shown = "\n  ".join(problems[:10])
        raise PreparationError(
            f"{len(problems)} of {total} images cannot be used, so {final} was not made. The first:"
            f"\n  {shown}\nRepair these files and start again; what is done is kept."
        )


_JOURNAL = "progress.jsonl"


class _Journal:
    """Which images of a split are done, with the classes of their objects; survives a kill."""

    def __init__(self, folder: Path, header: dict[str, Any]):
        self.path = folder / _JOURNAL
        self.done: dict[str, dict[str, str]] = {}
        lines = []
        if self.path.is_file():
            with suppress(ValueError):  # no text: not of ours
                lines = read_text(self.path).splitlines()
        first = json.dumps(header, sort_keys=True)
        if lines and lines[0] == first:
            for line in lines[1:]:
                try:
                    image_id, classes = json.loads(line)
                except (TypeError, ValueError):  # the line that was being written
                    continue
                self.done[image_id] = classes
        elif folder.exists():
            remove_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = (json.dumps([i, c]) for i, c in self.done.items())
        write_text(self.path, "".join(f"{row}\n" for row in (first, *rows)))

    def add(self, image_id: str, classes: dict[str, str]) -> None:
        self.done[image_id] = classes
        try:
            with self.path.open("a") as stream:
                stream.write(json.dumps([image_id, classes]) + "\n")
        except OSError as error:
            error.filename = str(self.path)
            raise
