"""tools/train_net.py on a few pictures from disk: train, resume, evaluate; truth in, truth out."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.engine import default_argument_parser
from PIL import Image

from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import register_canonical
from instance_crf.data.synthetic import SyntheticPeople
from instance_crf.evaluation.toolkit.part_parsing import without_nan

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)

CONFIG = ROOT / "configs/SyntheticPeople/instance_crf.yaml"
TINY = """
    MODEL.SLIM_RESNET.STEM_CHANNELS 8 MODEL.SLIM_RESNET.CHANNELS [8,10,12,14]
    MODEL.SLIM_RESNET.BLOCKS [1,1,1,1] MODEL.FPN.OUT_CHANNELS 8 MODEL.SEM_SEG_HEAD.CONVS_DIM 8
    MODEL.RPN.CONV_DIMS [8] MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.DEVICE cpu MODEL.WEIGHTS ''
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 0
    MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE 3 MODEL.INSTANCE_CRF.DETECTIONS.WARMUP_ITERS 1
    MODEL.INSTANCE_CRF.NUM_ITERATIONS.TRAIN 2 MODEL.INSTANCE_CRF.NUM_ITERATIONS.TEST 2
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 1 TEST.PICTURES 1
    DATASETS.TRAIN ('tiny_train',) DATASETS.TEST ('tiny_val',)
""".split()


def write(root, split, index, image, parts, objects):
    for folder, array in (("Images", image), ("Category_ids", parts), ("Human_ids", objects)):
        path = root / split / folder / f"{index:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def tiny(tmp_path):
    """Four synthetic pictures as training, people standing apart as validation."""
    root = tmp_path / "tiny"
    people = SyntheticPeople(size=(64, 64))
    for index in range(4):
        write(root, "Training", index, *people[index])
    rng = np.random.default_rng(0)
    for index in range(3):
        parts, objects = np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint8)
        for person in range(2):
            columns = slice(5 + 40 * person, 25 + 40 * person)
            for part, top in enumerate(range(4, 58, 9), start=1):
                parts[top : top + 9, columns] = part
            objects[4:58, columns] = 2 - person
        write(
            root, "Validation", index, rng.integers(0, 256, (64, 80, 3), np.uint8), parts, objects
        )
    for split, folder, count in (("train", "Training", 4), ("val", "Validation", 3)):
        names = "".join(f"{index:07d}\n" for index in range(count))
        (root / folder / f"{split}_id.txt").write_text(names)
        register_canonical(f"tiny_{split}", root, split, PERSON_PART_TAXONOMY)
    yield root
    for split in ("train", "val"):
        DatasetCatalog.remove(f"tiny_{split}")


def run(output, *options):
    flags = [option for option in options if str(option).startswith("--")]
    overrides = [str(option) for option in options if not str(option).startswith("--")]
    arguments = ["--config-file", str(CONFIG), *flags, *TINY, "OUTPUT_DIR", str(output), *overrides]
    return train_net.main(default_argument_parser().parse_args(arguments))


def training_metrics(output):
    """The lines of metrics.json that training wrote; evaluation writes some, too."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [line for line in lines if "loss_crf" in line]


@pytest.mark.slow
def test_train_resume_evaluate(tiny, tmp_path):
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
def test_truth_in_truth_out(tiny, tmp_path):
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


def test_wrong_number_of_classes_is_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(ValueError, match="NUM_CLASSES is 20.*'tiny_train' has 7"):
        run(tmp_path / "run", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20)
    assert not (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.slow
def test_without_a_crf_the_parts_are_evaluated(tiny, tmp_path):
    results = run(tmp_path / "parts", "--eval-only", "MODEL.INSTANCE_CRF.ENABLED", False)
    assert set(results) == {"part_seg"}
    truth = ("MODEL.INSTANCE_CRF.PARTS.SOURCE", "ground_truth")
    results = run(tmp_path / "true", "--eval-only", "MODEL.INSTANCE_CRF.ENABLED", False, *truth)
    assert results["part_seg"]["mIoU"] == pytest.approx(100)
