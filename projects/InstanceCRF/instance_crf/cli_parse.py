"""The command ``instance-crf parse``: somebody's parts and somebody's boxes on many photos."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data.parallel import print_beside_bar
from .extras import require
from .taxonomies import TAXONOMY_NAMES, PartTaxonomy
from .taxonomies.command import taxonomy_of

if TYPE_CHECKING:  # it imports torch, which arguments and help need not wait for
    from .own_models.batch import BatchReport
    from .own_models.inputs import Source

__all__ = ["add_arguments", "add_model_arguments", "load_models", "read_groups", "run"]

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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that say whose parts, whose boxes, and how they are joined."""
    parser.add_argument(
        "--parts",
        required=True,
        metavar="MODEL",
        help="hf:NAME or hf:FOLDER, torchvision:NAME, onnx:FILE, bodypix:FOLDER; or a FOLDER of "
        "NAME.npy (scores of the parts) or NAME.png (ids)",
    )
    parser.add_argument(
        "--detector",
        required=True,
        metavar="MODEL",
        help="torchvision:NAME, hf:NAME or hf:FOLDER, onnx:FILE, or coco:FILE.json",
    )
    parser.add_argument(
        "--taxonomy",
        metavar="NAME|FILE.json",
        help=f"what the part model's ids mean: {', '.join(TAXONOMY_NAMES)}, or a file (see "
        "instance-crf taxonomies); default: as the model says",
    )
    parser.add_argument(
        "--merge",
        metavar="GROUPS",
        help='coarser parts: "new=old,old;new=old", or a FILE.json {"new": ["old", ...]}; parts '
        "in no group become background",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=512,
        metavar="PIXELS",
        help="longer side at which the CRF works (default 512)",
    )
    parser.add_argument(
        "--least-score",
        type=_score,
        default=0.15,
        metavar="SCORE",
        help="of a detection that counts, from 0 to below 1 (default 0.15)",
    )
    for name, of in (("--option", "part model"), ("--detector-option", "detector")):
        parser.add_argument(
            name,
            action="append",
            type=_key_and_value,
            default=[],
            metavar="KEY=VALUE",
            help=f"of the {of}, e.g. device=cuda; may be given more than once",
        )


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
    from .own_models.batch import describe_error, parse_folder

    if Path(args.parts).is_dir() and args.output.resolve() == Path(args.parts).resolve():
        raise ValueError(f"{args.output} has the parts: name another --output for the results.")
    groups = read_groups(args.merge) if args.merge else None
    parts, detector, taxonomy = load_models(args)
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
            merge=groups,
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


def load_models(args: argparse.Namespace) -> tuple[Source, Source, PartTaxonomy]:
    """The part model, the detector, and what the part model's ids mean.

    Raises:
        OSError, ImportError, ValueError: a model that cannot be loaded, parts without names.
    """
    from .own_models.boxes import load_detector
    from .own_models.parts import load_part_model

    taxonomy = taxonomy_of(args.taxonomy) if args.taxonomy else None
    parts = load_part_model(args.parts, taxonomy=taxonomy, **dict(args.option))
    taxonomy = taxonomy or parts.taxonomy
    if taxonomy is None:
        raise ValueError(f"{args.parts} does not say what its parts are: add --taxonomy.")
    # A detector's own threshold must not hide what --least-score lets in.
    options = {"least_score": args.least_score, **dict(args.detector_option)}
    return parts, load_detector(args.detector, **options), taxonomy


def read_groups(text: str) -> dict[str, list[str]]:
    """The groups in a file ``{"new": ["old", ...], ...}``, or in "new=old,old;new=old".

    Raises:
        FileNotFoundError, ValueError: no such file; neither of the two forms.
    """
    if text.lower().endswith(".json"):
        return _read_group_file(Path(text))
    groups: dict[str, list[str]] = {}
    for entry in filter(str.strip, text.split(";")):
        new, equals, old = entry.partition("=")
        names = [name.strip() for name in old.split(",")]
        if not equals or not new.strip() or not all(names):
            raise ValueError(f'--merge has {entry.strip()!r}, which is not like "new=old,old".')
        if new.strip() in groups:
            raise ValueError(f"--merge has the new part {new.strip()!r} twice.")
        groups[new.strip()] = names
    if not groups:
        raise ValueError('--merge has no group: give "new=old,old;new=old" or a FILE.json.')
    return groups


def _read_group_file(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"The file of --merge, {path}, does not exist.")
    try:
        groups = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f'{path} must hold {{"new part": ["old part", ...], ...}}.')
    for new, old in groups.items():
        if not isinstance(old, list) or not all(isinstance(name, str) for name in old):
            raise ValueError(f"{path}: {new!r} must be a list of the old parts' names, not {old}.")
    return groups


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


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not like KEY=VALUE")
    if key == "taxonomy":
        raise argparse.ArgumentTypeError("there is --taxonomy for that")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return key, words[value.lower()]
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 16:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 16")
    return int(text)


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to below 1")
    return value
