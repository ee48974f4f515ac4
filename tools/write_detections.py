#!/usr/bin/env python
"""Write the boxes of a trained detector, of the ground truth, or of another file, to a COCO results
file.

    python tools/write_detections.py --config-file output/demo/config.yaml \\
        --dataset synthetic_people_val --output output/boxes.json \\
        MODEL.WEIGHTS output/demo/model_final.pth
    python tools/write_detections.py --from-truth --jitter 0.1 \\
        --dataset synthetic_people_train --output output/jittered.json

A model takes them with ``MODEL.INSTANCE_CRF.DETECTIONS.SOURCE record`` and
``DATASETS.DETECTIONS_TEST`` or ``DETECTIONS_TRAIN``. ``--box-scale`` and ``--false-boxes`` disturb
them: see what a labelling does with bad boxes, and with false ones. Any config with a two-stage
detector of Detectron2's will do; it need not have been trained on the data set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from tqdm import tqdm

from instance_crf.checkpoint import load_weights
from instance_crf.config import load_config
from instance_crf.data.augmentation import build_augmentations
from instance_crf.data.datasets.register import taxonomy_of
from instance_crf.data.detections import results_of
from instance_crf.data.mapper import PartInstanceMapper, detections_of_file
from instance_crf.data.parallel import end_loading_with_parent
from instance_crf.files import check_writable, write_json
from instance_crf.modeling.detections import jitter_boxes
from instance_crf.modeling.detector import BoxDetector
from instance_crf.modeling.disturbance import disturb, disturb_boxes, generator_of
from instance_crf.program import run_program
from instance_crf.taxonomies.schema import PartTaxonomy

Detect = Callable[[list[dict]], list[Instances]]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", nargs="+", default=[], help="one or several, and keys")
    parser.add_argument("--dataset", required=True, help="name of a registered data set")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file")
    parser.add_argument("--masks", action="store_true", help="with masks (MODEL.MASK_ON)")
    parser.add_argument(
        "--score-thresh", type=float, default=0.05, help="least score of a box (default 0.05)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from-truth", action="store_true", help="the ground truth's, score 1")
    source.add_argument("--from-file", type=Path, help="those of a COCO results file, to disturb")
    parser.add_argument(
        "--jitter",
        type=float,
        default=0.0,
        help="move and scale boxes of the ground truth by up to this fraction of their size",
    )
    parser.add_argument(
        "--box-scale", type=float, default=1.0, help="scale boxes about their centre, e.g. 0.75"
    )
    parser.add_argument(
        "--false-boxes", type=float, default=0.0, help="add so many times as many, e.g. 0.5"
    )
    parser.add_argument("--seed", type=int, default=0, help="of jitter and false boxes")
    parser.add_argument("opts", nargs="*", default=[], help="config overrides, KEY VALUE ...")
    args = parser.parse_intermixed_args(argv)
    args.given = args.from_truth or args.from_file is not None
    if not args.config_file and not args.given:
        parser.error("give --config-file, --from-truth or --from-file")
    if args.from_file and args.masks:
        parser.error("masks of a file are left out: they belong to its own boxes")
    if args.jitter and not args.from_truth:
        parser.error("--jitter is for --from-truth")
    if not 0 <= args.jitter <= 0.5:
        parser.error(f"--jitter is {args.jitter}; it is in 0..0.5")
    if not args.box_scale > 0 or not args.false_boxes >= 0:
        parser.error(f"--box-scale is {args.box_scale} and --false-boxes {args.false_boxes}")
    if args.from_truth and args.masks and (args.box_scale != 1 or args.false_boxes):
        parser.error("the ground truth has no masks of boxes that are disturbed: leave --masks out")
    return args


def read_config(args: argparse.Namespace) -> CfgNode | None:
    """The config, of which the detector alone is needed; None without."""
    if not args.config_file:
        return None
    first, *rest = args.config_file
    opts = ["MODEL.INSTANCE_CRF.ENABLED", "False", "MODEL.MASK_ON", str(args.masks)]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(args.score_thresh)]
    opts += ["DATASETS.TEST", f"({args.dataset!r},)"]  # which a detector without data follows
    return load_config(first, [*rest, *args.opts, *opts])


def class_names(cfg: CfgNode | None, taxonomy: PartTaxonomy) -> list[str]:
    """The classes of the detector, whose number, from 1, is the category id."""
    if cfg is None:
        return list(taxonomy.object_names)
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    return list(cfg.MODEL.DETECTOR.CLASSES) or list(taxonomy_of(names[0]).object_names)


def category_ids(names: Sequence[str], taxonomy: PartTaxonomy, dataset: str) -> list[int]:
    """The category id of each object class of the data set.

    Raises:
        ValueError: the detector does not know the class.
    """
    for name in taxonomy.object_names:
        if name not in names:
            raise ValueError(
                f"{dataset!r} has the object class {name!r}, which is not among the detector's: "
                f"{', '.join(names)}. MODEL.DETECTOR.CLASSES gives them other names."
            )
    return [names.index(name) + 1 for name in taxonomy.object_names]


def given(args: argparse.Namespace) -> Detect:
    """A function: the mapper's dicts -> their detections, or their objects as such, disturbed."""

    def detect(batch: list[dict]) -> list[Instances]:
        return [of_picture(inputs, generator_of(inputs, args.seed)) for inputs in batch]

    def of_picture(inputs: dict, random: torch.Generator) -> Instances:
        found = truth(inputs["instances"], random) if args.from_truth else inputs["detections"]
        found = found[found.scores >= args.score_thresh]
        if args.masks:
            return found
        return disturb_boxes(found, random, scale=args.box_scale, false_boxes=args.false_boxes)

    def truth(objects: Instances, random: torch.Generator) -> Instances:
        found = Instances(objects.image_size)
        found.pred_boxes = Boxes(jitter_boxes(objects.gt_boxes.tensor, args.jitter, random))
        found.pred_boxes.clip(objects.image_size)
        found.scores = torch.ones(len(objects))
        found.pred_classes = objects.gt_classes
        if args.masks:
            found.pred_masks = objects.gt_masks.tensor
        return found

    return detect


