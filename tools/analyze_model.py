#!/usr/bin/env python
"""Count a model's parameters, flops and activations, or print its structure.

    python tools/analyze_model.py --config-file configs/SyntheticPeople/parts.yaml \\
        --tasks flop activation parameter structure [--num-inputs 10] [--opts KEY VALUE ...]

Flops (multiply-adds) and activations are those of inference, by fvcore, averaged over images of
DATASETS.TEST, or over random images of ``--image-size H W``, which need no data. What the box head
does depends on the image: give trained MODEL.WEIGHTS for figures that mean something. They are of
the network alone. The CRF's work is gathering and adding, which flop counts do not know: it is
timed by tools/benchmark_crf.py.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis, activation_count_operators
from fvcore.nn import flop_count_table, parameter_count, parameter_count_table
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from instance_crf.checkpoint import load_weights
from instance_crf.config import load_config
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.program import run_program

TASKS = ("flop", "activation", "parameter", "structure")


class Network(nn.Module):
    """The model without its CRF and with tensors for outputs: what a tracer asks for."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.crf_head = None
        self.model.keep_evidence = True

    def forward(self, inputs: list[dict]) -> list[Tensor]:
        outputs = self.model(inputs)
        found = [(o["sem_seg"], o["detections"].pred_boxes.tensor, o.get("vote")) for o in outputs]
        return [tensor for tensors in found for tensor in tensors if tensor is not None]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, required=True)
    parser.add_argument(
        "-n", "--num-inputs", type=int, default=10, help="images to average over (default 10)"
    )
    parser.add_argument(
        "--image-size", nargs=2, type=int, metavar=("H", "W"), help="random images, pixels"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides, KEY VALUE ..."
    )
    args = parser.parse_args(argv)
    if args.num_inputs < 1:
        parser.error(f"--num-inputs is {args.num_inputs}; it must be at least 1")
    return args


def inputs_of(cfg: CfgNode, image_size: tuple[int, int] | None, number: int) -> Iterator[list]:
    """``number`` inputs of the model, one image each."""
    if image_size:
        generator = torch.Generator().manual_seed(0)
        for _ in range(number):
            image = torch.randint(0, 256, (3, *image_size), generator=generator, dtype=torch.uint8)
            yield [{"image": image}]
    else:
        mapper = PartInstanceMapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=mapper)
        for inputs in islice(loader, number):
            yield [{"image": inputs[0]["image"]}]


def report_flops(model: nn.Module, inputs: Iterator[list], total: int) -> str:
    """A table of the last image, and means over all."""
    network = Network(model)
    per_operator, totals, left_out = Counter(), [], Counter()
    for one in tqdm(inputs, total=total, unit="image"):
        count = FlopCountAnalysis(network, one)
        count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        per_operator.update(count.by_operator())
        totals.append(count.total())
        left_out.update(count.unsupported_ops())
    return "\n".join(
        [
            "Flops of the last image:",
            flop_count_table(count, max_depth=5),
            "Mean Gflops of an image, by operator:",
            _table({k: v / len(totals) / 1e9 for k, v in per_operator.items()}),
            f"Total Gflops: {np.mean(totals) / 1e9:.3f} +- {np.std(totals) / 1e9:.3f} "
            f"({len(totals)} images)",
            "Not counted (times an image): "
            + ", ".join(f"{k} {round(v / len(totals))}" for k, v in left_out.most_common(12)),
        ]
    )


def report_activations(model: nn.Module, inputs: Iterator[list], total: int) -> str:
    """Means over all images, millions of output elements of convolutions and products."""
    network = Network(model)
    per_operator, totals = Counter(), []
    for one in tqdm(inputs, total=total, unit="image"):
        count = activation_count_operators(network, one)
        per_operator.update(count)
        totals.append(sum(count.values()))
    return "\n".join(
        [
            "Mean millions of activations of an image, by operator:",
            _table({k: v / len(totals) for k, v in per_operator.items()}),
            f"Total millions of activations: {np.mean(totals):.3f} +- {np.std(totals):.3f} "
            f"({len(totals)} images)",
        ]
    )


def report_parameters(model: nn.Module) -> str:
    """All parameters by module, and how many of them learn."""
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return "\n".join(
        [
            parameter_count_table(model, max_depth=5),
            f"Parameters: {parameter_count(model)['']:,}, of which learn {learned:,}",
        ]
    )


def _table(values: dict[str, float]) -> str:
    rows = sorted(values.items(), key=lambda item: -item[1])
    return tabulate(rows, headers=("operator", ""), floatfmt=".4f")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    instance_crf.register()
    cfg = load_config(args.config_file, args.opts)
    model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        load_weights(model, cfg.MODEL.WEIGHTS)
    for task in args.tasks:
        if task == "structure":
            print(f"Model structure:\n{model}")
        elif task == "parameter":
            print(report_parameters(model))
        else:
            report = report_flops if task == "flop" else report_activations
            inputs = inputs_of(cfg, args.image_size, args.num_inputs)
            print(report(model, inputs, args.num_inputs))


if __name__ == "__main__":
    sys.exit(run_program(main))
