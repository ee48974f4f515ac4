"""Every key of config.py reaches something: change it, and what is built from it differs."""

import importlib.util
import json
import random
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from PIL import Image

from instance_crf.config import add_instance_crf_config, load_config
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import register_canonical
from instance_crf.modeling import (
    IDENTITY_HEADS_REGISTRY,
    INSTANCE_CRF_HEADS_REGISTRY,
    IdentityHead,
    InstanceCRFHead,
)

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools/train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)

CRF = "MODEL.INSTANCE_CRF"
IDENTITY = "MODEL.IDENTITY_HEAD"
TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [8,10,12,14]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 8 MODEL.SEM_SEG_HEAD.CONVS_DIM 8
    MODEL.IDENTITY_HEAD.CONVS_DIM 8
    MODEL.RPN.CONV_DIMS [8] MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.DEVICE cpu
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2
""".split()

#: Another value of each key; where it matters only beside others, these follow it.
CHANGES = {
    "MODEL.FREEZE": (["backbone"],),
    "MODEL.CHANNELS_LAST": (False,),
    "MODEL.DETECTOR.ENABLED": (False, f"{CRF}.ENABLED", False),
    "MODEL.DETECTOR.CLASSES": (["dog", "person"],),
    "MODEL.DETECTOR.CLASS_IDS": ([1], "MODEL.ROI_HEADS.NUM_CLASSES", 2),
    "MODEL.ROI_HEADS.NUM_CLASSES": (2,),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": (
        *(9, f"{CRF}.ENABLED", False),
        *("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", []),
    ),
    "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS": ([1.0] * 7,),
    "MODEL.SEM_SEG_HEAD.OHEM_TOP_K": (0.25,),
    "MODEL.SEM_SEG_HEAD.SUBPIXEL": (2,),
    "MODEL.SEM_SEG_HEAD.POOL_SIZES": ([1, 2], "MODEL.SEM_SEG_HEAD.NAME", "PartPSPHead"),
    "MODEL.SLIM_RESNET.STEM_CHANNELS": (10,),
    "MODEL.SLIM_RESNET.CHANNELS": ([10, 12, 14, 16],),
    "MODEL.SLIM_RESNET.BLOCKS": ([1, 1, 1, 2],),
    "MODEL.SLIM_RESNET.NORM": ("",),
    f"{IDENTITY}.NAME": ("AnotherIdentityHead",),
    f"{IDENTITY}.ENABLED": (False,),
    f"{IDENTITY}.VOTE": ("offset",),
    f"{IDENTITY}.NUM_CONVS": (3,),
    f"{IDENTITY}.CONVS_DIM": (6,),
    f"{IDENTITY}.NORM": ("",),
    f"{IDENTITY}.LOSS_WEIGHT": (7.0,),
    f"{IDENTITY}.POWER": (3.0,),
    f"{IDENTITY}.SIGMA": (0.5,),
    f"{CRF}.NAME": ("AnotherHead",),
    f"{CRF}.RULE": ("best_box", f"{CRF}.NAME", "RuleHead"),
    f"{CRF}.ENABLED": (False,),
    f"{CRF}.FORM": ("joint",),
    f"{CRF}.REFERENCE_SIZE": (300.0,),
    f"{CRF}.WHAT.PAIRWISE_TERM": (False,),
    f"{CRF}.WHAT.BILATERAL_WEIGHT": (2.0,),
    f"{CRF}.WHAT.SPATIAL_WEIGHT": (2.0,),
    f"{CRF}.IDENTITY.POTENTIAL": ("consistency",),
    f"{CRF}.IDENTITY.CUES": (["box"], f"{CRF}.IDENTITY.CUE_WEIGHTS", []),
    f"{CRF}.IDENTITY.EVIDENCE": (["masks"],),
    f"{CRF}.IDENTITY.PAIRWISE_TERM": (False,),
    f"{CRF}.IDENTITY.CUE_WEIGHTS": ([1.0, 2.0, 1.0, 1.0, 1.0, 1.0],),
    f"{CRF}.IDENTITY.NOBODY": (True,),
    f"{CRF}.IDENTITY.NOBODY_POTENTIAL": (-1.0,),
    f"{CRF}.IDENTITY.REACH": (2.0,),
    f"{CRF}.IDENTITY.EVIDENCE_FLOOR": (0.1,),
    f"{CRF}.MIN_SHARE": (0.1,),
    f"{CRF}.PART_REGIONS": (["head"] * 6,),
    f"{CRF}.NUM_ITERATIONS.TRAIN": (7,),
    f"{CRF}.NUM_ITERATIONS.TEST": (7,),
    f"{CRF}.BOX_TERM": (False, f"{CRF}.FORM", "joint"),
    f"{CRF}.GLOBAL_TERM": (False, f"{CRF}.FORM", "joint"),
    f"{CRF}.PAIRWISE_TERM": (False,),
    f"{CRF}.BACKGROUND_BOX_TERM": (True, f"{CRF}.FORM", "joint"),
    f"{CRF}.BOX_WEIGHT": (2.0,),
    f"{CRF}.GLOBAL_WEIGHT": (2.0,),
    f"{CRF}.EPSILON": (1e-6, f"{CRF}.FORM", "joint"),
    f"{CRF}.SCORE_TRANSFORM": ("tvg", f"{CRF}.FORM", "joint"),
    f"{CRF}.BILATERAL.THETA_ALPHA": (20.0,),
    f"{CRF}.BILATERAL.THETA_BETA": (20.0,),
    f"{CRF}.BILATERAL.WEIGHT": (2.0,),
    f"{CRF}.SPATIAL.THETA_GAMMA": (2.0,),
    f"{CRF}.SPATIAL.WEIGHT": (2.0,),
    f"{CRF}.NORMALIZATION": ("symmetric",),
    f"{CRF}.BACKEND": ("torch",),
    f"{CRF}.PART_OWNER": ([0, 0, 0, 0, 0, 1], "MODEL.ROI_HEADS.NUM_CLASSES", 2),
    f"{CRF}.DETECTIONS.SOURCE": ("ground_truth",),
    f"{CRF}.DETECTIONS.SCORE_THRESH": (0.1,),
    f"{CRF}.DETECTIONS.MAX_PER_IMAGE": (3,),
    f"{CRF}.DETECTIONS.JITTER": (0.2,),
    f"{CRF}.DETECTIONS.WARMUP_ITERS": (5,),
    f"{CRF}.PARTS.SOURCE": ("ground_truth",),
    f"{CRF}.MATCHING": ("segment",),
    f"{CRF}.UNMATCHED": ("background",),
    f"{CRF}.OHEM_TOP_K": (100,),
    f"{CRF}.LOSS_WEIGHT": (2.0,),
    f"{CRF}.STOP_GRADIENT_TO_PARTS": (True,),
    f"{CRF}.SCORE": ("mean_q",),
    "SOLVER.OPTIMIZER": ("SGD",),
    "SOLVER.BETAS": ((0.8, 0.9),),
    "SOLVER.LR_FACTOR": (0.1,),
    "SOLVER.CRF_LR_FACTOR": (2.0,),
    "INPUT.PART_AUG.SCALE_RANGE": ([0.5, 0.6],),
    "INPUT.PART_AUG.CROP_SIZE": ([40, 40],),
    "INPUT.PART_AUG.ROTATION": (30.0,),
    "INPUT.PART_AUG.COLOR": ("channels",),
    "INPUT.PART_AUG.BLUR": (3.0,),
    "DATASETS.MODULES": (["keys_module"],),
    "DATASETS.PART_YAML": ("own.yaml",),
    "DATASETS.DETECTIONS_TRAIN": (("boxes.json",),),
    "DATASETS.DETECTIONS_TEST": (("boxes.json",),),
    "DATASETS.DETECTION_CATEGORY_IDS": ([15], "DATASETS.DETECTIONS_TEST", ("boxes.json",)),
    "TEST.PICTURES": (1,),
    "TEST.PROTOCOLS": (["tvg"],),
    "TEST.COMPARE_SCORES": (True,),
    "TEST.EXPORT": (["cihp"],),
}


def leaves(cfg, prefix=""):
    """{dotted key: value} of a config."""
    found = {}
    for key, value in cfg.items():
        here = leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else None
        found |= {prefix + key: value} if here is None else here
    return found


def own_keys():
    """The keys that config.py adds, or whose default it changes."""
    plain, cfg = get_cfg(), get_cfg()
    add_instance_crf_config(cfg)
    before = leaves(plain)
    return sorted(k for k, v in leaves(cfg).items() if k not in before or before[k] != v)


def describe(thing, seen):
    """Something comparable that holds all attributes, parameters and items, whatever the type."""
    if isinstance(thing, torch.Tensor):
        return tuple(thing.shape), thing.stride(), thing.detach().double().sum().item()
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.tobytes()
    if thing is None or isinstance(thing, (bool, int, float, str, Path)):
        return thing
    if id(thing) in seen:
        return "seen"
    seen[id(thing)] = thing  # kept, or the next thing could get its id
    if isinstance(thing, dict):
        return [(str(key), describe(value, seen)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [describe(item, seen) for item in thing]
    return type(thing).__name__, describe(getattr(thing, "__dict__", {}), seen)


def built(cfg):
    """Descriptions of the model, the optimizer, a batch of each loader, and the evaluator."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    trainer, dataset = train_net.Trainer, cfg.DATASETS.TEST[0]
    model = trainer.build_model(cfg)
    optimizer = trainer.build_optimizer(cfg, model)
    products = {
        "model": model,
        "optimizer": [type(optimizer).__name__, optimizer.param_groups],
        "batch": next(iter(trainer.build_train_loader(cfg))),
        "inputs": next(iter(trainer.build_test_loader(cfg, dataset))),
        "evaluator": trainer.build_evaluator(cfg, dataset),
    }
    return {name: describe(product, {}) for name, product in products.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pictures as a registered data set, as one of one's own, and a file of detections."""
    root = tmp_path_factory.mktemp("keys")
    parts = np.zeros((64, 64), np.uint8)
    for part, top in enumerate(range(4, 58, 9), start=1):
        parts[top : top + 9, 8:40] = part
    for split, name in (("Training", "train"), ("Validation", "val")):
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        maps = {"Images": image, "Category_ids": parts, "Human_ids": (parts > 0).astype(np.uint8)}
        for kind, array in maps.items():
            (root / split / kind).mkdir(parents=True)
            for image_id in ("1", "2"):
                Image.fromarray(array).save(root / split / kind / f"{image_id}.png")
        (root / split / f"{name}_id.txt").write_text("1\n2\n")
        register_canonical(f"keys_{name}", root, name, PERSON_PART_TAXONOMY)
    box = {"image_id": 1, "category_id": 1, "bbox": [8, 4, 32, 54], "score": 0.9}
    (root / "boxes.json").write_text(json.dumps([box, {**box, "image_id": 2}]))
    own = {"images": "Training/Images", "parts": "Training/Category_ids"}
    own |= {"objects": "Training/Human_ids"}
    content = {
        "name": "keys_own",
        "parts": [f"part {i}" for i in range(6)],
        "splits": {"train": own, "val": own},
    }
    (root / "own.yaml").write_text(yaml.safe_dump(content))
    names = {"TRAIN": ["keys_train"], "TEST": ["keys_val"]}
    (root / "data.yaml").write_text(yaml.safe_dump({"DATASETS": names}))
    yield root
    for name in ("keys_train", "keys_val"):
        DatasetCatalog.remove(name)


@pytest.fixture(scope="module")
def built_with(folder):
    """A function (options) -> `built`, remembered."""
    if "AnotherHead" not in INSTANCE_CRF_HEADS_REGISTRY:
        INSTANCE_CRF_HEADS_REGISTRY.register(type("AnotherHead", (InstanceCRFHead,), {}))
        IDENTITY_HEADS_REGISTRY.register(type("AnotherIdentityHead", (IdentityHead,), {}))

    @cache
    def build(options):
        config = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
        return built(load_config(config, [f"{folder}/data.yaml", *TINY, *json.loads(options)]))

    return lambda *options: build(json.dumps(options).replace("boxes.json", f"{folder}/boxes.json"))


def test_the_table_has_every_key():
    assert sorted(CHANGES) == own_keys()


def test_modules_are_imported(folder, monkeypatch):
    """They change what is registered, not what is built of it."""
    (folder / "keys_module.py").write_text("loaded = True\n")
    monkeypatch.syspath_prepend(folder)
    assert "keys_module" not in sys.modules
    config, data = ROOT / "configs/models/tiny_fpn.yaml", folder / "data.yaml"
    load_config(str(config), [str(data), "DATASETS.MODULES", "['keys_module']"])
    assert sys.modules.pop("keys_module").loaded


@pytest.mark.parametrize("key", sorted({*CHANGES} - {"DATASETS.MODULES"}))
def test_key_reaches_something(folder, built_with, key):
    value, *others = CHANGES[key]
    if key == "DATASETS.PART_YAML":
        value = str(folder / value)
    before, after = built_with(*others), built_with(*others, key, value)
    assert before.keys() == after.keys()
    assert any(before[name] != after[name] for name in before)


def test_the_same_config_builds_the_same(built_with, folder):
    config = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
    assert built_with() == built(load_config(config, [f"{folder}/data.yaml", *TINY]))
