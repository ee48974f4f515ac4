#!/usr/bin/env python
"""What each piece of the Instance CRF is worth, on both synthetic data sets, over several seeds.

    python datasets/prepare_synthetic.py --split all
    python tools/ablate_crf.py --seeds 1 2 3 --output output/ablation

Per seed it trains one base network (the first two stages of ``make demo``), then the last stage
once for the joint form and once for the factored one; and, on the factored network as it is, a head
that votes for centres and a mask head. The rows of the table are these and, on the factored
network, what differs from it at inference: Q, detections and votes are computed once, so that a row
only differs in what its name says. Finished stages and rows are not done again:
OUTPUT/seed_N/STAGE/model_final.pth and OUTPUT/results.json.

The table has the mean over the seeds, ± half their range; the one below it has the differences to
the joint form, paired by seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import nn
from tqdm import tqdm

from instance_crf.checkpoint import load_weights
from instance_crf.config import load_config
from instance_crf.crf.potentials import CUES
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.evaluation.evaluators import PartInstanceEvaluator
from instance_crf.files import read_json, write_json
from instance_crf.modeling import build_instance_crf_head
from instance_crf.program import run_program

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs/SyntheticPeople"
SPLITS = ("synthetic_people_val", "synthetic_crowd_val")
CRF = "MODEL.INSTANCE_CRF"
JOINT = [f"{CRF}.FORM", "joint", f"{CRF}.REFERENCE_SIZE", 0.0]
JOINT += [f"{CRF}.DETECTIONS.SCORE_THRESH", 0.5, f"{CRF}.MIN_SHARE", 0.0]
NO_WEIGHTS = (f"{CRF}.IDENTITY.CUE_WEIGHTS", [])
NOT_WHOSE = (f"{CRF}.IDENTITY.PAIRWISE_TERM", False)
MASKS = (f"{CRF}.IDENTITY.EVIDENCE", ("masks",))
TRUE_BOXES = (f"{CRF}.DETECTIONS.SOURCE", "ground_truth")
TRUE_PARTS = (f"{CRF}.PARTS.SOURCE", "ground_truth")

HEAD_ITERATIONS = 300

#: Column: (task, metric) of the evaluator.
METRICS = {
    "part APr50": ("part_apr", "APr50"),
    "part APr_vol": ("part_apr", "APr_vol"),
    "person APr50": ("object_apr", "APr50"),
    "person APr_vol": ("object_apr", "APr_vol"),
    "APp50": ("person_ap", "APp50"),
    "part mIoU": ("part_seg", "mIoU"),
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        name: what it says.
        stage: the trained network it is evaluated on.
        opts: config overrides of the CRF head.
        model_opts: of the rest of the network, that is, of what the head is given.
        identity: "ground_truth" puts each pixel's true person in the place of evidence.
    """

    name: str
    stage: str = "factored"
    opts: Sequence[object] = field(default_factory=list)
    model_opts: tuple[object, ...] = ()
    identity: str = "evidence"


