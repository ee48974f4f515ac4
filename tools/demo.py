#!/usr/bin/env python
"""Run a trained model on photos.

    python tools/demo.py --config-file output/demo/config.yaml \\
        --input photo.jpg folder/ 'holiday/*.jpg' --output output/photos \\
        --opts MODEL.WEIGHTS output/demo/model_final.pth

A photo that cannot be done is named, the others go on; the exit status is then 1. For
``photo.jpg`` it writes ``photo.png`` (input with detections, part segmentation, part instances
side by side), ``photo_parts.png`` (palette PNG of part ids, 0 background), ``photo_objects.png``
(object ids; 0 none, also where a part is nobody's) and ``photo.json`` (objects and segments with
names and scores; a segment is where the two maps have its ``part_id`` and its ``instance_id``).

``--show-evidence 1`` also writes ``photo_evidence.png`` for the best detection, 2 for the second
best, and so on: every pixel's vote, how well it fits the detection, and whose the pixel is before
and after mean-field.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from instance_crf.config import check_datasets, load_config
from instance_crf.data.find_images import check_result_names, find_images
from instance_crf.data.image_io import read_image
from instance_crf.data.parallel import print_beside_bar
from instance_crf.files import check_writable, write_json
from instance_crf.own_models.batch import describe_error
from instance_crf.predictor import PartInstancePredictor
from instance_crf.program import run_program
from instance_crf.results.files import (
    describe,
    write_objects,
    write_parts,
    write_picture,
)
from instance_crf.taxonomies.schema import PartTaxonomy
from instance_crf.visualization import ROW_TITLES, draw_evidence, draw_row, make_sheet

RESULTS = (".png", "_parts.png", "_objects.png", ".json", "_evidence.png")
THRESHOLD_KEY = "MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--input", nargs="+", required=True, help="images, folders, glob patterns")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--confidence-threshold", type=float, help=f"least score of a detection ({THRESHOLD_KEY})"
    )
    parser.add_argument(
        "--show-evidence",
        type=int,
        metavar="PERSON",
        help="also draw why pixels are this detection's; 1 is the best",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images at a time (default 1)")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides, KEY VALUE ..."
    )
    args = parser.parse_args(argv)
    if args.confidence_threshold is not None:
        if not 0 <= args.confidence_threshold <= 1:
            parser.error(f"--confidence-threshold is {args.confidence_threshold}; it is in 0..1")
        args.opts = [*args.opts, THRESHOLD_KEY, args.confidence_threshold]
    if args.show_evidence is not None and args.show_evidence < 1:
        parser.error(f"--show-evidence is {args.show_evidence}; detections count from 1, the best")
    if args.batch_size < 1:
        parser.error(f"--batch-size is {args.batch_size}; it must be at least 1")
    return args


class Failures(list):
    """Why files were not done, one line each; printed when it happens."""

    def add(self, path: Path, error: Exception) -> None:
        self.append(describe_error(path, error))
        print_beside_bar(self[-1])


def read_batches(
    files: Sequence[Path], batch_size: int, failed: Failures
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Batches of (file, (H, W, 3) RGB), without what cannot be read."""
    batch = []
    for path in files:
        try:
            batch.append((path, read_image(path)))
        except (FileNotFoundError, ValueError, MemoryError) as error:
            failed.add(path, error)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def predict(
    predictor: PartInstancePredictor, batch: list[tuple[Path, np.ndarray]], failed: Failures
) -> Iterator[tuple[Path, np.ndarray, dict[str, Any]]]:
    """(file, image, output), without what the model cannot do; the rest of its batch goes on."""
    try:
        outputs = predictor([image[:, :, ::-1] for _, image in batch])
    except (ValueError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's of memory
        if len(batch) == 1:
            failed.add(batch[0][0], error)
        else:
            for one in batch:
                yield from predict(predictor, [one], failed)
        return
    for (path, image), output in zip(batch, outputs, strict=True):
        yield path, image, output


def write_results(
    folder: Path, path: Path, image: np.ndarray, output: dict[str, Any], taxonomy: PartTaxonomy
) -> None:
    """The four files of one image, each whole or not at all."""
    row = draw_row(image, output, taxonomy)
    sheet = make_sheet([row], ROW_TITLES[: len(row)], legend=taxonomy)
    write_picture(folder / f"{path.stem}.png", sheet)
    result = output["part_instances"]
    write_parts(folder / f"{path.stem}_parts.png", result)
    write_objects(folder / f"{path.stem}_objects.png", result)
    write_json(folder / f"{path.stem}.json", {"file_name": str(path), **describe(result)})


def check_has_evidence(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: the model has nothing for --show-evidence to show.
    """
    if not cfg.MODEL.INSTANCE_CRF.ENABLED:
        raise ValueError("--show-evidence needs a CRF, but MODEL.INSTANCE_CRF.ENABLED is False")
    if cfg.MODEL.INSTANCE_CRF.NAME == "RuleHead":
        raise ValueError("--show-evidence needs a CRF, but MODEL.INSTANCE_CRF.NAME is 'RuleHead'")
    if cfg.MODEL.INSTANCE_CRF.FORM != "factored":
        raise ValueError(
            "--show-evidence shows what says whose a pixel is, but MODEL.INSTANCE_CRF.FORM is "
            f"{cfg.MODEL.INSTANCE_CRF.FORM!r}: only the factored form keeps that apart"
        )
    if not cfg.MODEL.IDENTITY_HEAD.ENABLED:
        raise ValueError(
            "--show-evidence shows the pixels' votes, but MODEL.IDENTITY_HEAD.ENABLED is False"
        )


def write_evidence(
    folder: Path, path: Path, image: np.ndarray, output: dict[str, Any], person: int, stride: int
) -> None:
    """The sheet of --show-evidence, or a message if the image has no such detection."""
    found = len(output["detections"])
    if person > found:
        message = f"{path}: {found} detections, so there is no evidence for detection {person}"
        print_beside_bar(message)
        return
    sheet = draw_evidence(image, output, person, stride=stride)
    write_picture(folder / f"{path.stem}_evidence.png", sheet)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 if a file was not done."""
    args = parse_args(argv)
    files = find_images(args.input)
    check_result_names(files, args.output, RESULTS)
    check_writable(args.output, folder=True)
    instance_crf.register()
    cfg = load_config(args.config_file, args.opts)
    check_datasets(cfg)
    if not (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        raise ValueError("DATASETS.TEST and TRAIN are empty: one names the parts, so give one.")
    person = args.show_evidence
    if person:
        check_has_evidence(cfg)
    predictor = PartInstancePredictor(cfg, batch_size=args.batch_size)
    model = predictor.model
    model.keep_evidence = model.keep_whose = person is not None
    failed = Failures()
    with tqdm(total=len(files), unit="image") as progress:
        for batch in read_batches(files, args.batch_size, failed):
            for path, image, output in predict(predictor, batch, failed):
                write_results(args.output, path, image, output, predictor.taxonomy)
                if person:
                    stride = model.identity_head.stride
                    write_evidence(args.output, path, image, output, person, stride)
                progress.update()
    print(f"{len(files) - len(failed)} images done, results in {args.output}")
    if failed:
        print(f"{len(failed)} not done:\n  " + "\n  ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_program(main))
