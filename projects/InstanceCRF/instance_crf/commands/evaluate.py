"""The command ``instance-crf evaluate``: saved predictions, ours or anybody's."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..evaluation import METRICS, PROTOCOLS
from ..evaluation.toolkit.formats import PREDICTION_READERS, TRUTH_READERS
from ..evaluation.toolkit.part_parsing import format_results, without_nan
from ..evaluation.toolkit.report import write_report
from ..evaluation.toolkit.runner import Evaluation, caveat, evaluate_folder
from ..evaluation.toolkit.taxonomies import TAXONOMY_NAMES, find_taxonomy
from ..files import check_writable, read_text, write_json
from ..taxonomies import PartTaxonomy

__all__ = ["add_arguments", "evaluate", "read_list", "run"]

PREDICTION_FORMATS = (*PREDICTION_READERS, "coco")
TRUTH_FORMATS = (*TRUTH_READERS, "coco")
DESCRIPTION = """\
Evaluate saved predictions, ours or anybody's. No model and no Detectron2 is needed.

--format is the format of both folders; --ground-truth-format says otherwise. Images without a
prediction count as missed (but under the protocol cihp, which leaves them out). Each AP is
printed with the name of its protocol, because numbers of different protocols cannot be compared.
"""
EXAMPLE = """\
example:
  instance-crf evaluate --format cihp --predictions output/inference/cihp \\
      --ground-truth datasets/CIHP/Validation --protocol sds cihp --json results.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="DIR")
    parser.add_argument("--format", required=True, choices=PREDICTION_FORMATS)
    parser.add_argument(
        "--ground-truth-format",
        choices=TRUTH_FORMATS,
        help="default: --format; for partpq: cihp",
    )
    parser.add_argument(
        "--taxonomy",
        metavar="NAME|FILE",
        help=f"what the ids mean: {', '.join(TAXONOMY_NAMES)}, or a taxonomy.json; default: "
        "taxonomy.json beside the ground truth, or the categories of a COCO file, or the format's",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["sds"],
        choices=tuple(PROTOCOLS),
        metavar="PROTOCOL",
        help=f"of the AP: {', '.join(PROTOCOLS)} (default sds)",
    )
    parser.add_argument(
        "--metrics", nargs="+", default=list(METRICS), choices=METRICS, help="default: all"
    )
    parser.add_argument("--list", type=Path, help="file of image ids, one a line; default: all")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write precision-recall curves and confusion"
    )
    parser.add_argument("--num-workers", type=_at_least_one, help="processes (default: one a core)")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """The exit status; exceptions as :func:`evaluate`."""
    evaluate(args)
    return 0


def evaluate(args: argparse.Namespace) -> dict:
    """Evaluate, print, write; returns what ``--json`` writes.

    Raises:
        OSError, ValueError: about a file, by its name.
    """
    start = time.perf_counter()
    check_writable(args.json)
    check_writable(args.report, folder=True)
    if args.ground_truth_format is None:
        args.ground_truth_format = "cihp" if args.format == "partpq" else args.format
    taxonomy = find_taxonomy(args.taxonomy, args.ground_truth, args.ground_truth_format)
    task = Evaluation(
        predictions=args.predictions,
        truth=args.ground_truth,
        prediction_format=args.format,
        truth_format=args.ground_truth_format,
        taxonomy=taxonomy,
        protocols=tuple(args.protocol),
        metrics=tuple(args.metrics),
        image_ids=read_list(args.list),
    )
    metrics = evaluate_folder(task, workers=args.num_workers)
    with warnings.catch_warnings(record=True) as defects:
        warnings.simplefilter("always")
        results = metrics.compute()
    for message in dict.fromkeys(str(w.message) for w in defects):
        print(f"warning: {message}", file=sys.stderr)
    caveats = {p.name: caveat(p, args.format, args.ground_truth_format) for p in metrics.protocols}
    print(format_results(results, metrics, caveats))
    report_missing(args.metrics, results, args.format)
    content = summarize(args, taxonomy, results, metrics)
    content["caveats"] = {name: text for name, text in caveats.items() if text}
    content["seconds"] = round(time.perf_counter() - start, 1)
    if args.json:
        write_json(args.json, content)
        print(f"Numbers: {args.json}")
    if args.report:
        for path in write_report(metrics, args.report):
            print(f"Picture: {path}")
    return content


def report_missing(wanted: Sequence[str], results: dict, format_name: str) -> None:
    """Say which of the numbers asked for the files cannot give."""
    for task in wanted:
        if task not in results:
            print(
                f"note: no {task}: the {format_name} files do not have the scores, the objects or "
                "the maps that it needs.",
                file=sys.stderr,
            )


def summarize(args: argparse.Namespace, taxonomy: PartTaxonomy, results: dict, metrics) -> dict:
    """The content of ``--json``: the numbers, and what they mean. NaN becomes null."""
    return {
        "predictions": str(args.predictions),
        "ground_truth": str(args.ground_truth),
        "format": args.format,
        "ground_truth_format": args.ground_truth_format,
        "part_names": list(taxonomy.part_names),
        "object_names": list(taxonomy.object_names),
        "unit": "percent",
        "protocols": {task: metrics.protocol_of(task) for task in results},
        "protocol_descriptions": {p.name: p.description for p in metrics.protocols},
        "results": without_nan(results),
    }


def read_list(path: Path | None) -> list[str] | None:
    """The ids of ``--list``."""
    if path is None:
        return None
    ids = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"The list {path} is empty; it must have one image id a line.")
    if len(set(ids)) < len(ids):
        raise ValueError(f"The list {path} has an image twice.")
    return ids
