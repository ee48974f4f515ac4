"""CIHP, LIP, MHP and VOC in the layouts of their releases."""

import numpy as np
import pytest

from instance_crf.data.datasets.boxes import load_voc_boxes
from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.datasets.cihp import CIHP_TAXONOMY, LIP_TAXONOMY
from instance_crf.data.datasets.index import load_index
from instance_crf.data.datasets.mhp import MHP_V1_TAXONOMY, MHP_V2_TAXONOMY
from instance_crf.data.datasets.own import own_files, read_part_yaml
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.voc import BOXES_LIST, VOC_TAXONOMY
from instance_crf.data.label_io import read_object_map, read_part_map
from instance_crf.data.preparation.conversion import PreparationError, merge_person_maps
from instance_crf.files import InUseError, lock_folder


@pytest.fixture
def run(script, monkeypatch, tmp_path):
    """Run a script in datasets/ with ``tmp_path`` as the folder of all data sets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def run(name, *arguments):
        script(name).main(list(arguments))
        return tmp_path

    return run


# MHP ---------------------------------------------------------------------------------------------


@pytest.fixture
def mhp_v2(tmp_path, photo, png, mask):
    """Two training images, one for validation; the people of the first overlap."""
    source = tmp_path / "LV-MHP-v2"
    (source / "list").mkdir(parents=True)
    for split, ids in (("train", ("10", "2")), ("val", ("7",)), ("test", ("9",))):
        listed = "test_all" if split == "test" else split
        (source / f"list/{listed}.txt").write_text("\n".join(ids) + "\n")
        for image_id in ids:
            photo(source / split / "images" / f"{image_id}.jpg")
    annotations = source / "train/parsing_annos"
    png(annotations / "10_02_01.png", mask(0, 0, 30, 30) * 16, "R")
    png(annotations / "10_02_02.png", mask(20, 20, 40, 40) * 58, "R")
    png(annotations / "2_01_01.png", mask(0, 0, 9, 9) * 5, "R")
    png(source / "val/parsing_annos/7_01_01.png", mask(0, 0, 9, 9), "R")
    return source


def test_mhp_v2_reads_the_red_channel_and_the_later_person_is_on_top(mhp_v2, run):
    root = run("prepare_mhp") / "mhp_v2"
    parts = read_part_map(root / "Training/Category_ids/10.png")
    objects = read_object_map(root / "Training/Human_ids/10.png")
    assert parts[5, 5] == 16 and objects[5, 5] == 1
    assert parts[25, 25] == 58 and objects[25, 25] == 2
    first, second = load_canonical(root, "train", MHP_V2_TAXONOMY)
    assert [a["bbox"] for a in first["annotations"]] == [[0, 0, 30, 30], [20, 20, 40, 40]]
    assert [r["image_id"] for r in (first, second)] == ["10", "2"]
    assert len(load_canonical(root, "val", MHP_V2_TAXONOMY)) == 1


def test_mhp_v2_test_split_has_no_labels(mhp_v2, run):
    root = run("prepare_mhp", "--splits", "test") / "mhp_v2"
    (record,) = load_canonical(root, "test", MHP_V2_TAXONOMY)
    assert record["image_id"] == "9" and "annotations" not in record


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("train/parsing_annos/10_02_02.png", 59, "part id 59.*1..58"),
        ("train/parsing_annos/10_03_03.png", 1, "3 files, but their names"),
        ("train/parsing_annos/strange.png", 1, "strange.png is not named"),
    ],
)
def test_mhp_mistakes_are_named(mhp_v2, run, png, mask, name, value, words):
    png(mhp_v2 / name, mask(0, 0, 9, 9) * value, "R")
    with pytest.raises(ValueError, match=words):
        run("prepare_mhp")
    assert not (mhp_v2.parent / "mhp_v2/Training").exists()


def test_mhp_person_of_another_size(mhp_v2, run, png):
    png(mhp_v2 / "train/parsing_annos/10_02_02.png", np.zeros((9, 8)), "R")
    with pytest.raises(PreparationError, match="10_02_02.png is 8x9 pixels"):
        run("prepare_mhp")


def test_mhp_image_without_people_files(mhp_v2, run):
    (mhp_v2 / "train/parsing_annos/2_01_01.png").unlink()
    with pytest.raises(PreparationError, match="2: no person file"):
        run("prepare_mhp")


def test_mhp_with_merged_parts(mhp_v2, run, tmp_path):
    groups = tmp_path / "coarse.yaml"
    groups.write_text("skin: [torso skin]\nleft: [left arm]\nright: [right arm]\n")
    root = run("prepare_mhp", "--merge", str(groups), "--output", str(tmp_path / "coarse"))
    own = read_part_yaml(root / "coarse/coarse.yaml")
    assert own.taxonomy.part_names == ("skin", "left", "right")
    assert own.taxonomy.flip_pairs == ((2, 3),)
    first, second = load_index(own_files(own.splits["train"]), own.taxonomy, cache=None)
    parts = read_part_map(first["part_file_name"])
    assert parts[5, 5] == 1 and parts[35, 35] == 0  # 58 is in no group: background
    assert parts[25, 25] == 1 and len(first["annotations"]) == 1
    assert read_part_map(second["part_file_name"])[5, 5] == 2


def test_mhp_with_an_edited_merge(mhp_v2, run, tmp_path):
    """The data and what says what its ids mean are always of one YAML."""
    groups, output = tmp_path / "coarse.yaml", tmp_path / "coarse"
    arguments = ("prepare_mhp", "--merge", str(groups), "--output", str(output))
    groups.write_text("face: [face]\nbody: [torso skin]\n")
    run(*arguments)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    groups.write_text("body: [torso skin]\nface: [face]\n")
    for more in ((), ("--force",)):
        with pytest.raises(PreparationError, match="taxonomy.json.*part_names.*another folder"):
            run(*arguments, *more)
    groups.write_text("face: [face, hair]\nbody: [torso skin]\n")
    words = r"other settings: part 'face' was \['face'\], is now \['face', 'hair'\]"
    with pytest.raises(PreparationError, match=words):
        run(*arguments)
    groups.write_text("face: [face]\nbody: [torso skin]\n")
    with pytest.raises(PreparationError, match="rest was 'background', is now 'ignore'"):
        run(*arguments, "--rest", "ignore")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    run(*arguments)


def test_a_part_yaml_that_is_not_the_prepared_data_s(mhp_v2, run, tmp_path, script):
    groups, output = tmp_path / "groups.yaml", tmp_path / "coarse"
    groups.write_text("face: [face]\nbody: [torso skin]\n")
    run("prepare_mhp", "--merge", str(groups), "--output", str(output))
    path = output / "coarse.yaml"
    script("verify").main(["--yaml", str(path)])
    path.write_text(path.read_text().replace("- face\n- body", "- body\n- face"))
    with pytest.raises(ValueError, match=r"coarse.yaml: .*taxonomy.json says that part_names"):
        script("verify").main(["--yaml", str(path)])


def test_mhp_merge_of_nothing(mhp_v2, run, tmp_path):
    (tmp_path / "none.yaml").write_text("{}")
    with pytest.raises(ValueError, match="none.yaml"):
        run("prepare_mhp", "--merge", str(tmp_path / "none.yaml"), "--output", str(tmp_path / "c"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: [yeti]", "Unknown part 'yeti'"),
        ("left: [left arm]", "no mirror image"),
        ("- a", "expected lines"),
        ("a: [", "coarse.yaml"),
    ],
)
def test_mhp_merges_that_cannot_be(mhp_v2, run, tmp_path, text, words):
    (tmp_path / "coarse.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)coarse\.yaml.*{words}|{words}"):
        run(
            "prepare_mhp", "--merge", str(tmp_path / "coarse.yaml"), "--output", str(tmp_path / "c")
        )
    assert not (tmp_path / "c").exists()


def test_mhp_v1(tmp_path, photo, png, mask, run):
    source = tmp_path / "LV-MHP-v1"
    for image_id, split in (("0001", "train"), ("0002", "val"), ("0003", "test")):
        photo(source / f"images/{image_id}.jpg")
        png(source / f"annotations/{image_id}_02_01.png", mask(0, 0, 30, 30) * 18)
        png(source / f"annotations/{image_id}_02_02.png", np.full((48, 64), 255))
        (source / f"{split}_list.txt").write_text(f"{image_id}.jpg\n")
    root = run("prepare_mhp", "--version", "v1", "--splits", "train", "val", "test") / "mhp_v1"
    (record,) = load_canonical(root, "test", MHP_V1_TAXONOMY)
    assert [a["object_id"] for a in record["annotations"]] == [1]
    assert read_object_map(record["object_file_name"])[40, 40] == 0


def test_merge_person_maps_with_ignored_pixels():
    first, second = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    first[0] = [1, 255, 255, 0]
    second[0] = [0, 0, 2, 2]
    parts, objects = merge_person_maps([first, second], (2, 4))
    assert parts[0].tolist() == [1, 255, 2, 2] and objects[0].tolist() == [1, -1, 2, 2]
    assert not parts[1].any() and not objects[1].any()
    nobody, ids = merge_person_maps([np.full((2, 4), 255, np.uint8)], (2, 4))
    assert not nobody.any() and not ids.any()


# LIP ---------------------------------------------------------------------------------------------


def test_lip(tmp_path, photo, png, mask, run):
    for split in ("train", "val"):
        labels = mask(0, 0, 30, 30) * 10
        labels[40:] = 255
        photo(tmp_path / f"LIP/{split}_images/1_2.jpg")
        png(tmp_path / f"LIP/{split}_segmentations/1_2.png", labels)
        (tmp_path / f"LIP/{split}_id.txt").write_text("1_2\n")
    root = run("prepare_lip") / "lip"
    (record,) = load_canonical(root, "val", LIP_TAXONOMY)
    assert [a["bbox"] for a in record["annotations"]] == [[0, 0, 30, 30]]
    assert (read_object_map(record["object_file_name"])[40:] == -1).all()
    # Part 10 is jumpsuits in LIP but torso skin in CIHP: one cannot be read as the other.
    with pytest.raises(ValueError, match="taxonomy.json"):
        load_canonical(root, "val", CIHP_TAXONOMY)
    png(tmp_path / "LIP/train_segmentations/1_2.png", mask(0, 0, 9, 9) * 20)
    with pytest.raises(PreparationError, match="part id 20"):
        run("prepare_lip", "--force")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../../evil", "..", "sub\\\\evil"])
def test_ids_that_lead_out_of_their_folder(tmp_path, photo, png, mask, run, name):
    source = tmp_path / "in" / "LIP"
    photo(source / "evil.jpg")
    png(source / "evil.png", mask(0, 0, 9, 9))
    for folder in ("train_images", "train_segmentations"):
        (source / folder).mkdir()
    (source / "train_id.txt").write_text(f"{name}\n")
    with pytest.raises(ValueError, match="train_id.txt lists .*evil|lists '..'"):
        run("prepare_lip", "--source", str(source), "--splits", "train")
    assert not (tmp_path / "lip").exists()


def test_id_lists_of_other_editors(tmp_path, photo, png, mask, run):
    """With a byte order mark and carriage returns; another coding is named."""
    photo(tmp_path / "LIP/train_images/é.jpg")
    png(tmp_path / "LIP/train_segmentations/é.png", mask(0, 0, 30, 30))
    path = tmp_path / "LIP/train_id.txt"
    path.write_bytes("\ufeffé\r\n".encode())
    root = run("prepare_lip", "--splits", "train") / "lip"
    assert [r["image_id"] for r in load_canonical(root, "train", LIP_TAXONOMY)] == ["é"]
    path.write_bytes("é\r\n".encode("latin-1"))
    with pytest.raises(ValueError, match="train_id.txt is not text in UTF-8"):
        run("prepare_lip", "--splits", "train")


# CIHP --------------------------------------------------------------------------------------------


@pytest.fixture
def cihp(tmp_path, photo, png, mask):
    root = tmp_path / "instance-level_human_parsing"
    for folder, ids in (("Training", ("0000006", "0000007")), ("Validation", ("0000001",))):
        for image_id in ids:
            parts = mask(0, 0, 20, 10) * 13 + mask(0, 20, 20, 30) * 19
            people = mask(0, 0, 20, 10) + mask(0, 20, 20, 30) * 2
            photo(root / folder / f"Images/{image_id}.jpg")
            png(root / folder / f"Category_ids/{image_id}.png", parts)
            png(root / folder / f"Human_ids/{image_id}.png", people)
            instance = (people.astype(int) - 1) * 20 + parts
            png(root / folder / f"Instance_ids/{image_id}.png", np.where(people, instance, 0))
    (root / "train_id.txt").write_text("0000007\n0000006\n")
    return root


def test_cihp_lists_and_index(cihp, run, capsys):
    run("prepare_cihp")
    assert (cihp / "Training/train_id.txt").read_text().split() == ["0000007", "0000006"]
    assert (cihp / "Validation/val_id.txt").read_text().split() == ["0000001"]
    assert (cihp / "Training/index.json").is_file()
    text = capsys.readouterr().out
    assert "lists the 1 photos" in text and "OK: 0 errors" in text and "2 images indexed" in text


def test_cihp_again_and_twice(cihp, run):
    run("prepare_cihp", "--no-verify")
    (cihp / "Training/.tmp_abc.txt").touch()  # of a run that was killed
    before = {path for path in cihp.rglob("*") if ".tmp" not in path.name}
    run("prepare_cihp", "--no-verify")
    assert set(cihp.rglob("*")) == before
    pytest.importorskip("fcntl")
    with lock_folder(cihp, "preparing CIHP"), pytest.raises(InUseError):
        run("prepare_cihp")


def test_cihp_id_rule(cihp, run, png, mask, capsys):
    png(cihp / "Training/Instance_ids/0000006.png", mask(0, 0, 20, 10) * 14)
    with pytest.raises(PreparationError, match="Training cannot be used"):
        run("prepare_cihp")
    text = capsys.readouterr().out
    assert "(person - 1) * 20 + part" in text and "0000006.png: 400 pixels" in text
    run("prepare_cihp", "--no-verify")


# VOC ---------------------------------------------------------------------------------------------

XML = """<annotation><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>20</ymax></bndbox>
</object></annotation>"""


@pytest.fixture
def voc(tmp_path, photo, png, mask):
    root = tmp_path / "VOC2012"
    lists = {
        "Segmentation/train": ["a"],
        "Segmentation/val": ["b"],
        "Main/trainval": ["a", "b", "c", "d"],
    }
    for name, ids in lists.items():
        path = root / f"ImageSets/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(ids) + "\n")
    for image_id in "abcd":
        photo(root / f"JPEGImages/{image_id}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{image_id}.xml").write_text(XML.format(name="dog"))
    for image_id in "ab":
        classes = mask(0, 0, 20, 10) * 15 + mask(0, 20, 20, 30) * 12
        objects = mask(0, 0, 20, 10) + mask(0, 20, 20, 30) * 2
        classes[20:22], objects[20:22] = 255, 255
        png(root / f"SegmentationClass/{image_id}.png", classes, "P")
        png(root / f"SegmentationObject/{image_id}.png", objects, "P")
    excluded = tmp_path / "pascal_person_part/Validation/val_id.txt"
    excluded.parent.mkdir(parents=True)
    excluded.write_text("d\n")
    return root


def test_voc_classes_objects_and_people(voc, run):
    root = run("prepare_voc")
    (record,) = load_canonical(root / "voc2012", "train", VOC_TAXONOMY)
    names = [VOC_TAXONOMY.object_names[a["category_id"]] for a in record["annotations"]]
    assert names == ["person", "dog"]
    assert (read_object_map(record["object_file_name"])[20:22] == -1).all()
    (record,) = load_canonical(root / "voc2012_person", "val", PERSON_PART_TAXONOMY)
    assert [a["object_id"] for a in record["annotations"]] == [1]
    parts = read_part_map(record["part_file_name"])
    assert (parts[:20, :10] == 255).all() and not parts[:20, 20:30].any()


def test_voc_boxes_without_the_test_images(voc, run):
    run("prepare_voc")
    records = load_voc_boxes(voc, BOXES_LIST, VOC_TAXONOMY)
    assert [r["image_id"] for r in records] == ["a", "c"]
    assert (records[0]["height"], records[0]["width"]) == (48, 64)
    assert records[0]["annotations"][0]["bbox"] == [0, 1, 11, 20]
    assert records[0]["annotations"][0]["category_id"] == VOC_TAXONOMY.object_names.index("dog")


def test_voc_boxes_after_other_test_images(voc, run, tmp_path):
    """A list that was there must not let test images into the training unnoticed."""
    run("prepare_voc")
    (tmp_path / "more.txt").write_text("c\nd\n")
    with pytest.raises(PreparationError, match="lists 2 images, not the 1 .*--force"):
        run("prepare_voc", "--exclude", str(tmp_path / "more.txt"))
    run("prepare_voc", "--exclude", str(tmp_path / "more.txt"), "--force")
    assert (voc / BOXES_LIST).read_text().split() == ["a"]


def test_voc_needs_the_lists_of_the_test_images(voc, run, tmp_path):
    with pytest.raises(PreparationError, match="cannot be left out"):
        run("prepare_voc", "--exclude", str(tmp_path / "nowhere.txt"))


@pytest.mark.parametrize(
    "text, words", [("<a>", "Cannot read"), (XML.format(name="yeti"), "'yeti'")]
)
def test_voc_broken_xml(voc, run, text, words):
    run("prepare_voc")
    (voc / "Annotations/c.xml").write_text(text)
    with pytest.raises(ValueError, match=f"c.xml.*{words}|{words}.*c.xml"):
        load_voc_boxes(voc, BOXES_LIST, VOC_TAXONOMY)


def test_voc_truncated_png(voc, run):
    path = voc / "SegmentationObject/a.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(PreparationError, match="a.png"):
        run("prepare_voc")


# All ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["prepare_cihp", "prepare_lip", "prepare_mhp", "prepare_pascal_part", "prepare_voc"]
    + ["prepare_pascal_person_part"],
)
def test_missing_source_says_what_to_give(name, run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--(source|voc|annotations)"):
        run(name)
