"""The rows of a stage, evaluated: the network runs once for all that differ in its last head only.

    python -m instance_crf.experiments.rows --help     # the tool runs it in a process of its own

Shape letters: D detections, H, W size of an image.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.structures import Instances, pairwise_iou
from torch import Tensor, nn
from tqdm import tqdm

from .. import register
from ..checkpoint import load_weights
from ..config import load_config
from ..data.label_io import read_object_map
from ..data.mapper import PartInstanceMapper
from ..data.parallel import end_loading_with_parent
from ..entries import is_crowd
from ..evaluation.evaluators import PartInstanceEvaluator
from ..evaluation.toolkit.part_parsing import without_nan
from ..files import read_json, write_json
from ..modeling import build_instance_crf_head
from ..modeling.detections import nothing_labelled
from ..modeling.disturbance import disturb
from ..program import run_program
from ..structures import PartInstances
from .crossing import crossing_images, register_crossing
from .outside import OutsideRecall
from .plan import CONDITIONS, CURVES, DETECTION_FILES, Row, rows_of
from .results import AS_FOUND

__all__ = ["evaluate", "main"]

METRICS = ("part_apr", "object_apr", "part_seg", "person_ap")


class Tap(nn.Module):
    """Stands in a CRF head's place and keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.call: tuple[tuple, dict] = ((), {})

    def inference(self, part_probs, detections, images, output_sizes, **more):
        detections = deepcopy(detections)  # the network scales its own to the output, in place
        self.call = ((part_probs, detections, images, output_sizes), more)
        return [nothing_labelled(size, part_probs[0].device) for size in output_sizes]


class Numbers:
    """What is measured of one row on one data set, but for its Q."""

    def __init__(self, split: str, protocol: str) -> None:
        self.evaluator = PartInstanceEvaluator(
            split, protocol=protocol, metrics=METRICS, distributed=False
        )
        self.outside = OutsideRecall()

    def add(self, record: dict, result: PartInstances) -> None:
        self.evaluator.process([record], [{"part_instances": result}])
        ids = [
            a["object_id"]
            for a in record["annotations"]
            if not is_crowd(a, record["object_file_name"])
        ]
        truth = read_object_map(record["object_file_name"])
        self.outside.add(result.object_map.cpu().numpy(), truth, ids)

    def compute(self, q: dict[str, float]) -> dict[str, dict[str, float]]:
        """Task -> number; ``q`` are those of Q."""
        results = self.evaluator.evaluate()
        results |= {"q_seg": q, "outside": self.outside.compute()}
        short = {
            task: {name: value for name, value in numbers.items() if "/" not in name}
            for task, numbers in results.items()
        }
        return without_nan(short)


@torch.inference_mode()
def evaluate(
    rows: Sequence[Row],
    cfg: CfgNode,
    weights: Path,
    condition: str,
    protocol: str = "sds",
) -> dict[str, dict[str, dict]]:
    """Rows of one network that differ in its last head only.

    Args:
        rows: with the same ``stage``, ``layer``, ``model`` and ``network``.
        cfg: of the network, with the rows' ``layer`` and ``model``, and one data set in
            DATASETS.TEST.
        weights: its checkpoint.
        condition: one of :data:`~.plan.CONDITIONS`.
        protocol: of the APs.

    Returns:
        row -> data set (the one of ``cfg``, and its crossing people) -> task -> number.
    """
    (split,) = cfg.DATASETS.TEST
    model = build_model(cfg).eval()
    load_weights(model, str(weights))
    heads, tap = {}, Tap()
    if not rows[0].network:
        learned = None if model.crf_head is None else model.crf_head.state_dict()
        heads = {row.name: _head(row, cfg, learned).to(model.device) for row in rows}
        model.crf_head = tap
    splits = [split]
    if crossing_images(DatasetCatalog.get(split)):
        splits.append(register_crossing(split))
    records = {name: {r["image_id"]: r for r in DatasetCatalog.get(name)} for name in splits}
    numbers = {row.name: {name: Numbers(name, protocol) for name in splits} for row in rows}
    q = {name: PartInstanceEvaluator(name, parts_only=True, distributed=False) for name in splits}
    mapper = PartInstanceMapper(cfg, is_train=False, dataset_name=split)
    mapper.with_annotations |= any(row.true_identity for row in rows)
    loader = build_detection_test_loader(cfg, split, mapper=mapper, batch_size=1)
    end_loading_with_parent(loader)
    with _disturbed(model, condition):
        for (picture,) in tqdm(loader, desc=f"{split}, {condition}", mininterval=10):
            (output,) = model([picture])
            found = {name: of[picture["image_id"]] for name, of in records.items()
                     if picture["image_id"] in of}  # fmt: skip
            for name, record in found.items():
                q[name].process([record], [output])
            for row in rows:
                result = output["part_instances"]
                if heads:
                    (result,) = _label(row, heads[row.name], tap.call, picture)
                for name, record in found.items():
                    numbers[row.name][name].add(record, result)
    of_q = {name: evaluator.evaluate()["part_seg"] for name, evaluator in q.items()}
    return {
        row: {name: of_split.compute(of_q[name]) for name, of_split in of_row.items()}
        for row, of_row in numbers.items()
    }


