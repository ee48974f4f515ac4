"""From the layout of a release to trained and evaluated, through the commands that a user types."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.engine import default_argument_parser

from instance_crf.data.datasets import builtin

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [8,10,12,14]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 8 MODEL.SEM_SEG_HEAD.CONVS_DIM 8
    MODEL.RPN.CONV_DIMS [8] MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.DEVICE cpu MODEL.WEIGHTS ''
    INPUT.PART_AUG.CROP_SIZE [48,48] INPUT.MIN_SIZE_TEST 0 DATALOADER.NUM_WORKERS 0
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 2 MODEL.INSTANCE_CRF.DETECTIONS.WARMUP_ITERS 2
    MODEL.INSTANCE_CRF.NUM_ITERATIONS.TRAIN 2 MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 2
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 1 TEST.PICTURES 0
""".split()


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A function (the data set's config or options) that trains and returns the evaluation."""
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools/train_net.py")
    train_net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train_net)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    builtin.register_all()

    def run(*options):
        output = tmp_path / "output"
        files = [f"{CONFIGS}/models/small_fpn.yaml", f"{CONFIGS}/schedules/instance_crf.yaml"]
        options = ["--config-file", *files, *options, *TINY, "OUTPUT_DIR", str(output)]
        train_net.main(default_argument_parser().parse_args(options))
        logged: dict = {}
        for line in (output / "metrics.json").read_text().splitlines():
            logged |= json.loads(line)
        losses = {k: v for k, v in logged.items() if "loss" in k}
        assert {"loss_crf", "loss_parts", "loss_cls"} <= set(losses)
        assert all(np.isfinite(list(losses.values()))) and losses["loss_parts"] > 0
        return json.loads((output / "results.json").read_text())

    yield run
    monkeypatch.undo()
    builtin.register_all()


def check(results, parts):
    """Every group of numbers is there; two iterations teach nothing, so only the ranges matter."""
    for group, key in (("part_apr", "APr_vol"), ("object_apr", "APr50"), ("part_seg", "mIoU")):
        assert 0 <= results[group][key] <= 100
    assert {"IoU/" + name.replace(" ", "_") for name in parts} <= set(results["part_seg"])


@pytest.mark.slow
def test_cihp(tmp_path, photo, png, mask, script, train):
    root = tmp_path / "instance-level_human_parsing"
    for folder, ids in (("Training", "12"), ("Validation", "3")):
        for image_id in ids:
            photo(root / folder / f"Images/000000{image_id}.jpg")
            parts = mask(2, 4, 15, 24) * 13 + mask(15, 4, 45, 24) * 5 + mask(5, 36, 44, 60) * 14
            people = mask(2, 4, 45, 24) + mask(5, 36, 44, 60) * 2
            png(root / folder / f"Category_ids/000000{image_id}.png", parts)
            png(root / folder / f"Human_ids/000000{image_id}.png", people)
    script("prepare_cihp").main([])
    check(train(f"{CONFIGS}/datasets/cihp.yaml"), ["face", "upper clothes", "left arm"])


@pytest.mark.slow
def test_mhp(tmp_path, photo, png, mask, script, train):
    source = tmp_path / "LV-MHP-v2"
    (source / "list").mkdir(parents=True)
    for split, ids in (("train", ("1", "2")), ("val", ("3",))):
        (source / f"list/{split}.txt").write_text("\n".join(ids) + "\n")
        for image_id in ids:
            photo(source / split / f"images/{image_id}.jpg")
            for person, left in ((1, 4), (2, 30)):
                parts = mask(2, left, 15, left + 28) * 3 + mask(15, left, 45, left + 28) * 58
                path = source / split / f"parsing_annos/{image_id}_02_0{person}.png"
                png(path, parts, "R")
    script("prepare_mhp").main([])
    check(train(f"{CONFIGS}/datasets/mhp_v2.yaml"), ["face", "other lower body clothes"])


@pytest.mark.slow
def test_pascal_part_with_several_classes(tmp_path, photo, mat, mask, script, train):
    for split, ids in (("train", ("a", "b")), ("val", ("c",))):
        lists = tmp_path / "VOC2010/ImageSets/Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for image_id in ids:
            photo(tmp_path / f"VOC2010/JPEGImages/{image_id}.jpg")
            person = [("head", mask(2, 4, 15, 24)), ("torso", mask(15, 4, 45, 24))]
            dog = [("head", mask(5, 30, 25, 44)), ("tail", mask(25, 44, 44, 60))]
            objects = [
                ("person", mask(2, 4, 45, 24), person),
                ("dog", mask(5, 30, 44, 60), dog),
            ]
            mat(tmp_path / f"Annotations_Part/{image_id}.mat", objects)
    script("prepare_pascal_part").main([])
    results = train(f"{CONFIGS}/datasets/pascal_part.yaml")
    check(results, ["person head", "dog tail", "sofa"])


@pytest.mark.slow
def test_own_data_by_yaml(tmp_path, photo, png, mask, train):
    for i in range(3):
        photo(tmp_path / f"photos/{i}.jpg")
        png(tmp_path / f"parts/{i}.png", mask(5, 5, 25, 40) + mask(25, 5, 44, 40) * 2)
        png(tmp_path / f"people/{i}.png", mask(5, 5, 44, 40))
    split = {"images": "photos", "parts": "parts", "objects": "people"}
    content = {"name": "mine", "parts": ["top", "bottom"], "splits": {"train": split, "val": split}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    check(train("DATASETS.PART_YAML", str(tmp_path / "mine.yaml")), ["top", "bottom"])
