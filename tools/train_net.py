#!/usr/bin/env python
"""Train or evaluate a model: the usual command of a Detectron2 project.

python tools/train_net.py [--num-gpus N] [--resume] [--eval-only]
    --config-file configs/SyntheticPeople/parts.yaml [MORE.yaml ...] [KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import instance_crf  # before Detectron2, whose import it makes quiet

# isort: split
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, default_argument_parser, defaults
from detectron2.evaluation import DatasetEvaluators, verify_results
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from instance_crf.checkpoint import Checkpointer, part_names_of
from instance_crf.config import load_config
from instance_crf.config_check import check_config, check_run
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.data.order import build_train_loader, start_at
from instance_crf.data.parallel import end_loading_with_parent
from instance_crf.distributed import create_ddp_model, launch_processes
from instance_crf.evaluation.evaluators import PartInstanceEvaluator, PredictionExporter
from instance_crf.evaluation.toolkit.part_parsing import without_nan
from instance_crf.evaluation.toolkit.pictures import PartInstancePictures
from instance_crf.files import (
    check_writable,
    lock_folder,
    remove_temporaries,
    write_json,
    write_text,
)
from instance_crf.hooks import CountPlaces, SeedSteps
from instance_crf.program import run_program
from instance_crf.solver import build_optimizer

logger = logging.getLogger("instance_crf.train_net")

defaults.create_ddp_model = create_ddp_model  # DefaultTrainer's own takes GPUs only


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
        mapper = PartInstanceMapper(cfg, is_train=False, dataset_name=dataset_name)
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        end_loading_with_parent(loader)
        return loader

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
            write_json(os.path.join(cfg.OUTPUT_DIR, "results.json"), without_nan(results))
        return results


def setup(args: argparse.Namespace) -> CfgNode:
    """Config from the files and the command line, checked; nothing is written."""
    instance_crf.register()
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg)
    check_run(cfg, num_processes=_num_processes(args), eval_only=args.eval_only)
    return cfg


def start_log(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Loggers and seeds as Detectron2's ``default_setup`` has them, which writes config.yaml, too:
    before it is known whether there is data, or the weights fit."""
    rank = comm.get_rank()
    for name in ("fvcore", "detectron2", "instance_crf"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    logger.info("Process %d of %d.\n%s", rank, comm.get_world_size(), collect_env_info())
    logger.info("Command line arguments: %s", args)
    logger.info("The whole config:\n%s", cfg.dump())
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def save_config(cfg: CfgNode, folder: str) -> None:
    """Leave the config beside what it makes, once it is known to work."""
    if comm.is_main_process():
        write_text(os.path.join(folder, "config.yaml"), cfg.dump(), durable=True)


def check_test_sets(cfg: CfgNode) -> None:
    """Read what evaluation needs: what is missing is said before the training, not after it."""
    for name in cfg.DATASETS.TEST:
        Trainer.build_test_loader(cfg, name)
        PartInstanceEvaluator(name)


def evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict:
    """Evaluate MODEL.WEIGHTS; its config goes to OUTPUT_DIR/inference."""
    model = Trainer.build_model(cfg)
    part_names = part_names_of(cfg.DATASETS.TEST)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, strict=True, part_names=part_names)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    save_config(cfg, os.path.join(cfg.OUTPUT_DIR, "inference"))
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def train(cfg: CfgNode, args: argparse.Namespace) -> dict | None:
    """Train; ``config.yaml`` is that of the run whose checkpoints lie beside it."""
    check_test_sets(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    save_config(cfg, cfg.OUTPUT_DIR)
    return trainer.train()


def main(args: argparse.Namespace) -> dict | None:
    """One process of the run; the first one keeps OUTPUT_DIR to itself."""
    cfg = setup(args)
    doing = "evaluating" if args.eval_only else "training"
    keep = lock_folder(cfg.OUTPUT_DIR, doing) if comm.is_main_process() else nullcontext()
    try:
        with keep:
            if comm.is_main_process():
                check_writable(cfg.OUTPUT_DIR, folder=True)
            comm.synchronize()
            start_log(cfg, args)
            return evaluate(cfg, args) if args.eval_only else train(cfg, args)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk, for one, met while a log was written
            raise OSError(error.errno, os.strerror(error.errno), cfg.OUTPUT_DIR) from error
        raise


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = default_argument_parser()
    parser.description = "Train a model, or evaluate one."
    parser.set_defaults(dist_url="auto")  # Detectron2's is one port, for one run at a time
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is missing")
    if args.num_gpus < 0 or args.num_machines < 1:
        parser.error(f"--num-gpus is {args.num_gpus} and --num-machines {args.num_machines}")
    if not 0 <= args.machine_rank < args.num_machines:
        parser.error(f"--machine-rank is {args.machine_rank} of {args.num_machines} machines")
    if args.num_machines > 1 and args.dist_url == "auto":
        parser.error("--dist-url is missing: tcp://HOST:PORT of the first machine")
    return args


def invoke_main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if _num_processes(args) == 1:
        main(args)
        return
    cfg = setup(args)  # what is wrong is said once, not by every process
    launch_processes(main, args, cfg.MODEL.DEVICE)


def _num_processes(args: argparse.Namespace) -> int:
    return max(args.num_gpus, 1) * args.num_machines


if __name__ == "__main__":
    sys.exit(run_program(invoke_main))
