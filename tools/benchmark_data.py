#!/usr/bin/env python
"""How fast is the data? Images per second of the mapper, and the time to index a large data set.

    python tools/benchmark_data.py mapper [--dataset cihp_train] [--size 512] [--workers 2]
    python tools/benchmark_data.py index [--images 30000]

``mapper`` compares PartInstanceMapper with Detectron2's DatasetMapper, which reads the same photos
and part maps for detection and semantic segmentation (no object maps), to the same output size with
the same kind of augmentation (scale 0.5-1.5, crop, flip). Without ``--dataset`` it draws its own
photos, 500 x 375 pixels as in VOC, with 1 to 6 people.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import cv2
import numpy as np
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import build_detection_train_loader as build_loader
from detectron2.data import transforms as T

from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.data.parallel import parallel_map
from instance_crf.data.transforms import RandomAffineCrop

SCALE_RANGE = (0.5, 1.5)


def draw_image(number: int, folder: Path, photo: bool = True) -> None:
    """One image of a data set in the canonical layout: blurred noise, people of ellipses."""
    random = np.random.default_rng(number)
    height, width = (375, 500) if random.random() < 0.75 else (500, 375)
    parts = np.zeros((height, width), np.uint8)
    objects = np.zeros((height, width), np.uint8)
    for person in range(1, random.integers(1, 7) + 1):
        x, y = int(random.integers(0, width)), int(random.integers(80, height))
        tall = int(random.integers(60, 200))
        for part in range(1, 7):
            centre = (
                x + int(random.integers(-tall // 4, tall // 4 + 1)),
                y + tall * (part - 3) // 6,
            )
            axes = (max(tall // 8, 2), max(tall // 6, 2))
            cv2.ellipse(parts, centre, axes, 0, 0, 360, part, -1)
            cv2.ellipse(objects, centre, axes, 0, 0, 360, person, -1)
    coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    image += random.integers(-12, 13, image.shape, dtype=np.int16)
    image[parts > 0] += 40
    if not photo:
        image = np.zeros((height, width, 3))
    cv2.imwrite(str(folder / f"Images/{number:07d}.jpg"), np.clip(image, 0, 255).astype(np.uint8))
    cv2.imwrite(str(folder / f"Category_ids/{number:07d}.png"), parts)
    cv2.imwrite(str(folder / f"Human_ids/{number:07d}.png"), objects)


def draw_dataset(root: Path, count: int) -> None:
    """A training split of ``count`` images under ``root``."""
    folder = root / "Training"
    for name in ("Images", "Category_ids", "Human_ids"):
        (folder / name).mkdir(parents=True)
    parallel_map(
        partial(draw_image, folder=folder), range(count), description="Drawing", processes=True
    )
    ids = "".join(f"{i:07d}\n" for i in range(count))
    (folder / "train_id.txt").write_text(ids)


def our_mapper(flip_lut: np.ndarray, size: int) -> Callable:
    """PartInstanceMapper: detection, parts and objects."""
    augmentation = RandomAffineCrop(scale_range=SCALE_RANGE, crop_size=(size, size), flip_prob=0.5)
    return PartInstanceMapper(
        is_train=True, augmentations=[augmentation], image_format="BGR", flip_lut=flip_lut
    )


class Detectron2Mapper:
    """Detectron2's mapper on the same files: boxes and one semantic map."""

    def __init__(self, size: int):
        self.mapper = DatasetMapper(
            is_train=True,
            augmentations=[
                T.ResizeScale(*SCALE_RANGE, size, size),
                T.FixedSizeCrop((size, size), seg_pad_value=255),
                T.RandomFlip(),
            ],
            image_format="BGR",
        )

    def __call__(self, record: dict) -> dict:
        record = {k: v for k, v in record.items() if k != "object_file_name"}
        return self.mapper(record | {"sem_seg_file_name": record.pop("part_file_name")})


