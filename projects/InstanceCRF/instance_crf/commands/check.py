"""The command ``instance-crf check``: whether a part model gets the right input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ..data.find_images import find_images
from ..data.parallel import print_beside_bar, progress_bar
from .models import add_model_arguments, load_models

__all__ = ["add_arguments", "run"]

DESCRIPTION = """\
Does the part model get the input that it was trained with? The wrong range of colours, or blue for
red, gives parts that look plausible. But the detector says where people are, too: the input whose
foreground agrees best with the boxes is probably the right one. Of an ONNX model all that was said
of its input is tried, of others the order of the channels. Some ten photos with people are enough.
Exit status 1: another input is clearly better, or a photo could not be read.
"""
EXAMPLES = """\
examples:
  instance-crf check photos/ --parts onnx:parts.onnx --option kind=logits --option range=0-1 \\
      --taxonomy lip --detector torchvision:fasterrcnn_resnet50_fpn_v2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders, patterns")
    add_model_arguments(parser)
    parser.set_defaults(size=256, least_score=0.5)
    parser.add_argument(
        "--most", type=int, default=20, metavar="N", help="photos to look at, default 20"
    )


def run(args: argparse.Namespace) -> int:
    """Check, print; the exit status is 1 if another input is better, or a photo was left out.

    Raises:
        OSError, ImportError, ValueError: about all photos together.
    """
    from ..own_models.batch import describe_error
    from ..own_models.input_check import check_input

    if args.most < 1:
        raise ValueError(f"--most is {args.most}; it must be at least 1.")
    photos = find_images(args.photos)
    photos = photos[:: max(1, len(photos) // args.most)][: args.most]
    parts, detector, taxonomy, merge = load_models(args)
    failed = []

    def leave_out(photo: Path, error: Exception) -> None:
        failed.append(photo)
        print_beside_bar(f"error: {describe_error(photo, error)}")

    with progress_bar(len(photos), "Checking", least=2) as advance:
        result = check_input(
            parts,
            detector,
            _counted(photos, advance),
            on_error=leave_out,
            parts=taxonomy,
            merge=merge,
            working_size=args.size,
            least_score=args.least_score,
        )
    print(result)
    if failed:
        print(f"{len(failed)} of {len(photos)} photos not checked", file=sys.stderr)
    return 0 if result.verdict() is None and not failed else 1


def _counted(photos: list[Path], advance) -> Iterator[Path]:
    for photo in photos:
        yield photo
        advance(1)
