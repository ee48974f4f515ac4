"""tools/train_net.py on a few pictures from disk: train, resume, evaluate; truth in, truth out."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from pycocotools import mask as mask_util

from instance_crf.config import load_config
from instance_crf.data.label_io import read_object_map
from instance_crf.evaluation.toolkit.part_parsing import without_nan

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)

CONFIG = ROOT / "configs/SyntheticPeople/instance_crf.yaml"
CRF = "MODEL.INSTANCE_CRF"
MASKS = ("masks_and_parts", "masks_then_centre", "whole_masks")
ROWS = ("best_box", "nearest_centre", "smallest_box", *MASKS)


@pytest.fixture
def run(tiny_opts):
    return lambda output, *options, **more: run_tool(tiny_opts, output, *options, **more)


def run_tool(tiny_opts, output, *options, files=()):
    flags = [option for option in options if str(option).startswith("--")]
    overrides = [str(option) for option in options if not str(option).startswith("--")]
    if "--eval-only" in flags and "MODEL.WEIGHTS" not in overrides:
        overrides += ["MODEL.WEIGHTS", str(random_weights(tiny_opts, output.with_suffix(".pth")))]
    arguments = [
        "--config-file",
        str(CONFIG),
        *flags,
        *map(str, files),
        *tiny_opts,
        "OUTPUT_DIR",
        str(output),
        *overrides,
    ]
    return train_net.main(default_argument_parser().parse_args(arguments))


def random_weights(tiny_opts, path, *options):
    """The file of a model's weights that have learnt nothing."""
    model = build_model(load_config(str(CONFIG), [*tiny_opts, *options]))
    torch.save(model.state_dict(), path)
    return path


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


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_truth_in_truth_out_of_simple_rules(run, tiny, tiny_opts, tmp_path, row):
    """On a network that was trained with a CRF; the masks come in a file."""
    options = ["--eval-only", f"{CRF}.PARTS.SOURCE", "ground_truth", f"{CRF}.DETECTIONS.SOURCE"]
    if "masks" in row:
        file = write_true_masks(tmp_path / "masks.json", "tiny_val")
        options += ["record", "DATASETS.DETECTIONS_TEST", f"('{file}',)"]
        options += ["MODEL.DETECTOR.ENABLED", False]
    else:
        options += ["ground_truth"]
    files = [ROOT / f"configs/baselines/{row}.yaml"]
    results = run(tmp_path / "oracle", *options, files=files)
    assert results["part_apr"]["APr_vol"] == pytest.approx(100)
    assert results["object_apr"]["APr90"] == pytest.approx(100)
    assert "RuleHead" in (tmp_path / "oracle/inference/config.yaml").read_text()


def write_true_masks(file, dataset):
    """True masks in boxes that are too large, as a results file of COCO."""
    found = []
    for record in DatasetCatalog.get(dataset):
        objects = read_object_map(record["object_file_name"])
        box = [0, 0, record["width"], record["height"]]
        for number in np.unique(objects[objects > 0]):
            rle = mask_util.encode(np.asfortranarray(objects == number))
            rle["counts"] = rle["counts"].decode()
            common = {"image_id": record["image_id"], "category_id": 1, "bbox": box}
            found.append({**common, "score": 0.9, "segmentation": rle})
    file.write_text(json.dumps(found))
    return file


@pytest.mark.slow
def test_simple_rules_have_nothing_to_train_by_themselves(run, tiny, tmp_path):
    files = [ROOT / "configs/baselines/nearest_centre.yaml"]
    run(tmp_path / "run", files=files)
    assert (tmp_path / "run/model_final.pth").exists()
    frozen = "['backbone', 'part_head', 'identity_head', 'detector']"
    with pytest.raises(ValueError, match="nothing to train: MODEL.FREEZE is .*--eval-only"):
        run(tmp_path / "frozen", "MODEL.FREEZE", frozen, files=files)
    assert not (tmp_path / "frozen/config.yaml").exists()


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


