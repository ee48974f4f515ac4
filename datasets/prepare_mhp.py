#!/usr/bin/env python
"""MHP v1 or v2 -> canonical layout.

    python datasets/prepare_mhp.py --version v2 [--source DIR/LV-MHP-v2]

Every person comes as a PNG of its own, and people overlap: the later person (by the number in the
file name) lies on top. In v2 the part is in the red channel. A person of nothing but 255 is left
out. The test split has labels in v1 only; ask for it with ``--splits test``.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from instance_crf.data.datasets.canonical import read_id_list, split_folder
from instance_crf.data.datasets.mhp import MHP_V1_TAXONOMY, MHP_V2_TAXONOMY
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.image_io import image_size
from instance_crf.data.label_io import read_part_map
from instance_crf.data.preparation.conversion import (
    PreparedImage,
    add_arguments,
    merge_person_maps,
    prepare_split,
    require_folder,
)
from instance_crf.files import read_yaml, write_text
from instance_crf.program import run_program
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMIES = {"v1": MHP_V1_TAXONOMY, "v2": MHP_V2_TAXONOMY}
PERSON_FILE = re.compile(r"(?P<image>.+)_(?P<people>\d\d)_(?P<person>\d\d)")


def read_person(path: Path, taxonomy: PartTaxonomy) -> np.ndarray:
    """(H, W) uint8 part ids of one person; the red channel where there are three.

    Raises:
        ValueError: unreadable, or a part id that MHP does not have.
    """
    try:
        with Image.open(path) as image:
            colour = image.mode in ("RGB", "RGBA")
            person = np.asarray(image)[..., 0] if colour else read_part_map(path)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"Cannot read {path}: {error}. Copy it again.") from error
    unknown = person[(person > taxonomy.num_parts) & (person != 255)]
    if unknown.size:
        raise ValueError(
            f"{path} has part id {unknown.max()}; MHP has parts 1..{taxonomy.num_parts}. "
            "Is it the right version (--version)?"
        )
    return person


def list_people(folder: Path) -> dict[str, list[Path]]:
    """{image id: the files of its people in order}.

    Raises:
        ValueError: the files of an image are not as many as their names say.
    """
    files: dict[str, list[tuple[int, int, Path]]] = defaultdict(list)
    for path in sorted(folder.glob("*.png")):
        match = PERSON_FILE.fullmatch(path.stem)
        if match is None:
            raise ValueError(f"{path} is not named <image>_<people>_<person>.png.")
        files[match["image"]].append((int(match["person"]), int(match["people"]), path))
    for image_id, found in files.items():
        if {people for _, people, _ in found} != {len(found)}:
            names = ", ".join(path.name for _, _, path in found)
            raise ValueError(
                f"{folder}: image {image_id} has {len(found)} files, but their names say otherwise "
                f"({names})."
            )
    return {i: [path for _, _, path in sorted(found)] for i, found in files.items()}


def convert(
    image_id: str, photos: Path, people: dict[str, list[Path]], version: str, lut: np.ndarray
) -> PreparedImage:
    """One image from the files of its people; ``lut`` (256,) maps MHP's ids to those written."""
    if image_id not in people:
        raise ValueError("no person file.")
    photo = photos / f"{image_id}.jpg"
    shape = image_size(photo)
    maps = []
    for path in people[image_id]:
        maps.append(read_person(path, TAXONOMIES[version]))
        if maps[-1].shape != shape:
            raise ValueError(
                f"{path} is {maps[-1].shape[1]}x{maps[-1].shape[0]} pixels, but {photo} is "
                f"{shape[1]}x{shape[0]}."
            )
    parts, objects = merge_person_maps([lut[person] for person in maps], shape)
    return PreparedImage(photo, parts, objects)


def photo_of(image_id: str, photos: Path) -> Path:
    """An unlabelled image."""
    return photos / f"{image_id}.jpg"


