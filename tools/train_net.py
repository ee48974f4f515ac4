#!/usr/bin/env python
"""Train or evaluate a model: the usual command of a Detectron2 project.

python tools/train_net.py [--num-gpus N] [--resume] [--eval-only]
    --config-file configs/SyntheticPeople/parts.yaml [MORE.yaml ...] [KEY VALUE ...]
"""

from __future__ import annotations

import json
import logging
import os
import weakref
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    default_argument_parser,
    default_setup,
    launch,
)
from detectron2.evaluation import DatasetEvaluators, verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

import instance_crf
from instance_crf.checkpoint import Checkpointer, part_names_of
from instance_crf.config import check_datasets, load_config
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.data.order import build_train_loader, start_at
from instance_crf.evaluation.evaluators import PartInstanceEvaluator, PredictionExporter
from instance_crf.evaluation.toolkit.part_parsing import without_nan
from instance_crf.evaluation.toolkit.pictures import PartInstancePictures
from instance_crf.files import atomic_path, remove_temporaries
from instance_crf.hooks import CountPlaces, SeedSteps
from instance_crf.solver import build_optimizer

logger = logging.getLogger("instance_crf.train_net")


class Trainer(DefaultTrainer):
    """Detectron2's trainer with this project's mapper, evaluators and optimizer."""

    def build_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        self.checkpointer = Checkpointer(
            self.model,
            cfg.OUTPUT_DIR,
            part_names=part_names_of(cfg.DATASETS.TRAIN),
            trainer=weakref.proxy(self),
        )
        own = [CountPlaces(cfg.DATASETS.TRAIN), SeedSteps(cfg.SEED)]
        return [*own, *super().build_hooks()]

    def resume_or_load(self, resume: bool = True) -> None:
        """See Detectron2. A resumed run goes on in the order of the pictures; if it was killed
        between its last iteration and its last file, it writes that."""
        super().resume_or_load(resume)
        batch = self.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        start_at(self.data_loader, self.start_iter * batch)
        if not comm.is_main_process():
            return
        remove_temporaries(self.cfg.OUTPUT_DIR)
        last = Path(self.cfg.OUTPUT_DIR, "last_checkpoint")
        if not resume:
            last.unlink(missing_ok=True)  # of a run before this one
        elif self.start_iter >= self.max_iter and last.read_text().strip() != "model_final.pth":
            self.checkpointer.save("model_final", iteration=self.iter)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_train_loader(cfg, PartInstanceMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        mapper = PartInstanceMapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        evaluators = [
            PartInstanceEvaluator(
                dataset_name,
                protocol=cfg.TEST.PROTOCOLS,
                compare_scores=cfg.TEST.COMPARE_SCORES and cfg.MODEL.INSTANCE_CRF.ENABLED,
                parts_only=not cfg.MODEL.INSTANCE_CRF.ENABLED,
                output_dir=output_dir,
            )
        ]
        for name in cfg.TEST.EXPORT:
            folder = os.path.join(output_dir, name)
            evaluators.append(PredictionExporter(dataset_name, name, folder))
        if cfg.TEST.PICTURES > 0:
            evaluators.append(
                PartInstancePictures(
                    dataset_name,
                    output_dir=os.path.join(cfg.OUTPUT_DIR, "pictures", dataset_name),
                    max_pictures=cfg.TEST.PICTURES,
                )
            )
        return DatasetEvaluators(evaluators)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None) -> dict:
        """Evaluate, and leave the numbers in ``OUTPUT_DIR/results.json``."""
        results = super().test(cfg, model, evaluators)
        if results and comm.is_main_process():
            with atomic_path(os.path.join(cfg.OUTPUT_DIR, "results.json")) as path:
                path.write_text(json.dumps(without_nan(results), indent=2) + "\n")
        return results


def setup(args) -> CfgNode:
    """Config from the file and the command line, checked against the data sets."""
    instance_crf.register()
    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="instance_crf")
    check_datasets(cfg)
    return cfg


def main(args) -> dict:
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        part_names = part_names_of(cfg.DATASETS.TEST)
        checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, strict=True, part_names=part_names)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def invoke_main() -> None:
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


if __name__ == "__main__":
    invoke_main()
