"""Counting where parts are found, and what training does with it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from instance_crf import hooks
from instance_crf.checkpoint import Checkpointer
from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF
from instance_crf.crf.place import region_templates
from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.hooks import CountPlaces, count_places_of_records
from instance_crf.taxonomies.schema import PartTaxonomy

SIDES = PartTaxonomy(("left hand", "right hand", "head"), flip_pairs=((1, 2),))


@pytest.fixture
def records(tmp_path):
    """One object with a left hand and a head, and a crowd; then a record without maps."""
    parts, objects = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)
    parts[6, 1], parts[1, 4], parts[9, 9] = 1, 3, 2
    objects[6, 1] = objects[1, 4] = 5
    objects[9, 9] = 6
    write_part_map(tmp_path / "p.png", parts)
    write_object_map(tmp_path / "o.png", objects)
    annotation = {"bbox": [1, 1, 9, 9], "bbox_mode": BoxMode.XYXY_ABS, "object_id": 5}
    crowd = {**annotation, "object_id": 6, "iscrowd": 1}
    with_maps = {
        "part_file_name": str(tmp_path / "p.png"),
        "object_file_name": str(tmp_path / "o.png"),
        "annotations": [annotation, crowd],
    }
    return [with_maps, {"annotations": [annotation]}]


def test_counts_and_their_mirror_image(records):
    """A box of 8 x 8 pixels on a grid of 12 over 1.5 boxes: a cell is a pixel, two in front."""
    lut = torch.from_numpy(SIDES.flip_lut()).long()
    counts = count_places_of_records(records, 3, lut, grid=12)
    seen = {tuple(index): counts[tuple(index)].item() for index in counts.nonzero().tolist()}
    assert seen == {(0, 7, 2): 0.5, (1, 7, 9): 0.5, (2, 2, 5): 0.5, (2, 2, 6): 0.5}


def test_not_more_pictures_than_wanted(records, monkeypatch):
    monkeypatch.setattr(hooks, "MAX_RECORDS", 1)
    counts = count_places_of_records(records[::-1], 3, torch.arange(256))
    assert counts.sum() == 0  # every second one is the one without maps


@pytest.fixture
def dataset(records):
    name = "hooks_test_train"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).taxonomy = SIDES
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def run(dataset, crf):
    hook = CountPlaces([dataset])
    hook.trainer = SimpleNamespace(model=SimpleNamespace(crf_head=SimpleNamespace(crf=crf)))
    hook.before_train()


def test_templates_are_counted_once(dataset):
    crf = FactoredInstanceCRF(place_templates=region_templates(["", "", "head"]))
    run(dataset, crf)
    assert bool(crf.places_counted) and crf.place_templates[2].max() == 1
    assert (crf.place_templates[2] > 0).sum() == 2
    resumed = FactoredInstanceCRF(place_templates=region_templates(["", "", ""]))
    resumed.load_state_dict(crf.state_dict())
    run("there is no such data set", resumed)
    assert torch.equal(resumed.place_templates, crf.place_templates)


def test_templates_of_other_parts_are_counted_anew(dataset, tmp_path):
    """Training starts from a checkpoint of two parts; their templates do not fit three."""
    before = FactoredInstanceCRF(place_templates=region_templates(["", "head"]))
    before.set_place_templates(before.place_templates)
    Checkpointer(before, str(tmp_path)).save("before")
    crf = FactoredInstanceCRF(place_templates=region_templates(["", "", "head"]))
    Checkpointer(crf).load(str(tmp_path / "before.pth"))
    assert not crf.places_counted
    run(dataset, crf)
    assert crf.places_counted and (crf.place_templates[2] > 0).sum() == 2


@pytest.mark.parametrize(
    "crf",
    [None, DenseInstanceCRF(), FactoredInstanceCRF(), FactoredInstanceCRF(cues=["box"])],
    ids=["none", "joint", "no templates", "no place"],
)
def test_nothing_is_read_for_who_does_not_look(crf):
    run("there is no such data set", crf)
