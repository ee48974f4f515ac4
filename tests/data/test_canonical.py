import json
import os

import numpy as np
import pytest
from PIL import Image

from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.datasets.index import object_boxes
from instance_crf.taxonomies.schema import PartTaxonomy

TWO_PARTS = PartTaxonomy(("head", "torso"))
TWO_OBJECTS = PartTaxonomy(("head", "wheel"), ("person", "car"), (0, 1))


@pytest.fixture
def root(tmp_path, scene, write_canonical):
    write_canonical(tmp_path, "train", {"0001": scene(60, 100, 3), "0002": scene(50, 70, 1)})
    return tmp_path


def brute_force_boxes(objects):
    boxes = {}
    for i in set(objects[objects > 0].tolist()):
        ys, xs = np.nonzero(objects == i)
        boxes[i] = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    return boxes


def test_object_boxes_equal_brute_force():
    for dtype in (np.int32, np.int64):
        objects = np.random.randint(-1, 6, (9, 13)).astype(dtype)
        objects[objects == 4] = 1000
        assert object_boxes(objects) == brute_force_boxes(objects)
    assert object_boxes(np.zeros((3, 3), np.int32)) == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_object_boxes_of_stored_maps(dtype):
    stored = np.random.randint(0, 6, (9, 13)).astype(dtype)
    expected = brute_force_boxes(stored.astype(int))
    assert object_boxes(stored * (stored != 2)) == {i: b for i, b in expected.items() if i != 2}
    stored[stored == 3] = np.iinfo(dtype).max  # ignored
    expected.pop(3)
    assert object_boxes(stored) == expected
    stored[0, 0] = np.iinfo(dtype).max - 1  # the largest id
    assert object_boxes(stored)[np.iinfo(dtype).max - 1] == (0, 0, 1, 1)


def test_records(root, scene):
    records = load_canonical(root, "train", TWO_PARTS)
    assert [r["image_id"] for r in records] == ["0001", "0002"]
    first = records[0]
    assert (first["height"], first["width"]) == (60, 100)
    assert [a["object_id"] for a in first["annotations"]] == [1, 2, 3]
    # 3 people in 100 columns: 33 each, from column 2 to 3 before the end.
    assert [a["bbox"] for a in first["annotations"]] == [
        [2, 5, 30, 50],
        [35, 5, 63, 50],
        [68, 5, 96, 50],
    ]
    assert {a["category_id"] for a in first["annotations"]} == {0}
    assert {a["bbox_mode"] for a in first["annotations"]} == {0}


def test_second_load_reads_the_index_alone(root, monkeypatch):
    first = load_canonical(root, "train", TWO_PARTS)
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("an image was opened"))
    assert load_canonical(root, "train", TWO_PARTS) == first


def test_changed_file_is_indexed_again(root, scene, write_canonical):
    load_canonical(root, "train", TWO_PARTS)
    path = root / "Training/Human_ids/0001.png"
    stamp = path.stat()
    objects = np.asarray(Image.open(path)).copy()
    objects[objects == 2] = 0
    Image.fromarray(objects).save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1_000_000))
    records = load_canonical(root, "train", TWO_PARTS)
    assert [a["object_id"] for a in records[0]["annotations"]] == [1, 3]


def test_broken_index_is_computed_again(root, caplog):
    first = load_canonical(root, "train", TWO_PARTS)
    (root / "Training/index.json").write_text("{")
    assert load_canonical(root, "train", TWO_PARTS) == first
    assert "index.json" in caplog.text
    assert json.loads((root / "Training/index.json").read_text())["images"]


def test_sparse_16_bit_ids(tmp_path, scene, write_canonical):
    image, parts, objects = scene(people=2)
    objects[objects == 2] = 40000
    write_canonical(tmp_path, "val", {"a": (image, parts, objects)})
    records = load_canonical(tmp_path, "val", TWO_PARTS)
    assert [a["object_id"] for a in records[0]["annotations"]] == [1, 40000]


def test_image_without_objects(tmp_path, scene, write_canonical):
    write_canonical(tmp_path, "train", {"a": scene(people=0)})
    assert load_canonical(tmp_path, "train", TWO_PARTS)[0]["annotations"] == []


