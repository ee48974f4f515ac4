#!/usr/bin/env python
"""Pascal-Person-Part with instances: PASCAL-Part's .mat files and VOC 2010 -> canonical layout.

    python datasets/prepare_pascal_person_part.py
        [--annotations DIR/Annotations_Part] [--voc DIR/VOC2010] [--lists DIR] [--semantic DIR]
    python datasets/prepare_pascal_person_part.py --instances DIR/PASCAL-Person-Part

The second form takes the copy with ready-made instance masks (Training/, Testing/). Its classes
are in another order, which is recognised from the pictures and mapped.

The lists (1716 training and 1817 test images) come with the semantic-only release; unpack it in the
data set folder. Without them, VOC's own train/val lists are used: not the benchmark's split.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from instance_crf.data.datasets.canonical import read_id_list
from instance_crf.data.datasets.pascal_part import PERSON_24_TAXONOMY, fine_part_name
from instance_crf.data.datasets.pascal_person_part import (
    OTHER_ORDER_TO_OURS,
    PERSON_PART_GROUPS,
    PERSON_PART_TAXONOMY,
    part_heights,
    recognise_class_order,
)
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.label_io import read_object_map, read_part_map
from instance_crf.data.parallel import parallel_map
from instance_crf.data.preparation.conversion import (
    PreparationError,
    PreparedImage,
    add_arguments,
    prepare_split,
    require_folder,
)
from instance_crf.data.preparation.pascal_part_mat import part_and_object_maps, read_annotation
from instance_crf.program import run_program

_, LUT_24_TO_6 = PERSON_24_TAXONOMY.merge(PERSON_PART_GROUPS)
COPY_FOLDERS = {"train": "Training", "val": "Testing"}


def six_part_id(object_class: str, part: str) -> int:
    """Id 1..6 of a person part as PASCAL-Part names it."""
    return int(LUT_24_TO_6[PERSON_24_TAXONOMY.part_id(fine_part_name(object_class, part))])


def convert(image_id: str, annotations: Path, photos: Path, unannotated: str) -> PreparedImage:
    """One image from its .mat file."""
    path = annotations / f"{image_id}.mat"
    everything = read_annotation(path)
    people = [item for item in everything if item.name == "person"]
    photo = photos / f"{image_id}.jpg"
    if not everything:
        raise ValueError(f"{path} has no objects.")
    if not people:
        empty = np.zeros(everything[0].mask.shape, dtype=np.uint8)
        return PreparedImage(photo, empty, empty)
    try:
        parts, objects, _ = part_and_object_maps(people, six_part_id, unannotated=unannotated)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return PreparedImage(photo, parts, objects)


def convert_copy(image_id: str, folder: Path, lut: np.ndarray) -> PreparedImage:
    """One image of the copy with instance masks."""
    parts = lut[read_part_map(folder / "Category_ids" / f"{image_id}.png")]
    objects = read_object_map(folder / "Human_ids" / f"{image_id}.png")
    return PreparedImage(folder / "Images" / f"{image_id}.jpg", parts, objects)


def split_ids(split: str, lists: Path, voc: Path, annotations: Path) -> list[str]:
    """The image ids of a split: the benchmark's list, or VOC's images that show people's parts."""
    path = lists / f"{split}_id.txt"
    if path.is_file():
        return read_id_list(path)
    print(
        f"warning: {path} does not exist. Using VOC's own {split} list, restricted to images with "
        "annotated people: results are not comparable with published ones."
    )
    ids = read_id_list(voc / "ImageSets" / "Main" / f"{split}.txt")
    ids = [i for i in ids if (annotations / f"{i}.mat").is_file()]
    keep = parallel_map(
        partial(shows_parts, annotations=annotations),
        ids,
        description="Looking for people",
        processes=True,
    )
    return [i for i, kept in zip(ids, keep, strict=True) if kept]


def shows_parts(image_id: str, annotations: Path) -> bool:
    """Whether somebody in the image has annotated parts."""
    objects = read_annotation(annotations / f"{image_id}.mat")
    return any(item.name == "person" and item.parts for item in objects)


