"""Saved results: read as their readers do, whole or not at all, the JSON last."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.data.label_io import palette_of, read_object_map, read_part_map
from instance_crf.results.files import write_picture

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("device", DEVICES)
def test_maps_and_names(photo, people, device, tmp_path):
    written = people.to(device).save(tmp_path / "new", "a")
    assert [path.name for path in written] == ["a.png", "a_parts.png", "a_picture.jpg", "a.json"]
    assert names_in(tmp_path / "new") == sorted(path.name for path in written)
    objects, parts, picture, table = written
    assert Image.open(objects).mode == "L" and Image.open(parts).mode == "P"
    assert np.array_equal(np.array(Image.open(objects)), photo.object_map)
    assert np.array_equal(read_part_map(parts), photo.part_map)
    colors = np.array(people.taxonomy.part_colors, np.uint8)
    assert palette_of(parts)[3 : 3 * 7] == colors.tobytes()
    difference = np.array(Image.open(picture)).astype(int) - people.draw()
    assert np.abs(difference).mean() < 5  # JPEG
    described = json.loads(table.read_text())
    assert (described["height"], described["width"]) == photo.part_map.shape
    assert [row["id"] for row in described["objects"]] == [1, 2, 3]
    assert {row["category"] for row in described["objects"]} == {"person"}
    for row in described["segments"]:
        where = (photo.object_map == row["instance_id"]) & (photo.part_map == row["part_id"])
        assert where.sum() == row["area"] > 0
        assert people.taxonomy.part_names[row["part_id"] - 1] == row["part"]
    assert sum(row["area"] for row in described["segments"]) == (photo.object_map > 0).sum()


def test_all_detections_are_listed_the_objects_first(make, tmp_path):
    boxes = torch.rand(4, 4) * 100
    object_map = torch.tensor([[4, 4, 0], [2, 2, 2]])
    classes = torch.zeros(4, dtype=torch.int64)
    result = make(object_map, (object_map > 0).long(), classes=classes, boxes=boxes)
    result.save(tmp_path, "a")
    given = json.loads((tmp_path / "a.json").read_text())
    # As a reader of boxes and of a map of persons does: id i is the i-th box.
    order = [1, 3, 0, 2]
    assert np.array_equal(np.array(given["boxes"], np.float32), boxes[order].numpy())
    assert given["scores"] == pytest.approx([1 / 3, 1 / 5, 1 / 2, 1 / 4])
    assert given["person_scores"] == pytest.approx([1 / 3, 1 / 5, 0, 0])
    ids = np.array(Image.open(tmp_path / "a.png"))
    for index in (1, 2):
        before = order[index - 1] + 1
        assert np.array_equal(ids == index, object_map.numpy() == before)


def test_person_scores_are_the_ones_that_rank(small, tmp_path):
    replace(small, score_name="share").save(tmp_path, "a")
    given = json.loads((tmp_path / "a.json").read_text())
    assert given["person_scores"][:2] == pytest.approx(small.object_scores["share"].tolist())
    assert given["person_scores"][:2] != given["scores"][:2] and given["person_scores"][2] == 0
    assert [row["score"] for row in given["objects"]] == pytest.approx(
        given["person_scores"][:2], abs=1e-6
    )


def test_more_objects_than_8_bits_hold(crowd, tmp_path):
    crowd.save(tmp_path, "a")
    assert np.array(Image.open(tmp_path / "a.png")).dtype == np.uint16
    assert np.array_equal(read_object_map(tmp_path / "a.png"), crowd.object_map)
    ids = np.array(Image.open(tmp_path / "a.png"))
    assert ids.max() == 300 == len(json.loads((tmp_path / "a.json").read_text())["boxes"])


def test_254_objects_are_read_as_objects(make, tmp_path):
    object_map = torch.arange(1, 255)[None]
    make(object_map, torch.ones_like(object_map)).save(tmp_path, "a")
    assert np.array(Image.open(tmp_path / "a.png")).dtype == np.uint8
    assert read_object_map(tmp_path / "a.png").max() == 254


def test_without_a_name(small, tmp_path):
    names = sorted(path.name for path in small.save(tmp_path, picture=False))
    assert names == ["result.json", "result.png", "result_parts.png"]


def test_nobody(nobody, tmp_path):
    nobody.save(tmp_path, "a")
    given = json.loads((tmp_path / "a.json").read_text())
    assert given["objects"] == given["segments"] == []
    assert len(given["boxes"]) == len(nobody.left_out_boxes)
    assert not np.array(Image.open(tmp_path / "a.png")).any()
    assert np.array_equal(read_part_map(tmp_path / "a_parts.png"), nobody.part_map)


def test_notes_and_plain_names(small, tmp_path):
    replace(small, taxonomy=None, notes=("boxes were sorted",)).save(tmp_path, "a")
    given = json.loads((tmp_path / "a.json").read_text())
    assert given["notes"] == ["boxes were sorted"]
    assert [row["category"] for row in given["objects"]] == ["class 0", "class 1"]
    assert [row["part"] for row in given["segments"]] == ["part 1", "part 2", "part 3"]
    assert names_in(tmp_path) == ["a.json", "a.png", "a_parts.png"]  # no picture is known


def test_pictures_given_left_out_or_without_opencv(photo, people, tmp_path, monkeypatch):
    replace(people, image=None).save(tmp_path / "given", "a", image=photo.image)
    assert "a_picture.jpg" in names_in(tmp_path / "given")
    people.save(tmp_path / "none", "a", picture=False)
    assert "a_picture.jpg" not in names_in(tmp_path / "none")
    for module in [name for name in sys.modules if "instance_crf.visualization" in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cv2", None)
    written = people.save(tmp_path / "light", "a")
    assert [path.name for path in written] == ["a.png", "a_parts.png", "a.json"]
    with pytest.raises(ImportError, match=r"instance-crf\[viz\]"):
        people.draw()
    with pytest.raises(ValueError, match="image is"):
        people.save(tmp_path / "light", "a", image=photo.image[1:])


@pytest.mark.parametrize("name", ["", "a/b", ".", "/a"])
def test_names_that_are_paths(small, name, tmp_path):
    with pytest.raises(ValueError, match=f"name is {name!r}"):
        small.save(tmp_path, name)
    assert names_in(tmp_path) == []


def test_bad_input_writes_nothing(small, make, tmp_path):
    with pytest.raises(ValueError, match="maps are"):
        small.save(tmp_path, "a", image=np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="300 parts"):
        make([[1]], [[300]]).save(tmp_path, "a")
    assert names_in(tmp_path) == []


def test_a_failure_leaves_no_json_that_vouches_for_other_maps(small, people, tmp_path):
    small.save(tmp_path, "a")
    before = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a_parts.png").unlink()
    (tmp_path / "a_parts.png").mkdir()  # in the way
    with pytest.raises(OSError):
        people.save(tmp_path, "a")
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "a.png").read_bytes() != before
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith(".tmp")]


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_on_a_full_disk_is_an_error(tmp_path, name, full_disk):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with pytest.raises(OSError, match="cannot be written") as raised, full_disk():
        write_picture(tmp_path / name, noise)
    assert raised.value.filename == str(tmp_path / name) and names_in(tmp_path) == []
