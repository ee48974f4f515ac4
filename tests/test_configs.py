"""Every YAML in configs/ loads, names known data sets, and builds."""

from pathlib import Path

import pytest
from detectron2.modeling import build_model

import instance_crf
from instance_crf.config import check_datasets, load_config
from instance_crf.modeling import InstanceCRF
from instance_crf.solver import build_optimizer

instance_crf.register()

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_config_builds(name):
    cfg = load_config(str(CONFIGS / name), ["MODEL.DEVICE", "cpu"])
    check_datasets(cfg)
    model = build_model(cfg)
    assert isinstance(model, InstanceCRF)
    assert cfg.MODEL.INSTANCE_CRF.ENABLED == (model.crf_head is not None)


def test_class_counts_are_compared_with_the_data_set():
    config = str(CONFIGS / "SyntheticPeople/Base-SyntheticPeople.yaml")
    for key, wrong, message in [
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20, "NUM_CLASSES is 20.*synthetic_people_train.*7"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 80, "NUM_CLASSES is 80.*synthetic_people_train.*1"),
        ("MODEL.INSTANCE_CRF.PART_OWNER", [1] * 6, "PART_OWNER"),
        ("DATASETS.TEST", ("no_such_set",), "no_such_set"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_datasets(load_config(config, [key, wrong]))


def test_missing_config_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config("nowhere.yaml")


@pytest.mark.parametrize("optimizer", ["SGD", "ADAMW"])
def test_crf_weights_learn_faster_and_do_not_decay(optimizer):
    config = str(CONFIGS / "SyntheticPeople/Base-SyntheticPeople.yaml")
    options = ["SOLVER.OPTIMIZER", optimizer, "SOLVER.CRF_LR_FACTOR", 7.0, "MODEL.DEVICE", "cpu"]
    cfg = load_config(config, options)
    model = build_model(cfg)
    groups = build_optimizer(cfg, model).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    seen = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(seen) == sorted(names.values())
    for group in groups:
        for parameter in group["params"]:
            is_crf = names[id(parameter)].startswith("crf_head.")
            assert group["lr"] == pytest.approx(cfg.SOLVER.BASE_LR * (7.0 if is_crf else 1.0))
            assert not is_crf or group["weight_decay"] == 0


def test_unknown_optimizer_is_named():
    config = str(CONFIGS / "SyntheticPeople/Base-SyntheticPeople.yaml")
    cfg = load_config(config, ["SOLVER.OPTIMIZER", "LION", "MODEL.DEVICE", "cpu"])
    with pytest.raises(ValueError, match="'LION'"):
        build_optimizer(cfg, build_model(cfg))
