#!/usr/bin/env python
"""Time, memory and borders of instance_crf.parse, from arrays to full-size part instances.

    python tools/benchmark_parse.py
    python tools/benchmark_parse.py --megapixels 12 --repeats 5 --json parse.json

Pictures are synthetic people, five of them, with 24 parts; the part model's logits have a stride
of 8 at the working size, or the picture's own size (``full``: what a model gives that was asked
for the picture's size). A time is the median over the repetitions; the peak of the memory is
counted above everything that was there before, the inputs among it.

Importing is timed after torch, in processes of their own.

Borders: of the pixels within 1 % of the picture's longer side of a true border between parts,
people or background, the share that gets the right part, and the right person where there is one:
bilinear resizing of the probabilities against the guided upsampling that parse does. The logits
are here those of the true parts at the working size, blurred a little.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from instance_crf.data.synthetic import TAXONOMY, SyntheticPeople
from instance_crf.files import check_writable, write_json
from instance_crf.own_models import parse
from instance_crf.own_models.join import Join
from instance_crf.program import run_program
from instance_crf.taxonomies import PartTaxonomy

NUM_PEOPLE, TILES = 5, 4
PARTS = PartTaxonomy([f"{name} {tile}" for tile in range(TILES) for name in TAXONOMY.part_names])


@dataclass(frozen=True)
class Scene:
    """A picture with the outputs of two models, and the truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        part_map, object_map: (H, W) the truth.
        logits: (P + 1, h, w).
        boxes, scores: (D, 4), (D,).
    """

    image: np.ndarray
    part_map: np.ndarray
    object_map: np.ndarray
    logits: torch.Tensor
    boxes: np.ndarray
    scores: np.ndarray


def make_scene(width: int, height: int, grid: float, skip: int = 0) -> Scene:
    """Five people; ``grid``: the longer side of the logits."""
    scale = max(1.0, max(width, height) / 1024)
    people = SyntheticPeople("hard", (round(height / scale), round(width / scale)), seed=1)
    crowds = (sample for sample in map(people.__getitem__, range(1000)) if is_crowd(sample))
    sample = [next(crowds) for _ in range(skip + 1)][-1]
    rng = np.random.default_rng(skip)
    size = (width, height)
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    if scale > 1:  # enlarging leaves a picture without grain
        image += rng.standard_normal(image.shape, dtype=np.float32) * 3
    part_map, object_map = (
        cv2.resize(each, size, interpolation=cv2.INTER_NEAREST)
        for each in (sample.part_map, sample.object_map)
    )
    y, x = np.indices(part_map.shape, dtype=np.int32, sparse=True)
    tile = (x // (width // 12) + 2 * (y // (height // 12))) % TILES
    part_map = np.where(part_map > 0, part_map + len(TAXONOMY.part_names) * tile, 0)
    part_map = part_map.astype(np.uint8)
    return Scene(
        image=image.clip(0, 255).round().astype(np.uint8),
        part_map=part_map,
        object_map=object_map,
        logits=make_logits(part_map, grid, rng),
        boxes=true_boxes(object_map),
        scores=np.linspace(0.95, 0.5, NUM_PEOPLE),
    )


def is_crowd(sample) -> bool:
    return int(sample.object_map.max()) == NUM_PEOPLE


def make_logits(part_map: np.ndarray, grid: float, rng: np.random.Generator) -> torch.Tensor:
    """(P + 1, h, w): the true parts, blurred as by a network of that stride, and noise."""
    height, width = part_map.shape
    small = tuple(round(length * grid / max(height, width)) for length in (width, height))
    maps = []
    for part in range(PARTS.num_parts + 1):
        share = cv2.resize(
            (part_map == part).astype(np.float32), small, interpolation=cv2.INTER_AREA
        )
        noise = rng.standard_normal((small[1] // 8 + 1, small[0] // 8 + 1)).astype(np.float32)
        maps.append(8 * cv2.GaussianBlur(share, (0, 0), 0.7) + 0.5 * cv2.resize(noise, small))
    return torch.from_numpy(np.stack(maps))


def true_boxes(object_map: np.ndarray) -> np.ndarray:
    """(5, 4)."""
    boxes = []
    for person in range(1, NUM_PEOPLE + 1):
        x, y, width, height = cv2.boundingRect((object_map == person).astype(np.uint8))
        boxes.append((x, y, x + width, y + height))
    return np.array(boxes, np.float32)


def run_parse(scene: Scene):
    """The call that is timed."""
    return parse(
        scene.image,
        part_logits=scene.logits,
        detections=(scene.boxes, scene.scores),
        parts=PARTS,
    )


def time_scene(scene: Scene, repeats: int) -> dict:
    """Seconds, and MiB above what was there before."""
    run_parse(scene)  # compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run_parse(scene)
        seconds.append(time.perf_counter() - start)
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"seconds": median, "quartiles": [low, high], "peak_mib": peak_mib(scene)}


def peak_mib(scene: Scene) -> float | None:
    """Peak of the resident memory above what was there before; Linux only."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # freed memory would hide what is allocated next
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = status_kib("VmRSS")
    run_parse(scene)
    return (status_kib("VmHWM") - before) / 1024


