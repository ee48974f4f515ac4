"""Broken and contradictory files: a message with the file's name and what was expected."""

import json

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation.toolkit.export import export_predictions
from instance_crf.evaluation.toolkit.formats import PREDICTION_READERS, TRUTH_READERS
from instance_crf.evaluation.toolkit.formats.coco import (
    COCOPredictions,
    COCOTruth,
    write_coco_truth,
)
from instance_crf.taxonomies.schema import PartTaxonomy

PERSON = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))


@pytest.fixture
def cihp(tmp_path, make_pair):
    """A good folder of predictions in the CIHP format; its first image is called a."""
    prediction, _ = make_pair(0)
    export_predictions("cihp", tmp_path, PERSON, [("a", prediction)])
    return tmp_path


def read(folder, format_name="cihp", image_id="a"):
    return PREDICTION_READERS[format_name](folder, PERSON).read(image_id)


def edit(path, change):
    path.write_text(change(path.read_text()))


def test_a_line_without_a_segment(cihp):
    edit(cihp / "instance_parsing/a.txt", lambda text: text + "2 0.5\n")
    lines = len((cihp / "instance_parsing/a.txt").read_text().splitlines())
    with pytest.raises(ValueError, match=rf"a\.txt, line {lines}: no pixel of .*a\.png has the"):
        read(cihp)


def test_a_segment_without_a_line(cihp):
    edit(cihp / "instance_parsing/a.txt", lambda text: "".join(text.splitlines(True)[:-1]))
    with pytest.raises(ValueError, match=r"a\.png has a segment of value \d+, but .*a\.txt has"):
        read(cihp)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 nan", r"a\.txt, line 1: score must be finite, got 'nan'"),
        ("2 high", r"a\.txt, line 1: score must be a number, got 'high'"),
        ("2.5 0.5", r"a\.txt, line 1: part must be a whole number, got '2.5'"),
        ("2", r"a\.txt, line 1: expected 'part score', got '2'"),
        ("9 0.5", r"a\.txt, line 1: class 9, expected 1..4"),
        ("0 0.5", r"a\.txt, line 1: class 0, expected 1..4"),
    ],
)
def test_a_wrong_line(cihp, line, message):
    def first(text):
        return "".join([line + "\n", *text.splitlines(True)[1:]])

    edit(cihp / "instance_parsing/a.txt", first)
    with pytest.raises(ValueError, match=message):
        read(cihp)


@pytest.mark.parametrize("name", ["global_parsing/a.png", "instance_segmentation/a.png"])
def test_sizes_that_differ(cihp, name):
    Image.open(cihp / name).resize((20, 30), Image.NEAREST).save(cihp / name)
    with pytest.raises(ValueError, match=r"is 20x30 pixels, but .* is 48x40"):
        read(cihp)


def test_a_palette_png_is_read_as_ids(cihp):
    path = cihp / "global_parsing/a.png"
    expected = read(cihp).part_map
    image = Image.fromarray(np.asarray(Image.open(path)))
    image.putpalette([38, 75, 113, 14, 52, 89] * 128)
    assert image.mode == "P"
    image.save(path)
    np.testing.assert_array_equal(read(cihp).part_map, expected)


def test_a_colour_png_is_refused(cihp):
    path = cihp / "instance_parsing/a.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError, match=r"instance_parsing/a\.png is a colour picture"):
        read(cihp)


def test_a_truncated_png(cihp):
    path = cihp / "instance_parsing/a.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"instance_parsing/a\.png"):
        read(cihp)


