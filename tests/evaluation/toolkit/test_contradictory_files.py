"""Ids that are none, entries that come twice, names that lead away, values of other kinds."""

import json

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation import Parsing, PartParsingMetrics
from instance_crf.evaluation.toolkit.export import export_predictions
from instance_crf.evaluation.toolkit.formats import PREDICTION_READERS, TRUTH_READERS
from instance_crf.evaluation.toolkit.formats.cihp import write_cihp_truth
from instance_crf.evaluation.toolkit.formats.coco import (
    COCOPredictions,
    COCOTruth,
    write_coco_truth,
)
from instance_crf.evaluation.toolkit.formats.panoptic import PanopticWriter
from instance_crf.evaluation.toolkit.taxonomies import find_taxonomy
from instance_crf.taxonomies import read_taxonomy
from instance_crf.taxonomies.schema import PartTaxonomy

PERSON = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))
ZOO = PartTaxonomy(("head", "legs", "wheel", "door"), ("dog", "car"), (0, 0, 1, 1))
WHOLE = r"must be a whole number in 1\.\.2147483647"


def edit_json(path, change):
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps(content))


def numbers(prediction, truth):
    metrics = PartParsingMetrics(PERSON.part_names, ("person",))
    metrics.add("a", prediction, truth)
    return metrics.compute()


@pytest.fixture
def panoptic(tmp_path, make_pair):
    """Predictions of one image."""
    export_predictions("panoptic", tmp_path, PERSON, [("a", make_pair(0)[0])])
    return tmp_path


@pytest.fixture
def coco(tmp_path, make_pair):
    """Predictions and truth of one image."""
    prediction, truth = make_pair(0)
    write_coco_truth(tmp_path / "truth", PERSON, [("a", truth)])
    export_predictions("coco", tmp_path, PERSON, [("a", prediction)])
    return tmp_path


def read_coco(folder):
    truth = COCOTruth(folder / "truth", PERSON)
    predictions = COCOPredictions(folder, PERSON, truth)
    for kind in truth.kinds:
        truth.regions(kind, "a"), predictions.regions(kind, "a")


# --- ids of people ---


@pytest.mark.parametrize("ids", [(1, 2, 3), (9, 70_000, 2**31 - 1)])
def test_ids_may_be_as_large_as_31_bits(tmp_path, make_pair, ids):
    """The numbers are those of people 1, 2, 3."""
    prediction, truth = make_pair(0)
    with PanopticWriter(tmp_path / "panoptic", PERSON) as writer:
        writer.add("a", truth)

    def renumber(content):
        for segment in content["annotations"][0]["segments_info"]:
            if "instance_id" in segment:
                segment["instance_id"] = ids[segment["instance_id"] - 1]

    edit_json(tmp_path / "panoptic/panoptic.json", renumber)
    read = TRUTH_READERS["panoptic"](tmp_path / "panoptic", PERSON).read("a")
    assert numbers(prediction, read) == numbers(prediction, truth)

    write_cihp_truth(tmp_path / "cihp", "a", truth)
    table = tmp_path / "cihp/a.txt"
    rows = [line.split() for line in table.read_text().splitlines()]
    table.write_text("".join(f"{k} {part} {ids[int(human) - 1]}\n" for k, part, human in rows))
    read = TRUTH_READERS["cihp"](tmp_path / "cihp", PERSON).read("a")
    assert numbers(prediction, read) == numbers(prediction, truth)


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**32 + 1, 1.5, "1", None, [1], True])
@pytest.mark.parametrize("key", ["instance_id", "id"])
def test_panoptic_ids(panoptic, key, value):
    edit_json(
        panoptic / "panoptic.json",
        lambda c: c["annotations"][0]["segments_info"][0].update({key: value}),
    )
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{key}.* must be a whole number in 1"):
        PREDICTION_READERS["panoptic"](panoptic, PERSON).read("a")


