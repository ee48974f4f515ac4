import numpy as np
import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from instance_crf.config import add_instance_crf_config, check_datasets, follow_datasets
from instance_crf.data.datasets import builtin
from instance_crf.data.datasets.own import apply_part_yaml, read_part_yaml, register_part_yaml
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
        path.write_text(yaml.safe_dump(content))
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
