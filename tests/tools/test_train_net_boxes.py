"""Boxes from wherever they may come: trained with and evaluated by tools/train_net.py."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from detectron2.engine import default_argument_parser

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/SyntheticPeople/instance_crf.yaml"
PARTS = ROOT / "configs/SyntheticPeople/parts.yaml"
CRF = "MODEL.INSTANCE_CRF"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train_net, write_detections = load("train_net"), load("write_detections")


@pytest.fixture
def train(tiny, tiny_opts, tmp_path):
    """A function: (name of its folder, files, keys) -> results, and what metrics.json has."""

    def run(name, files, *keys, flags=()):
        place = tiny_opts.index(f"{CRF}.DETECTIONS.WARMUP_ITERS")
        opts = tiny_opts[:place] + tiny_opts[place + 2 :]
        arguments = ["--config-file", *map(str, files), *opts, "OUTPUT_DIR", tmp_path / name]
        arguments = [*flags, *map(str, [*arguments, *keys])]
        train_net.main(default_argument_parser().parse_args(arguments))
        results = json.loads((tmp_path / name / "results.json").read_text())
        metrics = tmp_path / name / "metrics.json"
        lines = metrics.read_text().splitlines() if metrics.exists() else ()
        return results, set().union(*map(json.loads, lines))

    return run


def detections(name):
    return ROOT / "configs/detections" / f"{name}.yaml"


@pytest.mark.slow
def test_boxes_of_a_file_in_training_and_in_testing(train, tmp_path):
    """Written by the tool: jittered truth to train with, true boxes to test with."""
    for split, jitter in (("train", 0.1), ("val", 0.0)):
        output = str(tmp_path / f"{split}.json")
        arguments = ["--from-truth", "--masks", "--jitter", str(jitter)]
        write_detections.main([*arguments, "--dataset", f"tiny_{split}", "--output", output])
    keys = [
        *("DATASETS.DETECTIONS_TRAIN", f"('{tmp_path / 'train.json'}',)"),
        *("DATASETS.DETECTIONS_TEST", f"('{tmp_path / 'val.json'}',)"),
        *(f"{CRF}.PARTS.SOURCE", "ground_truth"),
    ]
    results, metrics = train("given", [CONFIG, detections("given")], *keys)
    assert results["object_apr"]["APr_vol"] == pytest.approx(100)
    assert "loss_crf" in metrics and "loss_cls" not in metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "files, keys",
    [
        ([detections("jittered_truth")], ()),
        ([], (f"{CRF}.DETECTIONS.SOURCE", "ground_truth")),
        ([], ()),
    ],
    ids=["jittered_truth", "truth", "joint"],
)
def test_the_detector_learns_beside_the_crf(train, tmp_path, files, keys):
    """End to end, from stage 1 without a CRF; frozen, it stays as it is."""
    train("parts", [PARTS])
    weights = ("MODEL.WEIGHTS", tmp_path / "parts/model_final.pth")
    results, metrics = train("crf", [CONFIG, *files], *weights, *keys)
    assert {"loss_crf", "loss_cls", "loss_rpn_cls"} <= metrics and "object_apr" in results
    _, metrics = train("frozen", [CONFIG, *files], *weights, *keys, "MODEL.FREEZE", "['detector']")
    assert "loss_crf" in metrics and "loss_cls" not in metrics
    before, after, frozen = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("parts", "crf", "frozen")
    )
    key = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(before[key], frozen[key]) and not torch.equal(before[key], after[key])


@pytest.mark.slow
def test_a_detector_of_all_voc_classes(train, tmp_path):
    """Its classifier goes on from stage to stage; written boxes are read back the same."""
    files = [CONFIG, detections("voc_classes")]
    train("parts", [PARTS, detections("voc_classes")])
    weights = tmp_path / "parts/model_final.pth"
    train("crf", files, "MODEL.WEIGHTS", weights)
    state = torch.load(tmp_path / "crf/model_final.pth", weights_only=True)["model"]
    assert len(state["roi_heads.box_predictor.cls_score.weight"]) == 21

    keys = ("MODEL.WEIGHTS", tmp_path / "crf/model_final.pth")
    found, _ = train("own", files, *keys, flags=["--eval-only"])
    output = str(tmp_path / "boxes.json")
    config = str(tmp_path / "crf/config.yaml")
    arguments = ["--dataset", "tiny_val", "--output", output, "--config-file", config]
    write_detections.main([*arguments, *map(str, keys)])
    given = ("DATASETS.DETECTIONS_TEST", f"('{output}',)", f"{CRF}.DETECTIONS.SOURCE", "record")
    again, _ = train("again", files, *keys, *given, flags=["--eval-only"])
    assert again["object_apr"] == found["object_apr"]