def make_rows() -> list[Row]:
    """All of them, in the order of the table."""
    true_identity = [*NO_WEIGHTS, f"{CRF}.IDENTITY.CUES", ["evidence"]]
    true_identity += [f"{CRF}.IDENTITY.NOBODY", True, f"{CRF}.IDENTITY.REACH", 1e6]

    def without(cue: str) -> list[object]:
        # The weights are those that were learned.
        return [*NO_WEIGHTS, f"{CRF}.IDENTITY.CUES", [c for c in CUES if c != cue]]

    def boxes_from(score: float) -> tuple[object, ...]:
        return (f"{CRF}.DETECTIONS.SCORE_THRESH", score)

    return [
        Row("joint (the paper's)", "joint"),
        Row("joint, boxes from 0.15", "joint", model_opts=boxes_from(0.15)),
        Row("**factored**"),
        Row("boxes from 0.5", model_opts=boxes_from(0.5)),
        *(Row(f"without {cue}", opts=without(cue)) for cue in CUES),
        Row("Eq. 2 and 3 for the cues", opts=[f"{CRF}.IDENTITY.POTENTIAL", "consistency"]),
        Row("what not smoothed", opts=[f"{CRF}.WHAT.PAIRWISE_TERM", False]),
        Row("whose not smoothed", opts=NOT_WHOSE),
        Row("neither smoothed", opts=[f"{CRF}.PAIRWISE_TERM", False]),
        Row("reach 1", opts=[f"{CRF}.IDENTITY.REACH", 1.0]),
        Row("offset vote", "offset"),
        Row("masks for the vote", "masks", model_opts=MASKS),
        Row("masks, whose not smoothed", "masks", NOT_WHOSE, MASKS),
        Row("vote and masks", "masks"),
        Row("vote and masks, whose not smoothed", "masks", NOT_WHOSE),
        Row("nobody on", opts=[f"{CRF}.IDENTITY.NOBODY", True]),
        Row("ranked by product x share", opts=[f"{CRF}.SCORE", "product_share"]),
        Row("true identity", opts=true_identity, identity="ground_truth"),
        Row("true boxes", model_opts=TRUE_BOXES),
        Row("true parts", model_opts=TRUE_PARTS),
        Row("true boxes and parts", model_opts=TRUE_BOXES + TRUE_PARTS),
        Row("joint, true boxes", "joint", model_opts=TRUE_BOXES),
        Row("joint, true parts", "joint", model_opts=TRUE_PARTS),
    ]


