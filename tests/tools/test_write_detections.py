"""tools/write_detections.py: what is written is what the detector found, or what is true."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from instance_crf.config import load_config
from instance_crf.data.datasets.register import register_parts
from instance_crf.data.datasets.voc import VOC_TAXONOMY
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.modeling.disturbance import disturb

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "write_detections.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

CRF = "MODEL.INSTANCE_CRF"
FEW = ("TEST.DETECTIONS_PER_IMAGE", "6", f"{CRF}.DETECTIONS.MAX_PER_IMAGE", "20")
VOC = ("MODEL.DETECTOR.CLASSES", str(list(VOC_TAXONOMY.object_names)))


@pytest.fixture
def detector(tiny, tiny_opts, tmp_path):
    """A function: keys -> (model of random weights, config's keys with its file)."""

    def make(*keys):
        opts = [*tiny_opts, *FEW, f"{CRF}.DETECTIONS.SCORE_THRESH", "0.05", *keys]
        model = build_model(load_config(CONFIG, opts)).eval()
        torch.save(model.state_dict(), tmp_path / "model.pth")
        return model, [*opts, "MODEL.WEIGHTS", str(tmp_path / "model.pth")]

    return make


@pytest.fixture
def write(tmp_path):
    """A function: arguments -> what the tool wrote."""

    def run(*arguments):
        output = tmp_path / "boxes.json"
        tool.main(["--dataset", "tiny_val", "--output", str(output), *map(str, arguments)])
        return json.loads(output.read_text())

    return run


def inputs_of(opts, *more):
    """The model's inputs of all pictures, with their given detections if there are."""
    cfg = load_config(CONFIG, [*opts, *more])
    mapper = PartInstanceMapper(cfg, is_train=False)
    return [mapper(record) for record in DatasetCatalog.get("tiny_val")]


def given(tmp_path):
    return ("DATASETS.DETECTIONS_TEST", f"('{tmp_path / 'boxes.json'}',)")


def assert_same_boxes(found, expected):
    torch.testing.assert_close(
        found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3, rtol=0
    )
    torch.testing.assert_close(found.scores, expected.scores)
    assert found.pred_classes.tolist() == expected.pred_classes.tolist()


def test_what_is_read_is_what_was_found(detector, write, tmp_path):
    """Through the file and the mapper, boxes are those of the model itself, in its own pixels."""
    model, opts = detector("INPUT.MIN_SIZE_TEST", 96)  # 96 x 120 for pictures of 64 x 80
    write("--config-file", CONFIG, *opts)
    for inputs in inputs_of(opts, *given(tmp_path)):
        images = model.preprocess_image([inputs])
        (own,) = model.detect([inputs], images, model.backbone(images.tensor))
        assert len(own) == 6 and inputs["image"].shape == (3, 96, 120)
        assert_same_boxes(inputs["detections"], own)


def test_a_labelling_from_a_file(detector, write, tmp_path):
    """The same as from the model's own detector, also of disturbed boxes."""
    model, opts = detector("MODEL.MASK_ON", True, f"{CRF}.IDENTITY.EVIDENCE", "['vote']")
    for change in ({}, {"scale": 0.75, "false_boxes": 0.5}):
        flags = {"scale": "--box-scale", "false_boxes": "--false-boxes"}
        flags = [x for key, value in change.items() for x in (flags[key], value)]
        rows = write("--config-file", CONFIG, "--masks", *flags, "--seed", 4, *opts)
        assert len(rows) == (27 if change else 18)
        for inputs in inputs_of(opts, *given(tmp_path)):
            found = inputs["detections"]
            assert set(found.get_fields()) == {"pred_boxes", "scores", "pred_classes", "pred_masks"}
            with disturb(model, **change, seed=4):
                own = model([inputs])[0]
            model.detection_source = "record"
            other = model([inputs])[0]
            model.detection_source = "detector"
            assert_same_boxes(other["detections"], own["detections"])
            for key in ("object_map", "part_map"):
                maps = (getattr(x["part_instances"], key) for x in (own, other))
                assert torch.equal(*maps)


def test_masks(detector, write, tmp_path):
    """Of the size of the picture, as Detectron2 pastes them."""
    model, opts = detector("MODEL.MASK_ON", True)
    rows = write("--config-file", CONFIG, "--masks", *opts)
    inputs = inputs_of(opts)
    found = tool.BoxDetector(model)(inputs)
    assert {tuple(row["segmentation"]["size"]) for row in rows} == {(64, 80)}
    read = inputs_of([*opts, "INPUT.MIN_SIZE_TEST", "0"], *given(tmp_path))
    for expected, inputs in zip(found, read, strict=True):
        assert expected.pred_masks.any() and not expected.pred_masks.all()
        assert torch.equal(inputs["detections"].pred_masks, expected.pred_masks)


def test_truth(tiny, write, tmp_path):
    """Boxes and masks of the label maps; two people stand in columns 5..24 and 45..64."""
    rows = write("--from-truth", "--masks")
    assert [row["image_id"] for row in rows] == [f"{i:07d}" for i in (0, 0, 1, 1, 2, 2)]
    assert [row["bbox"] for row in rows[:2]] == [[45, 4, 20, 54], [5, 4, 20, 54]]
    assert {(row["score"], row["category_id"]) for row in rows} == {(1, 1)}
    opts = ["INPUT.MIN_SIZE_TEST", "0", "DATASETS.TRAIN", "()", "DATASETS.TEST", "('tiny_val',)"]
    for inputs, record in zip(
        inputs_of(opts, *given(tmp_path)), DatasetCatalog.get("tiny_val"), strict=True
    ):
        objects = np.asarray(Image.open(record["object_file_name"]))
        assert np.array_equal(inputs["detections"].pred_masks[0], objects == 1)
    assert all("segmentation" not in row for row in write("--from-truth"))


def test_jittered_truth(tiny, write):
    true = np.array([row["bbox"] for row in write("--from-truth")])
    moved, again, other = (
        np.array([row["bbox"] for row in write("--from-truth", "--jitter", 0.1, "--seed", seed)])
        for seed in (0, 0, 1)
    )
    assert np.array_equal(moved, again) and (moved != other).all() and (moved != true).any(1).all()
    assert (np.abs(moved[:, 2:] / true[:, 2:] - 1) <= 0.1001).all()
    assert len(np.unique(moved[::2, 2])) == 3  # each picture by itself
    shrunk = np.array([row["bbox"] for row in write("--from-truth", "--box-scale", 0.5)])
    assert np.allclose(shrunk[:, 2:], true[:, 2:] / 2)
    assert len(write("--from-truth", "--false-boxes", 0.5)) == 9


def test_boxes_of_a_file(detector, write, tmp_path):
    """Disturbed as those of the network are; category ids stay."""
    _, opts = detector()
    change = ("--box-scale", 0.75, "--false-boxes", 0.5, "--seed", 4)
    expected = write("--config-file", CONFIG, *opts, *change)
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(write("--config-file", CONFIG, *opts)))
    found = write("--from-file", plain, *change)
    assert len(found) == len(expected) == 27 and found != json.loads(plain.read_text())
    for row, other in zip(found, expected, strict=True):
        assert row["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert row["score"] == pytest.approx(other["score"])
        assert row["category_id"] == 1 and row["image_id"] == other["image_id"]


def test_a_detector_of_all_voc_classes(detector, write, tmp_path, capsys):
    """The file has all; who reads it takes the owners of parts, by either key."""
    _, opts = detector(*VOC, "TEST.DETECTIONS_PER_IMAGE", 400)
    rows = write("--config-file", CONFIG, "--score-thresh", 0.0, *opts)
    person = VOC_TAXONOMY.object_names.index("person") + 1
    assert f"DATASETS.DETECTION_CATEGORY_IDS [{person}]" in capsys.readouterr().out
    people = [row for row in rows if row["category_id"] == person]
    assert people and len({row["category_id"] for row in rows}) > 3
    plain = [key for key in opts if key not in VOC]
    for options in (opts, [*plain, "DATASETS.DETECTION_CATEGORY_IDS", f"[{person}]"]):
        read = [inputs["detections"] for inputs in inputs_of(options, *given(tmp_path))]
        assert sum(map(len, read)) == len(people)
        assert all((found.pred_classes == 0).all() for found in read)
    truth = write("--from-truth", "--config-file", CONFIG, *opts)
    assert {row["category_id"] for row in truth} == {person}


def test_a_network_of_detectron2s_own(detector, write):
    _, opts = detector()
    _, opts = detector("MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    rows = write("--config-file", CONFIG, *opts)
    assert len(rows) == 18 and min(row["score"] for row in rows) >= 0.05


def test_of_other_parts_than_the_detectors(detector, write):
    """The data set need not be the one that the detector is of, if the classes are called alike."""
    records = DatasetCatalog.get("tiny_val")
    voc = VOC_TAXONOMY
    register_parts("tiny_voc", lambda: records, voc)
    try:
        keys = ("DATASETS.TRAIN", "('tiny_voc',)", "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "[]")
        _, opts = detector(*keys, "DATASETS.TEST", "()")
        rows = write("--config-file", CONFIG, "--score-thresh", 0.0, *opts)
        assert max(row["category_id"] for row in rows) > 1
        plain = ("DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "()")
        with pytest.raises(ValueError, match="'aeroplane', which is not among .* person"):
            write("--dataset", "tiny_voc", "--config-file", CONFIG, *opts, *plain)
    finally:
        DatasetCatalog.remove("tiny_voc")
        MetadataCatalog.remove("tiny_voc")


def test_what_cannot_be_written(detector, write, tmp_path):
    _, opts = detector()
    with pytest.raises(ValueError, match="has no detector of its own"):
        write("--config-file", CONFIG, *opts, "MODEL.DETECTOR.ENABLED", False)
    with pytest.raises(ValueError, match="roi_heads.mask_head.*not in the file"):
        write("--config-file", CONFIG, "--masks", *opts)
    with pytest.raises(ValueError, match="There is no data set 'nothing'"):
        tool.main(["--from-truth", "--dataset", "nothing", "--output", str(tmp_path / "a.json")])
    assert not (tmp_path / "boxes.json").exists()


@pytest.mark.parametrize(
    "wrong",
    [[], ["--config-file", "a", "--jitter", "0.1"], ["--from-truth", "--jitter", "2"],
     ["--from-truth", "--masks", "--box-scale", "0.5"], ["--from-truth", "--false-boxes", "-1"],
     ["--from-truth", "--box-scale", "nan"], ["--from-file", "a", "--masks"],
     ["--from-file", "a", "--from-truth"]],
)  # fmt: skip
def test_wrong_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(SystemExit):
        tool.main([*wrong, "--dataset", "tiny_val", "--output", str(tmp_path / "boxes.json")])