def test_unlabelled_split(tmp_path, scene, write_canonical):
    import shutil

    folder = write_canonical(tmp_path, "test", {"a": scene()})
    shutil.rmtree(folder / "Category_ids")
    with pytest.raises(FileNotFoundError, match="Category_ids does not exist"):
        load_canonical(tmp_path, "test", TWO_PARTS)
    shutil.rmtree(folder / "Human_ids")
    record = load_canonical(tmp_path, "test", TWO_PARTS)[0]
    assert "annotations" not in record and record["width"] == 100


def test_class_by_the_parts_or_by_name(tmp_path, scene, write_canonical):
    image, parts, objects = scene(people=3)
    parts[objects == 1], parts[objects == 2], parts[objects == 3] = 1, 2, 255
    folder = write_canonical(tmp_path, "train", {"a": (image, parts, objects)})
    with pytest.raises(ValueError, match="object 3 has no part pixel"):
        load_canonical(tmp_path, "train", TWO_OBJECTS)
    (folder / "object_classes.json").write_text('{"a": {"3": "car"}}')
    record = load_canonical(tmp_path, "train", TWO_OBJECTS)[0]
    assert [a["category_id"] for a in record["annotations"]] == [0, 1, 1]
    (folder / "object_classes.json").write_text('{"a": {"3": "person"}}')
    record = load_canonical(tmp_path, "train", TWO_OBJECTS)[0]
    assert [a["category_id"] for a in record["annotations"]] == [0, 1, 0]
    (folder / "object_classes.json").write_text('{"a": {"3": "tree"}}')
    with pytest.raises(ValueError, match="'tree'.*known: person, car"):
        load_canonical(tmp_path, "train", TWO_OBJECTS)


def test_missing_folder_and_list(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="val_id.txt.*DETECTRON2_DATASETS"):
        load_canonical(root, "val", TWO_PARTS)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_canonical(tmp_path / "nowhere", "train", TWO_PARTS)


def test_missing_files_are_counted_and_named(root):
    (root / "Training/Human_ids/0002.png").unlink()
    (root / "Training/Images/0001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)2 listed file.*0001.*0002.png"):
        load_canonical(root, "train", TWO_PARTS)


def test_unknown_part_id(root):
    path = root / "Training/Category_ids/0002.png"
    parts = np.asarray(Image.open(path)).copy()
    parts[:2] = 9
    Image.fromarray(parts).save(path)
    with pytest.raises(ValueError, match=r"(?s)1 of 2.*0002.png.*\[9\].*140 pixels.*1\.\.2"):
        load_canonical(root, "train", TWO_PARTS)
    assert not (root / "Training/index.json").exists()


def test_grey_levels_of_voc_colours_are_recognised(root):
    path = root / "Training/Category_ids/0002.png"
    Image.fromarray(np.full((50, 70), 38, np.uint8)).save(path)
    with pytest.raises(ValueError, match="palette PNG was read as colours"):
        load_canonical(root, "train", TWO_PARTS)


def test_map_of_another_size(root):
    path = root / "Training/Human_ids/0001.png"
    Image.fromarray(np.zeros((60, 99), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"(?s)0001.png is 99x60.*100x60"):
        load_canonical(root, "train", TWO_PARTS)


def test_all_broken_files_are_counted(root):
    for name in ("0001", "0002"):
        (root / f"Training/Category_ids/{name}.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"(?s)2 of 2.*0001.*0002"):
        load_canonical(root, "train", TWO_PARTS)


def test_repeated_id_and_two_files_for_one_id(root):
    (root / "Training/train_id.txt").write_text("0001\n0001\n")
    with pytest.raises(ValueError, match="'0001' more than once"):
        load_canonical(root, "train", TWO_PARTS)
    (root / "Training/train_id.txt").write_text("0001\n")
    Image.new("RGB", (100, 60)).save(root / "Training/Images/0001.jpg")
    with pytest.raises(ValueError, match="Two files"):
        load_canonical(root, "train", TWO_PARTS)


def test_ids_that_mean_something_else_are_refused(root):
    other = PartTaxonomy(("torso", "head"))
    (root / "taxonomy.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(ValueError, match="taxonomy.json.*part_names"):
        load_canonical(root, "train", TWO_PARTS)


def test_an_index_that_cannot_be_kept_is_told(root, caplog):
    (root / "Training/index.json").mkdir()
    assert len(load_canonical(root, "train", TWO_PARTS)) == 2
    assert "Cannot keep the index" in caplog.text and "cannot be written" in caplog.text