@pytest.mark.parametrize("value", ["0", "-1", "2147483648", "4294967297", "1" * 30, "1.5", "1_0"])
def test_ids_of_official_cihp_truth(tmp_path, value):
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(tmp_path / "a.png")
    for line, name in ((f"2 1 {value}", "human"), (f"{value} 1 2", "segment")):
        (tmp_path / "a.txt").write_text(f"1 1 1\n{line}\n")
        with pytest.raises(ValueError, match=rf"a\.txt, line 2: {name} must be .*got '{value}'"):
            TRUTH_READERS["cihp"](tmp_path, PERSON).read("a")


@pytest.mark.parametrize("value", ["0", "-1", "4294967297", "x"])
def test_persons_of_mhp(tmp_path, make_pair, value):
    export_predictions("mhp", tmp_path, PERSON, [("a", make_pair(0)[0])])
    (tmp_path / "results.txt").write_text(f"a {value} 0.5\n")
    with pytest.raises(ValueError, match=rf"results\.txt, line 1: person must be .*got '{value}'"):
        PREDICTION_READERS["mhp"](tmp_path, PERSON)


def test_ids_that_python_gives():
    """Whoever makes a Parsing without files."""
    maps = np.array([[0, 1, 2]])
    truth = Parsing.of_maps(maps, maps, object_ids=[1, 2], object_classes=[0, 0])
    for ids in ([0, 1], [1, 1], [-1, 2]):
        wrong = Parsing.of_maps(maps, maps, object_ids=ids, object_classes=[0, 0])
        with pytest.raises(ValueError, match="Image 'a': object_ids must be at least 1, each once"):
            numbers(wrong, truth)
    with pytest.raises(ValueError, match="has the id -2; only -1"):
        numbers(Parsing(part_map=np.array([[0, 1, -2]])), truth)
    with pytest.raises(ValueError, match="hold ids, integers; got .*float64"):
        numbers(Parsing(part_map=np.array([[0, 1, 1.5]])), truth)


# --- what comes twice, or disagrees ---


def twice(key):
    return lambda content: content[key].append(content[key][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice("annotations"), "has image a twice"),
        (twice("images"), "has image 'a' twice"),
        (twice("categories"), "has category 1 twice"),
        (
            lambda c: c["annotations"].append(c["annotations"][0] | {"image_id": "b"}),
            r"names '.*a\.png' twice",
        ),
        (lambda c: c["images"][0].update(height=39), r"is \(40, 48\) .* says \(39, 48\)"),
        (
            lambda c: c["categories"][0].update(name="torso"),
            "category 1 is called 'torso', which is number 2 of the taxonomy",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(object_score=0.123),
            r"object 1 of image a has the object_score .* and 0\.123",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(object_category_id=1),
            r"object_category_id of a segment of image a must be a whole number in 0\.\.0, got 1",
        ),
    ],
)
def test_panoptic_files_that_contradict_themselves(panoptic, change, message):
    edit_json(panoptic / "panoptic.json", lambda c: change(c) and None)
    if "torso" in message:  # whose own id goes away
        edit_json(panoptic / "panoptic.json", lambda c: c["categories"].pop(1) and None)
    with pytest.raises(ValueError, match=rf"panoptic\.json.*{message}|{message}"):
        PREDICTION_READERS["panoptic"](panoptic, PERSON).read("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice("annotations"), r"truth/parts\.json has annotation '1' twice"),
        (twice("images"), r"truth/parts\.json has image 'a' twice"),
        (twice("categories"), r"truth/parts\.json has category 1 twice"),
        (
            lambda c: c["images"][0].update(width=50),
            r"\(40, 50\) in .*parts\.json, but \(40, 48\) in",
        ),
        (
            lambda c: c["images"].append({"id": "b", "height": 3, "width": 3}),
            "Image b is .* missing",
        ),
        (
            lambda c: c["categories"][0].update(name="legs", id=9),
            "number 4 of the taxonomy|is called",
        ),
    ],
)
def test_coco_truth_that_contradicts_itself(coco, change, message):
    edit_json(coco / "truth/parts.json", lambda c: change(c) and None)
    if "number 4" in message:
        edit_json(coco / "truth/parts.json", lambda c: c["categories"].pop(3) and None)
    with pytest.raises(ValueError, match=message):
        read_coco(coco)


