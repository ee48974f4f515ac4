#!/usr/bin/env python
"""The paper's tables, and what users would pick instead, on any data set of configs/datasets.

    python datasets/prepare_synthetic.py --split all
    python tools/reproduce_tables.py --dataset synthetic_people --seeds 3 --budget 30

For each seed one base network learns parts, boxes, masks and votes for so many minutes; what is
trained from it has a fifth of them more, and the baselines as many in all. Rows that differ only at
inference are evaluated on the same network. Everything goes to OUTPUT, network by network: run
again, it goes on where it was interrupted, and does nothing twice. How many iterations the minutes
are is in OUTPUT/plan.json; with these, a run on CPUs that was interrupted ends with the numbers of
one that was not.

    OUTPUT/seed_N/STAGE/          config, checkpoints; STAGE.log
    OUTPUT/seed_N/results.json    all numbers of a seed
    OUTPUT/tables.md, *.png       what they say

A minute is one of the process that trains: on CPUs each has one thread, and --jobs run at once; on
GPUs it has all that --num-gpus gives, but for evaluation, which uses one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", default="synthetic_people", help="of configs/datasets, or such a YAML file"
    )
    parser.add_argument("--model", default="r101_fpn", help="of configs/models, for photographs")
    parser.add_argument("--seeds", type=int, default=3, help="how many: 1, 2, ...")
    parser.add_argument("--budget", type=float, default=30.0, help="minutes of a base network")
    parser.add_argument("--output", type=Path, help="default: output/tables/DATASET")
    parser.add_argument("--num-gpus", type=int, help="default: all there are")
    parser.add_argument("--jobs", type=int, help="on CPUs: programs at once (default: one a core)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="STAGE",
        help="train and evaluate these alone, e.g. pretrain base control full: the folders of "
        "OUTPUT/seed_N. What they start from must be there or named",
    )
    parser.add_argument("--report", action="store_true", help="only write tables and plots again")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides of all training"
    )
    args = parser.parse_args(argv)
    if args.seeds < 1 or not args.budget > 0 or (args.jobs is not None and args.jobs < 1):
        parser.error("--seeds, --budget and --jobs are above 0")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    # Before torch is loaded; for the programs, too. One thread gives the same numbers again.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import instance_crf
    from instance_crf.data.parallel import default_workers
    from instance_crf.experiments.run import Run
    from instance_crf.files import lock_folder

    instance_crf.register()
    import torch

    found = torch.cuda.device_count()
    gpus = found if args.num_gpus is None else args.num_gpus
    if not min(found, 1) <= gpus <= found:
        raise ValueError(f"--num-gpus is {gpus}, but there are {found}.")
    if gpus and (args.jobs or 1) > 1:
        raise ValueError(f"--jobs is {args.jobs}, but on GPUs there is one program at a time.")
    run = Run.of(
        ROOT,
        (args.output or ROOT / "output" / "tables" / Path(args.dataset).stem).resolve(),
        dataset=args.dataset,
        model=args.model,
        budget=args.budget,
        opts=tuple(args.opts),
        num_gpus=gpus,
    )
    seeds = range(1, args.seeds + 1)
    run.output.mkdir(parents=True, exist_ok=True)
    with lock_folder(run.output, "reproducing tables"):
        if not args.report:
            run.run(seeds, args.jobs or (1 if gpus else default_workers()), args.only)
        print(run.report())


if __name__ == "__main__":
    from instance_crf.program import run_program

    sys.exit(run_program(main))