def check_semantic(ids: list[str], semantic: Path, annotations: Path) -> None:
    """Compare with the semantic-only release, if there: same classes in the same order?

    Raises:
        PreparationError: the release is in the other order, or disagrees altogether.
    """
    sample = [i for i in ids if (semantic / f"{i}.png").is_file()][:50]
    if not sample:
        return
    lut = np.zeros(256, dtype=np.uint8)
    lut[list(OTHER_ORDER_TO_OURS)] = list(OTHER_ORDER_TO_OURS.values())
    same = swapped = total = 0
    for image_id in sample:
        theirs = read_part_map(semantic / f"{image_id}.png")
        try:
            ours = convert(image_id, annotations, annotations, "background").parts
        except (OSError, ValueError):
            continue  # reported with all other broken files when the split is made
        if ours.shape != theirs.shape:
            raise PreparationError(
                f"{semantic / image_id}.png is {theirs.shape} (height, width), but the masks of "
                f"{annotations / image_id}.mat are {ours.shape}."
            )
        both = (ours > 0) & (theirs > 0) & (theirs != 255)
        total += int(both.sum())
        same += int((ours == theirs)[both].sum())
        swapped += int((ours == lut[theirs])[both].sum())
    if total and same < 0.8 * total:
        order = "in the other class order" if swapped >= 0.8 * total else "different"
        raise PreparationError(
            f"The part maps in {semantic} are {order}: of {total} common pixels {same} agree with "
            f"the .mat files as they are and {swapped} after reordering. Remove that folder (only "
            "the lists are needed), or get the original release."
        )
    print(f"{semantic}: {same / max(total, 1):.1%} of the common part pixels agree.")


def copy_lut(folder: Path, ids: list[str], order: str) -> np.ndarray:
    """(256,) table of ids in the copy -> ours, by the class order given or recognised."""
    if order == "auto":
        heights = parallel_map(
            partial(heights_of, folder=folder), ids[:500], description="Recognising the class order"
        )
        order = recognise_class_order(h for image in heights for h in image)
        print(f"{folder}: class order {order!r}.")
    if order == "unknown":
        raise PreparationError(
            f"Cannot tell the class order of {folder} from its pictures. Give --class-order ours "
            "(1 head .. 6 lower legs) or other (1 lower arms, 2 head .. 6 upper arms)."
        )
    lut = np.arange(256, dtype=np.uint8)
    if order == "other":
        lut[list(OTHER_ORDER_TO_OURS)] = list(OTHER_ORDER_TO_OURS.values())
    return lut


def heights_of(image_id: str, folder: Path) -> list[tuple[int, float]]:
    """`part_heights` of one image of the copy."""
    return part_heights(
        read_part_map(folder / "Category_ids" / f"{image_id}.png"),
        read_object_map(folder / "Human_ids" / f"{image_id}.png"),
    )


def main(argv: list[str] | None = None) -> None:
    root = Path(dataset_root())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, default=root / "Annotations_Part")
    parser.add_argument("--voc", type=Path, default=root / "VOC2010")
    release = root / "pascal_person_part"
    parser.add_argument("--lists", type=Path, default=release / "pascal_person_part_trainval_list")
    parser.add_argument("--semantic", type=Path, default=release / "pascal_person_part_gt")
    parser.add_argument("--instances", type=Path, help="the copy with instance masks")
    parser.add_argument("--class-order", choices=("auto", "ours", "other"), default="auto")
    parser.add_argument("--unannotated", choices=("ignore", "background"), default="ignore")
    add_arguments(parser, ("train", "val"))
    args = parser.parse_args(argv)
    for split in args.splits:
        if args.instances:
            folder = require_folder(
                args.instances / COPY_FOLDERS.get(split, split), "the copy's split"
            )
            labels = require_folder(folder / "Category_ids", "the part maps")
            ids = sorted(path.stem for path in labels.glob("*.png"))
            lut = copy_lut(folder, ids, args.class_order)
            step = partial(convert_copy, folder=folder, lut=lut)
            settings = {"instances": args.instances, "lut": lut[:7].tolist()}
        else:
            require_folder(args.annotations, "PASCAL-Part's annotations (--annotations)")
            photos = require_folder(args.voc / "JPEGImages", "VOC 2010's photos (--voc)")
            ids = split_ids(split, args.lists, args.voc, args.annotations)
            check_semantic(ids, args.semantic, args.annotations)
            step = partial(
                convert,
                annotations=args.annotations,
                photos=photos,
                unannotated=args.unannotated,
            )
            settings = {
                "annotations": args.annotations,
                "voc": args.voc,
                "unannotated": args.unannotated,
            }
        prepare_split(
            root=args.output or release,
            split=split,
            ids=ids,
            convert=step,
            taxonomy=PERSON_PART_TAXONOMY,
            settings=settings,
            force=args.force,
            copy=args.copy,
            workers=args.workers,
        )


if __name__ == "__main__":
    raise SystemExit(run_program(main))
