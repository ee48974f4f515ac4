#!/usr/bin/env python
"""Draw what DenseCRF makes of noisy, coarse logits; needs no data, no weights and no Detectron2.

    python tools/visualize_dense_crf.py --output docs/images/dense_crf.png

Columns: synthetic people, the best label of the logits, the best label after DenseCRF, the truth.
The logits imitate a network's, from the truth: the share of each label in cells of ``--stride``
pixels, times ``--gain``, plus normal noise of deviation ``--noise`` for each cell and label,
interpolated to the picture. Above each row, and printed, is the share of the pixels that are right,
in brackets of those of people. The kernels were chosen on pictures 0 to 7, those drawn are others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from instance_crf.crf import DenseCRF, Gaussian
from instance_crf.data.synthetic import TAXONOMY, SyntheticPeople
from instance_crf.files import atomic_path, check_writable
from instance_crf.program import run_program
from instance_crf.visualization import make_sheet, palette_image

TITLES = ("photo", "noisy logits", "after DenseCRF", "truth")
KERNELS = (Gaussian(position=15, colour=8, weight=6), Gaussian(position=2, weight=3))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="the picture, a PNG file")
    parser.add_argument("--scenes", type=int, nargs="+", default=[8, 9, 10], help="numbers of them")
    parser.add_argument("--size", type=int, nargs=2, default=[240, 320], metavar=("H", "W"))
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--gain", type=float, default=4.0)
    parser.add_argument("--noise", type=float, default=1.5)
    return parser.parse_args(argv)


def noisy_logits(truth: Tensor, seed: int, stride: int, gain: float, noise: float) -> Tensor:
    """(L, H, W) logits of an (H, W) label map, see above."""
    one_hot = F.one_hot(truth, TAXONOMY.num_parts + 1).permute(2, 0, 1).float()
    share = F.avg_pool2d(one_hot[None], stride, ceil_mode=True)
    random = torch.randn(share.shape, generator=torch.Generator().manual_seed(seed))
    logits = F.interpolate(gain * share + noise * random, scale_factor=stride, mode="bilinear")
    return logits[0, :, : truth.shape[0], : truth.shape[1]]


def accuracy(labels: Tensor, truth: Tensor) -> str:
    """Of all pixels, and of those of people."""
    right = (labels == truth).float()
    return f"{100 * right.mean():.1f} % ({100 * right[truth > 0].mean():.1f} %)"


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    check_writable(args.output)
    people, crf = SyntheticPeople("moderate", tuple(args.size)), DenseCRF(KERNELS)
    rows, captions = [], []
    for index in args.scenes:
        scene = people[index]
        image, truth = torch.from_numpy(scene.image), torch.from_numpy(scene.part_map).long()
        logits = noisy_logits(truth, index, args.stride, args.gain, args.noise)
        with torch.no_grad():
            log_marginals = crf(logits[None], image.permute(2, 0, 1)[None])
        before, after = logits.argmax(dim=0), log_marginals[0].argmax(dim=0)
        maps = [palette_image(each.numpy(), TAXONOMY) for each in (before, after, truth)]
        rows.append([scene.image, *(np.asarray(each.convert("RGB")) for each in maps)])
        numbers = f"{accuracy(before, truth)} before, {accuracy(after, truth)} after"
        captions.append(f"pixels right (of people): {numbers}")
        print(f"scene {index}: {captions[-1]}")
    sheet = Image.fromarray(make_sheet(rows, TITLES, legend=TAXONOMY, row_titles=captions))
    with atomic_path(args.output) as temporary:
        sheet.quantize(256).save(temporary, "PNG", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
