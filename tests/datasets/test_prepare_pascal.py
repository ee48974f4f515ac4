"""PASCAL-Part's .mat files -> Pascal-Person-Part and PASCAL-Part."""

import numpy as np
import pytest
from scipy.io import savemat

from instance_crf.data.datasets.canonical import load_canonical
from instance_crf.data.datasets.pascal_part import COARSE_TAXONOMY, FINE_TAXONOMY
from instance_crf.data.datasets.pascal_person_part import (
    OTHER_ORDER_TO_OURS,
    PERSON_PART_TAXONOMY,
    part_heights,
    recognise_class_order,
)
from instance_crf.data.label_io import read_object_map, read_part_map
from instance_crf.data.preparation.conversion import PreparationError
from instance_crf.data.preparation.pascal_part_mat import read_annotation

TRAIN, VAL = ("2008_000001", "2008_000002"), ("2008_000003",)


@pytest.fixture
def person(mask):
    """A function left -> (class, mask, parts) of a standing person, 12 columns wide."""

    def stand(left):
        right = left + 12
        parts = [
            ("head", mask(2, left + 4, 10, left + 8)),
            ("leye", mask(4, left + 4, 5, left + 5)),  # lies on the head
            ("neck", mask(10, left + 5, 12, left + 7)),
            ("torso", mask(12, left + 3, 24, left + 9)),
            ("luarm", mask(12, left, 18, left + 3)),
            ("llarm", mask(18, left, 24, left + 3)),
            ("rhand", mask(22, left + 9, 25, right)),
            ("luleg", mask(24, left + 3, 34, left + 9)),
            ("rlleg", mask(34, left + 3, 42, left + 9)),
            ("rfoot", mask(42, left + 3, 45, left + 9)),
        ]
        silhouette = np.clip(sum(m.astype(int) for _, m in parts), 0, 1).astype(np.uint8)
        silhouette[12:22, left + 9 : right] = 1  # an arm that nobody annotated
        return ("person", silhouette, parts)

    return stand


