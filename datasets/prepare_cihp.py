#!/usr/bin/env python
"""CIHP is in the canonical layout as released: put its id lists in place, check it, index it.

    python datasets/prepare_cihp.py [--source DIR/instance-level_human_parsing]

Nothing of the release is changed. Missing ``Instance_ids`` are no problem.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from instance_crf.data.datasets.canonical import files_by_stem, load_canonical, split_folder
from instance_crf.data.datasets.cihp import CIHP_TAXONOMY
from instance_crf.data.datasets.register import dataset_root
from instance_crf.data.preparation.conversion import (
    PreparationError,
    require_folder,
    write_taxonomy,
)
from instance_crf.data.preparation.verification import verify_split
from instance_crf.files import lock_folder, read_text, remove_temporaries, write_text
from instance_crf.program import run_program


def place_list(root: Path, split: str) -> None:
    """Make sure that ``<Split>/<split>_id.txt`` exists: from the root, else from the photos."""
    folder = require_folder(split_folder(root, split), "a split of CIHP (--source)")
    target = folder / f"{split}_id.txt"
    if target.is_file():
        return
    elsewhere = root / target.name
    if elsewhere.is_file():
        write_text(target, read_text(elsewhere))
        return
    ids = sorted(files_by_stem(folder / "Images", (".jpg",)))
    write_text(target, "".join(f"{i}\n" for i in ids))
    print(f"{target} was missing; it lists the {len(ids)} photos now.")


def main(argv: list[str] | None = None) -> None:
    default = Path(dataset_root()) / "instance-level_human_parsing"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=default)
    parser.add_argument("--splits", nargs="+", default=["train", "val"], help="default: both")
    parser.add_argument("--no-verify", action="store_true", help="only place lists and index")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args(argv)
    root = require_folder(args.source, "CIHP as released (--source)")
    with lock_folder(root, "preparing CIHP"):
        for split in args.splits:
            prepare(root, split, verify=not args.no_verify, workers=args.workers)


def prepare(root: Path, split: str, *, verify: bool, workers: int | None) -> None:
    """Place the list of a split, check it, index it.

    Raises:
        PreparationError: the check has found errors, which are printed.
    """
    for folder in (root, split_folder(root, split)):
        remove_temporaries(folder, below=False)
    place_list(root, split)
    if verify:
        report = verify_split(root, split, CIHP_TAXONOMY, workers=workers)
        print(report.describe())
        if not report.ok:
            raise PreparationError(f"{split_folder(root, split)} cannot be used; see above.")
    write_taxonomy(root, CIHP_TAXONOMY)
    records = load_canonical(root, split, CIHP_TAXONOMY)
    print(f"{split_folder(root, split)}: {len(records)} images indexed.")


if __name__ == "__main__":
    raise SystemExit(run_program(main))
