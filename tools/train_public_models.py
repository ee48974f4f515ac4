#!/usr/bin/env python
"""Two models of public libraries, trained briefly on synthetic people, for the own-models path.

    python tools/train_public_models.py --output output/public_models

A small SegFormer of transformers says what a pixel is, a Faster R-CNN of torchvision where people
are. Both are built from their own configs without any download, trained for a fixed number of
steps on the CPU (minutes each), and saved by their libraries' own calls:

    OUTPUT/segformer/       model and image processor, for --parts hf:OUTPUT/segformer
    OUTPUT/detector.pth     state dict, for --detector torchvision:NAME:OUTPUT/detector.pth
    OUTPUT/photos/          pictures of other people than those trained on
    OUTPUT/truth/           their parts and people, for --truth-format cihp

The last lines printed are the commands that join the two and compare with simple rules.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import masks_to_boxes
from tqdm import tqdm, trange
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.data.synthetic import SPLITS, TAXONOMY, SyntheticPeople, SyntheticSample
from instance_crf.files import atomic_path, write_json
from instance_crf.program import run_program

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
CLASS_NAMES = ["__background__", "person"]
BATCH = 8


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for all of it")
    numbers = {
        "size": (160, "pixels of the pictures, width and height"),
        "pictures": (1500, "to train on"),
        "photos": (100, "to compare on"),
        "part-steps": (3000, "of the SegFormer, 8 pictures each"),
        "detector-steps": (500, "of the detector, 8 pictures each"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default {default})"
        )
    parser.add_argument("--split", choices=SPLITS, default="moderate", help="default: moderate")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and weights (default 0)")
    args = parser.parse_args(argv)
    for name in numbers:
        if getattr(args, name.replace("-", "_")) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.size < 64 or args.seed < 0:
        parser.error("--size must be at least 64, --seed not negative")
    return args


def draw_people(count: int, size: int, seed: int, split: str) -> list[SyntheticSample]:
    """Pictures with their truth, in the memory."""
    people = SyntheticPeople(split, (size, size), seed)
    return [people[index] for index in trange(count, desc="Drawing", unit="picture")]


def batches(
    samples: Sequence[SyntheticSample], steps: int, seed: int
) -> Iterator[list[SyntheticSample]]:
    """BATCH pictures at random, half of them mirrored."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = [samples[index] for index in rng.integers(len(samples), size=BATCH)]
        yield [
            SyntheticSample(*(each[:, ::-1].copy() for each in sample)) if flip else sample
            for sample, flip in zip(chosen, rng.random(BATCH) < 0.5, strict=True)
        ]


def new_part_model(size: int) -> tuple[SegformerForSemanticSegmentation, SegformerImageProcessor]:
    """Half a million random weights; its output has a stride of 4."""
    labels = dict(enumerate(("background", *TAXONOMY.part_names)))
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 128],
        decoder_hidden_size=64,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
        initializer_range=0.1,  # the default, for wider layers, learns nothing for long
        id2label=labels,
        label2id={name: label for label, name in labels.items()},
    )
    processor = SegformerImageProcessor(size={"height": size, "width": size})
    return SegformerForSemanticSegmentation(config), processor


def new_detector(size: int) -> nn.Module:
    """Random weights, few proposals."""
    return get_model(
        DETECTOR,
        weights=None,
        weights_backbone=None,
        num_classes=len(CLASS_NAMES),
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=100,
        box_batch_size_per_image=16,
        **detector_options(size),
    )


def detector_options(size: int) -> dict[str, int]:
    """Those that matter when it is used, too: it was trained on people of this size."""
    return {"min_size": size * 3 // 2, "max_size": size * 3}


def train_parts(
    samples: Sequence[SyntheticSample], steps: int, seed: int
) -> tuple[SegformerForSemanticSegmentation, SegformerImageProcessor]:
    torch.manual_seed(seed)
    model, processor = new_part_model(len(samples[0].image))

    def loss_of(batch: list[SyntheticSample]) -> Tensor:
        images, parts = [s.image for s in batch], [s.part_map for s in batch]
        return model(**processor(images, segmentation_maps=parts, return_tensors="pt")).loss

    train(model, loss_of, batches(samples, steps, seed), steps, "SegFormer", rate=6e-3)
    return model, processor


def train_detector(samples: Sequence[SyntheticSample], steps: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = new_detector(len(samples[0].image))

    def loss_of(batch: list[SyntheticSample]) -> Tensor:
        images = [torch.from_numpy(s.image).permute(2, 0, 1) / 255 for s in batch]
        return sum(model(images, [boxes_of(s.object_map) for s in batch]).values())

    train(model, loss_of, batches(samples, steps, seed), steps, "detector", rate=1e-3)
    return model


def boxes_of(object_map: np.ndarray) -> dict[str, Tensor]:
    """What a detector of torchvision is trained with."""
    ids = torch.from_numpy(object_map)
    masks = ids == torch.arange(1, int(ids.max()) + 1)[:, None, None]
    boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64)}


def train(model: nn.Module, loss_of, data: Iterable, steps: int, name: str, rate: float) -> None:
    """AdamW, the rate going up, then down to nothing; leaves the model ready for use."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    model.train()
    mean = None
    with tqdm(data, desc=name, total=steps, unit="step") as bar:
        for batch in bar:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
    model.eval()


def save_parts(model: nn.Module, processor: SegformerImageProcessor, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_detector(model: nn.Module, file: Path) -> None:
    with atomic_path(file) as temporary:
        torch.save(model.state_dict(), temporary)


def write_photos(samples: Sequence[SyntheticSample], output: Path) -> None:
    """``photos``, and ``truth`` in the canonical layout."""
    for index, sample in enumerate(samples):
        name = f"{index:04d}.png"
        with atomic_path(output / "photos" / name) as temporary:
            Image.fromarray(sample.image).save(temporary)
        write_part_map(output / "truth/Category_ids" / name, sample.part_map)
        write_object_map(output / "truth/Human_ids" / name, sample.object_map)
    write_json(output / "truth/taxonomy.json", TAXONOMY.to_dict())


def commands(output: Path, size: int) -> list[str]:
    """What to type next."""
    options = {"class_names": json.dumps(CLASS_NAMES), **detector_options(size)}
    models = [
        *(str(output / "photos"), "--parts", f"hf:{output / 'segformer'}"),
        *("--detector", f"torchvision:{DETECTOR}:{output / 'detector.pth'}"),
    ]
    for key, value in options.items():
        models += ["--detector-option", f"{key}={value}"]
    truth = ["--truth", str(output / "truth"), "--truth-format", "cihp"]
    return [
        shlex.join(["instance-crf", command, *models, *more, "--output", str(output / folder)])
        for command, folder, more in (("compare", "comparison", truth), ("parse", "parsed", []))
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Even and odd: no seed makes the people of the photos those of another training.
    write_photos(draw_people(args.photos, args.size, 2 * args.seed + 1, args.split), args.output)
    samples = draw_people(args.pictures, args.size, 2 * args.seed, args.split)
    save_parts(*train_parts(samples, args.part_steps, args.seed), args.output / "segformer")
    detector = train_detector(samples, args.detector_steps, args.seed)
    save_detector(detector, args.output / "detector.pth")
    print("\n".join(["", "Now type:", *commands(args.output, args.size)]))


if __name__ == "__main__":
    sys.exit(run_program(main))