def _disturbed(model: nn.Module, condition: str) -> AbstractContextManager:
    """Given boxes come disturbed out of their file, those of the network's own are on the way."""
    if not CONDITIONS[condition] or getattr(model, "detection_source", "detector") != "detector":
        return nullcontext()
    return disturb(model, **CONDITIONS[condition])


def _head(row: Row, cfg: CfgNode, learned: dict | None) -> nn.Module:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(row.head))
    head = build_instance_crf_head(cfg).eval()
    if learned is not None:
        head.load_state_dict(learned)
    if row.true_identity:  # sure of itself, against nobody's 0.5
        head.crf.raw_evidence_floor.fill_(-20)
        head.crf.raw_cue_weights["evidence"].fill_(10)
        head.crf.nobody_potential.fill_(-1)
    return head


def _label(
    row: Row, head: nn.Module, call: tuple[tuple, dict], picture: dict
) -> list[PartInstances]:
    arguments, more = call
    if row.true_identity:
        more = {"evidence": [true_evidence(picture, arguments[1][0])]}
    return head.inference(*arguments, **more)


def true_evidence(picture: dict, detections: Instances) -> Tensor:
    """(D, H, W) 1 where the true person is the one that the detection finds (IoU >= 0.5)."""
    device = detections.pred_boxes.device
    objects, object_seg = picture["instances"].to(device), picture["object_seg"].to(device)
    evidence = torch.zeros(len(detections), *object_seg.shape, device=device)
    iou = pairwise_iou(detections.pred_boxes, objects.gt_boxes)
    while iou.numel() and iou.max() >= 0.5:
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        evidence[i] = object_seg == objects.gt_object_ids[j]
        iou[i], iou[:, j] = 0, 0
    return evidence


def rows_of_stage(folder: Path, configs: Path, protocol: str, splits: Sequence[str]) -> None:
    """Evaluate the rows of the stage in ``folder``, and leave them in ``folder/rows.json``.

    What is there is not done again, unless the weights, the config, given boxes or what the row is
    have changed since.
    """
    stage = _Evaluation(folder, configs, protocol)
    of_stage = rows_of(folder.name)
    for split in splits:
        for condition in CONDITIONS:
            rows = [row for row in of_stage if row.disturbed or condition == AS_FOUND]
            for group in _by_network(rows):
                stage.evaluate(group, split, condition)
    if folder.name in CURVES:
        stage.evaluate_curve(CURVES[folder.name], splits[0])


