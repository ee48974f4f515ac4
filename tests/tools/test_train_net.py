"""tools/train_net.py on a few pictures from disk: train, resume, evaluate; truth in, truth out."""

import importlib.util
import json
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from instance_crf.evaluation.toolkit.part_parsing import without_nan

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)

CONFIG = ROOT / "configs/SyntheticPeople/instance_crf.yaml"


@pytest.fixture
def run(tiny_opts):
    return lambda output, *options: run_tool(tiny_opts, output, *options)


def run_tool(tiny_opts, output, *options):
    flags = [option for option in options if str(option).startswith("--")]
    overrides = [str(option) for option in options if not str(option).startswith("--")]
    arguments = [
        "--config-file",
        str(CONFIG),
        *flags,
        *tiny_opts,
        "OUTPUT_DIR",
        str(output),
        *overrides,
    ]
    return train_net.main(default_argument_parser().parse_args(arguments))


def training_metrics(output):
    """The lines of metrics.json that training wrote; evaluation writes some, too."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line for line in lines if "loss_crf" in line]


@pytest.mark.slow
def test_train_resume_evaluate(run, tiny, tmp_path):
    output = tmp_path / "run"
    run(output)
    assert (output / "model_final.pth").exists()
    results = json.loads((output / "results.json").read_text())
    assert {"part_apr", "object_apr", "part_seg"} <= set(results)
    trained = training_metrics(output)
    assert trained[-1]["iteration"] == 1 and "crf/whose_bilateral_weight" in trained[-1]
    assert (output / "pictures" / "tiny_val" / "sheet.png").exists()

    run(output, "--resume", "SOLVER.MAX_ITER", 4)
    resumed = training_metrics(output)[len(trained) :]
    assert [line["iteration"] for line in resumed] == [3]
    assert resumed[0].keys() >= {"loss_crf", "loss_parts", "loss_rpn_cls", "loss_cls"}

    again = run(output, "--eval-only", "MODEL.WEIGHTS", output / "model_final.pth")
    last = json.loads((output / "results.json").read_text())
    assert json.loads(json.dumps(without_nan(again))) == last


@pytest.mark.slow
def test_truth_in_truth_out(run, tiny, tmp_path):
    """True boxes that do not overlap and true parts: every average precision is 100."""
    results = run(
        tmp_path / "oracle",
        "--eval-only",
        "MODEL.INSTANCE_CRF.DETECTIONS.SOURCE",
        "ground_truth",
        "MODEL.INSTANCE_CRF.PARTS.SOURCE",
        "ground_truth",
    )
    assert results["part_apr"]["APr_vol"] == pytest.approx(100)
    assert results["object_apr"]["APr_vol"] == pytest.approx(100)
    assert results["object_apr"]["APr90"] == pytest.approx(100)
    assert results["part_seg"]["mIoU"] == pytest.approx(100)


def test_wrong_number_of_classes_is_refused_before_any_work(run, tiny, tmp_path):
    with pytest.raises(ValueError, match="NUM_CLASSES is 20.*'tiny_train' has 7"):
        run(tmp_path / "run", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20)
    assert not (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.slow
def test_without_a_crf_the_parts_are_evaluated(run, tiny, tmp_path):
    results = run(tmp_path / "parts", "--eval-only", "MODEL.INSTANCE_CRF.ENABLED", False)
    assert set(results) == {"part_seg"}
    truth = ("MODEL.INSTANCE_CRF.PARTS.SOURCE", "ground_truth")
    results = run(tmp_path / "true", "--eval-only", "MODEL.INSTANCE_CRF.ENABLED", False, *truth)
    assert results["part_seg"]["mIoU"] == pytest.approx(100)
