#!/usr/bin/env python3
"""Write the synthetic people to disk, in the canonical layout (CIHP's).

    <root>/synthetic_people/                 1-4 people, large: for the demo
    <root>/synthetic_crowd/                  1-6 people, also small, more occlusion
        dataset.json                         the parameters
        Training/Images/<7-digit id>.png     photo
        Training/Category_ids/<id>.png       part map: 0 background, 1..6 parts
        Training/Human_ids/<id>.png          object map: 0 nobody, 1..n people
        Training/train_id.txt                one id a line
        Validation/...  val_id.txt

Run again, it leaves a complete data set of the same parameters alone, and refuses to replace
one of other parameters without --force. A data set appears under its name only when it is complete;
one that was interrupted goes on where it stopped. One process at a time writes a data set.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import cv2

from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.data.parallel import default_workers, parallel_map
from instance_crf.data.preparation.conversion import (
    remove_folder,
    replace_folder,
    settle_replacement,
    write_taxonomy,
)
from instance_crf.data.synthetic import TAXONOMY, SyntheticPeople
from instance_crf.files import (
    atomic_path,
    lock_folder,
    read_json,
    remove_temporaries,
    write_json,
    write_text,
)
from instance_crf.program import run_program

VERSION = 2
"""Of the pictures: raise it when the same parameters would draw others."""

FOLDERS = {"people": "synthetic_people", "crowd": "synthetic_crowd"}
DIFFICULTY = {"people": "moderate", "crowd": "hard"}
SPLIT_FOLDERS = {"train": "Training", "val": "Validation"}
KINDS = ("Images", "Category_ids", "Human_ids")
DEFAULT_COUNTS = {"people": (3000, 150), "crowd": (3000, 150)}
"""Pictures for training and for validation."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    options = _parse(arguments)
    names = list(FOLDERS) if options.split == "all" else [options.split]
    for name in names:
        default_train, default_val = DEFAULT_COUNTS[name]
        parameters = dataset_parameters(
            name,
            train=default_train if options.train is None else options.train,
            val=default_val if options.val is None else options.val,
            seed=options.seed,
            size=(options.size, options.size),
        )
        prepare(options.root / FOLDERS[name], parameters, options.workers, options.force)


def dataset_parameters(
    name: str, *, train: int, val: int, seed: int = 0, size: tuple[int, int] = (160, 160)
) -> dict:
    """What a data set on disk is made from, as `dataset.json` keeps it.

    Training draws from the even seed `2 * seed`, validation from the odd one after it: no seed
    given here can make one's people reappear in the other.
    """
    return {
        "name": FOLDERS[name],
        "version": VERSION,
        "difficulty": DIFFICULTY[name],
        "size": list(size),
        "seed": seed,
        "parts": list(TAXONOMY.part_names),
        "splits": {
            "train": {"pictures": train, "picture_seed": 2 * seed},
            "val": {"pictures": val, "picture_seed": 2 * seed + 1},
        },
    }


def prepare(root: Path, parameters: dict, workers: int | None = None, force: bool = False) -> None:
    """Write the data set `root`, or find it complete.

    Raises:
        FileExistsError: `root` holds something else, or lost files, and `force` is not set.
        InUseError: another process writes it.
        OSError: a file cannot be written; names it. What is done is kept.
    """
    if not force and root.exists() and not os.access(root.parent, os.W_OK):  # nor can it be locked
        _check_complete(root, parameters)
        return
    with lock_folder(root, f"preparing {root}", beside=True):
        # The same name on every run: one that was cut off goes on from here.
        unfinished = root.with_name(f".{root.name}.unfinished")
        remove_temporaries(unfinished)
        settle_replacement(unfinished, root, whole=_read_parameters(unfinished) == parameters)
        if root.exists() and not force:
            _check_complete(root, parameters)
            if unfinished.exists():
                print(f"{unfinished} is left of an interrupted --force, which goes on from it.")
            return
        if _read_parameters(unfinished) != parameters:
            if unfinished.exists():
                remove_folder(unfinished)
            write_json(unfinished / "dataset.json", parameters)
        for split, folder in SPLIT_FOLDERS.items():
            write_split(unfinished / folder, split, parameters, workers)
        write_taxonomy(unfinished, TAXONOMY)
        replace_folder(unfinished, root)
    counts = ", ".join(f"{s['pictures']} {name}" for name, s in parameters["splits"].items())
    print(f"{root}: {counts} pictures")