def detector(cfg: CfgNode) -> BoxDetector:
    """The trained detector."""
    found = BoxDetector(build_model(cfg))
    load_weights(found.model, cfg.MODEL.WEIGHTS)
    return found.eval()


def build_loader(
    cfg: CfgNode | None, args: argparse.Namespace, ids: Sequence[int]
) -> torch.utils.data.DataLoader:
    """The pictures, one at a time: as the network gets them, or with what is given of them."""
    detections = None
    if args.from_file:
        ids = ids if cfg is None else cfg.DATASETS.DETECTION_CATEGORY_IDS or ids
        detections = detections_of_file(args.from_file, args.dataset, ids)
    mapper = PartInstanceMapper(
        is_train=False,
        augmentations=[] if args.given else build_augmentations(cfg, is_train=False),
        image_format="BGR" if cfg is None else cfg.INPUT.FORMAT,
        flip_lut=np.arange(256),
        with_annotations=args.from_truth,
        with_masks=args.masks,
        detections=detections,
    )
    records = DatasetCatalog.get(args.dataset)
    workers = 0 if cfg is None else cfg.DATALOADER.NUM_WORKERS
    loader = build_detection_test_loader(records, mapper=mapper, num_workers=workers)
    end_loading_with_parent(loader)
    return loader


def write(
    args: argparse.Namespace,
    loader: torch.utils.data.DataLoader,
    detect: Detect,
    categories: Sequence[int],
) -> int:
    """Write the file; returns the number of boxes.

    ``categories`` has the category id of each class that ``detect`` gives.
    """
    results: list[dict] = []
    with torch.inference_mode():
        for batch in tqdm(loader, unit="image"):
            for inputs, found in zip(batch, detect(batch), strict=True):
                found = found.to("cpu")
                results += results_of(
                    inputs["image_id"],
                    found.pred_boxes.tensor.numpy(),
                    found.scores.numpy(),
                    [categories[c] for c in found.pred_classes.tolist()],
                    found.pred_masks.numpy() if args.masks else None,
                )
    write_json(args.output, results, indent=None)
    return len(results)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_writable(args.output)
    instance_crf.register()
    cfg = read_config(args)
    taxonomy = taxonomy_of(args.dataset)
    names = class_names(cfg, taxonomy)
    ids = category_ids(names, taxonomy, args.dataset)
    loader = build_loader(cfg, args, ids)
    if args.given:
        count = write(args, loader, given(args), ids)
    else:
        model = detector(cfg)
        change = nullcontext()
        if args.box_scale != 1 or args.false_boxes:
            factors = {"scale": args.box_scale, "false_boxes": args.false_boxes}
            change = disturb(model, **factors, seed=args.seed)
        with change:
            count = write(args, loader, model, range(1, len(names) + 1))
    said = f"{count} boxes of {len(loader)} images in {args.output}"
    if ids != list(range(1, len(ids) + 1)):
        said += f"; {args.dataset}'s are those of DATASETS.DETECTION_CATEGORY_IDS {ids}"
    print(said)


if __name__ == "__main__":
    sys.exit(run_program(main))