def test_a_missing_file(cihp):
    (cihp / "instance_parsing/a.txt").unlink()
    (cihp / "instance_parsing/b.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"instance_parsing/a\.txt does not exist"):
        read(cihp)
    with pytest.raises(FileNotFoundError, match=r"instance_parsing/b\.png"):
        read(cihp, image_id="b")


def test_an_unknown_part_in_the_part_map(cihp):
    path = cihp / "global_parsing/a.png"
    label_map = np.asarray(Image.open(path)).copy()
    label_map[0, :3] = 17
    Image.fromarray(label_map).save(path)
    with pytest.raises(ValueError, match=r"global_parsing/a\.png has part id 17 \(3 pixels\)"):
        read(cihp)


@pytest.mark.parametrize(
    ("format_name", "message"),
    [
        ("cihp", "has no .txt file; the cihp format has"),
        ("tvg", "has no .txt file; the tvg format has"),
        ("mhp", "results.txt does not exist"),
        ("panoptic", "COCO panoptic"),
        ("partpq", "has no <id>.png"),
    ],
)
def test_a_folder_of_another_format(tmp_path, format_name, message):
    with pytest.raises(FileNotFoundError, match=message):
        PREDICTION_READERS[format_name](tmp_path, PERSON)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        PREDICTION_READERS[format_name](tmp_path / "nowhere", PERSON)


def test_ground_truth_folders_of_another_format(tmp_path):
    for format_name in TRUTH_READERS:
        with pytest.raises(FileNotFoundError, match=str(tmp_path)):
            TRUTH_READERS[format_name](tmp_path, PERSON)


# --- ground truth ---


def test_official_cihp_ground_truth_that_contradicts_itself(tmp_path):
    Image.fromarray(np.array([[0, 1, 5]], dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("1 2 1\n")
    reader = TRUTH_READERS["cihp"](tmp_path, PERSON)
    with pytest.raises(ValueError, match=r"a\.png has the value 5, which no line of .*a\.txt"):
        reader.read("a")
    (tmp_path / "a.txt").write_text("1 2 1\n5 1 1\n7 1 2\n")
    with pytest.raises(ValueError, match=r"a\.txt names the segment 7, which has no pixel"):
        reader.read("a")


def test_mhp_ground_truth_with_a_person_missing(tmp_path):
    Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / "12_02_01.png")
    with pytest.raises(ValueError, match="has 1 of the 2 person files of image 12"):
        TRUTH_READERS["mhp"](tmp_path, PERSON).read("12")


# --- the other formats ---


def test_tvg_lines_and_segments_that_disagree(tmp_path, make_pair):
    prediction, _ = make_pair(0)
    export_predictions("tvg", tmp_path, PERSON, [("a", prediction)])
    edit(tmp_path / "a.txt", lambda text: text + "1 0.5\n")
    with pytest.raises(ValueError, match=r"a\.txt has \d+ line\(s\) for the \d+ segment\(s\)"):
        read(tmp_path, "tvg")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 1 0.9 2", "line 1: expected '<id> <person> <score> …'"),
        ("a 1 nan", "score must be finite"),
        ("a 1 0.9 9 0.5", r"lists person 9, which has no pixel in .*a\.png"),
        ("a", r"a\.png has person \d, whose score .*results\.txt does not give"),
        ("a 1 0.9 1 0.8", "line 1: image a lists person 1 twice"),
    ],
)
def test_mhp_results_that_contradict_the_maps(tmp_path, make_pair, line, message):
    prediction, _ = make_pair(0, people=1, noise=0)
    export_predictions("mhp", tmp_path, PERSON, [("a", prediction)])
    (tmp_path / "results.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "mhp")


def edited_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(), r"a\.png has segment \d+, which .*panoptic\.json does not list"),
        (lambda s: s.append({"id": 999, "category_id": 1}), "segment 999 of image a has no pixel"),
        (lambda s: s[0].update(category_id=77), "has category 77, expected 1..4"),
        (lambda s: s[0].pop("score"), "score of a segment of image a must be a number, got None"),
        (lambda s: s[0].update(score=float("nan")), "score of a segment of image a must be finite"),
        (lambda s: s[0].pop("category_id"), "a segment of image a has no 'category_id'"),
        (lambda s: s.append(s[0]), r"panoptic\.json: image a lists segment \d+ twice"),
    ],
)
def test_panoptic_json_that_contradicts_the_png(tmp_path, make_pair, change, message):
    prediction, _ = make_pair(0)
    export_predictions("panoptic", tmp_path, PERSON, [("a", prediction)])
    edited_json(tmp_path / "panoptic.json", lambda c: change(c["annotations"][0]["segments_info"]))
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "panoptic")


def test_panoptic_files_that_are_broken(tmp_path, make_pair):
    prediction, _ = make_pair(0)
    export_predictions("panoptic", tmp_path, PERSON, [("a", prediction)])
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "panoptic/a.png")
    with pytest.raises(ValueError, match=r"a\.png has mode L; expected three 8-bit channels: the"):
        read(tmp_path, "panoptic")
    path = tmp_path / "panoptic.json"
    whole = path.read_text()
    path.write_text("[]")
    with pytest.raises(
        ValueError, match=r"panoptic\.json must hold an object \{...\}, but holds a list"
    ):
        read(tmp_path, "panoptic")
    path.write_text(whole.replace("segments_info", "segments"))
    with pytest.raises(ValueError, match="annotation 0 has no 'segments_info'"):
        read(tmp_path, "panoptic")
    path.write_text(whole[:50])
    with pytest.raises(ValueError, match=r"panoptic\.json is not JSON: "):
        read(tmp_path, "panoptic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[0].update(image_id="z"), "has a region of image z, which has no ground truth"),
        (
            lambda r: r[0].update(category_id=9),
            r"parts\.json: image a: category_id must be a whole number in 1..4, got 9",
        ),
        (
            lambda r: r[0].update(score=None),
            "image a: score of a region must be a number, got None",
        ),
        (
            lambda r: r[0]["segmentation"].update(size=[3, 3]),
            "image a, mask 0 is 3x3 pixels, but the image is 48x40",
        ),
        (lambda r: r[0].pop("segmentation"), "has no RLE or polygon"),
        (lambda r: r[0]["segmentation"].pop("size"), "has no RLE or polygon"),
        (lambda r: r[0].update(segmentation=[]), "image a, mask 0: a polygon is not x, y"),
        (lambda r: r[0].update(segmentation=[[1, 2, 3]]), "image a, mask 0: a polygon is not x, y"),
        (lambda r: r[0].pop("image_id"), "region 0 has no 'image_id'"),
        (lambda r: r.append("a"), r"region \d+ must be an object with image_id; got 'a'"),
    ],
)
def test_coco_results_that_are_wrong(tmp_path, make_pair, change, message):
    prediction, truth = make_pair(0)
    write_coco_truth(tmp_path / "truth", PERSON, [("a", truth)])
    export_predictions("coco", tmp_path, PERSON, [("a", prediction)])
    edited_json(tmp_path / "parts.json", change)
    with pytest.raises(ValueError, match=message):
        read_coco = COCOTruth(tmp_path / "truth", PERSON)
        COCOPredictions(tmp_path, PERSON, read_coco).regions("parts", "a")


def test_partpq_png_with_one_channel(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has mode L; expected three 8-bit channels"):
        read(tmp_path, "partpq")
