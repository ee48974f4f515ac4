"""What the commands ask for about somebody's models: parts, boxes, and what the parts mean."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import read_json
from ..taxonomies import TAXONOMY_NAMES, PartTaxonomy, get_taxonomy

if TYPE_CHECKING:  # it imports torch, which arguments and help need not wait for
    from ..own_models.inputs import Source

__all__ = ["add_model_arguments", "load_models", "read_groups"]


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


def load_models(
    args: argparse.Namespace,
) -> tuple[Source, Source, PartTaxonomy, dict[str, list[str]] | None]:
    """The part model, the detector, what the part model's ids mean, and how they are merged.

    Raises:
        OSError, ImportError, ValueError: a model that cannot be loaded, parts without names.
    """
    from ..own_models.boxes import load_detector
    from ..own_models.parts import load_part_model

    taxonomy = get_taxonomy(args.taxonomy) if args.taxonomy else None
    parts = load_part_model(args.parts, taxonomy=taxonomy, **dict(args.option))
    taxonomy = taxonomy or parts.taxonomy
    if taxonomy is None:
        raise ValueError(f"{args.parts} does not say what its parts are: add --taxonomy.")
    merge = None if args.merge is None else read_groups(args.merge)
    if merge is not None:
        taxonomy.merge(merge, rest="background")  # says at once what is wrong with the groups
    # A detector's own threshold must not hide what --least-score lets in.
    options = {"least_score": args.least_score, **dict(args.detector_option)}
    return parts, load_detector(args.detector, **options), taxonomy, merge


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
    groups = read_json(path)
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f'{path} must hold {{"new part": ["old part", ...], ...}}.')
    for new, old in groups.items():
        if not isinstance(old, list) or not all(isinstance(name, str) for name in old):
            raise ValueError(f"{path}: {new!r} must be a list of the old parts' names, not {old}.")
    return groups


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
