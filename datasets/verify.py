#!/usr/bin/env python
"""Check a data set on disk: files, sizes, ids, objects. Exits with 1 if training would fail.

python datasets/verify.py cihp_train [more names ...]
python datasets/verify.py --yaml my_people.yaml
python datasets/verify.py --list
"""

from __future__ import annotations

import argparse
import sys

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
from detectron2.data import DatasetCatalog, MetadataCatalog

from instance_crf.data.datasets.own import own_files, read_part_yaml
from instance_crf.data.datasets.register import add_import_argument, import_modules
from instance_crf.data.preparation.verification import Report, verify_files, verify_split
from instance_crf.program import run_program


def known_names() -> list[str]:
    """The registered data sets in the canonical layout."""
    return [n for n in DatasetCatalog if MetadataCatalog.get(n).get("layout") == "canonical"]


def verify(name: str, workers: int | None) -> Report:
    """The report on one registered data set."""
    if name not in known_names():
        raise ValueError(f"Unknown data set {name!r}. Known: {', '.join(known_names())}.")
    metadata = MetadataCatalog.get(name)
    return verify_split(metadata.root, metadata.split, metadata.taxonomy, workers=workers)


def verify_yaml(path: str, workers: int | None) -> list[Report]:
    """The reports on every split of a part YAML."""
    own = read_part_yaml(path)
    return [
        verify_files(f"{own.name}_{split}", own_files(paths), own.taxonomy, workers=workers)
        for split, paths in own.splits.items()
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="DATASET")
    parser.add_argument("--yaml", help="your own data (docs/DATASETS.md)")
    add_import_argument(parser)
    parser.add_argument("--list", action="store_true", help="the names that can be given")
    parser.add_argument("--shown", type=int, default=5, help="findings of each kind to show")
    parser.add_argument("--strict", action="store_true", help="fail on warnings, too")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args(argv)
    instance_crf.register()
    import_modules(args.modules)
    if args.list:
        print("\n".join(known_names()))
        return
    if not (args.names or args.yaml):
        parser.error("name a data set, or give --yaml or --list")
    reports = [verify(name, args.workers) for name in args.names]
    reports += verify_yaml(args.yaml, args.workers) if args.yaml else []
    print("\n\n".join(report.describe(args.shown) for report in reports))
    if any(not r.ok or (args.strict and r.warnings) for r in reports):
        sys.exit(1)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