def test_official_cihp_truth_that_names_a_segment_twice(tmp_path):
    Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).save(tmp_path / "a.png")
    for again in ("1 1 1", "1 2 1"):
        (tmp_path / "a.txt").write_text(f"1 1 1\n2 1 2\n{again}\n")
        with pytest.raises(ValueError, match=r"a\.txt names the segment 1 twice"):
            TRUTH_READERS["cihp"](tmp_path, PERSON).read("a")


def test_images_json_of_partpq(tmp_path, make_pair):
    export_predictions("partpq", tmp_path, PERSON, [("a", make_pair(0)[0])])
    PREDICTION_READERS["partpq"](tmp_path, PERSON).read("a")
    images = tmp_path / "images.json"
    whole = images.read_text()
    images.write_text(whole.replace("a.png", "b.png"))
    with pytest.raises(
        ValueError, match=r"images\.json: image 0: file_name is 'b', but there is no"
    ):
        PREDICTION_READERS["partpq"](tmp_path, PERSON)
    images.write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match=r"a\.png is not in .*images\.json"):
        PREDICTION_READERS["partpq"](tmp_path, PERSON)
    images.unlink()
    PREDICTION_READERS["partpq"](tmp_path, PERSON).read("a")


def test_person_files_of_mhp_that_disagree(tmp_path):
    for name in ("1_02_01", "1_03_02"):
        Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"1_03_02\.png is one of 3 persons, 1_02_01\.png is not"):
        TRUTH_READERS["mhp"](tmp_path, PERSON)


def test_persons_of_mhp_without_a_line(tmp_path, make_pair):
    pairs = [(i, make_pair(0)[0]) for i in "ab"]
    export_predictions("mhp", tmp_path, PERSON, pairs)
    (tmp_path / "results.txt").write_text((tmp_path / "results.txt").read_text().splitlines()[0])
    reader = PREDICTION_READERS["mhp"](tmp_path, PERSON)
    assert reader.image_ids() == ["a", "b"]
    with pytest.raises(ValueError, match=r"b\.png has person 1, whose score .*results\.txt"):
        reader.read("b")


# --- names, folders, codings ---


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "..\\a.png", "", None, 3, "a\0"])
def test_file_names_stay_in_their_folder(panoptic, name):
    edit_json(panoptic / "panoptic.json", lambda c: c["annotations"][0].update(file_name=name))
    with pytest.raises(ValueError, match=r"panoptic\.json: annotation 0: file_name "):
        PREDICTION_READERS["panoptic"](panoptic, PERSON)


def test_other_names_stay_in_their_folder(tmp_path, make_pair):
    export_predictions("mhp", tmp_path / "mhp", PERSON, [("a", make_pair(0)[0])])
    (tmp_path / "mhp/results.txt").write_text("../a 1 0.5\n")
    with pytest.raises(ValueError, match=r"line 1: <id> is '\.\./a', which leads out of"):
        PREDICTION_READERS["mhp"](tmp_path / "mhp", PERSON)
    export_predictions("partpq", tmp_path / "partpq", PERSON, [("a", make_pair(0)[0])])
    edit_json(
        tmp_path / "partpq/images.json", lambda c: c["images"][0].update(file_name="../a.png")
    )
    with pytest.raises(ValueError, match="which leads out of"):
        PREDICTION_READERS["partpq"](tmp_path / "partpq", PERSON)


def test_text_with_a_byte_order_mark_and_other_codings(tmp_path, make_pair):
    export_predictions("cihp", tmp_path, PERSON, [("a", make_pair(0)[0])])
    table = tmp_path / "instance_parsing/a.txt"
    expected, whole = PREDICTION_READERS["cihp"](tmp_path, PERSON).read("a"), table.read_text()
    table.write_text(whole, encoding="utf-8-sig")
    read = PREDICTION_READERS["cihp"](tmp_path, PERSON).read("a")
    assert read.segment_parts.tolist() == expected.segment_parts.tolist()
    table.write_text(whole, encoding="utf-16")
    with pytest.raises(ValueError, match=r"a\.txt is not text in UTF-8: byte 0xff at 0"):
        PREDICTION_READERS["cihp"](tmp_path, PERSON).read("a")


