#!/usr/bin/env python
"""Draw the ground truth of a data set: boxes, part colours, object outlines.

    python tools/visualize_data.py --dataset synthetic_people_val --output output/pictures
    python tools/visualize_data.py --dataset cihp_train --legend
    python tools/visualize_data.py --config-file configs/SyntheticPeople/parts.yaml \\
        --source dataloader --output output/pictures --num 20

``--source dataloader`` draws what training sees, after augmentation. ``--legend`` lists the parts:
whose they are, what they become in a mirrored picture, what they were merged from. It needs no
files, and goes into the pictures, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import numpy as np
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_train_loader,
    detection_utils,
)
from tqdm import tqdm

from instance_crf.config import check_datasets, load_config
from instance_crf.data.datasets.register import add_import_argument, import_modules, taxonomy_of
from instance_crf.data.image_io import read_image
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.files import check_writable
from instance_crf.program import run_program
from instance_crf.results.files import write_picture
from instance_crf.taxonomies.listing import format_table
from instance_crf.taxonomies.schema import IGNORE_LABEL
from instance_crf.visualization import (
    draw_detections,
    draw_part_instances,
    draw_record,
    make_sheet,
)

TITLES = ("image + boxes", "part instances")
Pictures = tuple[str, list[np.ndarray]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="name of a registered data set")
    add_import_argument(parser)
    parser.add_argument("--config-file", help="draw this config's DATASETS.TRAIN instead")
    parser.add_argument(
        "--source",
        choices=["annotation", "dataloader"],
        default="annotation",
        help="the files, or what training sees (needs --config-file)",
    )
    parser.add_argument("--output", type=Path, help="folder for the pictures")
    parser.add_argument("--num", type=int, default=10, help="how many images (default 10)")
    parser.add_argument("--legend", action="store_true", help="list the parts, names and colours")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE ...")
    args = parser.parse_args(argv)
    if (args.dataset is None) == (args.config_file is None):
        parser.error("give either --dataset or --config-file")
    if args.source == "dataloader" and args.config_file is None:
        parser.error("--source dataloader needs --config-file")
    if args.output is None and not args.legend:
        parser.error("give --output for pictures, or --legend")
    if args.num < 1:
        parser.error(f"--num is {args.num}; it must be at least 1")
    return args


def legend_text(name: str) -> str:
    """The parts of a registered data set as a table; reads no file."""
    taxonomy = taxonomy_of(name)
    merged = MetadataCatalog.get(name).get("merged_from") or {}
    titles = ("id", "part", "of", "mirrored", "colour", "merged from")[: 6 if merged else 5]
    rows = [titles, ("0", "background", "", "", "", "")[: len(titles)]]
    for part, part_name, owner, color, mirror, _ in taxonomy.legend():
        mirrored = taxonomy.part_names[mirror - 1] if mirror != part else ""
        cells = (str(part), part_name, owner, mirrored, "#{:02x}{:02x}{:02x}".format(*color))
        sources = (", ".join(merged.get(part_name, ())),) if merged else ()
        rows.append((*cells, *sources))
    return format_table(rows)


def pictures_of_records(names: tuple[str, ...]) -> Iterator[Pictures]:
    """(file stem, pictures) of every record, from its files."""
    for name in names:
        taxonomy = taxonomy_of(name)
        for record in DatasetCatalog.get(name):
            image = read_image(record["file_name"])
            annotations = record.get("annotations", [])
            boxes = draw_detections(
                image,
                np.array([a["bbox"] for a in annotations]),
                classes=[a["category_id"] for a in annotations],
                taxonomy=taxonomy,
                object_ids=[a["object_id"] for a in annotations],
            )
            labelled = "part_file_name" in record
            truth = [draw_record(record, taxonomy, image=image)] if labelled else []
            yield f"{name}_{Path(record['file_name']).stem}", [boxes, *truth]


def pictures_of_loader(cfg) -> Iterator[Pictures]:
    """(file stem, pictures) of the training loader's images, augmented as in training."""
    taxonomy = taxonomy_of(cfg.DATASETS.TRAIN[0])
    mapper = PartInstanceMapper(cfg, is_train=True)
    loader = build_detection_train_loader(cfg, mapper=mapper, num_workers=0)
    for count, inputs in enumerate(chain.from_iterable(loader)):
        image = inputs["image"].permute(1, 2, 0)
        image = detection_utils.convert_image_to_rgb(image, cfg.INPUT.FORMAT)
        image = np.ascontiguousarray(image, dtype=np.uint8)
        instances = inputs["instances"]
        ids = instances.gt_object_ids.tolist()
        boxes, classes = instances.gt_boxes.tensor.numpy(), instances.gt_classes.tolist()
        parts, objects = inputs["part_seg"].numpy().copy(), inputs["object_seg"].numpy()
        parts[objects < 0] = IGNORE_LABEL  # neither is learned from there
        yield (
            f"{count:04d}_{Path(inputs['file_name']).stem}",
            [
                draw_detections(image, boxes, None, classes, taxonomy, object_ids=ids),
                draw_part_instances(image, parts, objects, taxonomy),
            ],
        )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    instance_crf.register()
    import_modules(args.modules)
    cfg = None if args.config_file is None else load_config(args.config_file, args.opts)
    names = (args.dataset,) if cfg is None else tuple(cfg.DATASETS.TRAIN)
    if not names:
        raise ValueError("DATASETS.TRAIN is empty: there is nothing to draw.")
    legend = None
    if args.legend:
        legend = taxonomy_of(names[0])
        print(legend_text(names[0]))
        if args.output is None:
            return
    check_writable(args.output, folder=True)
    total = args.num
    if cfg is None:
        total = len(DatasetCatalog.get(args.dataset)) if taxonomy_of(args.dataset) else 0
        pictures = pictures_of_records(names)
    else:
        check_datasets(cfg)
        from_files = args.source == "annotation"
        pictures = pictures_of_records(names) if from_files else pictures_of_loader(cfg)
    written = 0
    for stem, row in tqdm(islice(pictures, args.num), total=min(args.num, total), unit="image"):
        sheet = make_sheet([row], TITLES[: len(row)], legend=legend)
        write_picture(args.output / f"{stem}.png", sheet)
        written += 1
    print(f"{written} pictures in {args.output}")


if __name__ == "__main__":
    sys.exit(run_program(main))
