"""The command ``instance-crf parse``: somebody's parts and somebody's boxes on many photos."""

from __future__ import annotations

import argparse
import hashlib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.parallel import print_beside_bar
from ..extras import require
from ..files import check_writable
from .models import add_model_arguments, load_models

if TYPE_CHECKING:  # it imports torch, which arguments and help need not wait for
    from ..own_models.batch import BatchReport

__all__ = ["add_arguments", "run"]

DESCRIPTION = """\
Join a part model and a detector, both as they are, on photos: for every pixel a part and the
person it belongs to. Nothing is trained.

For PHOTO.jpg it writes PHOTO.png (ids of the persons), PHOTO_parts.png (ids of the parts),
PHOTO_picture.jpg, and PHOTO.json (boxes and scores). Photos that are done are skipped, so the same
command goes on after an interruption; settings.json in the folder says how its results were made.
"""
EXAMPLES = """\
examples:
  a model of the hub and one of torchvision:
    instance-crf parse holiday/ --parts hf:mattmdjaga/segformer_b2_clothes \\
        --detector torchvision:fasterrcnn_resnet50_fpn --output parsed/
  what other programs have written, NAME.npy or NAME.png for NAME.jpg, and boxes in COCO's format:
    instance-crf parse 'holiday/*.jpg' --parts probabilities/ --detector coco:boxes.json \\
        --taxonomy lip --output parsed/
  coarser parts:
    instance-crf parse photo.jpg --parts onnx:schp.onnx --taxonomy pascal_person_part \\
        --detector onnx:yolox.onnx --output parsed/ \\
        --merge "head=head;torso=torso;arms=upper arms,lower arms;legs=upper legs,lower legs"
"""
#: What a specification begins with -> the library, whose version matters.
_LIBRARIES = {"hf": "transformers", "torchvision": "torchvision", "onnx": "onnxruntime"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders, patterns")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="no NAME_picture.jpg"
    )
    parser.add_argument("--overwrite", action="store_true", help="make anew what is done")


def run(args: argparse.Namespace) -> int:
    """Parse, report; the exit status is 1 if a photo was not done, 130 after Ctrl-C.

    Raises:
        OSError, ImportError, ValueError: about all photos together.
    """
    try:
        report = _parse_all(args)
    except KeyboardInterrupt:
        how = "the same command without --overwrite" if args.overwrite else "the same command"
        print(f"interrupted: what is done is in {args.output}; {how} goes on", file=sys.stderr)
        return 130
    before = f", {len(report.skipped)} were done before" if report.skipped else ""
    print(f"{len(report.done)} images done{before}; results in {args.output}")
    if report.failed:
        lines = "\n  ".join(message for _, message in report.failed)
        print(f"{len(report.failed)} not done:\n  {lines}", file=sys.stderr)
    return 1 if report.failed else 0


def _parse_all(args: argparse.Namespace) -> BatchReport:
    from ..own_models.batch import describe_error, parse_folder
    from ..own_models.batch_folder import SETTINGS_FILE

    if Path(args.parts).is_dir() and args.output.resolve() == Path(args.parts).resolve():
        raise ValueError(f"{args.output} has the parts: name another --output for the results.")
    check_writable(args.output / SETTINGS_FILE)
    parts, detector, taxonomy, merge = load_models(args)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print_beside_bar(f"warning: {message}")
        return parse_folder(
            args.photos,
            args.output,
            parts,
            detector,
            taxonomy=taxonomy,
            pictures=args.pictures and _can_draw(),
            settings=_settings(args),
            resume=not args.overwrite,
            on_error=lambda path, error: print_beside_bar(describe_error(path, error)),
            merge=merge,
            working_size=args.size,
            least_score=args.least_score,
        )


def _can_draw() -> bool:
    try:
        require("cv2", "viz")
    except ImportError as error:
        print(f"note: there will be no pictures. {error}", file=sys.stderr)
        return False
    return True


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What made the results, beside what :func:`parse_folder` knows."""
    specs = (args.parts, args.detector)
    kinds = {spec.partition(":")[0] for spec in specs}
    libraries = {"torch", *(name for kind, name in _LIBRARIES.items() if kind in kinds)}
    options = dict(args.option), dict(args.detector_option)
    files = _files([*specs, *options[0].values(), *options[1].values()])
    return {
        "parts": args.parts,
        "part_options": options[0],
        "detector": args.detector,
        "detector_options": options[1],
        "sha256": {text: _sha256(path) for text, path in files.items()},
        "versions": {name: require(name, "models").__version__ for name in sorted(libraries)},
    }


def _files(values: Iterable[Any]) -> dict[str, Path]:
    """Of what may name a file, "FILE", "KIND:FILE" or "KIND:NAME:FILE", that which does."""
    found = {}
    for text in values:
        if isinstance(text, str):
            for name in (text, text.partition(":")[2], text.rpartition(":")[2]):
                if Path(name).is_file():
                    found[text] = Path(name)
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