def write_split(folder: Path, split: str, parameters: dict, workers: int | None) -> None:
    """Draw and write the pictures and the id list of one split."""
    count = parameters["splits"][split]["pictures"]
    for name in KINDS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    people = SyntheticPeople(
        parameters["difficulty"],
        tuple(parameters["size"]),
        seed=parameters["splits"][split]["picture_seed"],
    )
    parallel_map(
        partial(write_picture, people, folder),
        range(count),
        description=f"{parameters['name']} {split}",
        workers=workers,
        processes=True,
    )
    ids = "".join(f"{picture_id(index)}\n" for index in range(count))
    write_text(folder / f"{split}_id.txt", ids)


def write_picture(people: SyntheticPeople, folder: Path, index: int) -> None:
    """Write one picture and its two label maps, unless an earlier run has written them."""
    cv2.setNumThreads(1)  # the other cores draw other pictures
    name = f"{picture_id(index)}.png"
    if (folder / "Human_ids" / name).exists():  # written last, and whole or not at all
        return
    sample = people[index]
    _, photo = cv2.imencode(".png", sample.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with atomic_path(folder / "Images" / name) as temporary:
        temporary.write_bytes(photo)
    write_part_map(folder / "Category_ids" / name, sample.part_map)
    write_object_map(folder / "Human_ids" / name, sample.object_map)


def picture_id(index: int) -> str:
    """The 7-digit id of picture `index`, from 0000001."""
    return f"{index + 1:07d}"


def _read_parameters(root: Path) -> dict | None:
    """What `root/dataset.json` says, None if there is none to be read."""
    try:
        return read_json(root / "dataset.json", dict)
    except (OSError, ValueError):
        return None


def _check_complete(root: Path, parameters: dict) -> None:
    """Raise FileExistsError unless `root` has the parameters, and the files."""
    if _read_parameters(root) != parameters:
        raise FileExistsError(_refusal(root, parameters))
    _check_files(root, parameters)
    print(f"{root}: already complete")


def _check_files(root: Path, parameters: dict) -> None:
    """Raise FileExistsError where files of a data set that was complete have gone."""
    for split, folder in SPLIT_FOLDERS.items():
        for kind in KINDS:
            path = root / folder / kind
            found = sum(1 for file in path.glob("*.png") if not file.name.startswith("."))
            wanted = parameters["splits"][split]["pictures"]
            if found != wanted:
                raise FileExistsError(
                    f"{path} has {found} files, but {root / 'dataset.json'} says {wanted}. "
                    "Write the data set anew with --force."
                )


def _refusal(root: Path, wanted: dict) -> str:
    found = _read_parameters(root)
    if found is None:
        return (
            f"{root} exists but has no readable dataset.json: not written by this script. "
            "Move it away, choose another --root, or replace it with --force."
        )
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    differences = "; ".join(f"{key} is {found.get(key)}, asked for {wanted[key]}" for key in keys)
    return (
        f"{root} holds a data set of other parameters ({differences}). "
        "Choose another --root, or replace it with --force."
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--root",
        type=lambda text: Path(text).expanduser(),
        default=os.getenv("DETECTRON2_DATASETS", "datasets"),
        help="folder of all data sets; the default is $DETECTRON2_DATASETS, else ./datasets",
    )
    parser.add_argument("--split", choices=[*FOLDERS, "all"], default="people", help="which ones")
    parser.add_argument("--train", type=_at_least(1), help="training pictures")
    parser.add_argument("--val", type=_at_least(1), help="validation pictures")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="another seed: other people")
    parser.add_argument("--size", type=_at_least(32), default=160, help="pixels, width and height")
    parser.add_argument("--workers", type=_at_least(1), default=default_workers(), help="processes")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    return parser.parse_args(arguments)


def _at_least(minimum: int):
    """An argparse type: an integer not below `minimum`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(run_program(main))
