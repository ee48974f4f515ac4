"""Detections that cannot be right are refused; those without a pixel are left out, and told."""

import pytest
import torch

from instance_crf.own_models.boxes import check_detections, read_detections
from instance_crf.own_models.inputs import Detections

SIZE = (60, 80)


def build(boxes, scores=None, **fields):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.ones(len(boxes)) if scores is None else torch.tensor(scores)
    return Detections(boxes, scores, **fields)


def test_nothing_changes_what_is_right():
    given = build([[1, 2, 30, 40], [-5, -3, 90, 70]], [0.0, 1.0])
    found = check_detections(given, SIZE)
    assert torch.equal(found.boxes, given.boxes) and torch.equal(found.scores, given.scores)
    assert found.notes == () and found.index is None


@pytest.mark.parametrize("scores, words", [
    ([0.5, 97.0], r"0\.5\.\.97.*percent\? Divide them by 100"),
    ([-1.5, 3.0], r"-1\.5\.\.3.*logits\?"),
    ([0.5, -0.1], "logits"),
    ([0.5, 1200.0], "not scores at all"),
    ([0.5, float("nan")], "Row 1 of the scores hold NaN"),
])  # fmt: skip
def test_scores(scores, words):
    with pytest.raises(ValueError, match=words):
        check_detections(build([[1, 2, 30, 40]] * 2, scores), SIZE)


def test_rounding_above_1_is_no_error():
    found = check_detections(build([[1, 2, 30, 40]], [1.0005]), SIZE)
    assert found.scores.tolist() == [1.0]


def test_x_y_width_height_is_told_with_the_numbers():
    with pytest.raises(ValueError) as error:
        check_detections(build([[5, 5, 50, 50], [60, 20, 15, 30], [70, 30, 5, 20]]), SIZE)
    message = str(error.value)
    assert "Row 1, 2 of 3 boxes" in message and "[60, 20, 15, 30], where x2 15 < x1 60" in message
    assert "looks like x, y, width, height" in message
    assert "boxes[:, 2:] += boxes[:, :2]" in message
    boxes = torch.tensor([[60.0, 20, 15, 30]])
    boxes[:, 2:] += boxes[:, :2]  # as it says
    assert len(check_detections(Detections(boxes, torch.ones(1)), SIZE)) == 1
    with pytest.raises(ValueError, match="y2 20 < y1 30"):
        check_detections(build([[10, 30, 50, 20]]), SIZE)


