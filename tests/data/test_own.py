from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from instance_crf.config import add_instance_crf_config, check_datasets, follow_datasets
from instance_crf.data.datasets import builtin
from instance_crf.data.datasets.own import (
    apply_part_yaml,
    own_files,
    read_part_yaml,
    register_part_yaml,
)
from instance_crf.data.datasets.register import dataset_root

CONTENT = {
    "name": "zoo",
    "parts": ["head", "left arm", "right arm", "wheel"],
    "objects": ["person", "car"],
    "owners": {"head": "person", "left arm": "person", "right arm": "person", "wheel": "car"},
    "flip_pairs": [["left arm", "right arm"]],
    "splits": {
        "train": {"images": "photos", "parts": "parts", "objects": "people", "list": "train.txt"},
        "val": {"images": "photos", "parts": "parts", "objects": "people"},
    },
}


@pytest.fixture
def write_yaml(tmp_path):
    def write(**changes):
        path = tmp_path / "zoo.yaml"
        content = {k: v for k, v in (CONTENT | changes).items() if v is not None}
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return path

    return write


@pytest.fixture
def folders(tmp_path):
    for name in ("photos", "parts", "people"):
        (tmp_path / name).mkdir()
    for i in range(3):
        parts = np.zeros((30, 40), np.uint8)
        parts[:10, :10], parts[10:20, :10], parts[:10, 20:] = 1, 2, 4
        objects = np.where(parts == 4, 2, parts > 0).astype(np.uint8)
        Image.new("RGB", (40, 30)).save(tmp_path / f"photos/{i}.jpg")
        Image.fromarray(parts).save(tmp_path / f"parts/{i}.png")
        Image.fromarray(objects).save(tmp_path / f"people/{i}.png")
    (tmp_path / "train.txt").write_text("0\n1.jpg\n")
    return tmp_path


def test_yaml_to_records_and_config(folders, write_yaml):
    cfg = get_cfg()
    add_instance_crf_config(cfg)
    cfg.DATASETS.PART_YAML = str(write_yaml())
    apply_part_yaml(cfg)
    assert cfg.DATASETS.TRAIN == ("zoo_train",) and cfg.DATASETS.TEST == ("zoo_val",)
    follow_datasets(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5 and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    check_datasets(cfg)
    assert [r["image_id"] for r in DatasetCatalog.get("zoo_train")] == ["0", "1"]
    assert len(DatasetCatalog.get("zoo_val")) == 3
    record = DatasetCatalog.get("zoo_val")[0]
    assert [(a["category_id"], a["bbox"]) for a in record["annotations"]] == [
        (0, [0, 0, 10, 20]),
        (1, [20, 0, 40, 10]),
    ]
    metadata = MetadataCatalog.get("zoo_val")
    assert metadata.taxonomy.flip_pairs == ((2, 3),)
    assert metadata.thing_classes == ["person", "car"]
    assert metadata.stuff_classes[0] == "background" and len(metadata.stuff_colors) == 5
    assert metadata.evaluator_type == "part_instance" and metadata.ignore_label == 255


def test_no_yaml_changes_nothing():
    cfg = get_cfg()
    add_instance_crf_config(cfg)
    before = cfg.dump()
    apply_part_yaml(cfg)
    assert cfg.dump() == before


def test_one_object_needs_no_owners(write_yaml):
    own = read_part_yaml(write_yaml(objects=None, owners=None))
    assert own.taxonomy.object_names == ("person",) and own.taxonomy.part_owner == (0,) * 4


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parts": None}, "no 'parts'"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"owners": None}, "need 'owners'"),
        ({"owners": {"head": "person"}}, "'left arm' belongs"),
        ({"owners": CONTENT["owners"] | {"wheel": "train"}}, "'train'"),
        ({"flip_pairs": [["left arm", "right leg"]]}, "'right leg'"),
        (
            {"parts": ["a", "a"], "owners": None, "objects": None, "flip_pairs": []},
            "more than once",
        ),
        ({"splits": {"train": {"images": "photos"}}}, "split 'train' has no 'objects'"),
        (
            {"splits": {"train": {"images": "a", "parts": "b", "objects": "c", "lists": "d"}}},
            "'lists'",
        ),
        ({"splits": ["train"]}, "zoo.yaml"),
    ],
)
def test_yaml_mistakes_are_named(write_yaml, changes, words):
    with pytest.raises(ValueError, match=words):
        read_part_yaml(write_yaml(**changes))


@pytest.mark.parametrize(
    "parts", [{1: "head", 2: "torso", 3: "leg"}, {"torso": 2, "leg": 3, "head": 1}]
)
def test_ids_that_are_given_count(write_yaml, parts):
    own = read_part_yaml(write_yaml(parts=parts, owners=None, objects=None, flip_pairs=None))
    assert own.taxonomy.part_names == ("head", "torso", "leg")


