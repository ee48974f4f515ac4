#!/usr/bin/env python
"""Time and peak memory of tools/evaluate_predictions.py on generated data.

    python tools/benchmark_evaluation.py --images 5000 --size 512 --people 12 --folder /tmp/bench

Writes ground truth and predictions in the CIHP layout (kept and used again when the same command
is given a second time), runs the command line tool on them as a process of its own, and prints
its time and the peak memory of all its processes. Twelve people with up to ten parts each on
5,000 images are as many as CIHP's validation set has at most.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from instance_crf.data.parallel import parallel_map
from instance_crf.evaluation import Parsing
from instance_crf.evaluation.toolkit.export import make_writer
from instance_crf.evaluation.toolkit.formats.base import write_png
from instance_crf.evaluation.toolkit.taxonomies import find_taxonomy
from instance_crf.files import check_writable, read_json, write_json
from instance_crf.program import run_program

# (part of CIHP, centre x and y, half width and height), in units of the person's height.
_FIGURE = (
    (9, 0.0, 0.18, 0.10, 0.16),
    (16, -0.05, 0.36, 0.04, 0.08),
    (17, 0.05, 0.36, 0.04, 0.08),
    (18, -0.06, 0.46, 0.05, 0.03),
    (19, 0.06, 0.46, 0.05, 0.03),
    (5, 0.0, -0.10, 0.12, 0.18),
    (14, -0.15, -0.08, 0.03, 0.14),
    (15, 0.15, -0.08, 0.03, 0.14),
    (13, 0.0, -0.36, 0.06, 0.08),
    (2, 0.0, -0.43, 0.07, 0.05),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--people", type=int, default=12, help="people an image")
    parser.add_argument("--folder", type=Path, required=True, help="for the generated files")
    parser.add_argument("--num-workers", type=int, help="processes of the tool")
    parser.add_argument("--json", type=Path, help="write the measurement here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_writable(args.json)
    generate(args)
    measurement = measure(args)
    print(json.dumps(measurement, indent=2))
    if args.json:
        write_json(args.json, measurement)
    return 0


def generate(args: argparse.Namespace) -> None:
    """Write the data, unless the folder holds just these."""
    wanted = {"images": args.images, "size": args.size, "people": args.people}
    stamp = args.folder / "benchmark.json"
    if stamp.is_file() and read_json(stamp) == wanted:
        return
    stamp.unlink(missing_ok=True)  # first, so that it never vouches for what is half written
    for name in ("ground_truth", "predictions"):
        shutil.rmtree(args.folder / name, ignore_errors=True)
    work = partial(write_image, args.folder, args.size, args.people)
    parallel_map(work, range(args.images), description="Generating", processes=True)
    write_json(stamp, wanted)


def write_image(folder: Path, size: int, people: int, index: int) -> None:
    """Write ground truth and a prediction of image ``index``; deterministic by the index."""
    rng = np.random.default_rng(index)
    height = rng.uniform(0.25, 0.6, people) * size
    centre = rng.uniform(0.1, 0.9, (people, 2)) * size
    parts, objects = draw(size, centre, height)
    name = f"{index:07d}"
    truth = folder / "ground_truth"
    write_png(truth / "Category_ids" / f"{name}.png", parts)
    write_png(truth / "Human_ids" / f"{name}.png", objects)
    centre += rng.normal(0, 0.02, (people, 2)) * height[:, None]
    height = height * rng.uniform(0.9, 1.1, people)
    parts, objects = draw(size, centre, height)
    scores = rng.uniform(0.3, 1.0, people)
    # A fifth of the segments get another class, as a network's mistakes would.
    wrong = (rng.random((people + 1, 20)) < 0.2) & (np.arange(20) > 0)
    parts = np.where(wrong[objects, parts], parts % 19 + 1, parts).astype(np.uint8)
    writer = make_writer("cihp", folder / "predictions", find_taxonomy("cihp", truth, "cihp"))
    writer.add(name, prediction_of(parts, objects, scores, rng))


def draw(size: int, centre: NDArray, height: NDArray) -> tuple[NDArray, NDArray]:
    """(size, size) part and person maps; later people cover earlier ones."""
    parts, objects = (Image.new("L", (size, size)) for _ in range(2))
    pencils = ImageDraw.Draw(parts), ImageDraw.Draw(objects)
    for number, ((x, y), scale) in enumerate(zip(centre, height, strict=True), start=1):
        for part, dx, dy, half_width, half_height in _FIGURE:
            left, top = x + (dx - half_width) * scale, y + (dy - half_height) * scale
            box = (left, top, left + 2 * half_width * scale, top + 2 * half_height * scale)
            for pencil, value in zip(pencils, (part, number), strict=True):
                pencil.ellipse(box, fill=value)
    return np.asarray(parts), np.asarray(objects)


def prediction_of(
    parts: NDArray, objects: NDArray, scores: NDArray, rng: np.random.Generator
) -> Parsing:
    """A scored prediction from its maps."""
    ids = np.unique(objects)
    ids = ids[ids > 0]
    unscored = Parsing.of_maps(
        parts, objects, object_ids=ids, object_classes=np.zeros(len(ids), dtype=np.int64)
    )
    count = len(unscored.segment_ids)
    return Parsing.of_maps(
        parts,
        objects,
        object_ids=ids,
        object_classes=unscored.object_classes,
        object_scores=scores[ids - 1],
        segment_scores=rng.uniform(0.2, 1.0, count),
    )


def measure(args: argparse.Namespace) -> dict:
    """Run the tool; seconds, peak memory of all its processes together, and the load.

    On a busy machine CPU seconds tell more than seconds.
    """
    tool = Path(__file__).with_name("evaluate_predictions.py")
    command = [sys.executable, str(tool), "--format", "cihp"]
    command += ["--predictions", str(args.folder / "predictions")]
    command += ["--ground-truth", str(args.folder / "ground_truth")]
    command += ["--json", str(args.folder / "results.json")]
    if args.num_workers:
        command += ["--num-workers", str(args.num_workers)]
    load_before = os.getloadavg()[0]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    peak, cpu = 0, {}
    while process.poll() is None:
        resident, cpu_of = usage(process.pid)
        peak = max(peak, resident)
        cpu |= cpu_of
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"The tool failed with exit status {process.returncode}.")
    return {
        "images": args.images,
        "size": args.size,
        "people": args.people,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(cpu.values()), 1),
        "milliseconds_per_image": round(1000 * seconds / args.images, 2),
        "cpu_milliseconds_per_image": round(1000 * sum(cpu.values()) / args.images, 2),
        "peak_memory_gib": round(peak / 2**30, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": round(load_before, 2),
    }


def usage(pid: int) -> tuple[int, dict[int, float]]:
    """Resident bytes of a process and its descendants, and CPU seconds of each (Linux).

    Pages that the processes share are counted for each of them.
    """
    resident, cpu, waiting = 0, {}, [pid]
    while waiting:
        current = waiting.pop()
        folder = Path("/proc") / str(current)
        try:
            resident += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            # utime and stime, fields 14 and 15; the name in parentheses may hold spaces.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            cpu[current] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            for task in (folder / "task").iterdir():
                waiting += [int(p) for p in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return resident, cpu


if __name__ == "__main__":
    sys.exit(run_program(main))
