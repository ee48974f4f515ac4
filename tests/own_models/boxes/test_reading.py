"""Arrays, tuples, dicts and files as detections."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from instance_crf.own_models.boxes import read_detections
from instance_crf.own_models.inputs import Detections

SIZE = (60, 80)
BOXES = [[10.0, 20, 30, 40], [0, 0, 79.5, 60]]
SCORES = [0.5, 0.25]


def same(found, *, names=None, scores=SCORES):
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.boxes.tolist() == BOXES and found.scores.tolist() == scores
    assert found.class_names == names and found.notes == ()
    assert found.masks is None and found.keypoints is None


@pytest.mark.parametrize(
    "value",
    [
        BOXES,
        tuple(map(tuple, BOXES)),
        np.array(BOXES),
        np.array(BOXES)[::-1][::-1],
        np.array(BOXES, dtype=">f4"),
        torch.tensor(BOXES, dtype=torch.float64, requires_grad=True),
        torch.tensor(BOXES).half(),
        [torch.tensor(box, dtype=torch.float64, requires_grad=True) for box in BOXES],
        {"boxes": BOXES},
        {"boxes": np.array(BOXES), "scores": None, "labels": None, "masks": None},
    ],
)
def test_boxes_alone_have_score_1(value):
    same(read_detections(value, size=SIZE), scores=[1, 1])


@pytest.mark.parametrize(
    "value",
    [
        (BOXES, SCORES),
        [BOXES, SCORES],
        (np.array(BOXES), np.array(SCORES)),
        (torch.tensor(BOXES), torch.tensor(SCORES, requires_grad=True)),
        ([np.array(box) for box in BOXES], SCORES),
        {"boxes": BOXES, "scores": SCORES},
        [{"boxes": BOXES, "scores": SCORES}],
        ({"boxes": BOXES, "scores": SCORES},),
    ],
)
def test_boxes_and_scores(value):
    same(read_detections(value, size=SIZE), names=None)


@pytest.mark.parametrize(
    "labels, table",
    [
        ([0, 2], ["person", "bicycle", "dog"]),
        (torch.tensor([0.0, 2.0]), {0: "person", 2: "dog"}),
        (np.array([1, 18], dtype=np.uint16), {"1": "person", "18": "dog"}),
        (["person", "dog"], None),
        (np.array(["person", "dog"]), None),
    ],
)
@pytest.mark.parametrize("key", ["labels", "classes", None])
def test_classes(labels, table, key):
    value = {"boxes": BOXES, "scores": SCORES, key: labels} if key else (BOXES, SCORES, labels)
    found = read_detections(value, size=SIZE, class_names=table)
    same(found, names=("person", "dog"))
    known = list(table.values()) if isinstance(table, dict) else table
    assert found.known_classes == (None if known is None else tuple(known))


def test_two_boxes_are_not_a_pair_of_boxes_and_scores():
    boxes = [np.array([1.0, 2, 3, 4]), np.array([2.0, 3, 4, 5])]
    assert read_detections(boxes, size=SIZE).boxes.tolist() == [[1, 2, 3, 4], [2, 3, 4, 5]]
    boxes = [list(torch.tensor(box)) for box in BOXES]
    same(read_detections(boxes, size=SIZE), scores=[1, 1])


@pytest.mark.parametrize(
    "value",
    [
        [],
        (),
        np.zeros((0, 4)),
        ([], []),
        (np.zeros((0,)), np.zeros((0,)), np.zeros((0,))),
        (torch.zeros(0, 4), torch.zeros(0)),
        {"boxes": [], "scores": [], "labels": [], "masks": [], "keypoints": []},
        {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 1, 60, 80)},
    ],
)
@pytest.mark.parametrize("table", [None, ["person", "dog"]])
def test_no_detections(value, table):
    found = read_detections(value, size=SIZE, class_names=table)
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.scores.shape == (0,)
    assert not found.class_names


def test_masks_and_keypoints():
    masks = np.zeros((2, 60, 80), dtype=bool)
    masks[0, 20:40, 10:30] = True
    points = torch.tensor([[[1.0, 2, 0.5]], [[3, 4, 1]]])
    value = {"boxes": BOXES, "masks": masks, "keypoints": points}
    found = read_detections(value, size=SIZE)
    assert found.masks.dtype == torch.bool and (found.masks.numpy() == masks).all()
    assert found.keypoints.tolist() == points.tolist()
    for same_masks in (masks.astype(np.uint8), masks[:, None], torch.tensor(masks)):
        found = read_detections({"boxes": BOXES, "masks": same_masks}, size=SIZE)
        assert found.masks.dtype == torch.bool and (found.masks.numpy() == masks).all()
    found = read_detections({"boxes": BOXES, "keypoints": points[..., :2]}, size=SIZE)
    assert found.keypoints.tolist() == [[[1, 2, 1]], [[3, 4, 1]]]
    unseen = [[[1, 2], [0, 0]], [[0, 7], [5, 0]]]
    found = read_detections({"boxes": BOXES, "keypoints": unseen}, size=SIZE)
    assert found.keypoints[..., 2].tolist() == [[1, 0], [1, 1]]


def test_soft_masks_stay_soft():
    masks = torch.rand(2, 60, 80)
    found = read_detections({"boxes": BOXES, "masks": masks.double()}, size=SIZE)
    assert found.masks.dtype == torch.float32 and torch.equal(found.masks, masks)


def test_boxes_around_masks():
    masks = torch.zeros(2, 60, 80)
    masks[0, 20:40, 10:30] = 0.5
    masks[1, 59, 79] = 1
    found = read_detections({"masks": masks, "scores": SCORES}, size=SIZE)
    assert found.boxes.tolist() == [[10, 20, 30, 40], [79, 59, 80, 60]]


def test_keys_that_are_not_used_are_noted():
    target = {"boxes": BOXES, "scores": SCORES, "image_id": 3, "area": [1, 2]}
    found = read_detections(target, size=SIZE)
    assert found.notes == ("Not used of the detections: image_id, area.",)


@pytest.mark.parametrize(
    "value, words",
    [
        ({"boxes": BOXES, "score": SCORES}, "no 'scores' among the detections, but 'score'"),
        ({"boxes": BOXES, "confidence": SCORES}, "'confidence'"),
        ({"boxes": BOXES, "category_id": [1, 2]}, "no 'labels' among the detections"),
        ({"boxes": BOXES, "masks": np.zeros((2, 80, 60))}, "masks are 60x80 .* image is 80x60"),
        ({"boxes": BOXES, "masks": np.zeros((60, 80))}, r"masks have shape \(60, 80\)"),
        ({"boxes": BOXES, "masks": np.full((2, 60, 80), 255)}, r"255\.\.255.*divide them by 255"),
        ({"boxes": BOXES, "masks": np.full((2, 60, 80), -3.0)}, "give probabilities"),
        ({"boxes": BOXES, "masks": np.full((2, 60, 80), np.nan)}, "nan..nan"),
        ({"boxes": BOXES, "masks": np.zeros((3, 60, 80))}, "2 boxes, but 3 masks"),
        ({"boxes": BOXES, "masks": []}, "masks have shape"),
        ({"boxes": BOXES, "keypoints": np.zeros((2, 17))}, r"keypoints have shape \(2, 17\)"),
        (
            {"boxes": BOXES, "keypoints": np.zeros((2, 5, 3)), "keypoints_scores": [[1]]},
            r"\(1, 1\)",
        ),
        ((BOXES, SCORES[:1]), "2 boxes, but 1 scores"),
        ((BOXES, [[0.1, 0.2], [0.3, 0.4]]), "scores have shape .*take the largest"),
        ((BOXES, SCORES, ["person"]), "2 boxes, but 1 labels"),
        ((BOXES, SCORES, [[1], [2]]), r"labels have shape \(2, 1\)"),
        (np.zeros((2, 5)), r"\(2, 5\).*give \(array\[:, :4\], array\[:, 4\]\)"),
        (np.zeros((2, 6)), r"array\[:, 4\], array\[:, 5\]\)"),
        (BOXES[0], r"boxes have shape \(4,\)"),
        ([["a", "b", "c", "d"]], "cannot be read as numbers"),
        ([[1, 2, 3, 4], [1, 2]], "cannot be read as numbers"),
        ([[1, 2, 3, 4j]], "complex"),
        ([{"boxes": BOXES}, {"boxes": BOXES}], "list of 2 outputs, one of each image"),
        ({"bboxes": BOXES}, "dict with the keys 'bboxes'; they may be"),
        (None, "NoneType; they may be"),
        (3.5, "float; they may be"),
        ("torchvision:fasterrcnn_resnet50_fpn", "loaded by load_detector"),
    ],
)
def test_what_is_no_detections(value, words):
    with pytest.raises(ValueError, match=words):
        read_detections(value, size=SIZE, class_names=None)


def test_files(tmp_path):
    as_json = tmp_path / "a.json"
    as_json.write_text(json.dumps({"boxes": BOXES, "scores": SCORES}))
    same(read_detections(as_json, size=SIZE))
    same(read_detections(str(as_json), size=SIZE))
    np.savez(tmp_path / "a.npz", boxes=BOXES, scores=SCORES)
    same(read_detections(tmp_path / "a.npz", size=SIZE))
    np.save(tmp_path / "a.npy", BOXES)
    same(read_detections(tmp_path / "a.npy", size=SIZE), scores=[1, 1])


def test_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json does not exist"):
        read_detections(tmp_path / "a.json", size=SIZE)
    for name in ("a.json", "a.npy", "a.npz"):
        (tmp_path / name).write_text("[1, 2")
        with pytest.raises(ValueError, match=f"{name}( is not JSON)?: "):
            read_detections(tmp_path / name, size=SIZE)
    with pytest.raises(ValueError, match=r"a file is \.json"):
        read_detections(Path("boxes.txt"), size=SIZE)


def test_own_detections_are_returned_as_they_are():
    masks = torch.rand(2, 60, 80)
    given = Detections(torch.tensor(BOXES), torch.tensor(SCORES), ("a", "b"), masks)
    found = read_detections(given, size=SIZE)
    assert torch.equal(found.boxes, given.boxes) and torch.equal(found.masks, masks)
    assert found.class_names == ("a", "b") and found.known_classes is None
    assert found.index is None and found.notes == ()
    found = read_detections(given, size=SIZE, class_names=["a", "b", "c"])
    assert found.known_classes == ("a", "b", "c")
    with pytest.raises(ValueError, match="logits"):
        read_detections(Detections(torch.tensor(BOXES), torch.tensor([2.0, -1])), size=SIZE)
    found = read_detections(
        Detections(torch.tensor(BOXES), torch.tensor(SCORES)), size=SIZE, class_names=["person"]
    )
    assert found.class_names == ("person", "person")


def test_taking_rows_counts_from_what_was_given():
    given = Detections(
        boxes=torch.arange(16.0).reshape(4, 4),
        scores=torch.tensor([0.1, 0.2, 0.3, 0.4]),
        class_names=("a", "b", "c", "d"),
        keypoints=torch.arange(4.0).reshape(4, 1, 1).expand(4, 5, 3),
        known_classes=("a", "b", "c", "d", "e"),
    )
    few = given.take(torch.tensor([True, False, True, True])).take(torch.tensor([2, 0]))
    assert few.class_names == ("d", "a") and few.index.tolist() == [3, 0]
    assert few.boxes[:, 0].tolist() == [12, 0] and few.keypoints[:, 0, 0].tolist() == [3, 0]
    assert few.known_classes == given.known_classes
