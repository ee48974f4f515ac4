"""The optimizer: what a checkpoint says of it fits, parameter by parameter, or is refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from instance_crf.solver import build_optimizer


def make_cfg(**changes):
    clip = SimpleNamespace(ENABLED=False)
    solver = {
        "OPTIMIZER": "ADAMW",
        "BASE_LR": 0.1,
        "LR_FACTOR": 1.0,
        "CRF_LR_FACTOR": 10.0,
        "WEIGHT_DECAY": 0.01,
        "WEIGHT_DECAY_NORM": 0.01,
        "BIAS_LR_FACTOR": 1.0,
        "WEIGHT_DECAY_BIAS": None,
        "BETAS": (0.9, 0.999),
        "MOMENTUM": 0.9,
        "NESTEROV": False,
        "CLIP_GRADIENTS": clip,
    }
    return SimpleNamespace(SOLVER=SimpleNamespace(**(solver | changes)))


def make_model(**layers):
    return nn.ModuleDict({name: nn.Linear(*size) for name, size in layers.items()})


def trained(model, cfg, steps=3):
    optimizer = build_optimizer(cfg, model)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p**2).sum() for p in model.parameters()).backward()
        optimizer.step()
    return optimizer


def pth(optimizer, tmp_path):
    """The state as a checkpoint has it."""
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    return torch.load(tmp_path / "state.pth", weights_only=True)


@pytest.mark.parametrize("kind", ["SGD", "ADAMW"])
def test_a_resumed_optimizer_goes_on(kind, tmp_path):
    cfg, model = make_cfg(OPTIMIZER=kind), make_model(a=(3, 4), b=(4, 2))
    optimizer = trained(model, cfg)
    other = copy.deepcopy(model)
    resumed = build_optimizer(cfg, other)
    resumed.load_state_dict(pth(optimizer, tmp_path))
    for network, steps in ((model, optimizer), (other, resumed)):
        steps.zero_grad()
        sum((p**2).sum() for p in network.parameters()).backward()
        steps.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["SGD", "ADAMW"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "layers, words",
    [
        ({"a": (3, 5), "b": (5, 2)}, r"of a.weight is \(4, 3\), but the parameter \(5, 3\)"),
        ({"a": (3, 4), "b": (4, 3)}, r"of b.bias is \(2,\), but the parameter \(3,\)"),
        ({"b": (4, 2), "a": (3, 4)}, "the same parameters are in another order"),
        ({"a": (3, 4), "b": (4, 2), "c": (2, 2)}, "c.weight does not learn in the checkpoint"),
        ({"a": (3, 4)}, "b.weight does not learn here"),
        ({"a": (3, 4), "z": (4, 2)}, "z.weight does not learn in .*b.weight does not learn here"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(kind, named, layers, words, tmp_path):
    """Without names, as older checkpoints are, by places and shapes."""
    cfg = make_cfg(OPTIMIZER=kind)
    state = pth(trained(make_model(a=(3, 4), b=(4, 2)), cfg), tmp_path)
    optimizer = build_optimizer(cfg, make_model(**layers))
    before = copy.deepcopy(optimizer.state_dict())
    if not named:
        del state["parameter_names"]
        if "z" in layers:
            return optimizer.load_state_dict(state)  # all shapes fit: taken as it was
        words = "but the parameter|groups of"
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(state)
    assert optimizer.state_dict() == before


def test_another_optimizer_is_refused(tmp_path):
    model = make_model(a=(3, 4))
    state = pth(trained(model, make_cfg()), tmp_path)
    with pytest.raises(ValueError, match="SOLVER.OPTIMIZER is SGD here, and was ADAMW"):
        build_optimizer(make_cfg(OPTIMIZER="SGD"), model).load_state_dict(state)


def test_how_it_computes_is_not_the_checkpoints(tmp_path):
    model = make_model(a=(3, 4))
    state = pth(trained(model, make_cfg()), tmp_path)
    state["param_groups"][0] |= {"fused": False, "foreach": True}
    optimizer = build_optimizer(make_cfg(), model)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["fused"] and not optimizer.param_groups[0]["foreach"]


def test_settings_that_the_config_has_otherwise_are_told(tmp_path, caplog):
    model = make_model(a=(3, 4))
    state = pth(trained(model, make_cfg()), tmp_path)
    build_optimizer(make_cfg(), model).load_state_dict(state)
    assert not caplog.text
    build_optimizer(make_cfg(WEIGHT_DECAY=0.5), model).load_state_dict(state)
    assert "Resumed with the checkpoint's weight_decay 0.01, not 0.5." in caplog.text


def test_what_begins_to_learn_is_refused(tmp_path):
    """MODEL.FREEZE of another stage."""
    model = make_model(a=(3, 4), b=(4, 2))
    model["a"].requires_grad_(False)
    state = pth(trained(model, make_cfg()), tmp_path)
    model["a"].requires_grad_(True)
    with pytest.raises(ValueError, match="a.weight does not learn in the checkpoint"):
        build_optimizer(make_cfg(), model).load_state_dict(state)