def locate(source: Path, version: str, split: str) -> tuple[Path, Path, list[str]]:
    """The folders of photos and of people, and the ids of a split."""
    if version == "v1":
        names = read_id_list(source / f"{split}_list.txt")
        return source / "images", source / "annotations", [Path(name).stem for name in names]
    listed = "test_all" if split == "test" else split
    names = read_id_list(source / "list" / f"{listed}.txt")
    folder = source / split
    return folder / "images", folder / "parsing_annos", [Path(name).stem for name in names]


def read_groups(path: Path) -> dict[str, list]:
    """What a YAML of --merge says: new part -> the parts it is made of.

    Raises:
        OSError, ValueError: see `read_yaml`; not names and lists; names the file.
    """
    groups = read_yaml(path)
    if not isinstance(groups, dict) or not all(isinstance(g, list) for g in groups.values()):
        raise ValueError(f"{path}: expected lines 'new part: [part, part, ...]'.")
    return {str(name): [str(part) for part in group] for name, group in groups.items()}


def write_part_yaml(root: Path, taxonomy: PartTaxonomy) -> None:
    """Describe the splits of ``root`` for DATASETS.PART_YAML."""
    folders = {split: split_folder(root, split) for split in ("train", "val", "test")}
    names = taxonomy.part_names
    content = {
        "name": root.name,
        "parts": list(names),
        "flip_pairs": [[names[a - 1], names[b - 1]] for a, b in taxonomy.flip_pairs],
        "splits": {
            split: {
                "images": f"{folder.name}/Images",
                "parts": f"{folder.name}/Category_ids",
                "objects": f"{folder.name}/Human_ids",
                "list": f"{folder.name}/{split}_id.txt",
            }
            for split, folder in folders.items()
            if (folder / "Category_ids").is_dir()
        },
    }
    path = root / f"{root.name}.yaml"
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    print(f"Train with DATASETS.PART_YAML {path}")


def main(argv: list[str] | None = None) -> None:
    root = Path(dataset_root())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", choices=tuple(TAXONOMIES), default="v2")
    parser.add_argument("--source", type=Path, help="default: <data sets>/LV-MHP-<version>")
    parser.add_argument("--merge", type=Path, metavar="YAML", help="make coarser parts")
    parser.add_argument("--rest", choices=("background", "ignore", "error"), default="background")
    add_arguments(parser, ("train", "val"))
    args = parser.parse_args(argv)
    if args.merge and not args.output:
        parser.error("--merge needs --output: a folder of its own")
    taxonomy, lut = TAXONOMIES[args.version], np.arange(256, dtype=np.uint8)
    settings: dict = {"version": args.version}
    if args.merge:
        groups = read_groups(args.merge)
        try:
            taxonomy, lut = taxonomy.merge(groups, rest=args.rest)
        except ValueError as error:
            raise ValueError(f"{args.merge}: {error}") from None
        settings |= {"rest": args.rest, **{f"part {name!r}": g for name, g in groups.items()}}
    output = args.output or root / f"mhp_{args.version}"
    source = args.source or root / f"LV-MHP-{args.version}"
    require_folder(source, f"MHP {args.version} as released (--source)")
    for split in args.splits:
        photos, annotations, ids = locate(source, args.version, split)
        require_folder(photos, "the photos")
        step = partial(photo_of, photos=photos)
        labelled = split != "test" or annotations.is_dir()
        if labelled:
            people = list_people(require_folder(annotations, "the people's part maps"))
            step = partial(convert, photos=photos, people=people, version=args.version, lut=lut)
        prepare_split(
            root=output,
            split=split,
            ids=ids,
            convert=step,
            taxonomy=taxonomy,
            settings={"source": source, "labelled": labelled, **settings},
            force=args.force,
            copy=args.copy,
            workers=args.workers,
        )
    if args.merge:
        write_part_yaml(output, taxonomy)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
