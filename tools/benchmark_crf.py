#!/usr/bin/env python
"""Time the dense CRFs against pydensecrf, where it is installed, in one run.

    python tools/benchmark_crf.py
    python tools/benchmark_crf.py --detections 5 50 --labels --sizes 500x375 --json crf.json
    python tools/benchmark_crf.py --photographs FOLDER
    python tools/benchmark_crf.py --device cuda --sizes 512x512 --detections 10

Two models: the Instance CRF of D detections of six parts, from Q, boxes and image to the label maps
(``--detections``), in the joint and the factored form, the latter with *what* unsmoothed and
smoothed; and DenseCRF on L labels, from logits and image to the log-marginals (``--labels``). All
forms are compared with pydensecrf on the joint problem; "pydensecrf factored" is its time on the
two problems of the factored form, without a support, which it does not know.

Pictures are synthetic people; Q is what a part head gives, peaked inside parts and soft at their
borders; the first boxes are those of the people, the rest are false positives. With
``--photographs`` they are photographs with a part model's own, softer Q: ``photos/NAME.jpg``,
``q/NAME.npz`` (``person_logit`` (1, h, w) and ``part_logits`` (24, h, w) of BodyPix, corners
aligned) and ``boxes/*.json`` ({NAME: {"boxes": ..., "scores": ...}}). All use symmetric
normalisation, as pydensecrf does.

Variants take turns within each repetition, in an order that changes. A time is the median over the
repetitions with the quartiles beside it; a speed-up is the median of the ratios to pydensecrf (or,
without it, to ours) within a repetition, which a noisy machine disturbs least. Ours makes the
unaries and caches nothing between images; backward is that of the log-probabilities of a label per
pixel. pydensecrf gets the unary energies ready-made, runs on one thread and has no backward.

With ``--device cuda`` ours is Triton's, beside the reference; inputs are on the device before the
clock starts, and it stops when the device has finished. Peaks are then those of the device's memory
above what was there before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from instance_crf.crf import DenseCRF, DenseInstanceCRF, FactoredInstanceCRF, Gaussian
from instance_crf.crf.label_space import build_label_space
from instance_crf.crf.place import region_templates
from instance_crf.crf.potentials import box_term, global_term, unary_energy
from instance_crf.data.image_io import read_image
from instance_crf.data.synthetic import SyntheticPeople
from instance_crf.evaluation.toolkit.photographs import REGION_OF_PART, REGIONS
from instance_crf.files import check_writable, read_json, write_json
from instance_crf.program import run_program

try:
    import pydensecrf.densecrf as pydensecrf
except ImportError:
    pydensecrf = None

ITERATIONS = 5
NUM_PARTS = 6
BILATERAL_WEIGHT, SPATIAL_WEIGHT = 4.0, 3.0


@dataclass(frozen=True)
class Case:
    """One input, for all variants: of a model with ``detections``, or with ``labels``."""

    width: int
    height: int
    thetas: tuple[float, float, float]
    detections: int | None = None
    labels: int | None = None

    def __str__(self) -> str:
        theta = ",".join(f"{value:g}" for value in self.thetas)
        size = f"D={self.detections}" if self.labels is None else f"L={self.labels}"
        return f"{self.width}x{self.height} {size} theta={theta}"


@dataclass
class Scene:
    """The tensors of an image: Q, boxes and scores, or logits (1, L, H, W); the image (3, H, W)."""

    image: torch.Tensor
    part_prob: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    logits: torch.Tensor | None = None

    def to(self, device: str) -> Scene:
        """The same on a device."""
        moved = (None if value is None else value.to(device) for value in vars(self).values())
        return Scene(*moved)


def make_scene(case: Case, index: int, photographs: Path | None = None, seed: int = 0) -> Scene:
    """One of the pictures, with what the case's model takes; deterministic."""
    rng = np.random.default_rng((seed, index))
    if photographs is None:
        scene = _synthetic_scene(case, index, seed, rng)
    else:
        scene = _photograph(case, index, photographs, rng)
    if case.labels is not None:
        coarse = rng.standard_normal((case.labels, case.height // 16 + 1, case.width // 16 + 1))
        coarse = torch.from_numpy(coarse.astype(np.float32))[None]
        return Scene(scene.image, logits=2 * _resize(coarse, case))
    return scene


def _synthetic_scene(case: Case, index: int, seed: int, rng: np.random.Generator) -> Scene:
    sample = SyntheticPeople("hard", (case.height, case.width), seed=seed)[index]
    one_hot = np.eye(NUM_PARTS + 1, dtype=np.float32)[sample.part_map]
    soft = cv2.GaussianBlur(one_hot, (0, 0), 2.0)
    coarse = rng.standard_normal((case.height // 8 + 1, case.width // 8 + 1, NUM_PARTS + 1))
    noise = cv2.resize(coarse.astype(np.float32), (case.width, case.height))
    logits = torch.from_numpy(0.5 * noise + 12 * soft).permute(2, 0, 1)
    boxes = []
    for person in range(1, int(sample.object_map.max()) + 1):
        y, x = np.nonzero(sample.object_map == person)
        boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    image = torch.from_numpy(sample.image).permute(2, 0, 1).float().contiguous()
    part_prob = torch.softmax(logits, dim=0).contiguous()
    return Scene(image, part_prob, *_with_false_positives(boxes, case, rng))


def _photograph(case: Case, index: int, folder: Path, rng: np.random.Generator) -> Scene:
    (found,) = folder.glob("boxes/*.json")
    of_photos = read_json(found)
    outputs = sorted(folder.glob("q/*.npz"))
    name = outputs[index * 7 % len(outputs)].stem  # neighbours are often of one source
    pixels = read_image(folder / "photos" / f"{name}.jpg")
    scale = np.array([case.width / pixels.shape[1], case.height / pixels.shape[0]] * 2)
    pixels = cv2.resize(pixels, (case.width, case.height), interpolation=cv2.INTER_AREA)
    with np.load(folder / "q" / f"{name}.npz") as output:
        logits = {
            key: torch.from_numpy(output[key]).float()[None] for key in output if "log" in key
        }
    person = torch.sigmoid(_resize(logits["person_logit"], case)[0])
    parts = torch.softmax(_resize(logits["part_logits"], case)[0], dim=0)
    merged = torch.zeros(NUM_PARTS, *person.shape[1:])
    merged.index_add_(0, torch.tensor(REGION_OF_PART), parts)
    boxes = [tuple(box) for box in np.array(of_photos[name]["boxes"]).reshape(-1, 4) * scale]
    image = torch.from_numpy(pixels).permute(2, 0, 1).float().contiguous()
    part_prob = torch.cat([1 - person, person * merged])
    return Scene(image, part_prob, *_with_false_positives(boxes, case, rng))


def _resize(logits: torch.Tensor, case: Case) -> torch.Tensor:
    """(1, C, h, w) -> (1, C, H, W), corners aligned."""
    size = (case.height, case.width)
    return torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=True)


def _with_false_positives(
    boxes: list[tuple], case: Case, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """As many boxes as wanted: those given, then others of their sizes anywhere; and scores."""
    people = np.array(boxes, np.float32).reshape(-1, 4)
    sizes = people[:, 2:] - people[:, :2]
    if not boxes:
        sizes = np.array([[case.width, case.height]], np.float32) / 4
    while len(boxes) < (case.detections or 0):
        size = sizes[rng.integers(len(sizes))] * rng.uniform(0.5, 1.0)
        corner = rng.uniform(0, 1, 2) * (np.array([case.width, case.height]) - size)
        boxes.append((*corner, *(corner + size)))
    boxes = torch.from_numpy(np.array(boxes[: case.detections], np.float32))
    scores = np.sort(rng.uniform(0.5, 1.0, len(boxes)))[::-1].astype(np.float32)
    return boxes, torch.from_numpy(scores)


class InstanceVariant:
    """DenseInstanceCRF or FactoredInstanceCRF."""

    def __init__(self, case: Case, device: str, backend: str, form: str = "joint") -> None:
        options = {
            "num_iterations": ITERATIONS,
            "theta_alpha": case.thetas[0],
            "theta_beta": case.thetas[1],
            "theta_gamma": case.thetas[2],
            "normalization": "symmetric",
            "backend": backend,
        }
        if form == "joint":
            weights = {"bilateral_weight": BILATERAL_WEIGHT, "spatial_weight": SPATIAL_WEIGHT}
            self.crf = DenseInstanceCRF(**weights, **options).to(device)
        else:
            self.crf = FactoredInstanceCRF(
                what_pairwise=form == "factored, what smoothed",
                place_templates=region_templates(REGIONS),
                reference_size=None,
                **options,
            ).to(device)

    def forward(self, scene: Scene) -> None:
        with torch.no_grad():
            self.crf(scene.part_prob, scene.boxes, scene.scores, scene.image).argmax()

    def forward_backward(self, scene: Scene) -> None:
        part_prob = scene.part_prob.clone().requires_grad_()
        labelling = self.crf(part_prob, scene.boxes, scene.scores, scene.image)
        objects, parts = labelling.argmax()
        labels = labelling.label_space.label_index()[objects, parts]
        labelling.log_prob(labels).sum().backward()

    def marginals(self, scene: Scene) -> np.ndarray:
        with torch.no_grad():
            result = self.crf(scene.part_prob, scene.boxes, scene.scores, scene.image).marginals()
        return result.flatten(1).cpu().numpy()


class DenseVariant:
    """DenseCRF."""

    def __init__(self, case: Case, device: str, backend: str) -> None:
        alpha, beta, gamma = case.thetas
        kernels = [
            Gaussian(position=alpha, colour=beta, weight=BILATERAL_WEIGHT),
            Gaussian(position=gamma, weight=SPATIAL_WEIGHT),
        ]
        options = {"num_iterations": ITERATIONS, "normalization": "symmetric", "backend": backend}
        self.crf = DenseCRF(kernels, **options).to(device)

    def forward(self, scene: Scene) -> torch.Tensor:
        with torch.no_grad():
            return self.crf(scene.logits, scene.image[None])

    def forward_backward(self, scene: Scene) -> None:
        logits = scene.logits.clone().requires_grad_()
        log_marginals = self.crf(logits, scene.image[None])
        labels = scene.logits.argmax(dim=1)
        torch.nn.functional.nll_loss(log_marginals, labels).backward()

    def marginals(self, scene: Scene) -> np.ndarray:
        return self.forward(scene)[0].exp().flatten(1).cpu().numpy()


class PyDenseCRF:
    """pydensecrf on the same unaries; inference leaves the marginals, there is no backward."""

    def __init__(self, case: Case, form: str = "joint") -> None:
        self.thetas = case.thetas
        self.form = form

    def prepare(self, scene: Scene) -> None:
        """Unary energies, outside of what is timed."""
        if scene.logits is not None:
            energy = -scene.logits[0]
        else:
            owner = torch.zeros(NUM_PARTS, dtype=torch.int64)
            space = build_label_space(torch.zeros(len(scene.boxes), dtype=torch.int64), owner)
            size = scene.image.shape[1:]
            factor = box_term(scene.boxes, scene.scores, *size) + global_term(scene.boxes, *size)
            energy = unary_energy(scene.part_prob, factor, space, 1e-8).permute(2, 0, 1)
        energies = [energy]
        if self.form == "factored":  # what is timed depends on their numbers of labels alone
            energies = [energy[: NUM_PARTS + 1], energy[::NUM_PARTS][1:]]
        self.energies = [energy.flatten(1).contiguous().numpy() for energy in energies]
        self.image = scene.image.permute(1, 2, 0).byte().contiguous().numpy()

    def forward(self, scene: Scene) -> np.ndarray:
        height, width = self.image.shape[:2]
        alpha, beta, gamma = self.thetas
        for energy in self.energies:
            crf = pydensecrf.DenseCRF2D(width, height, len(energy))
            crf.setUnaryEnergy(energy)
            crf.addPairwiseGaussian(sxy=gamma, compat=SPATIAL_WEIGHT)
            crf.addPairwiseBilateral(
                sxy=alpha, srgb=beta, rgbim=self.image, compat=BILATERAL_WEIGHT
            )
            result = np.array(crf.inference(ITERATIONS), copy=False)
        return result

    marginals = forward


def make_variants(case: Case, args: argparse.Namespace) -> dict[str, object]:
    """The variants by name; the first is what others are compared with."""
    ours = InstanceVariant if case.labels is None else DenseVariant
    variants: dict[str, object] = {}
    peers = args.device == "cpu" and pydensecrf is not None and not args.no_peers
    if peers:
        variants["pydensecrf"] = PyDenseCRF(case)
    variants["ours"] = ours(case, args.device, "auto")
    if case.labels is None:
        for form in ("factored", "factored, what smoothed"):
            variants[form] = InstanceVariant(case, args.device, "auto", form)
        if peers:
            variants["pydensecrf factored"] = PyDenseCRF(case, "factored")
    if args.reference or args.device == "cuda":
        variants["reference"] = ours(case, args.device, "torch")
    return variants


def run_case(case: Case, args: argparse.Namespace, progress: tqdm) -> dict:
    """Times, speed-ups, peaks and errors of all variants on one case."""
    scenes = [
        make_scene(case, index, args.photographs).to(args.device) for index in range(args.scenes)
    ]
    variants = make_variants(case, args)
    jobs = [(name, "forward") for name in variants]
    jobs += [
        (name, "forward_backward")
        for name, variant in variants.items()
        if not isinstance(variant, PyDenseCRF)
    ]
    times: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    rng = np.random.default_rng(0)
    for repetition in range(args.repeats + 1):
        scene = scenes[repetition % len(scenes)]
        # Who comes right after another one finds its memory still there.
        for name, what in rng.permutation(jobs).tolist():
            progress.set_postfix_str(f"{case}, {name} {what}")
            variant = variants[name]
            if isinstance(variant, PyDenseCRF):
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
        "errors": _errors(variants, scenes),
    }


def _quartiles(values) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "low": float(low), "high": float(high)}


def _errors(variants: dict, scenes: list[Scene]) -> dict[str, dict[str, float]]:
    """Largest difference of a marginal, and share of pixels with the same label."""
    pairs = [(other, "ours") for other in ("pydensecrf", "reference") if other in variants]
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
    print(f"{'':44} {'variant':28} {'seconds (quartiles)':26} {'x ' + base:18} peak MiB")
    for result in results:
        case = Case(**{k: v for k, v in result["case"].items() if k != "iterations"})
        for row in result["rows"]:
            seconds, speedup = row["seconds"], row["speedup"]
            name = row["variant"] + (" f+b" if row["what"] == "forward_backward" else "")
            spread = f"({seconds['low']:.4f}-{seconds['high']:.4f})"
            ratio = f"{speedup['median']:.2f} ({speedup['low']:.2f}-{speedup['high']:.2f})"
            peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
            print(f"{case!s:44} {name:28} {seconds['median']:8.4f} {spread:17} {ratio:18} {peak}")
        for pair, error in result["errors"].items():
            print(
                f"{'':44} {pair}: same label {100 * error['same_label']:.3f} %, "
                f"largest difference of a marginal {error['max_marginal']:.1e}"
            )


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
    parser.add_argument(
        "--detections", type=int, nargs="*", default=[5, 20, 50], help="of the Instance CRF"
    )
    parser.add_argument(
        "--labels",
        type=int,
        nargs="*",
        default=[2, 21, 150],
        help="of DenseCRF",
    )
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=[(500, 375)], metavar="WxH")
    parser.add_argument(
        "--thetas",
        type=parse_thetas,
        nargs="+",
        default=[(49.0, 5.0, 3.0)],
        metavar="ALPHA,BETA,GAMMA",
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        default=os.environ.get("INSTANCE_CRF_REAL"),
        help="folder of photographs (default: $INSTANCE_CRF_REAL, else synthetic people)",
    )
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
    check_writable(args.json)
    torch.set_num_threads(args.threads)
    cases = [
        Case(*size, thetas, **{what: count})
        for size in args.sizes
        for thetas in args.thetas
        for what in ("detections", "labels")
        for count in getattr(args, what)
    ]
    results = []
    with tqdm(total=len(cases) * (args.repeats + 1), disable=None) as progress:
        for case in cases:
            results.append(run_case(case, args, progress))
    processor = platform.processor() or platform.machine()
    if args.device == "cuda":
        processor = torch.cuda.get_device_name()
    print(f"{processor}, torch {torch.__version__}, ", end="")
    source = "synthetic people" if args.photographs is None else "photographs"
    print(f"{args.threads} threads for ours, {args.repeats} repetitions, {source}")
    print_table(results)
    if args.json:
        write_json(args.json, results, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
