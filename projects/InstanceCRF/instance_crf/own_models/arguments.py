"""What the commands ask for about somebody's models: Q, boxes, and what the parts mean."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..taxonomies import TAXONOMY_NAMES, PartTaxonomy, get_taxonomy, read_taxonomy
from .boxes import load_detector
from .inputs import Source
from .join import LEAST_SCORE, WORKING_SIZE
from .parts import load_part_model

__all__ = ["add_input_arguments", "load_inputs", "read_groups"]


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """``--parts --detector --taxonomy --merge --size --least-score --option --detector-option``."""
    group = parser.add_argument_group("parts and boxes")
    group.add_argument(
        "--parts", required=True, metavar="MODEL|PATH", help="a part model, or its saved outputs"
    )
    group.add_argument(
        "--detector", required=True, metavar="MODEL|PATH", help="a detector, or its saved boxes"
    )
    group.add_argument(
        "--taxonomy",
        metavar="NAME|FILE",
        help="what the parts of --parts are; default: what the model says of itself",
    )
    group.add_argument(
        "--merge",
        metavar="GROUPS",
        help='coarser parts: "new=old,old;new=old", or FILE.json with {"new": ["old", ...]}; what '
        "is left out becomes background",
    )
    group.add_argument(
        "--size",
        type=int,
        default=WORKING_SIZE,
        metavar="PIXELS",
        help=f"longer side at which the CRF works, default {WORKING_SIZE}",
    )
    group.add_argument(
        "--least-score",
        type=float,
        default=LEAST_SCORE,
        metavar="S",
        help=f"boxes below are left out, default {LEAST_SCORE}",
    )
    for name, of in (("--option", "part model"), ("--detector-option", "detector")):
        group.add_argument(
            name,
            action="append",
            type=_key_and_value,
            default=[],
            metavar="KEY=VALUE",
            help=f"of the {of}, e.g. device=cuda; may be given more than once",
        )


def load_inputs(
    args: argparse.Namespace,
) -> tuple[Source, Source, PartTaxonomy | None, dict[str, list[str]] | None]:
    """The part model, the detector, and what was said of the parts: taxonomy and groups, or None.

    Raises:
        FileNotFoundError, ImportError, ValueError: whatever is wrong with one of the arguments.
    """
    taxonomy = None
    if args.taxonomy in TAXONOMY_NAMES:
        taxonomy = get_taxonomy(args.taxonomy)
    elif args.taxonomy is not None:
        taxonomy = read_taxonomy(Path(args.taxonomy))
    merge = None if args.merge is None else read_groups(args.merge)
    if taxonomy is not None and merge is not None:
        taxonomy.merge(merge, rest="background")  # says at once what is wrong with the groups
    return (
        load_part_model(args.parts, taxonomy=taxonomy, **dict(args.option)),
        load_detector(args.detector, **dict(args.detector_option)),
        taxonomy,
        merge,
    )


def read_groups(text: str) -> dict[str, list[str]]:
    """Groups of parts: "new=old,old;new=old", or a file FILE.json, {"new": ["old", "old"], ...}.

    Raises:
        FileNotFoundError, ValueError: no such file; not such groups.
    """
    if not text.lower().endswith(".json"):
        pairs = [entry.partition("=") for entry in text.split(";") if entry.strip()]
        groups = [(new.strip(), [each.strip() for each in old.split(",")]) for new, _, old in pairs]
    else:
        groups = _in_file(Path(text))
    for new, old in groups:
        if not new or not isinstance(old, list) or not all(isinstance(n, str) and n for n in old):
            raise ValueError(f"{text}: {new!r} must be made of names of parts, not of {old!r}.")
    if not groups or len(dict(groups)) < len(groups):
        raise ValueError(f'{text!r} must be groups, "new=old,old;new=old", each named once.')
    return dict(groups)


def _in_file(path: Path) -> list[tuple]:
    if not path.is_file():
        raise FileNotFoundError(f"The file of groups {path} does not exist.")
    try:
        groups = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(groups, dict):
        raise ValueError(f'{path} must hold {{"new": ["old", ...], ...}}.')
    return list(groups.items())


def _key_and_value(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not like KEY=VALUE")
    try:
        return key, json.loads(value)  # true, false, numbers
    except ValueError:
        return key, value
