"""Optimizer: Detectron2's parameter groups, and a learning rate of their own for CRF weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from .program import first_of

__all__ = ["OPTIMIZERS", "build_optimizer"]

logger = logging.getLogger(__name__)

OPTIMIZERS = ("SGD", "ADAMW")
_NAMES = "parameter_names"
_HOW = ("fused", "foreach", "capturable", "differentiable")
"""How an optimizer computes, not what: of this machine and version, not of the checkpoint."""
_SETTINGS = ("initial_lr", "weight_decay", "momentum", "nesterov", "betas")


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW after ``cfg.SOLVER``, with Detectron2's rules for norms and biases.

    The learning rate is ``SOLVER.BASE_LR`` times ``SOLVER.LR_FACTOR``. The CRF's weights
    (``crf_head.*``) learn ``SOLVER.CRF_LR_FACTOR`` times as fast and have no weight decay: they are
    a handful of scalars on a logarithmic scale.

    Its state has the parameters' names beside it, and it loads no state of other parameters: that
    raises a ValueError.

    Raises:
        ValueError: an unknown ``SOLVER.OPTIMIZER``, a model of which nothing learns.
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
    if not groups:
        raise ValueError(
            f"There is nothing to train: MODEL.FREEZE is {list(cfg.MODEL.FREEZE)}, and what is "
            f"left, with the {cfg.MODEL.INSTANCE_CRF.NAME}, has no weights. To evaluate it: "
            "--eval-only."
        )
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
    _keep_names(optimizer, model)
    return maybe_add_gradient_clipping(cfg, optimizer)


def _keep_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Save names with the optimizer's state, and load only a state that fits.

    PyTorch goes by the parameters' places and compares no shapes: moments of another parameter
    train nonsense, and the fused optimizer reads and writes beyond their memory.
    """
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    names = [[name_of[p] for p in group["params"]] for group in optimizer.param_groups]

    def add_names(_, state: dict[str, Any]) -> dict[str, Any]:
        return state | {_NAMES: names}

    def fit(_, state: dict[str, Any]) -> dict[str, Any]:
        _check_state(state, optimizer, names)
        groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
        fitted = [theirs | {k: ours[k] for k in _HOW if k in ours} for theirs, ours in groups]
        return state | {"param_groups": fitted}

    optimizer.register_state_dict_post_hook(add_names)
    optimizer.register_load_state_dict_pre_hook(fit)


def _check_state(
    state: Mapping[str, Any], optimizer: torch.optim.Optimizer, names: list[list[str]]
) -> None:
    """
    Args:
        state: an optimizer's, perhaps of before names were saved; then places and shapes count.
        optimizer: the one that it is for.
        names: of its parameters, by group.

    Raises:
        ValueError: other parameters, another order, other shapes, or another optimizer; names them.
    """
    theirs, ours = state["param_groups"], optimizer.param_groups
    kinds = ["ADAMW" if "betas" in groups[0] else "SGD" for groups in (theirs, ours)]
    if kinds[0] != kinds[1]:
        _refuse([f"SOLVER.OPTIMIZER is {kinds[1]} here, and was {kinds[0]}"])
    found = state.get(_NAMES)
    here = [name for group in names for name in group]
    if found is not None and found != names:
        there = [name for group in found for name in group]
        lines = [f"{name} does not learn in the checkpoint" for name in here if name not in there]
        lines += [f"{name} does not learn here" for name in there if name not in here]
        _refuse(lines or ["the same parameters are in another order, or in other groups"])
    sizes = [[len(group["params"]) for group in groups] for groups in (theirs, ours)]
    if sizes[0] != sizes[1]:
        _refuse([f"it has groups of {sizes[0]} parameters, not of {sizes[1]}"])
    indices = [index for group in theirs for index in group["params"]]
    parameters = [parameter for group in ours for parameter in group["params"]]
    lines = []
    for index, name, parameter in zip(indices, here, parameters, strict=True):
        for key, value in state["state"].get(index, {}).items():
            if key != "step" and torch.is_tensor(value) and value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)}, but the parameter {tuple(parameter.shape)}"
                lines.append(f"{key} of {name} is {shapes}")
    if lines:
        _refuse(lines)
    _tell_settings(theirs, ours)


def _refuse(lines: list[str]) -> None:
    raise ValueError(
        "The optimizer's state in the checkpoint is not of the parameters that learn here: "
        f"{first_of(lines)}. Resume with the config of the run that wrote it, or "
        "start from its weights: leave --resume out, and name it as MODEL.WEIGHTS."
    )


def _tell_settings(theirs: list[dict], ours: list[dict]) -> None:
    """Warn of what the config says otherwise: a resumed run goes on as it was."""
    changes = {
        f"{key} {there[key]}, not {here[key]}"
        for there, here in zip(theirs, ours, strict=True)
        for key in _SETTINGS
        if key in there and key in here and there[key] != here[key]
    }
    if changes:
        logger.warning("Resumed with the checkpoint's %s.", "; ".join(sorted(changes)))
