#!/usr/bin/env python
"""LIP (one person an image) -> canonical layout.

    python datasets/prepare_lip.py [--source DIR/LIP]

Expects ``{train,val}_images/*.jpg``, ``{train,val}_segmentations/*.png``, ``{train,val}_id.txt``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from instance_crf.data.datasets.canonical import read_id_list
from instance_crf.data.datasets.cihp import LIP_TAXONOMY
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.label_io import read_part_map
from instance_crf.data.preparation.conversion import (
    PreparedImage,
    add_arguments,
    prepare_split,
    require_folder,
)
from instance_crf.program import run_program


def convert(image_id: str, photos: Path, labels: Path) -> PreparedImage:
    """One image: whoever has parts in it is person 1."""
    path = labels / f"{image_id}.png"
    parts = read_part_map(path)
    unknown = parts[(parts > LIP_TAXONOMY.num_parts) & (parts != 255)]
    if unknown.size:
        raise ValueError(
            f"{path} has part id {unknown.max()}; LIP has 1..{LIP_TAXONOMY.num_parts}."
        )
    objects = np.where(parts == 255, -1, (parts > 0).astype(np.int32))
    return PreparedImage(photos / f"{image_id}.jpg", parts, objects)


def main(argv: list[str] | None = None) -> None:
    root = Path(dataset_root())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=root / "LIP")
    add_arguments(parser, ("train", "val"))
    args = parser.parse_args(argv)
    require_folder(args.source, "LIP as released (--source)")
    for split in args.splits:
        photos = require_folder(args.source / f"{split}_images", "the photos")
        labels = require_folder(args.source / f"{split}_segmentations", "the part maps")
        prepare_split(
            root=args.output or root / "lip",
            split=split,
            ids=read_id_list(args.source / f"{split}_id.txt"),
            convert=partial(convert, photos=photos, labels=labels),
            taxonomy=LIP_TAXONOMY,
            settings={"source": args.source},
            force=args.force,
            copy=args.copy,
            workers=args.workers,
        )


if __name__ == "__main__":
    raise SystemExit(run_program(main))
