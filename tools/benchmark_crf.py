#!/usr/bin/env python
"""Time the Instance CRF: our variants, and pydensecrf where it is installed, in one run.

    python tools/benchmark_crf.py
    python tools/benchmark_crf.py --detections 5 50 --sizes 500x375 --repeats 9 --json crf.json
    python tools/benchmark_crf.py --device cuda --sizes 512x512 --detections 10

Pictures are synthetic people; Q is what a part head gives (peaked inside parts, soft at their
borders), and a flat Q is the worst case for dropping labels. The first boxes are those of the
people, the rest are false positives. All variants use symmetric normalisation, as pydensecrf does.

Variants take turns within each repetition. A time is the median over the repetitions with the
quartiles beside it; a speed-up is the median of the ratios to pydensecrf (or, without it, to the
exact variant) within a repetition, which a noisy machine disturbs least. Forward is everything from
Q, boxes and image to the label maps, nothing cached from earlier images; backward is that of the
log-probabilities of a label per pixel. pydensecrf gets the unary energies ready-made, runs on one
thread and has no backward.

With ``--device cuda`` the exact variant is Triton's, beside the reference; inputs are on the device
before the clock starts, and it stops when the device has finished. Peaks are then those of the
device's memory above what was there before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from instance_crf.crf import DenseInstanceCRF
from instance_crf.crf.gaussian_filter import spatial_filter
from instance_crf.crf.label_space import build_label_space
from instance_crf.crf.potentials import box_term, global_term, unary_energy
from instance_crf.data.synthetic import SyntheticPeople

try:
    import pydensecrf.densecrf as pydensecrf
except ImportError:
    pydensecrf = None

ITERATIONS = 5
NUM_PARTS = 6
BILATERAL_WEIGHT, SPATIAL_WEIGHT = 4.0, 3.0


@dataclass(frozen=True)
class Case:
    """One input, for all variants."""

    width: int
    height: int
    detections: int
    thetas: tuple[float, float, float]
    flat: bool

    def __str__(self) -> str:
        theta = ",".join(f"{value:g}" for value in self.thetas)
        kind = "flat" if self.flat else "peaked"
        return f"{self.width}x{self.height} D={self.detections} theta={theta} {kind}"


@dataclass
class Scene:
    """The tensors of a case."""

    part_prob: torch.Tensor
    boxes: torch.Tensor
    scores: torch.Tensor
    image: torch.Tensor

    def to(self, device: str) -> Scene:
        """The same on a device."""
        return Scene(*(value.to(device) for value in vars(self).values()))


def make_scene(case: Case, index: int, seed: int = 0) -> Scene:
    """Synthetic people with a part head's kind of Q; deterministic."""
    sample = SyntheticPeople("hard", (case.height, case.width), seed=seed)[index]
    rng = np.random.default_rng((seed, index))
    one_hot = np.eye(NUM_PARTS + 1, dtype=np.float32)[sample.part_map]
    soft = cv2.GaussianBlur(one_hot, (0, 0), 2.0)
    coarse = rng.standard_normal((case.height // 8 + 1, case.width // 8 + 1, NUM_PARTS + 1))
    noise = cv2.resize(coarse.astype(np.float32), (case.width, case.height))
    logits = 0.5 * noise + (0 if case.flat else 12 * soft)
    if case.flat:
        logits *= 0.1
    part_prob = torch.softmax(torch.from_numpy(logits).permute(2, 0, 1), dim=0).contiguous()
    boxes = _boxes(sample.object_map, case, rng)
    scores = torch.from_numpy(np.sort(rng.uniform(0.5, 1.0, len(boxes)))[::-1].copy()).float()
    image = torch.from_numpy(sample.image).permute(2, 0, 1).float().contiguous()
    return Scene(part_prob, torch.from_numpy(boxes), scores, image)


def _boxes(object_map: np.ndarray, case: Case, rng: np.random.Generator) -> np.ndarray:
    """Boxes of the people, then false positives of their sizes anywhere."""
    boxes = []
    for person in range(1, int(object_map.max()) + 1):
        y, x = np.nonzero(object_map == person)
        boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    people = np.array(boxes, np.float32)
    sizes = people[:, 2:] - people[:, :2]
    while len(boxes) < case.detections:
        size = sizes[rng.integers(len(sizes))] * rng.uniform(0.5, 1.0)
        corner = rng.uniform(0, 1, 2) * (np.array([case.width, case.height]) - size)
        boxes.append((*corner, *(corner + size)))
    return np.array(boxes[: case.detections], np.float32)


class Ours:
    """DenseInstanceCRF with some options."""

    def __init__(self, case: Case, device: str, **options) -> None:
        self.crf = DenseInstanceCRF(
            num_iterations=ITERATIONS,
            theta_alpha=case.thetas[0],
            theta_beta=case.thetas[1],
            theta_gamma=case.thetas[2],
            bilateral_weight=BILATERAL_WEIGHT,
            spatial_weight=SPATIAL_WEIGHT,
            normalization="symmetric",
            **options,
        ).to(device)

    def forward(self, scene: Scene) -> object:
        _forget_image_sizes()
        with torch.no_grad():
            labelling = self.crf(scene.part_prob, scene.boxes, scene.scores, scene.image)
            labelling.argmax()
        return labelling

    def forward_backward(self, scene: Scene) -> None:
        _forget_image_sizes()
        part_prob = scene.part_prob.clone().requires_grad_()
        labelling = self.crf(part_prob, scene.boxes, scene.scores, scene.image)
        objects, parts = labelling.argmax()
        labels = labelling.label_space.label_index()[objects, parts]
        labelling.log_prob(labels).sum().backward()

    def marginals(self, scene: Scene) -> np.ndarray:
        with torch.no_grad():
            result = self.crf(scene.part_prob, scene.boxes, scene.scores, scene.image).marginals()
        return result.flatten(1).cpu().numpy()


class PyDenseCRF:
    """pydensecrf on the same unaries; inference leaves the marginals, there is no backward."""

    def __init__(self, case: Case) -> None:
        self.thetas = case.thetas
        self.energy: tuple[int, np.ndarray] | None = None

    def prepare(self, scene: Scene) -> None:
        """Unary energies, outside of what is timed."""
        owner = torch.zeros(NUM_PARTS, dtype=torch.int64)
        space = build_label_space(torch.zeros(len(scene.boxes), dtype=torch.int64), owner)
        psi_box = box_term(scene.part_prob, scene.boxes, scene.scores, space)
        energy = unary_energy(psi_box, global_term(scene.part_prob, space), 1.0, 1.0, 1e-8)
        self.energy = energy.flatten(1).contiguous().numpy()
        self.image = scene.image.permute(1, 2, 0).byte().contiguous().numpy()

    def forward(self, scene: Scene) -> np.ndarray:
        height, width = self.image.shape[:2]
        alpha, beta, gamma = self.thetas
        crf = pydensecrf.DenseCRF2D(width, height, len(self.energy))
        crf.setUnaryEnergy(self.energy)
        crf.addPairwiseGaussian(sxy=gamma, compat=SPATIAL_WEIGHT)
        crf.addPairwiseBilateral(sxy=alpha, srgb=beta, rgbim=self.image, compat=BILATERAL_WEIGHT)
        return np.array(crf.inference(ITERATIONS), copy=False)

    marginals = forward


def _forget_image_sizes() -> None:
    """Empties what is cached between images of the same size: the next may have another."""
    from instance_crf.crf.cpu import inference, lattice

    for cached in (inference.spatial_lattice, inference._everywhere):
        cached.cache_clear()
    for cached in (lattice.tile_order, lattice.tile_positions):
        cached.cache_clear()
    spatial_filter.cache_clear()


def make_variants(case: Case, args: argparse.Namespace) -> dict[str, object]:
    """The variants by name; the first is what others are compared with."""
    if args.device == "cuda":
        return {
            "exact": Ours(case, "cuda", backend="triton"),
            "reference": Ours(case, "cuda", backend="torch"),
        }
    variants: dict[str, object] = {}
    if pydensecrf is not None and not args.no_peers:
        variants["pydensecrf"] = PyDenseCRF(case)
    variants["exact"] = Ours(case, "cpu")
    variants["dropping"] = Ours(case, "cpu", drop_threshold=args.drop_threshold)
    if args.reference:
        variants["reference"] = Ours(case, "cpu", backend="torch")
    return variants


def run_case(case: Case, args: argparse.Namespace, progress: tqdm) -> dict:
    """Times, speed-ups, peaks and errors of all variants on one case."""
    scenes = [make_scene(case, index).to(args.device) for index in range(args.scenes)]
    variants = make_variants(case, args)
    jobs = [(name, "forward") for name in variants]
    jobs += [(name, "forward_backward") for name in variants if name != "pydensecrf"]
    times: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for repetition in range(args.repeats + 1):
        scene = scenes[repetition % len(scenes)]
        for name, what in jobs:
            progress.set_postfix_str(f"{case}, {name} {what}")
            variant = variants[name]
            if name == "pydensecrf":
                variant.prepare(scene)
            _synchronize(args.device)
            start = time.perf_counter()
            getattr(variant, what)(scene)
            _synchronize(args.device)
            if repetition:  # the first one compiles and warms up
                times[name, what].append(time.perf_counter() - start)
        progress.update()
    base = next(iter(variants))
    rows = []
    peak_mib = _device_peak_mib if args.device == "cuda" else _peak_mib
    for name, what in jobs:
        ratios = np.array(times[base, "forward"]) / np.array(times[name, what])
        rows.append(
            {
                "variant": name,
                "what": what,
                "seconds": _quartiles(times[name, what]),
                "speedup": _quartiles(ratios),
                "peak_mib": peak_mib(variants[name], what, scenes[0]),
            }
        )
    return {
        "case": {**asdict(case), "iterations": ITERATIONS},
        "speedup_over": base,
        "rows": rows,
        "active_fraction": (
            variants["dropping"].forward(scenes[0]).active_fraction
            if "dropping" in variants
            else None
        ),
        "errors": _errors(variants, scenes),
    }


def _quartiles(values) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def _errors(variants: dict, scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """Largest difference of a marginal, and share of pixels with the same label."""
    others = ("dropping", "pydensecrf", "reference")
    pairs = [(other, "exact") for other in others if other in variants]
    result = {}
    for name, against in pairs:
        worst, same = 0.0, 1.0
        for scene in scenes:
            if name == "pydensecrf":
                variants[name].prepare(scene)
            one, other = variants[name].marginals(scene), variants[against].marginals(scene)
            worst = max(worst, float(np.abs(one - other).max()))
            same = min(same, float((one.argmax(axis=0) == other.argmax(axis=0)).mean()))
        result[f"{name} vs {against}"] = {"max_marginal": worst, "same_label": same}
    return result


def _peak_mib(variant, what: str, scene: Scene) -> float | None:
    """Peak of the resident memory above what was there before; Linux only."""
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_kib("VmRSS")
    getattr(variant, what)(scene)
    return (_status_kib("VmHWM") - before) / 1024


def _return_free_memory() -> None:
    """Gives memory that was freed back to the system, or it would hide what is allocated next."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _device_peak_mib(variant, what: str, scene: Scene) -> float:
    """Peak of the device's memory above what was there before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    getattr(variant, what)(scene)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _synchronize(device: str) -> None:
    """Waits for what was started on the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def _status_kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def print_table(results: list[dict]) -> None:
    """A line per case and variant."""
    base = results[0]["speedup_over"]
    print(f"{'':44} {'variant':12} {'seconds (quartiles)':26} {'x ' + base:18} peak MiB")
    for result in results:
        case = Case(**{k: v for k, v in result["case"].items() if k != "iterations"})
        for row in result["rows"]:
            seconds, speedup = row["seconds"], row["speedup"]
            name = row["variant"] + (" f+b" if row["what"] == "forward_backward" else "")
            spread = f"({seconds['low']:.4f}-{seconds['high']:.4f})"
            ratio = f"{speedup['median']:.2f} ({speedup['low']:.2f}-{speedup['high']:.2f})"
            peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
            print(f"{case!s:44} {name:16} {seconds['median']:8.4f} {spread:17} {ratio:18} {peak}")
        for pair, error in result["errors"].items():
            print(
                f"{'':44} {pair}: same label {100 * error['same_label']:.3f} %, "
                f"largest difference of a marginal {error['max_marginal']:.1e}"
            )
        if result["active_fraction"] is not None:
            print(f"{'':44} labels kept with dropping: {100 * result['active_fraction']:.1f} %")


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, as in 500x375") from None


def parse_thetas(text: str) -> tuple[float, float, float]:
    """theta_alpha,theta_beta,theta_gamma."""
    values = tuple(float(value) for value in text.split(","))
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} needs three numbers, as in 80,13,3")
    return values


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detections", type=int, nargs="+", default=[1, 5, 20, 50])
    parser.add_argument(
        "--sizes", type=parse_size, nargs="+", default=[(500, 375), (1024, 1024)], metavar="WxH"
    )
    parser.add_argument(
        "--thetas",
        type=parse_thetas,
        nargs="+",
        default=[(49.0, 5.0, 3.0), (80.0, 13.0, 3.0)],
        metavar="ALPHA,BETA,GAMMA",
    )
    parser.add_argument("--part-prob", choices=["peaked", "flat", "both"], default="both")
    parser.add_argument("--drop-threshold", type=float, default=0.005, help="delta of 'dropping'")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="ours")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=3, help="pictures, taken in turns")
    parser.add_argument("--reference", action="store_true", help="also the PyTorch reference")
    parser.add_argument("--no-peers", action="store_true", help="leave pydensecrf out")
    parser.add_argument("--json", type=Path, help="also write the results there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    kinds = {"peaked": [False], "flat": [True], "both": [False, True]}[args.part_prob]
    cases = [
        Case(*size, detections, thetas, flat)
        for size in args.sizes
        for thetas in args.thetas
        for flat in kinds
        for detections in args.detections
    ]
    results = []
    with tqdm(total=len(cases) * (args.repeats + 1), disable=None) as progress:
        for case in cases:
            results.append(run_case(case, args, progress))
    processor = platform.processor() or platform.machine()
    if args.device == "cuda":
        processor = torch.cuda.get_device_name()
    print(f"{processor}, torch {torch.__version__}, ", end="")
    print(f"{args.threads} threads for ours, {args.repeats} repetitions")
    print_table(results)
    if args.json:
        temporary = args.json.with_name(args.json.name + ".tmp")
        temporary.write_text(json.dumps(results, indent=1))
        temporary.replace(args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
