#!/usr/bin/env python
"""PASCAL VOC 2012 -> canonical layout: for pre-training, and for the paper's Table 2.

    python datasets/prepare_voc.py [--voc DIR/VOC2012] [--exclude LIST ...]

* voc2012/ (train, val): the 20 classes and their objects, from SegmentationClass and
  SegmentationObject.
* voc2012_person/ (val): the people of every val image; their parts are unknown and ignored.
* VOC2012/ImageSets/Main/trainval_without_tests.txt: images whose boxes a detector may learn from,
  without VOC's val images and those of the lists in ``--exclude`` (default: the validation list of
  Pascal-Person-Part, which must be there).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from instance_crf.data.datasets.canonical import read_id_list
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.datasets.voc import BOXES_LIST, VOC_TAXONOMY
from instance_crf.data.label_io import read_object_map, read_part_map
from instance_crf.data.preparation.conversion import (
    PreparationError,
    PreparedImage,
    add_arguments,
    prepare_split,
    require_folder,
)
from instance_crf.files import write_text
from instance_crf.program import run_program

PERSON = VOC_TAXONOMY.part_id("person")


def convert(image_id: str, voc: Path, people_only: bool) -> PreparedImage:
    """One image from its class and object maps."""
    path = voc / "SegmentationClass" / f"{image_id}.png"
    classes = read_part_map(path)
    objects = read_object_map(voc / "SegmentationObject" / f"{image_id}.png")
    unknown = classes[(classes > VOC_TAXONOMY.num_parts) & (classes != 255)]
    if unknown.size:
        raise ValueError(f"{path} has class id {unknown.max()}; VOC has 1..20, 255 is void.")
    if classes.shape != objects.shape:
        raise ValueError(
            f"{path} is {classes.shape} (height, width), the object map {objects.shape}."
        )
    photo = voc / "JPEGImages" / f"{image_id}.jpg"
    void = (classes == 255) | (objects < 0)
    if people_only:
        person = classes == PERSON
        objects = np.where(person, objects, 0)
        classes = np.where(person, 255, 0)
    classes, objects = classes.copy(), objects.copy()
    classes[void], objects[void] = 255, -1
    return PreparedImage(photo, classes, objects)


def check_lists(exclude: list[Path]) -> None:
    """PreparationError if a list of test images is missing."""
    missing = [path for path in exclude if not path.is_file()]
    if missing:
        raise PreparationError(
            f"{missing[0]} does not exist, so the test images cannot be left out of the detector's "
            "training. Prepare Pascal-Person-Part first, or name lists with --exclude."
        )


def write_boxes_list(voc: Path, exclude: list[Path], force: bool) -> None:
    """The list of images to learn boxes from; see the top of this file."""
    target = voc / BOXES_LIST
    tests = set(read_id_list(voc / "ImageSets" / "Segmentation" / "val.txt"))
    for path in exclude:
        tests |= set(read_id_list(path))
    ids = [i for i in read_id_list(voc / "ImageSets" / "Main" / "trainval.txt") if i not in tests]
    if target.exists() and not force:
        found = read_id_list(target)
        if found != ids:
            raise PreparationError(
                f"{target} lists {len(found)} images, not the {len(ids)} that remain without those "
                "of --exclude; --force writes it again."
            )
        print(f"{target} is there already; --force writes it again.")
        return
    write_text(target, "".join(f"{i}\n" for i in ids))
    print(f"{target}: {len(ids)} images.")


def main(argv: list[str] | None = None) -> None:
    root = Path(dataset_root())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voc", type=Path, default=root / "VOC2012")
    lists = root / "pascal_person_part" / "Validation" / "val_id.txt"
    parser.add_argument("--exclude", type=Path, nargs="*", default=[lists])
    add_arguments(parser, ("train", "val"))
    args = parser.parse_args(argv)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        require_folder(args.voc / folder, "part of VOC 2012 (--voc)")
    if "train" in args.splits:
        check_lists(args.exclude)
    output = args.output or root
    tasks = [("voc2012", split, VOC_TAXONOMY, False) for split in args.splits]
    if "val" in args.splits:
        tasks.append(("voc2012_person", "val", PERSON_PART_TAXONOMY, True))
    for folder, split, taxonomy, people_only in tasks:
        prepare_split(
            root=output / folder,
            split=split,
            ids=read_id_list(args.voc / "ImageSets" / "Segmentation" / f"{split}.txt"),
            convert=partial(convert, voc=args.voc, people_only=people_only),
            taxonomy=taxonomy,
            settings={"voc": args.voc},
            force=args.force,
            copy=args.copy,
            workers=args.workers,
        )
    if "train" in args.splits:
        write_boxes_list(args.voc, args.exclude, args.force)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