class _Evaluation:
    """Of one stage: its rows.json, which is written after each pass over a data set."""

    def __init__(self, folder: Path, configs: Path, protocol: str) -> None:
        self.folder, self.configs, self.protocol = folder, configs, protocol
        self.file = folder / "rows.json"
        self.done = {"rows": {}, "curve": {}, "origins": {}}
        if self.file.exists():
            self.done = read_json(self.file, dict)

    def evaluate(self, rows: Sequence[Row], split: str, condition: str) -> None:
        """Rows that differ in their head only."""
        weights = self.folder / "model_final.pth"
        cfg = _config(self.folder, self.configs, rows[0], split, condition)
        base = _origin_of_network(cfg, weights, self.protocol)
        origins = {f"{row.name}|{split}|{condition}": _hash(base, repr(row)) for row in rows}
        old = self.done["origins"]
        wanted = [row for row, (k, v) in zip(rows, origins.items(), strict=True) if old.get(k) != v]
        if not wanted:
            return
        found = evaluate(wanted, cfg, weights, condition, self.protocol)
        for name, of_row in found.items():
            for where, numbers in of_row.items():
                of_split = self.done["rows"].setdefault(name, {}).setdefault(where, {})
                of_split[condition] = numbers
        self.done["origins"] |= origins
        write_json(self.file, self.done, indent=1)

    def evaluate_curve(self, row: Row, split: str) -> None:
        """The stage's checkpoints, those of the way and the last one."""
        cfg = _config(self.folder, self.configs, row, split, AS_FOUND)
        last = cfg.SOLVER.MAX_ITER
        found = self.folder.glob("model_[0-9]*.pth")
        checkpoints = {int(p.stem.rpartition("_")[2]) + 1: p for p in found}
        checkpoints[last] = self.folder / "model_final.pth"
        for iteration, weights in sorted(checkpoints.items()):
            key = f"curve|{iteration}"
            origin = _hash(_origin_of_network(cfg, weights, self.protocol), repr(row))
            if self.done["origins"].get(key) == origin:
                continue
            numbers = evaluate([row], cfg, weights, AS_FOUND, self.protocol)[row.name]
            self.done["curve"][str(iteration)] = {"share": iteration / last, **numbers}
            self.done["origins"][key] = origin
            write_json(self.file, self.done, indent=1)


def _origin_of_network(cfg: CfgNode, weights: Path, protocol: str) -> str:
    """What numbers of a network follow from, but where files lie."""
    files = [Path(file) for file in cfg.DATASETS.DETECTIONS_TEST]
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.DETECTIONS_TRAIN = cfg.DATASETS.DETECTIONS_TEST = ()
    return _hash(cfg.dump(), protocol, *(file.read_bytes() for file in (weights, *files)))


def _hash(*contents: str | bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content.encode() if isinstance(content, str) else content)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _by_network(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ in their head only, together."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.model, row.network), []).append(row)
    return list(groups.values())


def _config(folder: Path, configs: Path, row: Row, split: str, condition: str) -> CfgNode:
    """The config of the stage in ``folder`` for evaluating a row of it on ``split``."""
    layer = [str(configs / f"{row.layer}.yaml")] if row.layer else []
    opts = [*layer, "DATASETS.TEST", f"('{split}',)"]
    cfg = load_config(str(folder / "config.yaml"), opts).clone()
    cfg.defrost()
    cfg.merge_from_list(list(row.model))
    if cfg.MODEL.INSTANCE_CRF.DETECTIONS.SOURCE == "record":
        file = folder.with_name("detections") / DETECTION_FILES[condition].format(split=split)
        cfg.DATASETS.DETECTIONS_TEST = (str(file),)
    cfg.freeze()
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of a trained stage")
    parser.add_argument("--configs", type=Path, required=True, help="the folder of that name")
    parser.add_argument("--splits", nargs="+", required=True, help="data sets")
    parser.add_argument("--protocol", default="sds")
    args = parser.parse_args(argv)
    register()
    logging.getLogger("instance_crf.evaluation").setLevel(logging.WARNING)
    rows_of_stage(args.folder, args.configs, args.protocol, args.splits)


if __name__ == "__main__":
    sys.exit(run_program(main))