def test_boxes_relative_to_the_image():
    relative = build([[0.1, 0.2, 0.5, 1.0], [-0.01, 0.0, 1.02, 0.7], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"within 0..1.*80x60 pixels.*target_sizes=\[\(60, 80\)\]"):
        check_detections(relative, SIZE)
    assert len(check_detections(build([[0.1, 0.2, 0.5, 1.0]]), (2, 2))) == 1
    assert len(check_detections(build([[0.1, 0.2, 0.5, 1.0], [3, 3, 9, 9]]), SIZE)) == 2


def test_not_finite():
    with pytest.raises(ValueError, match="Row 1 of the boxes hold NaN or infinity"):
        check_detections(build([[1, 2, 3, 4], [1, 2, float("inf"), 4]]), SIZE)
    points = torch.zeros(1, 2, 3)
    points[0, 1, 0] = float("nan")
    with pytest.raises(ValueError, match="Row 0 of the keypoints"):
        check_detections(build([[1, 2, 3, 4]], keypoints=points), SIZE)


def test_boxes_whose_area_is_no_number():
    with pytest.raises(ValueError, match="Row 0 of the boxes hold NaN or infinity"):
        check_detections(build([[-1e30, -1e30, 1e30, 1e30]]), SIZE)


def test_confidence_of_keypoints():
    points = torch.tensor([[[5.0, 5, 2], [6, 6, 0]]])
    with pytest.raises(ValueError, match="0..2.*use v > 0"):
        check_detections(build([[1, 2, 3, 4]], keypoints=points), SIZE)


def test_empty_and_outside_are_left_out_and_told():
    boxes = [
        [10, 10, 20, 20],
        [10, 10, 10, 20],
        [90, 10, 99, 20],
        [0, 0, 80, 60],
        [5, 60, 20, 66],
        [-9, -9, 0, 4],
    ]
    masks = torch.arange(6)[:, None, None].expand(6, 60, 80) / 10
    given = build(boxes, class_names=tuple("abcdef"), masks=masks)
    found = check_detections(given, SIZE)
    assert found.index.tolist() == [0, 3] and found.class_names == ("a", "d")
    assert found.boxes.tolist() == [boxes[0], boxes[3]]
    assert found.masks[:, 0, 0].tolist() == pytest.approx([0, 0.3])
    assert found.notes == ("1 left out, without an area: box 1 [10, 10, 10, 20].",)
    assert found.doubts == (
        "3 left out, outside of the image, 80x60: box 2 [90, 10, 99, 20], 4 [5, 60, 20, 66], "
        "5 [-9, -9, 0, 4].",
    )
    assert found.given == 6
    again = check_detections(found, SIZE)
    assert (again.notes, again.doubts, again.given) == (
        found.notes,
        found.doubts,
        6,
    ) and again.index.tolist() == [0, 3]


def test_what_is_empty_and_outside_is_told_once():
    found = check_detections(build([[90, 10, 90, 20]]), SIZE)
    assert len(found) == 0 and len(found.notes) == 1 and not found.doubts


def test_long_lists_are_cut():
    found = check_detections(build([[10, 10, 10, 20]] * 7 + [[1, 1, 5, 5]]), SIZE)
    assert found.notes[0].startswith("7 left out") and found.notes[0].endswith("and 4 more.")
    assert found.index.tolist() == [7]


def test_rows_of_a_second_check_are_those_of_the_first_input():
    first = check_detections(build([[5, 5, 5, 9], [5, 5, 9, 9], [50, 40, 70, 50]]), SIZE)
    second = check_detections(first, (30, 40))  # as if the image were smaller
    assert second.index.tolist() == [1] and "box 2 [50, 40, 70, 50]" in second.doubts[-1]


def test_boxes_of_a_larger_image_are_doubted():
    found = check_detections(build([[10, 10, 200, 50], [1, 1, 9, 9]]), SIZE)
    assert len(found) == 2
    doubt = "1 of 2 boxes reach far beyond the image, 80x60, as [10, 10, 200, 50]: are they of an"
    assert doubt in found.doubts[0] and not found.notes


def test_boxes_of_the_image_before_it_was_turned():
    """Of 80 x 60 pixels, which its file has; the tag says that it is 60 x 80."""
    found = check_detections(build([[10, 10, 66, 58], [0, 0, 30, 40]]), (80, 60))
    assert (
        len(found) == 2 and "66, 58]: are they of the image before it was turned" in found.doubts[0]
    )
    assert not check_detections(build([[10, 10, 61, 70]]), (80, 60)).doubts
    assert not check_detections(build([]), (80, 60)).doubts


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"class_names": ("person",)}, "2 boxes, but 1 class_names"),
        ({"masks": torch.zeros(1, 60, 80)}, "2 boxes, but 1 masks"),
        ({"masks": torch.zeros(2, 30, 40)}, "masks are 40x30 pixels, but the image is 80x60"),
        ({"keypoints": torch.zeros(3, 17, 3)}, "2 boxes, but 3 keypoints"),
        ({"index": torch.zeros(5)}, "2 boxes, but 5 index"),
        ({"index": torch.arange(2)}, "index .* given .*: give both"),
    ],
)
def test_fields_that_disagree(fields, words):
    with pytest.raises(ValueError, match=words):
        check_detections(build([[1, 2, 30, 40]] * 2, **fields), SIZE)


def test_reading_checks():
    with pytest.raises(ValueError, match="x, y, width, height"):
        read_detections([[60, 20, 15, 30]], size=SIZE)
    assert read_detections([[60, 20, 60, 30]], size=SIZE).notes
