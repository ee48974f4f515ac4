"""The command ``instance-crf taxonomies``: what ids mean."""

from __future__ import annotations

import argparse
import json

from ..taxonomies import (
    TAXONOMY_NAMES,
    format_taxonomies,
    format_taxonomy,
    get_taxonomy,
    is_taxonomy_name,
    known_taxonomy,
)

__all__ = ["add_arguments", "run"]

EXAMPLES = """\
examples:
  instance-crf taxonomies                       the names
  instance-crf taxonomies cihp                  its ids, parts, colours, left and right
  instance-crf taxonomies cihp --json > my.json  to edit, and to name as --taxonomy my.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "What the ids of a part model or a data set mean: parts, colours, owners."
    parser.epilog = EXAMPLES
    parser.add_argument(
        "taxonomy", nargs="?", metavar="NAME|FILE.json", help="show this one; default: list all"
    )
    parser.add_argument(
        "--json", action="store_true", help="as a JSON, which --taxonomy takes everywhere"
    )


def run(args: argparse.Namespace) -> int:
    """
    Raises:
        FileNotFoundError, ValueError: no such taxonomy; a broken file.
    """
    if args.json:
        print(json.dumps(_content(args.taxonomy), indent=2, ensure_ascii=False))
        return 0
    if args.taxonomy is None:
        print(format_taxonomies())
        return 0
    named = is_taxonomy_name(args.taxonomy)
    background = known_taxonomy(args.taxonomy).background if named else "first"
    print(format_taxonomy(get_taxonomy(args.taxonomy), background))
    return 0


def _content(name: str | None) -> dict:
    if name:
        return get_taxonomy(name).to_dict()
    return {name: get_taxonomy(name).to_dict() for name in TAXONOMY_NAMES}