@pytest.fixture
def release(tmp_path, photo, mat, mask, person):
    """VOC2010, Annotations_Part and the lists of the semantic-only zip."""
    for image_id in (*TRAIN, *VAL):
        photo(tmp_path / "VOC2010/JPEGImages" / f"{image_id}.jpg")
    annotations = tmp_path / "Annotations_Part"
    dog = (
        "dog",
        mask(30, 40, 45, 60),
        [("head", mask(30, 40, 36, 46)), ("tail", mask(30, 55, 34, 60))],
    )
    mat(annotations / f"{TRAIN[0]}.mat", [person(2), person(20), dog])
    unannotated = ("person", mask(5, 40, 45, 50), [])
    mat(annotations / f"{TRAIN[1]}.mat", [person(10), unannotated])
    mat(annotations / f"{VAL[0]}.mat", [person(30)])
    lists = tmp_path / "pascal_person_part/pascal_person_part_trainval_list"
    lists.mkdir(parents=True)
    (lists / "train_id.txt").write_text("\n".join(TRAIN) + "\n")
    (lists / "val_id.txt").write_text("\n".join(VAL) + "\n")
    main_lists = tmp_path / "VOC2010/ImageSets/Main"
    main_lists.mkdir(parents=True)
    (main_lists / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (main_lists / "val.txt").write_text("\n".join(VAL) + "\n")
    return tmp_path


@pytest.fixture
def prepare(script, monkeypatch):
    """Run datasets/prepare_pascal_person_part.py with a data set folder."""
    module = script("prepare_pascal_person_part")

    def run(root, *arguments):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
        module.main(list(arguments))
        return root / "pascal_person_part"

    return run


def test_six_parts_and_identity(release, prepare):
    out = prepare(release)
    parts = read_part_map(out / "Training/Category_ids/2008_000001.png")
    objects = read_object_map(out / "Training/Human_ids/2008_000001.png")
    # Down the middle of the first person: head, neck and torso, upper leg, lower leg and foot.
    assert parts[[3, 4, 11, 15, 30, 40, 44], 7].tolist() == [1, 1, 2, 2, 5, 6, 6]
    assert parts[13, 3] == 3 and parts[20, 3] == 4 and parts[23, 12] == 4
    assert objects[15, 7] == 1 and objects[15, 25] == 2
    # The dog is nobody, and so is the arm without annotation: an object is the union of its parts.
    assert not objects[30:, 40:].any() and not parts[30:, 40:].any()
    assert parts[15, 12] == 0 and objects[15, 12] == 0
    assert np.array_equal(parts > 0, objects > 0)
    records = load_canonical(out, "train", PERSON_PART_TAXONOMY)
    assert [len(r["annotations"]) for r in records] == [2, 1]
    assert records[0]["annotations"][0]["bbox"] == [2, 2, 14, 45]


def test_people_without_parts(release, prepare):
    out = prepare(release)
    objects = read_object_map(out / "Training/Human_ids/2008_000002.png")
    assert (objects[5:45, 40:50] == -1).all()
    assert (read_part_map(out / "Training/Category_ids/2008_000002.png")[5:45, 40:50] == 255).all()
    out = prepare(release, "--unannotated", "background", "--force")
    objects = read_object_map(out / "Training/Human_ids/2008_000002.png")
    assert not objects[5:45, 40:50].any()


def test_done_is_left_alone(release, prepare, capsys):
    out = prepare(release)
    path = out / "Training/Category_ids/2008_000001.png"
    stamp = path.stat().st_mtime_ns
    prepare(release)
    assert path.stat().st_mtime_ns == stamp and "complete already" in capsys.readouterr().out


def test_semantic_release_in_our_order_is_accepted(release, prepare, png, capsys):
    out = prepare(release)
    for split, folder in (("train", "Training"), ("val", "Validation")):
        for path in (out / folder / "Category_ids").glob("*.png"):
            parts = read_part_map(path)
            parts[parts == 255] = 0
            png(release / "pascal_person_part/pascal_person_part_gt" / path.name, parts, "P")
        assert split
    prepare(release, "--force")
    assert "100.0% of the common part pixels agree" in capsys.readouterr().out


def test_semantic_release_in_the_other_order_is_refused(release, prepare, png):
    out = prepare(release)
    back = np.zeros(256, np.uint8)
    for theirs, ours in OTHER_ORDER_TO_OURS.items():
        back[ours] = theirs
    path = out / "Training/Category_ids/2008_000001.png"
    swapped = back[read_part_map(path)]
    png(release / "pascal_person_part/pascal_person_part_gt/2008_000001.png", swapped, "P")
    with pytest.raises(PreparationError, match="in the other class order"):
        prepare(release, "--force")
    png(release / "pascal_person_part/pascal_person_part_gt/2008_000001.png", swapped * 0 + 5, "P")
    with pytest.raises(PreparationError, match="are different"):
        prepare(release, "--force")


def test_copy_in_the_other_order_is_mapped(release, prepare, png, photo, tmp_path):
    """The copy with instance masks: made here from our own output, its ids permuted."""
    out = prepare(release)
    back = np.arange(256, dtype=np.uint8)
    for theirs, ours in OTHER_ORDER_TO_OURS.items():
        back[ours] = theirs
    copy = tmp_path / "PASCAL-Person-Part"
    for ours, theirs in (("Training", "Training"), ("Validation", "Testing")):
        for path in (out / ours / "Category_ids").glob("*.png"):
            png(copy / theirs / "Category_ids" / path.name, back[read_part_map(path)])
            people = read_object_map(out / ours / "Human_ids" / path.name)
            png(copy / theirs / "Human_ids" / path.name, people * (people > 0))
            photo(copy / theirs / "Images" / f"{path.stem}.jpg")
    mapped = prepare(release, "--instances", str(copy), "--output", str(tmp_path / "mapped"))
    assert mapped
    for folder in ("Training", "Validation"):
        for path in (out / folder / "Category_ids").glob("*.png"):
            again = read_part_map(tmp_path / "mapped" / folder / "Category_ids" / path.name)
            assert np.array_equal(again, read_part_map(path))


def test_order_that_cannot_be_told_is_refused(release, prepare, png, photo, tmp_path):
    copy = tmp_path / "copy"
    png(copy / "Training/Category_ids/1.png", np.full((48, 64), 3))
    png(copy / "Training/Human_ids/1.png", np.ones((48, 64)))
    photo(copy / "Training/Images/1.jpg")
    arguments = ("--instances", str(copy), "--output", str(tmp_path / "out"), "--splits", "train")
    with pytest.raises(PreparationError, match="--class-order"):
        prepare(release, *arguments)
    prepare(release, *arguments, "--class-order", "other")
    assert (read_part_map(tmp_path / "out/Training/Category_ids/1.png") == 5).all()


@pytest.mark.parametrize(
    "order, expected", [((1, 2, 3, 4, 5, 6), "ours"), ((2, 4, 6, 1, 3, 5), "other")]
)
def test_recognise_class_order(order, expected):
    parts = np.repeat(np.array(order, np.uint8), 8)[:, None].repeat(5, 1)
    heights = part_heights(parts, np.ones_like(parts))
    assert recognise_class_order(heights) == expected
    assert recognise_class_order(part_heights(parts[::-1], np.ones_like(parts))) == "unknown"
    assert recognise_class_order([]) == "unknown"


def test_without_the_lists_voc_s_own_are_used_with_a_warning(release, prepare, capsys, mat, mask):
    import shutil

    shutil.rmtree(release / "pascal_person_part")
    mat(release / f"Annotations_Part/{TRAIN[1]}.mat", [("person", mask(0, 0, 9, 9), [])])
    out = prepare(release)
    assert (out / "Training/train_id.txt").read_text().split() == [TRAIN[0]]
    assert "not comparable" in capsys.readouterr().out


def test_an_image_without_people(release, prepare, mat, mask):
    mat(release / f"Annotations_Part/{VAL[0]}.mat", [("sofa", mask(0, 0, 9, 9), [])])
    out = prepare(release)
    assert not read_object_map(out / f"Validation/Human_ids/{VAL[0]}.png").any()


@pytest.mark.parametrize(
    "breakage, words",
    [
        ("unknown part", "no part 'antenna'"),
        ("no parts field", "object 1 has no field 'parts'"),
        ("text", "mask holds <U1, not numbers"),
        ("no anno", "no variable 'anno'"),
        ("truncated", "Cannot read"),
        ("missing", "not found"),
        ("other size", "48x64|64x48"),
    ],
)
def test_broken_mat_is_named_and_nothing_appears(
    release, prepare, mat, mask, person, breakage, words
):
    path = release / f"Annotations_Part/{TRAIN[1]}.mat"
    if breakage == "unknown part":
        mat(path, [("person", mask(0, 0, 9, 9), [("antenna", mask(0, 0, 2, 2))])])
    elif breakage == "no parts field":
        savemat(
            path,
            {"anno": {"imname": "x", "objects": {"class": "person", "mask": mask(0, 0, 9, 9)}}},
        )
    elif breakage == "text":
        savemat(path, {"anno": {"objects": {"class": "person", "mask": "x", "parts": []}}})
    elif breakage == "no anno":
        savemat(path, {"other": 1})
    elif breakage == "truncated":
        path.write_bytes(path.read_bytes()[:150])
    elif breakage == "missing":
        path.unlink()
    else:
        small = mask(0, 0, 9, 9, size=(40, 64))
        mat(path, [("person", small, [("head", small)])])
    with pytest.raises(PreparationError, match=words) as caught:
        prepare(release)
    assert TRAIN[1] in str(caught.value) and "1 of 2" in str(caught.value)
    assert not (release / "pascal_person_part/Training").exists()
    # Repaired, it goes on: only the broken one is converted again.
    mat(path, [person(10)])
    assert (prepare(release) / "Training/train_id.txt").read_text().split() == list(TRAIN)


def test_mat_without_objects_or_with_one(tmp_path, mat, mask):
    mat(tmp_path / "none.mat", [])
    assert read_annotation(tmp_path / "none.mat") == []
    mat(tmp_path / "one.mat", [("cat", mask(0, 0, 9, 9), [("tail", mask(0, 0, 2, 2))])])
    (cat,) = read_annotation(tmp_path / "one.mat")
    assert cat.name == "cat" and cat.parts[0][0] == "tail" and cat.parts[0][1].sum() == 4
    assert cat.mask.dtype == bool


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_pascal_part_all_classes(release, script, monkeypatch, level, mat, mask):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(release))
    bus = (
        "bus",
        mask(0, 0, 20, 30),
        [("wheel_1", mask(15, 0, 20, 5)), ("wheel_2", mask(15, 20, 20, 25))],
    )
    sofa = ("sofa", mask(30, 0, 40, 10), [])
    blank_cow = ("cow", mask(30, 40, 40, 50), [])
    mat(release / f"Annotations_Part/{VAL[0]}.mat", [bus, sofa, blank_cow])
    script("prepare_pascal_part").main(["--level", level])
    folder = release / ("pascal_part" if level == "coarse" else "pascal_part_fine")
    taxonomy = COARSE_TAXONOMY if level == "coarse" else FINE_TAXONOMY
    names = ("bus wheels", "dog head") if level == "coarse" else ("bus wheel", "dog head")
    parts = read_part_map(folder / f"Validation/Category_ids/{VAL[0]}.png")
    assert parts[17, 2] == parts[17, 22] == taxonomy.part_id(names[0])
    assert parts[35, 5] == taxonomy.part_id("sofa") and parts[35, 45] == 255
    (record,) = load_canonical(folder, "val", taxonomy)
    classes = [taxonomy.object_names[a["category_id"]] for a in record["annotations"]]
    assert classes == ["bus", "sofa"]
    record = load_canonical(folder, "train", taxonomy)[0]
    classes = [taxonomy.object_names[a["category_id"]] for a in record["annotations"]]
    assert classes == ["person", "person", "dog"]
    dog = read_part_map(folder / f"Training/Category_ids/{TRAIN[0]}.png")[32, 42]
    assert dog == taxonomy.part_id(names[1])