def train(output: Path, seed: int, opts: Sequence[str]) -> None:
    """The stages of one seed that are not there yet."""
    folder = output / f"seed_{seed}"
    # A head learns on the factored network, which stays as it is.
    head = ["SOLVER.MAX_ITER", HEAD_ITERATIONS, "SOLVER.WARMUP_ITERS", HEAD_ITERATIONS // 20]
    head += ["SOLVER.BASE_LR", 0.003, f"{CRF}.NUM_ITERATIONS.TRAIN", 0]
    frozen = ["backbone", "part_head", "crf_head"]
    stages = {
        "pretrain": ("pretrain", None, []),
        "parts": ("parts", "pretrain", []),
        "factored": ("instance_crf", "parts", []),
        "joint": ("instance_crf", "parts", JOINT),
        "offset": (
            *("instance_crf", "factored"),
            [*head, "MODEL.IDENTITY_HEAD.VOTE", "offset", "MODEL.FREEZE", [*frozen, "detector"]],
        ),
        "masks": (
            *("instance_crf", "factored"),
            [*head, "MODEL.MASK_ON", True, "MODEL.FREEZE", [*frozen, "identity_head", "boxes"]],
        ),
    }
    for stage, (config, start, own) in stages.items():
        if (folder / stage / "model_final.pth").exists():
            continue
        print(f"seed {seed}: training {stage}", flush=True)
        command = [sys.executable, ROOT / "tools/train_net.py"]
        command += ["--config-file", CONFIGS / f"{config}.yaml", "SEED", seed, *own, *opts]
        command += ["OUTPUT_DIR", folder / stage, "DATASETS.TEST", "()"]
        if start:
            command += ["MODEL.WEIGHTS", folder / start / "model_final.pth"]
        log = folder / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            done = subprocess.run(list(map(str, command)), stdout=file, stderr=file, cwd=ROOT)
        if done.returncode:
            sys.exit(f"ablate_crf.py: training {stage} of seed {seed} failed, see {log}")


class Recorder(nn.Module):
    """Stands in for a CRF head and keeps what it is called with."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.calls: list[tuple[tuple, dict]] = []

    def inference(self, *arguments, **more):
        self.calls.append((arguments, more))
        return self.head.inference(*arguments, **more)


@torch.inference_mode()
def collect(
    cfg: CfgNode, weights: Path, split: str, opts: Sequence[object]
) -> tuple[dict, list[tuple[dict, tuple, dict]]]:
    """The CRF head's state, and of each picture its input and what the head is called with."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([*opts, "DATASETS.TEST", (split,)])
    model = build_model(cfg).eval()
    load_weights(model, str(weights))
    model.crf_head = recorder = Recorder(model.crf_head)
    # With the ground truth, for the rows that put it in the place of a part.
    mapper = PartInstanceMapper(cfg, is_train=False)
    mapper.with_annotations = True
    inputs = []
    for batch in build_detection_test_loader(cfg, split, mapper=mapper):
        model(batch)
        inputs += batch
    return recorder.head.state_dict(), [
        (one, *call) for one, call in zip(inputs, recorder.calls, strict=True)
    ]


def true_evidence(picture: dict, detections: Instances) -> torch.Tensor:
    """(D, H, W) 1 where the true person is the one that the detection finds (IoU >= 0.5)."""
    objects = picture["instances"]
    evidence = torch.zeros(len(detections), *picture["object_seg"].shape)
    iou = pairwise_iou(detections.pred_boxes, Boxes(objects.gt_boxes.tensor))
    while iou.numel() and iou.max() >= 0.5:
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        evidence[i] = picture["object_seg"] == objects.gt_object_ids[j]
        iou[i], iou[:, j] = 0, 0
    return evidence


@torch.inference_mode()
def evaluate(row: Row, cfg: CfgNode, state: dict, pictures: list, split: str) -> dict[str, float]:
    """The columns of a row on one split."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(row.opts))
    head = build_instance_crf_head(cfg).eval()
    head.load_state_dict(state)
    if row.identity == "ground_truth":  # sure of itself, against nobody's 0.5
        head.crf.raw_evidence_floor.fill_(-20)
        head.crf.raw_cue_weights["evidence"].fill_(10)
        head.crf.nobody_potential.fill_(-1)
    tasks = tuple({task for task, _ in METRICS.values()})
    evaluator = PartInstanceEvaluator(split, metrics=tasks, distributed=False)
    evaluator.reset()
    for picture, arguments, more in pictures:
        if row.identity == "ground_truth":
            more = {"evidence": [true_evidence(picture, arguments[1][0])]}
        (result,) = head.inference(*arguments, **more)
        evaluator.process([picture], [{"part_instances": result}])
    results = evaluator.evaluate()
    return {name: results[task][metric] for name, (task, metric) in METRICS.items()}


def print_tables(results: dict, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """Markdown: the rows' means, and their paired differences to the first row."""
    for split in SPLITS:
        table = {
            row.name: np.array(
                [[results[f"{split}|{s}|{row.name}"][m] for m in METRICS] for s in seeds]
            )
            for row in rows
        }
        first = rows[0].name
        for title, base in ((split, 0.0), (f"{split}, over {first}", table[first])):
            print(f"\n| {title} | {' | '.join(METRICS)} |\n|{'---|' * (len(METRICS) + 1)}")
            for name, values in table.items():
                values = values - base
                spread = (values.max(0) - values.min(0)) / 2
                sign = "" if title == split else "+"
                cells = [
                    f"{m:{sign}.1f} ± {s:.1f}" for m, s in zip(values.mean(0), spread, strict=True)
                ]
                if title == split or name != first:
                    print(f"| {name} | {' | '.join(cells)} |")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    parser.add_argument("--rows", nargs="+", help="only rows whose names contain one of these")
    parser.add_argument("--again", action="store_true", help="evaluate finished rows again")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides of all that is done"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    instance_crf.register()
    args.output = args.output.resolve()
    rows = make_rows()
    if args.rows:
        rows = [r for r in rows if r is rows[0] or any(part in r.name for part in args.rows)]
    file = args.output / "results.json"
    results = read_json(file, dict) if file.exists() and not args.again else {}
    for seed in args.seeds:
        train(args.output, seed, args.opts)
    with tqdm(total=len(rows) * len(args.seeds) * len(SPLITS), unit="row") as progress:
        for seed in args.seeds:
            for split in SPLITS:
                cache = {}
                for row in rows:
                    key = f"{split}|{seed}|{row.name}"
                    if key not in results:
                        stage = args.output / f"seed_{seed}" / row.stage
                        cfg = load_config(str(stage / "config.yaml"), args.opts)
                        source = (row.stage, row.model_opts)
                        if source not in cache:
                            weights = stage / "model_final.pth"
                            cache[source] = collect(cfg, weights, split, row.model_opts)
                        results[key] = evaluate(row, cfg, *cache[source], split)
                        write_json(file, results, indent=1)
                    progress.update()
    print_tables(results, rows, args.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