PLAIN = {"owners": None, "objects": None, "flip_pairs": None}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"parts": "head"}, r"'parts' is 'head'; .* parts: \[head\]"),
        ({"parts": 3}, "'parts' is 3"),
        ({"objects": "person", "parts": ["head"]}, "'objects' is 'person'"),
        ({"parts": ["background", "head"]}, "'background' in place 1. Leave it out"),
        ({"parts": ["head", "__BG__"]}, "'__BG__' in place 2"),
        ({"parts": ["head", "ignore"]}, "'ignore' in place 2"),
        ({"parts": ["head"], "objects": ["Void", "person"]}, "'Void' in place 1"),
        ({"parts": {0: "background", 1: "head"}}, r"ids \[0, 1\]; they must be 1\.\.2"),
        ({"parts": {1: "head", 3: "leg"}}, r"ids \[1, 3\]"),
        ({"parts": {"head": 1, "leg": 1}}, r"ids \[1, 1\]"),
        ({"parts": {"head": "1"}}, r"ids \['1'\]"),
        ({"parts": [True, "head"]}, "has True, which is no text"),
        ({"parts": ["head"], "owners": ["person"]}, "'owners' is"),
        ({"parts": ["head"], "colors": [[0.5, 0.5, 0.5]]}, "'colors' is"),
        ({"parts": ["head"], "colors": "red"}, "'colors' is 'red'"),
        ({"parts": ["head"], "name": None}, "no 'name'"),
        ({"parts": ["head"], "name": "../x"}, "not a path"),
        ({"parts": ["head"], "splits": {"train": {k: 3 for k in ("images", "parts", "objects")}}},
         "'images' is 3"),
        ({"parts": ["head"], "splits": {"train": {"images": "a", "parts": "b", "objects": "./b"}}},
         "part ids are not object ids"),
        ({"parts": ["head"], "objects": {1: "person"}}, "'objects' is"),
    ],
)  # fmt: skip
def test_what_would_shift_or_lose_ids(write_yaml, changes, words):
    with pytest.raises(ValueError, match=f"zoo.yaml: .*{words}"):
        read_part_yaml(write_yaml(**PLAIN | changes))


@pytest.mark.parametrize(
    "parts, pairs, line",
    [
        (["head", "left arm", "right arm"], None, "flip_pairs: [[left arm, right arm]], or"),
        (["l_arm", "R_arm"], None, "flip_pairs: [[l_arm, R_arm]]"),
        (["rhand", "lhand"], None, "flip_pairs: [[rhand, lhand]]"),
        (["Lefthand", "Righthand"], None, "flip_pairs: [[Lefthand, Righthand]]"),
        (["lft-leg", "rgt-leg"], None, "flip_pairs: [[lft-leg, rgt-leg]]"),
        (["armLeft", "armRight"], None, "flip_pairs: [[armLeft, armRight]]"),
        (["head", "left arm"], None, "'left arm', but there is no 'flip_pairs'"),
        (
            ["left arm", "right arm", "left leg", "right leg"],
            [["left arm", "right arm"]],
            "'left leg' with 'right leg'",
        ),
        (
            ["left arm", "right arm", "left leg", "right leg", "a", "b"],
            [["left arm", "right leg"], ["left leg", "right arm"], ["a", "b"]],
            "Write flip_pairs: [[left arm, right arm], [left leg, right leg], [a, b]]",
        ),
        (["left arm", "right arm"], ["left arm", "right arm"], "list of pairs"),
        (["left arm", "right arm"], [["left arm", "right arm", "left arm"]], "list of pairs"),
    ],
)
def test_left_and_right_are_paired(write_yaml, parts, pairs, line):
    changes = {"parts": parts, "owners": None, "objects": None, "flip_pairs": pairs}
    with pytest.raises(ValueError) as caught:
        read_part_yaml(write_yaml(**changes))
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "parts, pairs", [(["left arm", "right arm"], []), (["bright", "lip"], None), (["l", "x"], None)]
)
def test_on_purpose_or_without_sides(write_yaml, parts, pairs):
    changes = {"parts": parts, "owners": None, "objects": None} | {"flip_pairs": pairs}
    assert read_part_yaml(write_yaml(**changes)).taxonomy.flip_pairs == ()


def test_a_first_letter_may_be_chance(write_yaml):
    """Lock and rock need no pairing where sides have other names; lleg and rleg beside larm do."""
    sided = {"parts": ["left arm", "right arm", "lock", "rock"], "owners": None, "objects": None}
    own = read_part_yaml(write_yaml(**sided, flip_pairs=[["left arm", "right arm"]]))
    assert own.taxonomy.flip_pairs == ((1, 2),)
    short = sided | {"parts": ["larm", "rarm", "lleg", "rleg"]}
    with pytest.raises(ValueError, match="does not pair 'lleg' with 'rleg'"):
        read_part_yaml(write_yaml(**short, flip_pairs=[["larm", "rarm"]]))


