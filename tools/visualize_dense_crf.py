#!/usr/bin/env python
"""Draw what DenseCRF makes of noisy, coarse logits; needs no data, no weights and no Detectron2.

    python tools/visualize_dense_crf.py --output docs/images/dense_crf.png

Columns: synthetic people, the best label of the logits, the best label after DenseCRF, the truth.
The logits imitate a network's, from the truth: the share of each label in cells of ``--stride``
pixels times ``--gain``, plus normal noise of standard deviation ``--noise`` for each cell and
label, interpolated to the picture. Pixel accuracies, also on the people's own pixels, are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from instance_crf.crf import DenseCRF, Gaussian
from instance_crf.data.label_io import atomic_path
from instance_crf.data.synthetic import TAXONOMY, SyntheticPeople
from instance_crf.visualization import draw_part_segmentation, make_sheet

TITLES = ("photo", "noisy logits, stride {}", "after DenseCRF", "truth")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="the picture, a PNG file")
    parser.add_argument("--scenes", type=int, nargs="+", default=[0, 1, 2], help="which pictures")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--gain", type=float, default=5.0)
    parser.add_argument("--noise", type=float, default=1.5)
    return parser.parse_args(argv)


def noisy_logits(truth: torch.Tensor, index: int, args: argparse.Namespace) -> torch.Tensor:
    """(L, H, W) logits of an (H, W) label map, see the module's docstring."""
    one_hot = F.one_hot(truth, TAXONOMY.num_parts + 1).permute(2, 0, 1).float()
    share = F.avg_pool2d(one_hot[None], args.stride, ceil_mode=True)
    noise = torch.randn(share.shape, generator=torch.Generator().manual_seed(index))
    coarse = args.gain * share + args.noise * noise
    return F.interpolate(coarse, scale_factor=args.stride, mode="bilinear")[
        0, :, : truth.shape[0], : truth.shape[1]
    ]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    people = SyntheticPeople("moderate", tuple(args.size))
    crf = DenseCRF(
        [
            Gaussian(position=30.0, colour=13.0, weight=6.0),
            Gaussian(position=3.0, weight=3.0),
        ]
    )
    rows = []
    for index in args.scenes:
        scene = people[index]
        truth = torch.from_numpy(scene.part_map).long()
        image = torch.from_numpy(scene.image).permute(2, 0, 1)
        logits = noisy_logits(truth, index, args)
        with torch.no_grad():
            log_marginals = crf(logits[None], image[None])[0]
        before, after = logits.argmax(dim=0), log_marginals.argmax(dim=0)
        accuracies = []
        for name, labels in (("before", before), ("after", after)):
            right = labels == truth
            accuracies.append(
                f"{name} {100 * right.float().mean():.1f} %"
                f" (people {100 * right[truth > 0].float().mean():.1f} %)"
            )
        print(f"scene {index}: {', '.join(accuracies)}")
        maps = [each.numpy().astype(np.uint8) for each in (before, after, truth)]
        drawn = [draw_part_segmentation(scene.image, each, TAXONOMY, scale=1) for each in maps]
        rows.append([scene.image, *drawn])
    titles = [title.format(args.stride) for title in TITLES]
    sheet = make_sheet(rows, titles, legend=TAXONOMY)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as temporary:
        Image.fromarray(sheet).save(temporary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
