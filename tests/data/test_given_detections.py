"""Given detections are of an image of their own data set, whatever ids others use."""

import json
import shutil
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog

from instance_crf.config import add_instance_crf_config
from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.datasets.register import register_parts
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMY = PartTaxonomy(("upper", "lower"))


@pytest.fixture
def records(tmp_path, scene, write_canonical):
    write_canonical(tmp_path, "train", {"1": scene(60, 100, 3), "2": scene(40, 50, 0)})
    return load_canonical(tmp_path, "train", TAXONOMY)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_instance_crf_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (0,), 0
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


@pytest.fixture
def two_sets(records, cfg, tmp_path):
    """(cfg, records of each) of two data sets with the same ids and other images and boxes."""
    sets, files = {}, []
    for number, name in enumerate(("first", "second")):
        sets[name] = [{**r, "file_name": str(tmp_path / f"{name}_{i}.png")}
                      for i, r in enumerate(records)]  # fmt: skip
        for old, new in zip(records, sets[name], strict=True):
            shutil.copy(old["file_name"], new["file_name"])
        register_parts(name, lambda name=name: sets[name], TAXONOMY)
        files.append(str(tmp_path / f"{name}.json"))
        box = {"image_id": 1, "category_id": 1, "bbox": [1 + number, 2, 20, 30], "score": 0.9}
        Path(files[-1]).write_text(json.dumps([box]))
    for key in ("TRAIN", "TEST"):
        cfg.DATASETS[key], cfg.DATASETS[f"DETECTIONS_{key}"] = ("first", "second"), tuple(files)
    yield cfg, sets
    for name in sets:
        DatasetCatalog.remove(name)


def test_given_detections_of_two_sets_with_the_same_ids(two_sets):
    cfg, sets = two_sets
    mappers = {
        "all": [PartInstanceMapper(cfg, False)] * 2,
        "each": [PartInstanceMapper(cfg, False, dataset_name=name) for name in sets],
    }
    for first, second in mappers.values():
        assert first(sets["first"][0])["detections"].pred_boxes.tensor[0, 0] == 1
        assert second(sets["second"][0])["detections"].pred_boxes.tensor[0, 0] == 2


def test_images_of_two_sets_whose_boxes_differ(two_sets):
    """Which are meant is known where the data set is, as in an evaluation."""
    cfg, sets = two_sets
    sets["second"] = sets["first"]
    with pytest.raises(ValueError, match=r"first_0.png is in several data sets.*second.json"):
        PartInstanceMapper(cfg, True)
    boxes = [
        PartInstanceMapper(cfg, False, dataset_name=name)(sets["first"][0])["detections"].pred_boxes
        for name in sets
    ]
    assert [b.tensor[0, 0].item() for b in boxes] == [1, 2]


def test_ids_that_differ_in_their_zeros_alone(records, cfg, tmp_path):
    both = [{**r, "image_id": i, "file_name": f"{i}.png"}
            for r, i in zip(records * 2, ("06", "6"), strict=False)]  # fmt: skip
    register_parts("zeros", lambda: both, TAXONOMY)
    box = {"category_id": 1, "bbox": [1, 2, 20, 30], "score": 0.9}
    entries = [{**box, "image_id": 6}, {**box, "image_id": "06", "score": 0.5}]
    (tmp_path / "zeros.json").write_text(json.dumps(entries))
    cfg.DATASETS.TEST = ("zeros",)
    cfg.DATASETS.DETECTIONS_TEST = (str(tmp_path / "zeros.json"),)
    try:
        found = PartInstanceMapper(cfg, False).detections
        assert [found[f][0]["score"] for f in ("6.png", "06.png")] == [0.9, 0.5]
    finally:
        DatasetCatalog.remove("zeros")


def test_needed_detections_that_are_not_given_are_asked_for_by_their_key(records, cfg):
    cfg.MODEL.INSTANCE_CRF.DETECTIONS.SOURCE = "record"
    for is_train, key in ((True, "TRAIN"), (False, "TEST")):
        with pytest.raises(ValueError, match=rf"without detections.*DATASETS.DETECTIONS_{key} "):
            PartInstanceMapper(cfg, is_train)(records[0])
    own = records[0] | {"detections": []}  # a record may bring its own
    assert len(PartInstanceMapper(cfg, False)(own)["detections"]) == 0
    cfg.MODEL.INSTANCE_CRF.ENABLED = False  # only a CRF needs them
    assert "detections" not in PartInstanceMapper(cfg, False)(records[0])
