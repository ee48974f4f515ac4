"""Training and evaluation in several processes: on GPUs, or on the CPU."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch
from detectron2.engine import create_ddp_model as create_ddp_model_on_gpu
from detectron2.engine import launch
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from .data.parallel import end_with_parent
from .program import USER_ERRORS, one_line

__all__ = ["create_ddp_model", "launch_processes"]


class _UserError(Exception):
    """An error about what the user gave, in one line."""


def launch_processes(main: Callable, args: argparse.Namespace, device: str) -> None:
    """Run ``main(args)`` in ``args.num_gpus`` processes on each of ``args.num_machines``.

    Args:
        main: a function of a module that the processes can import.
        args: of Detectron2's ``default_argument_parser``.
        device: MODEL.DEVICE; on "cpu" the processes talk over Gloo.

    Raises:
        ChildProcessError: a process was killed.
        ValueError: more processes than GPUs; a port that is taken; or a process met an error of
            the user's.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else Detectron2 takes NCCL, which needs GPUs
    elif args.num_gpus > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus is {args.num_gpus}, but there are {torch.cuda.device_count()} GPUs."
        )
    try:
        launch(
            _worker,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except ProcessRaisedException as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(
                f"--dist-url is {args.dist_url}, whose port is in use, maybe by another run: take "
                "another port."
            ) from None
        _, mark, text = str(error).rstrip().rpartition(f"{_UserError.__name__}: ")
        if not mark or "\n" in text:
            raise
        raise ValueError(text) from None
    except ProcessExitedException as error:
        raise ChildProcessError(f"{error}; the other processes were stopped.") from None


def _worker(main: Callable, args: argparse.Namespace) -> None:
    end_with_parent()
    try:
        main(args)
    except USER_ERRORS as error:  # of an exception, only its traceback reaches the parent
        raise _UserError(one_line(error)) from None


def create_ddp_model(model: nn.Module, **options) -> nn.Module:
    """Detectron2's, which also takes a model on the CPU: no device has a number there."""
    if next(model.parameters()).device.type == "cpu":
        options.setdefault("device_ids", None)
    return create_ddp_model_on_gpu(model, **options)