def status_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def time_import(repeats: int) -> float:
    """Median seconds that importing `parse` takes after torch."""
    code = "import time, torch; t = time.perf_counter(); from instance_crf import parse; "
    code += "print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = (subprocess.run(command, capture_output=True, check=True) for _ in range(repeats))
    return float(np.median([float(run.stdout) for run in runs]))


def measure_borders(scenes: Sequence[Scene]) -> dict:
    """Percent of the pixels near true borders that are right, by both ways of upsampling."""
    right = {"bilinear": np.zeros(2), "guided": np.zeros(2)}
    total = np.zeros(2)
    for scene in scenes:
        near = near_borders(scene)
        person = near & (scene.object_map > 0)
        total += near.sum(), person.sum()
        for name, (owner, part) in both_answers(scene).items():
            right[name] += (
                (part == scene.part_map)[near].sum(),
                (owner == scene.object_map)[person].sum(),
            )
    names = ("part", "person")
    return {way: dict(zip(names, 100 * r / total, strict=True)) for way, r in right.items()}


def both_answers(scene: Scene) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(H, W) whose and what, by each way of upsampling the same labelling."""
    problem = Join(kind="logits", parts=PARTS).prepare(
        scene.image, scene.logits, (scene.boxes, scene.scores)
    )
    labelling = problem.label()
    answers = {
        "bilinear": labelling.label_maps(problem.size),
        "guided": problem.full_size(labelling),
    }
    return {name: (maps[0].numpy(), maps[1].numpy()) for name, maps in answers.items()}


def near_borders(scene: Scene) -> np.ndarray:
    """(H, W) bool."""
    label = scene.object_map.astype(np.int32) * 256 + scene.part_map
    border = np.zeros(label.shape, np.uint8)
    border[1:] |= label[1:] != label[:-1]
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    reach = max(1, round(max(label.shape) / 100))
    return cv2.dilate(border, np.ones((2 * reach + 1,) * 2, np.uint8)) > 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--megapixels", type=float, default=12, help="of the large picture")
    parser.add_argument("--scenes", type=int, default=6, help="for the borders")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.scenes < 1 or args.megapixels <= 0:
        parser.error("--repeats and --scenes must be at least 1, --megapixels above 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_writable(args.json)
    large = (
        round(1000 * (args.megapixels * 4 / 3) ** 0.5),
        round(1000 * (args.megapixels * 3 / 4) ** 0.5),
    )
    cases = {
        "1024x768, stride 8": (1024, 768, 64),
        "1024x768, full": (1024, 768, 1024),
        f"{large[0]}x{large[1]}, stride 8": (*large, 64),
    }
    results = {"threads": torch.get_num_threads(), "times": {}}
    for name, case in tqdm(cases.items(), unit="case", disable=None):
        results["times"][name] = time_scene(make_scene(*case), args.repeats)
    results["import_seconds"] = time_import(args.repeats)
    scenes = (make_scene(1536, 1152, 512, skip) for skip in range(args.scenes))
    results["borders"] = measure_borders(tqdm(scenes, total=args.scenes, disable=None))
    for name, row in results["times"].items():
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f} MiB above the inputs"
        low, high = row["quartiles"]
        print(f"{name:24} {row['seconds']:.2f} s ({low:.2f} to {high:.2f})  {peak}")
    print(f"{'import after torch':24} {results['import_seconds']:.2f} s")
    for name, row in results["borders"].items():
        print(
            f"borders, {name:9} right part {row['part']:.1f} %, right person {row['person']:.1f} %"
        )
    if args.json:
        write_json(args.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