def images_per_second(records: list[dict], mapper: Callable, workers: int, count: int) -> float:
    """Through Detectron2's training loader, after a warm-up."""
    loader = build_loader(
        records, mapper=mapper, total_batch_size=4, num_workers=workers, aspect_ratio_grouping=False
    )
    batches = iter(loader)
    for _ in range(4 * max(workers, 1)):
        next(batches)
    start = time.perf_counter()
    for _ in range(count // 4):
        next(batches)
    return 4 * (count // 4) / (time.perf_counter() - start)


def cpu_milliseconds(records: list[dict], mapper: Callable, count: int) -> float:
    """CPU time of the mapper for an image, in this process: whatever else the machine does."""
    start = time.process_time()
    for number in range(count):
        mapper(records[number % len(records)])
    return 1000 * (time.process_time() - start) / count


def benchmark_mapper(args: argparse.Namespace, scratch: Path) -> None:
    """Print images per second of both mappers, interleaved so that both see the same machine."""
    if args.dataset:
        instance_crf.register()
        records = DatasetCatalog.get(args.dataset)
        taxonomy = MetadataCatalog.get(args.dataset).taxonomy
    else:
        draw_dataset(scratch / "data", args.images or 200)
        taxonomy = PERSON_PART_TAXONOMY
        records = load_canonical(scratch / "data", "train", taxonomy)
    mappers = {
        "PartInstanceMapper": our_mapper(taxonomy.flip_lut(), args.size),
        "DatasetMapper (Detectron2)": Detectron2Mapper(args.size),
    }
    rates: dict[str, list[float]] = {name: [] for name in mappers}
    costs: dict[str, list[float]] = {name: [] for name in mappers}
    cv2.setNumThreads(1)  # as in a worker
    for _ in range(args.repeats):
        for name, mapper in mappers.items():
            costs[name].append(cpu_milliseconds(records, mapper, args.count))
            if args.workers:
                rates[name].append(images_per_second(records, mapper, args.workers, args.count))
    print(f"{args.size}x{args.size}, median (and range) of {args.repeats}, one CPU core:")
    report(costs, "ms/image")
    print(f"  {np.median(np.divide(*reversed(costs.values()))):.2f} times as fast")
    if args.workers:
        print(f"through the loader with {args.workers} workers:")
        report(rates, "images/s")
        print(f"  {np.median(np.divide(*rates.values())):.2f} times as fast")


def report(values: dict[str, list[float]], unit: str) -> None:
    """One line a mapper."""
    for name, measured in values.items():
        spread = f"{min(measured):.1f} to {max(measured):.1f}"
        print(f"  {name:28s} {np.median(measured):7.1f} {unit}  ({spread})")


def benchmark_index(args: argparse.Namespace, scratch: Path) -> None:
    """Print how long the first and the second start of a large data set take."""
    count = args.images or 30000
    # A few hundred different pictures, hard-linked many times: the work is the same.
    different = min(count, 300)
    draw_dataset(scratch / "few", different)
    for name, suffix in (("Images", "jpg"), ("Category_ids", "png"), ("Human_ids", "png")):
        folder = scratch / "data" / "Training" / name
        folder.mkdir(parents=True)
        for i in range(count):
            source = scratch / "few" / "Training" / name / f"{i % different:07d}.{suffix}"
            (folder / f"{i:07d}.{suffix}").hardlink_to(source)
    ids = "".join(f"{i:07d}\n" for i in range(count))
    (scratch / "data/Training/train_id.txt").write_text(ids)
    for label in ("first start (indexing)", "second start (cached index)"):
        start = time.perf_counter()
        records = load_canonical(scratch / "data", "train", PERSON_PART_TAXONOMY)
        print(f"{label}: {len(records)} images in {time.perf_counter() - start:.1f} s")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("mapper", "index"))
    parser.add_argument("--dataset", help="a registered data set; default: drawn for the occasion")
    parser.add_argument("--images", type=int, help="how many images to draw")
    parser.add_argument("--size", type=int, default=512, help="of the crop, in pixels")
    parser.add_argument("--workers", type=int, default=2, help="0: the mappers alone")
    parser.add_argument("--count", type=int, default=200, help="images per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for what is drawn; default: temporary")
    args = parser.parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="benchmark_data_", dir=args.scratch))
    try:
        (benchmark_mapper if args.what == "mapper" else benchmark_index)(args, scratch)
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
