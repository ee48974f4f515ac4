"""The files of photographs with somebody's outputs: right ones are found, wrong ones named."""

import json

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation.toolkit.person_maps import compare_person_maps
from instance_crf.evaluation.toolkit.photographs import (
    find_photographs,
    partly_annotated,
    read_photograph,
)

SIZE = (12, 16)
PEOPLE = np.zeros(SIZE, np.uint8)
PEOPLE[2:9, 2:7], PEOPLE[3:11, 9:14] = 1, 2


@pytest.fixture
def folder(tmp_path):
    for name in ("photos", "boxes", "q", "truth"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "photos/a.png")
    Image.fromarray(PEOPLE).save(tmp_path / "truth/a_persons.png")
    boxes = {"boxes": [[2, 2, 7, 9], [9, 3, 14, 11]], "scores": [0.9, 0.8]}
    (tmp_path / "boxes/any.json").write_text(json.dumps({"a": boxes}))
    write_q(tmp_path)
    return tmp_path


def write_q(folder, **changes):
    arrays = {"person_logit": np.ones((1, 4, 5)), "part_logits": np.ones((24, 4, 5))} | changes
    np.savez(folder / "q/a.npz", **arrays)


def test_gaps_between_ids_are_no_people(folder):
    """Person 3 of 1 and 3 is the second; nobody is the person 2 whom nobody finds."""
    Image.fromarray(np.where(PEOPLE == 2, 3, PEOPLE)).save(folder / "truth/a_persons.png")
    photograph = read_photograph(find_photographs(folder)[0], 16)
    assert np.array_equal(photograph.truth, PEOPLE)
    counts = compare_person_maps(PEOPLE, photograph.truth, photograph.boxes, photograph.scores)
    assert counts.ious.tolist() == [1, 1] and counts.positives == 2


def test_the_photo_of_a_longer_name_is_another(folder):
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(folder / "photos/a.b.png")
    assert find_photographs(folder)[0]["photo"].name == "a.png"
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(folder / "photos/a.jpg")
    with pytest.raises(ValueError, match=r"Two files for one id: .*a\.jpg and .*a\.png"):
        find_photographs(folder)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "'a' must be an object with boxes, scores; got None"),
        ({"boxes": []}, "'a' has no 'scores'"),
        ({"boxes": [[1, 2, 3, 4]], "scores": []}, "'a' has 1 boxes and 0 scores"),
        ({"boxes": [[1, 2, 3]], "scores": [1]}, "a box must be x1, y1, x2, y2"),
        ({"boxes": [[1, 2, 3, float("nan")]], "scores": [1]}, "boxes must be finite, got nan"),
        ({"boxes": [[1, 2, 3, 4]], "scores": ["1"]}, "scores must be a number, got '1'"),
    ],
)
def test_wrong_boxes(folder, entry, message):
    (folder / "boxes/any.json").write_text(json.dumps({"a": entry}))
    with pytest.raises(ValueError, match=rf"any\.json: '?{message}|any\.json: .*{message}"):
        find_photographs(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"person_logit": np.ones((4, 5))}, r"person_logit is \(4, 5\); expected \(1, h, w\)"),
        ({"part_logits": np.ones((23, 4, 5))}, r"part_logits is \(23, 4, 5\); expected \(24, h, w"),
        ({"part_logits": np.full((24, 4, 5), np.nan)}, "part_logits has NaN or infinity"),
        ({"part_logits": np.array(["x"])}, "has no arrays person_logit and part_logits"),
    ],
)
def test_wrong_outputs(folder, changes, message):
    write_q(folder, **changes)
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        read_photograph(find_photographs(folder)[0], 16)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,yes", "truth_partial of 'a' is 'yes', not 0 or 1"),
        ("a,1\na,0", "'a' twice, with both truth_partial 0 and 1"),
    ],
)
def test_wrong_tables(tmp_path, rows, message):
    table = tmp_path / "photos.csv"
    table.write_text(f"name,truth_partial\n{rows}\n")
    with pytest.raises(ValueError, match=rf"photos\.csv.*{message}"):
        partly_annotated(tmp_path)
    table.write_text("name,truth_partial\na,1\nb,0\n", encoding="utf-8-sig")
    assert partly_annotated(tmp_path) == {"a"}


def test_person_maps_of_other_kinds():
    boxes, scores = np.array([[2.0, 2, 7, 9], [9, 3, 14, 11]]), np.array([0.9, 0.8])
    with pytest.raises(ValueError, match=r"persons -1\.\.2"):
        compare_person_maps(PEOPLE.astype(int) - (PEOPLE == 1) * 2, PEOPLE, boxes, scores)
    for wrong in ((boxes * np.nan, scores), (boxes, scores * np.inf), (boxes[:1], scores)):
        with pytest.raises(ValueError, match="all finite"):
            compare_person_maps(PEOPLE, PEOPLE, *wrong)
