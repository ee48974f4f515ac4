#!/usr/bin/env python
"""PASCAL-Part, all twenty object classes -> canonical layout.

    python datasets/prepare_pascal_part.py [--level coarse|fine]
        [--annotations DIR/Annotations_Part] [--voc DIR/VOC2010]

``coarse`` (72 parts) goes to pascal_part/, ``fine`` (197 parts) to pascal_part_fine/. The splits
are those of VOC 2010's ImageSets/Main.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from instance_crf.data.datasets.canonical import read_id_list
from instance_crf.data.datasets.pascal_part import (
    COARSE_LUT,
    COARSE_TAXONOMY,
    FINE_TAXONOMY,
    PASCAL_CLASSES,
    fine_part_name,
)
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.preparation.conversion import (
    PreparedImage,
    add_arguments,
    prepare_split,
    require_folder,
)
from instance_crf.data.preparation.pascal_part_mat import part_and_object_maps, read_annotation
from instance_crf.program import run_program

LEVELS = {
    "coarse": ("pascal_part", COARSE_TAXONOMY, COARSE_LUT),
    "fine": ("pascal_part_fine", FINE_TAXONOMY, np.arange(256, dtype=np.uint8)),
}
WHOLE = [name for name in PASCAL_CLASSES if name in FINE_TAXONOMY.part_names]


def fine_part_id(object_class: str, part: str) -> int:
    """Id in the fine taxonomy of a part as PASCAL-Part names it."""
    name = part if part == object_class in WHOLE else fine_part_name(object_class, part)
    return FINE_TAXONOMY.part_id(name)


def convert(
    image_id: str, annotations: Path, photos: Path, unannotated: str, lut: np.ndarray
) -> PreparedImage:
    """One image from its .mat file."""
    path = annotations / f"{image_id}.mat"
    objects = read_annotation(path)
    if not objects:
        raise ValueError(f"{path} has no objects.")
    try:
        parts, ids, classes = part_and_object_maps(
            objects, fine_part_id, whole=WHOLE, unannotated=unannotated
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return PreparedImage(photos / f"{image_id}.jpg", lut[parts], ids, classes)


def main(argv: list[str] | None = None) -> None:
    root = Path(dataset_root())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--level", choices=tuple(LEVELS), default="coarse")
    parser.add_argument("--annotations", type=Path, default=root / "Annotations_Part")
    parser.add_argument("--voc", type=Path, default=root / "VOC2010")
    parser.add_argument("--unannotated", choices=("ignore", "background"), default="ignore")
    add_arguments(parser, ("train", "val"))
    args = parser.parse_args(argv)
    require_folder(args.annotations, "PASCAL-Part's annotations (--annotations)")
    photos = require_folder(args.voc / "JPEGImages", "VOC 2010's photos (--voc)")
    folder, taxonomy, lut = LEVELS[args.level]
    for split in args.splits:
        prepare_split(
            root=args.output or root / folder,
            split=split,
            ids=read_id_list(args.voc / "ImageSets" / "Main" / f"{split}.txt"),
            convert=partial(
                convert,
                annotations=args.annotations,
                photos=photos,
                unannotated=args.unannotated,
                lut=lut,
            ),
            taxonomy=taxonomy,
            settings={
                "annotations": args.annotations,
                "voc": args.voc,
                "level": args.level,
                "unannotated": args.unannotated,
            },
            force=args.force,
            copy=args.copy,
            workers=args.workers,
        )


if __name__ == "__main__":
    raise SystemExit(run_program(main))
