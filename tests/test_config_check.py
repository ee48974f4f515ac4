"""Every key that has a choice is checked at once, not when it is first used."""

from pathlib import Path

import pytest

import instance_crf
from instance_crf.config import leaves, load_config
from instance_crf.config_check import CHOICES, check_config, check_run

instance_crf.register()
DEMO = str(Path(__file__).resolve().parents[1] / "configs/SyntheticPeople/instance_crf.yaml")

#: Texts that are no choice: names of files, of layers, of modules; free names.
FREE = {
    *("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.PART_YAML", "MODEL.DEVICE", "INPUT.MASK_FORMAT"),
    *("DATASETS.TRAIN", "DATASETS.TEST", "INPUT.CROP.TYPE", "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
    *("MODEL.DETECTOR.CLASSES", "MODEL.INSTANCE_CRF.PART_REGIONS", "MODEL.ROI_KEYPOINT_HEAD.NAME"),
}
#: Detectron2's choices, of which building the model says at once what is wrong.
DETECTRON2S = ("FUSE_TYPE", "HEAD_NAME", "IN_FEATURES", "OUT_FEATURES", "LOSS_TYPE", "POOLER_TYPE")


def refused(*opts):
    with pytest.raises(ValueError) as caught:
        check_config(load_config(DEMO, ["MODEL.DEVICE", "cpu", *opts]))
    return str(caught.value)


@pytest.mark.parametrize("key", sorted(CHOICES))
def test_a_misspelt_choice_is_named_with_the_others(key):
    value = dict(leaves(load_config(DEMO, ["MODEL.DEVICE", "cpu"])))[key]
    message = refused(key, "mispelt" if isinstance(value, str) else ["mispelt"])
    assert message.startswith(f"{key} has 'mispelt'; it is one of ")
    known = message.partition("one of ")[2].rstrip(".").split(", ")
    assert set([value] if isinstance(value, str) else value) <= set(known)


def test_every_text_is_checked():
    texts = {
        key
        for key, value in leaves(load_config(DEMO, ["MODEL.DEVICE", "cpu"]))
        for first in ([value] if isinstance(value, str) else list(value or ())[:1]
                      if isinstance(value, list | tuple) else [])
        if isinstance(first, str)
    }  # fmt: skip
    texts = {key for key in texts if not key.endswith((".NORM", *DETECTRON2S))}
    heads = {f"MODEL.ROI_{kind}_HEAD.NAME" for kind in ("BOX", "MASK")}
    heads |= {"MODEL.ANCHOR_GENERATOR.NAME"}  # named when the model is built
    assert texts - FREE - heads <= set(CHOICES)


def test_norms_lists_and_files():
    assert "SLIM_RESNET.NORM has 'BX'; it is one of ''" in refused("MODEL.SLIM_RESNET.NORM", "BX")
    assert "TEST.PROTOCOLS is empty" in refused("TEST.PROTOCOLS", [])
    assert "has 2 files for the 1" in refused("DATASETS.DETECTIONS_TEST", ("a.json", "b.json"))
    assert "BACKEND is 'triton', which is for cuda" in refused(
        "MODEL.INSTANCE_CRF.BACKEND", "triton"
    )
    cfg = load_config(DEMO, ["DATASETS.DETECTIONS_TEST", ("nowhere.json",)])
    with pytest.raises(FileNotFoundError, match="DETECTIONS_TEST: nowhere.json"):
        check_config(cfg)


@pytest.mark.parametrize(
    "keys, processes, message",
    [
        (("SOLVER.MAX_ITER", 0), 1, "SOLVER.MAX_ITER is 0"),
        (("SOLVER.CHECKPOINT_PERIOD", 0), 1, "CHECKPOINT_PERIOD is 0"),
        (("SOLVER.IMS_PER_BATCH", 3), 2, "IMS_PER_BATCH is 3, which 2 processes"),
        (("SOLVER.AMP.ENABLED", True), 1, "AMP.ENABLED needs a GPU"),
        (("DATASETS.TRAIN", ()), 1, "DATASETS.TRAIN is empty"),
        (("OUTPUT_DIR", ""), 1, "OUTPUT_DIR is empty"),
        (
            ("DATASETS.TEST", ("synthetic_people_val", "synthetic_crowd_val"),
             "TEST.EXPECTED_RESULTS", [["part_seg", "mIoU", 50.0, 1.0]]),
            1, "EXPECTED_RESULTS is about one data set",
        ),
    ],
)  # fmt: skip
def test_what_a_training_needs(keys, processes, message):
    cfg = load_config(DEMO, ["MODEL.DEVICE", "cpu", *keys])
    with pytest.raises(ValueError, match=message):
        check_run(cfg, num_processes=processes, eval_only=False)


def test_what_an_evaluation_needs():
    cfg = load_config(DEMO, ["MODEL.DEVICE", "cpu", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 0])
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"):
        check_run(cfg, num_processes=1, eval_only=True)