@pytest.mark.parametrize("name", ["global_parsing", "instance_segmentation", "instance_parsing"])
def test_a_file_in_the_place_of_a_folder(tmp_path, make_pair, name):
    export_predictions("cihp", tmp_path, PERSON, [("a", make_pair(0)[0])])
    (tmp_path / name).rename(tmp_path / "away")
    (tmp_path / name).write_text("")
    with pytest.raises(NotADirectoryError, match=f"{name} must be a folder, but is a file"):
        PREDICTION_READERS["cihp"](tmp_path, PERSON)


# --- values of other kinds ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(images=None),
            r"images must be a list \[\.\.\.\], got None",
        ),
        (lambda c: c.update(annotations=None), "annotations must be a list"),
        (lambda c: c.update(categories={}), "categories must be a list"),
        (lambda c: c["categories"][0].pop("id"), "category 0 has no 'id'"),
        (lambda c: c["categories"].append(3), "category 5 must be an object with id, name; got 3"),
        (lambda c: c["images"][0].update(height=None), "image 0: height must be a whole number"),
        (lambda c: c["images"][0].update(id=None), "image 0: id must be a text or a whole number"),
        (lambda c: c["annotations"][0].update(iscrowd=None), "image a: iscrowd must be 0 or 1"),
        (lambda c: c["annotations"][0].update(category_id=None), "image a: category_id must be"),
        (lambda c: c["annotations"][0].update(image_id=None), "region 0: image_id must be a text"),
        (lambda c: c["annotations"][0].update(id=[1]), "id of an annotation must be a text"),
        (
            lambda c: c["annotations"][0]["segmentation"].update(counts=None),
            "mask 0: counts must be",
        ),
        (lambda c: c["annotations"][0]["segmentation"].update(size=None), "mask 0: size must be"),
        (lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6]), "is not x, y"),
    ],
)
def test_coco_values_of_other_kinds(coco, change, message):
    edit_json(coco / "truth/parts.json", lambda c: change(c) and None)
    with pytest.raises(ValueError, match=rf"truth/parts\.json.*{message}"):
        find_taxonomy(None, coco / "truth", "coco")
        read_coco(coco)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("part_names", 3, r"part_names must be a list \[\.\.\.\], got 3"),
        ("part_names", ["a", None], "a value of part_names must be a text, got None"),
        ("part_owner", [0, 0, 1, 0.5], "a value of part_owner must be a whole number in 0"),
        ("part_owner", [0, 0, 1, 2], r"taxonomy\.json: Part 'door' is owned by object class 2"),
        ("flip_pairs", [1, 2], "a value of flip_pairs must be a list"),
        ("flip_pairs", [[1, None]], "a value of flip_pairs must be a whole number"),
        ("part_colors", [["red"]], "a value of part_colors must be a whole number"),
        ("part_regions", None, "part_regions must be a list"),
    ],
)
def test_taxonomies_of_other_kinds(tmp_path, key, value, message):
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps(ZOO.to_dict() | {key: value}))
    with pytest.raises(ValueError, match=rf"taxonomy\.json: .*{message}|{message}"):
        read_taxonomy(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold an object"),
        ({"a": [1]}, "image 'a' must be an object"),
        ({"a": {"x": "dog"}}, "image 'a' has the object id 'x'"),
        ({"a": {"-1": "dog"}}, "image 'a' has the object id '-1'"),
        ({"a": {"1": None}}, "image 'a' names the object class None; known: dog, car"),
    ],
)
def test_object_classes_of_other_kinds(tmp_path, content, message):
    for name in ("Category_ids", "Human_ids"):
        (tmp_path / name).mkdir()
    (tmp_path / "object_classes.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"object_classes\.json.*{message}"):
        TRUTH_READERS["cihp"](tmp_path, ZOO)