@pytest.mark.slow
def test_a_run_of_another_model_is_not_resumed(run, tiny, tmp_path):
    """The same parameters in number; as many parts more, in one's own file, in the same folder."""
    output = tmp_path / "run"
    run(output, *own_data(tiny, 6), "TEST.PICTURES", 0)
    before = (output / "model_final.pth").read_bytes()
    more = [*own_data(tiny, 7), "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "[]"]
    shapes = r"part_head.predictor.weight: \(7, 8, 1, 1\) in the file, \(8, 8, 1, 1\) in the model"
    with pytest.raises(ValueError, match=f"model_final.pth was written by .*{shapes}"):
        run(output, "--resume", *more, "SOLVER.MAX_ITER", 4)
    with pytest.raises(ValueError, match=rf"model_final.pth does not have .*{shapes}"):
        run(output, "--eval-only", *more, "MODEL.WEIGHTS", output / "model_final.pth")
    assert (output / "model_final.pth").read_bytes() == before


def own_data(tiny, parts):
    """The keys of one's own data set: the folder `tiny`, with so many parts."""
    folders = {"images": "Images", "parts": "Category_ids", "objects": "Human_ids"}
    splits = {
        split: {key: f"{folder}/{name}" for key, name in folders.items()}
        for split, folder in (("train", "Training"), ("val", "Validation"))
    }
    content = {"name": f"own{parts}", "parts": [f"part {i}" for i in range(parts)]}
    path = tiny / f"own{parts}.yaml"
    path.write_text(json.dumps(content | {"splits": splits}))
    keys = ["DATASETS.PART_YAML", path, "DATASETS.TRAIN", f"('own{parts}_train',)"]
    return [*keys, "DATASETS.TEST", f"('own{parts}_val',)"]


def test_evaluating_nothing_or_another_model_is_refused(run, tiny, tiny_opts, tmp_path):
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty: name a trained checkpoint"):
        run(tmp_path / "none", "--eval-only", "MODEL.WEIGHTS", "")
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        run(tmp_path / "none", "--eval-only", "--resume", "MODEL.WEIGHTS", "")
    joint = random_weights(tiny_opts, tmp_path / "joint.pth", "MODEL.INSTANCE_CRF.FORM", "joint")
    with pytest.raises(ValueError, match="joint.pth: .* weights of a DenseInstanceCRF"):
        run(tmp_path / "joint", "--eval-only", "MODEL.WEIGHTS", joint)
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match="other.pth does not have .*backbone.*not in the file"):
        run(tmp_path / "other", "--eval-only", "MODEL.WEIGHTS", other)
    with pytest.raises(ValueError, match="other.pth has none of the model's weights"):
        run(tmp_path / "other", "MODEL.WEIGHTS", other)


@pytest.mark.slow
@pytest.mark.parametrize("final", ["missing", "empty"])
def test_killed_before_its_last_file_a_run_writes_it_when_resumed(run, tiny, tmp_path, final):
    output = tmp_path / "run"
    run(output, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", "()")
    (output / "model_final.pth").rename(tmp_path / "whole.pth")
    (output / "last_checkpoint").write_text("model_0000001.pth")
    if final == "empty":  # as Detectron2's own writing leaves it
        (output / "model_final.pth").touch()
    (output / ".tmp_unfinished.pth").touch()
    run(output, "--resume", "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", "()")
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    assert not (output / ".tmp_unfinished.pth").exists()
    expected, found = (
        torch.load(path, weights_only=True)
        for path in (tmp_path / "whole.pth", output / "model_final.pth")
    )
    assert expected["iteration"] == found["iteration"] == found["trainer"]["iteration"] == 1
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value)
    run(output, "--resume", "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()")


@pytest.mark.slow
def test_what_was_there_before_is_not_resumed(run, tiny, tmp_path):
    """A new run in an old folder, killed before its first checkpoint: here, by its own mapper."""
    output = tmp_path / "run"
    run(output, "DATASETS.TEST", "()")
    picture = next((tiny / "Training/Images").iterdir())
    content = picture.read_bytes()
    picture.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=picture.name):
        run(output, "DATASETS.TEST", "()")
    picture.write_bytes(content)
    with pytest.raises(FileNotFoundError, match="to begin anew, leave --resume out"):
        run(output, "--resume", "DATASETS.TEST", "()")
