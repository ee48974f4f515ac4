"""Optimizer: Detectron2's parameter groups, and a learning rate of their own for CRF weights."""

from __future__ import annotations

import torch
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

__all__ = ["OPTIMIZERS", "build_optimizer"]

OPTIMIZERS = ("SGD", "ADAMW")


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW after ``cfg.SOLVER``, with Detectron2's rules for norms and biases.

    The learning rate is ``SOLVER.BASE_LR`` times ``SOLVER.LR_FACTOR``. The CRF's weights
    (``crf_head.*``) learn ``SOLVER.CRF_LR_FACTOR`` times as fast and have no weight decay: they are
    a handful of scalars on a logarithmic scale.

    Raises:
        ValueError: an unknown ``SOLVER.OPTIMIZER``.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER not in OPTIMIZERS:
        raise ValueError(
            f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; it is one of {', '.join(OPTIMIZERS)}."
        )
    crf_parameters = {
        id(p) for name, p in model.named_parameters() if "crf_head." in name and p.requires_grad
    }
    base_lr = solver.BASE_LR * solver.LR_FACTOR
    groups = []
    for group in get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    ):
        own = [p for p in group["params"] if id(p) in crf_parameters]
        rest = [p for p in group["params"] if id(p) not in crf_parameters]
        if rest:
            groups.append({**group, "params": rest})
        if own:
            rate = base_lr * solver.CRF_LR_FACTOR
            groups.append({**group, "params": own, "lr": rate, "weight_decay": 0.0})
    if solver.OPTIMIZER == "ADAMW":
        # Fused: the loop over parameters takes a good part of a small network's step on a CPU.
        optimizer = torch.optim.AdamW(
            groups,
            lr=base_lr,
            betas=tuple(solver.BETAS),
            weight_decay=solver.WEIGHT_DECAY,
            fused=True,
        )
    else:
        optimizer = torch.optim.SGD(
            groups,
            lr=base_lr,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
        )
    return maybe_add_gradient_clipping(cfg, optimizer)
