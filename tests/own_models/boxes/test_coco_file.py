"""Detections of many images in a file, by the photo's name."""

import json

import numpy as np
import pytest

from instance_crf.data.image_io import read_image
from instance_crf.own_models.boxes import load_detector

PIXELS = np.zeros((60, 80, 3), dtype=np.uint8)
PERSON = {1: "person"}


def entry(image_id, **fields):
    bbox = [10, 20, 20, 15]
    return {"image_id": image_id, "category_id": 1, "bbox": bbox, "score": 0.5, **fields}


def write(path, content):
    path.write_text(json.dumps(content))
    return f"coco:{path}"


def photos(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


@pytest.mark.parametrize("image_id", ["a", "a.jpg", "a.png", "photos/a.jpg", "photos/a"])
def test_ids_that_are_names(image_id, tmp_path):
    spec = write(tmp_path / "r.json", [entry(image_id), entry("b"), entry(image_id, score=0.01)])
    source = load_detector(spec, class_names=PERSON)
    found = source(PIXELS, tmp_path / "photos" / "a.jpg")
    assert found.boxes.tolist() == [[10, 20, 30, 35]] and found.class_names == ("person",)
    assert found.scores.tolist() == [0.5]  # 0.01 is below least_score
    source = load_detector(spec, class_names=PERSON, least_score=0)
    assert len(source(PIXELS, tmp_path / "photos" / "a.jpg")) == 2


def test_empty_lists_are_no_masks(tmp_path):
    value = [entry("a", segmentation=[]), entry("a", segmentation=None)]
    found = load_detector(write(tmp_path / "r.json", value), class_names=PERSON)(PIXELS, "a.jpg")
    assert len(found) == 2 and found.masks is None


@pytest.mark.parametrize("value", [[], [entry("a", iscrowd=1)], {"images": [], "annotations": []}])
def test_files_without_detections(tmp_path, value):
    source = load_detector(write(tmp_path / "r.json", value), class_names=PERSON)
    with pytest.raises(ValueError, match=r"r\.json has no detections of any image"):
        source(PIXELS, tmp_path / "a.jpg")


def test_ids_that_are_numbers(tmp_path):
    source = load_detector(write(tmp_path / "r.json", [entry(139)]), class_names=PERSON)
    for name in ("000000000139.jpg", "139.png"):
        assert len(source(PIXELS, tmp_path / name)) == 1


def test_the_whole_name_goes_before_its_beginning(tmp_path):
    value = [entry("a.jpg"), entry("a.png", bbox=[1, 1, 5, 5])]
    source = load_detector(write(tmp_path / "r.json", value), class_names=PERSON)
    assert source(PIXELS, tmp_path / "a.png").boxes.tolist() == [[1, 1, 6, 6]]
    with pytest.raises(ValueError, match=r"several images for .*a\.webp: a\.jpg, a\.png"):
        source(PIXELS, tmp_path / "a.webp")
    value = [entry("train/a.jpg"), entry("val/a.jpg", bbox=[1, 1, 5, 5])]
    source = load_detector(write(tmp_path / "r.json", value), class_names=PERSON)
    assert source(PIXELS, tmp_path / "val" / "a.jpg").boxes.tolist() == [[1, 1, 6, 6]]


def test_a_photo_that_results_do_not_list_has_no_detections(tmp_path):
    source = load_detector(write(tmp_path / "r.json", [entry("a")]), class_names=PERSON)
    known, other = photos(tmp_path / "photos", "a.jpg", "b.jpg")
    found = source(PIXELS, other)
    assert len(found) == 0 and found.known_classes == ("person",)
    assert len(source(PIXELS, known)) == 1
    foreign = photos(tmp_path / "others", "c.jpg", "d.jpg")[0]
    with pytest.raises(ValueError, match=r"c\.jpg nor of any other file beside it.*ids are a"):
        source(PIXELS, foreign)
    with pytest.raises(ValueError, match="nor of any other"):  # a folder that does not exist
        source(PIXELS, tmp_path / "none" / "x.jpg")


def test_numbers_of_categories_need_a_table(tmp_path):
    source = load_detector(write(tmp_path / "r.json", [entry("a")]))
    with pytest.raises(ValueError, match="class_names="):
        source(PIXELS, tmp_path / "a.jpg")


def coco(**changes):
    return {
        "images": [
            {"id": 7, "file_name": "val/a.jpg", "height": 60, "width": 80},
            {"id": 8, "file_name": "b.jpg"},
        ],
        "annotations": [entry(7), entry(7, iscrowd=1), {**entry(7, category_id=18), "score": 0.25}],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        **changes,
    }


def test_a_coco_file(tmp_path):
    source = load_detector(write(tmp_path / "c.json", coco()))
    found = source(PIXELS, tmp_path / "val" / "a.jpg")
    assert found.class_names == ("person", "dog") and found.scores.tolist() == [0.5, 0.25]
    assert found.known_classes == ("person", "dog")
    assert len(source(PIXELS, tmp_path / "a.jpg")) == 2
    assert len(source(PIXELS, tmp_path / "b.jpg")) == 0
    with pytest.raises(ValueError, match=r"has no image c\.jpg; it has val/a\.jpg, b\.jpg"):
        source(PIXELS, tmp_path / "c.jpg")
    with pytest.raises(ValueError, match="is 80x60 pixels, but it is 60x80"):
        source(PIXELS.transpose(1, 0, 2), tmp_path / "a.jpg")


def test_predictions_go_before_annotations(tmp_path):
    content = coco(predictions=[entry(8)])
    source = load_detector(write(tmp_path / "c.json", content))
    assert len(source(PIXELS, tmp_path / "a.jpg")) == 0
    assert len(source(PIXELS, tmp_path / "b.jpg")) == 1


def test_results_with_the_table_of_another_file(tmp_path):
    spec = write(tmp_path / "r.json", [entry(7), entry(8, category_id=18)])
    write(tmp_path / "c.json", coco())
    source = load_detector(spec, images=tmp_path / "c.json")
    assert source(PIXELS, tmp_path / "a.jpg").class_names == ("person",)
    assert source(PIXELS, tmp_path / "b.jpg").class_names == ("dog",)
    source = load_detector(spec, images=tmp_path / "c.json", class_names={1: "human", 18: "wolf"})
    assert source(PIXELS, tmp_path / "b.jpg").class_names == ("wolf",)
    with pytest.raises(ValueError, match="1 image ids of the detections, e.g. 9, are not in"):
        load_detector(write(tmp_path / "r.json", [entry(9)]), images=tmp_path / "c.json")
    with pytest.raises(ValueError, match="no table 'images'"):
        load_detector(spec, images=tmp_path / "r.json")
    with pytest.raises(FileNotFoundError, match="COCO file"):
        load_detector(spec, images=tmp_path / "none.json")


def test_boxes_by_name(tmp_path):
    content = {
        "a": {"boxes": [[1, 2, 30, 40], [5, 5, 9, 9]], "scores": [0.9, 0.01]},
        "b": {"boxes": [], "scores": []},
    }
    source = load_detector(write(tmp_path / "n.json", content))
    found = source(PIXELS, tmp_path / "a.jpg")
    assert found.boxes.tolist() == [[1, 2, 30, 40]] and found.class_names is None
    assert found.index.tolist() == [0]
    assert len(source(PIXELS, tmp_path / "b.jpg")) == 0
    with pytest.raises(ValueError, match=r"has no image c\.jpg; it has a, b"):
        source(PIXELS, tmp_path / "c.jpg")
    content["a"]["labels"] = ["person", "dog"]
    source = load_detector(write(tmp_path / "n.json", content))
    assert source(PIXELS, tmp_path / "a.jpg").class_names == ("person",)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"a": [1, 2]}, "neither a list of COCO results"),
        ({"images": [], "categories": []}, "neither a list"),
        ({"images": [], "annotations": [], "categories": [{"id": 1}]}, "category 0 has no 'name'"),
        ([{"bbox": [1, 2, 3, 4]}], "entry 0 has no 'image_id'"),
        ([3], "entry 0 must be an object with image_id; got 3"),
        ({"images": [{"id": 3}], "annotations": []}, "image 0 has no 'file_name'"),
        (coco(annotations=[entry(7), entry(7, iscrowd="0")]), "entry 1: iscrowd must be 0 or 1"),
        ("text", "neither a list"),
    ],
)
def test_other_files(content, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load_detector(write(tmp_path / "x.json", content))


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.json does not exist"):
        load_detector(f"coco:{tmp_path / 'x.json'}")
    (tmp_path / "x.json").write_text("[1,")
    with pytest.raises(ValueError, match=r"x\.json is not JSON"):
        load_detector(f"coco:{tmp_path / 'x.json'}")


def test_the_photo_must_be_known(tmp_path):
    source = load_detector(write(tmp_path / "r.json", [entry("a")]), class_names=PERSON)
    with pytest.raises(ValueError, match="give its path"):
        source(PIXELS)


def test_kept_boxes_of_photographs(real_folder):
    path = real_folder / "boxes/yolox_nano.json"
    source, known = load_detector(f"coco:{path}", least_score=0.3), json.loads(path.read_text())
    photo = real_folder / "photos/cihp_12008.jpg"
    found = source(read_image(photo), photo)
    expected = [
        box for box, score in zip(*known["cihp_12008"].values(), strict=True) if score >= 0.3
    ]
    assert np.allclose(found.boxes.numpy(), expected)