def test_the_line_of_the_message_is_right(write_yaml):
    parts = ["left arm", "r_leg", "l_leg", "right arm", "x", "y"]
    changes = {"parts": parts, "owners": None, "objects": None}
    with pytest.raises(ValueError) as caught:
        read_part_yaml(write_yaml(**changes, flip_pairs=[["x", "y"], ["left arm", "x"]]))
    line = str(caught.value).partition("Write ")[2].removesuffix(".")
    own = read_part_yaml(write_yaml(**changes, **yaml.safe_load(line)))
    assert own.taxonomy.flip_pairs == ((1, 4), (2, 3), (5, 6))


def test_a_byte_order_mark_and_umlauts(folders, write_yaml):
    path = write_yaml(parts=["Fuß"], **PLAIN)
    text = path.read_text().replace("train.txt", "träin.txt")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folders / "träin.txt").write_bytes(b"\xef\xbb\xbf0\r\n1\r\n")
    own = read_part_yaml(path)
    assert own.taxonomy.part_names == ("Fuß",)
    assert [f.image_id for f in own_files(own.splits["train"])] == ["0", "1"]
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="zoo.yaml is not text in UTF-8"):
        read_part_yaml(path)


@pytest.fixture
def listed(folders, write_yaml):
    """A function: text of the list -> names of the photos."""

    def read(text):
        (folders / "train.txt").write_text(text)
        files = own_files(read_part_yaml(write_yaml()).splits["train"])
        for each in files:
            assert each.image_id == Path(each.photo).stem == Path(each.parts).stem
        return [Path(each.photo).name for each in files]

    return read


def test_lines_of_a_list(listed, folders):
    assert listed("0\n1.jpg\n2.JPG") == ["0.jpg", "1.jpg", "2.jpg"]
    assert listed("2.jpg\n\n0.png\n") == ["2.jpg", "0.jpg"]
    for folder, suffix in (("photos", "jpg"), ("parts", "png"), ("people", "png")):
        (folders / folder / f"0.{suffix}").rename(folders / folder / f"0.c.{suffix}")
    assert listed("0.c\n0.c.jpg\n".replace("0.c.jpg", "1")) == ["0.c.jpg", "1.jpg"]
    assert listed("0.c.jpg\n") == ["0.c.jpg"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("cam1/1.jpg\ncam2/1.jpg\n", "'cam1/1.jpg': .* without a folder"),
        ("/images/1.jpg /labels/2.png\n", "'/images/1.jpg /labels/2.png': .* without a folder"),
        ("1.jpg\n1\n", "'1.jpg' and '1': the same photo twice"),
        ("1\n1\n", "'1' more than once"),
        ("photos/1.jpg\n", "without a folder"),
        ("..\n", "without a folder"),
    ],
)
def test_lines_of_other_folders(listed, text, words):
    with pytest.raises(ValueError, match=f"train.txt .*{words}"):
        listed(text)


def test_label_maps_without_a_photo_are_told(folders, write_yaml, caplog):
    own = read_part_yaml(write_yaml())
    own_files(own.splits["val"])
    assert not caplog.records
    (folders / "photos/1.jpg").rename(folders / "photos/1.tif")
    assert [f.image_id for f in own_files(own.splits["val"])] == ["0", "2"]
    assert "1 label maps" in caplog.text and "the first: 1.png" in caplog.text


@pytest.mark.parametrize("text", ["1.jpg 2.png\n", "1.c\n", "1.jpg,2.jpg\n", "1.txt\n"])
def test_lines_that_are_no_photo(listed, text):
    with pytest.raises(FileNotFoundError, match="missing"):
        listed(text)


def test_missing_yaml_and_folders(tmp_path, folders, write_yaml):
    with pytest.raises(FileNotFoundError, match="nothing.yaml"):
        read_part_yaml(tmp_path / "nothing.yaml")
    register_part_yaml(write_yaml())
    (tmp_path / "people").rename(tmp_path / "persons")
    with pytest.raises(FileNotFoundError, match="people"):
        DatasetCatalog.get("zoo_val")


def test_builtin_registers_lazily_and_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    builtin.register_all()
    builtin.register_all()
    for name in (
        *("synthetic_people_train", "synthetic_crowd_val", "pascal_person_part_train"),
        *("cihp_train", "cihp_test", "mhp_v1_train", "mhp_v2_val", "lip_val", "pascal_part_train"),
        *("pascal_part_fine_val", "voc2012_train", "voc2012_person_val", "voc2012_boxes_train"),
    ):
        metadata = MetadataCatalog.get(name)
        assert metadata.root.startswith(str(tmp_path)), name
        assert len(metadata.stuff_classes) == metadata.taxonomy.num_parts + 1
        with pytest.raises(FileNotFoundError):
            DatasetCatalog.get(name)
    monkeypatch.undo()
    builtin.register_all()


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert "~" not in dataset_root() and dataset_root().endswith("/data")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert dataset_root() == "datasets"
