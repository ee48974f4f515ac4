"""PartInstances against numbers counted by hand."""

import pytest
import torch

from instance_crf.structures import SCORE_NAMES, PartInstances


def build(**changes):
    """Three detections, the second of which wins no pixel; P = 2."""
    part_prob = torch.zeros(3, 2, 4)
    part_prob[1, 0] = torch.tensor([0.9, 0.7, 0.1, 0.1])
    part_prob[2, 1] = 0.5
    arguments = {
        "object_map": torch.tensor([[1, 1, 0, 0], [1, 3, 3, 0]]),
        "part_map": torch.tensor([[1, 1, 0, 0], [2, 2, 2, 0]]),
        "boxes": torch.tensor([[0.0, 0, 2, 2], [3, 0, 4, 1], [1, 1, 3, 2]]),
        "scores": torch.tensor([0.9, 0.8, 0.6]),
        "classes": torch.tensor([0, 0, 1]),
        "part_prob": part_prob,
        "confidence": torch.full((2, 4), 0.25),
    }
    return PartInstances.from_label_maps(**{**arguments, **changes})


def test_objects_and_segments_by_hand():
    result = build()
    assert len(result) == 2 and result.image_size == (2, 4)
    assert result.object_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert result.boxes.tolist() == [[0, 0, 2, 2], [1, 1, 3, 2]]
    assert result.classes.tolist() == [0, 1]
    assert result.segment_object.tolist() == [1, 1, 2]
    assert result.segment_part.tolist() == [1, 2, 2]
    assert result.segment_area.tolist() == [2, 1, 2]


def test_scores_by_hand():
    result = build()
    assert set(result.segment_scores) == set(result.object_scores) == set(SCORE_NAMES)
    assert result.segment_scores["mean_q"].tolist() == pytest.approx([0.8, 0.5, 0.5])
    assert result.segment_scores["mean_marginal"].tolist() == pytest.approx([0.25] * 3)
    assert result.segment_scores["detection"].tolist() == pytest.approx([0.9, 0.9, 0.6])
    assert result.segment_scores["product"].tolist() == pytest.approx([0.18, 0.1125, 0.075])
    # The first object: (0.9 + 0.7 + 0.5) / 3.
    assert result.object_scores["mean_q"].tolist() == pytest.approx([0.7, 0.5])
    assert build(score_name="detection").scores.tolist() == pytest.approx([0.9, 0.6])


def test_panoptic_view():
    id_map, segments = build().panoptic()
    assert id_map.dtype == torch.int32
    assert id_map.tolist() == [[1, 1, 0, 0], [2, 3, 3, 0]]
    assert [s["id"] for s in segments] == [1, 2, 3]
    assert [s["category_id"] for s in segments] == [0, 1, 1]
    assert [s["instance_id"] for s in segments] == [1, 1, 2]
    assert [s["object_category_id"] for s in segments] == [0, 0, 1]
    for segment in segments:
        # Detectron2's panoptic evaluator tests `is True`, and checkpoints hold plain numbers only.
        assert segment["isthing"] is True
        assert {type(v) for v in segment.values()} <= {bool, int, float}


def test_masks_are_disjoint_and_agree():
    result = build()
    objects, segments = result.object_masks(), result.segment_masks()
    assert objects.sum(0).max() == 1 and segments.sum(0).max() == 1
    assert segments.flatten(1).sum(1).tolist() == result.segment_area.tolist()
    assert torch.equal(objects[0], segments[0] | segments[1])


@pytest.mark.parametrize("num_detections", [0, 2])
def test_nothing_labelled(num_detections):
    zeros = torch.zeros(3, 5, dtype=torch.int64)
    result = PartInstances.from_label_maps(
        zeros,
        zeros,
        boxes=torch.zeros(num_detections, 4),
        scores=torch.ones(num_detections),
        classes=torch.zeros(num_detections, dtype=torch.int64),
    )
    id_map, segments = result.panoptic()
    assert len(result) == 0 and segments == [] and id_map.sum() == 0
    assert result.object_masks().shape == (0, 3, 5)
    assert result.segment_masks().shape == (0, 3, 5)


def test_a_part_of_nobody_is_a_part_and_no_object():
    # Column 3: part 2 of nobody above, background below; no object has a part beyond 1.
    result = build(
        object_map=torch.tensor([[1, 1, 0, 0], [1, 3, 3, 0]]),
        part_map=torch.tensor([[1, 1, 0, 2], [1, 1, 1, 0]]),
    )
    assert result.part_map.tolist() == [[1, 1, 0, 2], [1, 1, 1, 0]]
    assert result.object_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert result.segment_object.tolist() == [1, 2]
    assert result.segment_part.tolist() == [1, 1]
    assert result.segment_area.tolist() == [3, 2]
    assert result.object_masks().sum().item() == 5
    assert not result.segment_masks()[:, 0, 3].any()
    id_map, segments = result.panoptic()
    assert id_map.tolist() == [[1, 1, 0, 0], [1, 2, 2, 0]]
    assert [s["area"] for s in segments] == [3, 2]


def test_everything_may_be_nobodys():
    result = build(
        object_map=torch.zeros(2, 4, dtype=torch.int64),
        part_map=torch.tensor([[0, 1, 2, 0], [0, 2, 2, 0]]),
    )
    assert len(result) == 0 and result.panoptic()[0].sum() == 0 and result.panoptic()[1] == []
    assert result.part_map.sum() == 7


def test_non_contiguous_maps_give_the_same():
    reference = build()
    strided = build(
        object_map=torch.tensor([[1, 1], [1, 3], [0, 3], [0, 0]]).t(),
        part_map=torch.tensor([[1, 2], [1, 2], [0, 2], [0, 0]]).t(),
    )
    assert torch.equal(reference.object_map, strided.object_map)
    assert reference.segment_scores["mean_q"].tolist() == strided.segment_scores["mean_q"].tolist()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"score_name": "iou"}, "'iou'"),
        ({"part_map": torch.zeros(2, 5, dtype=torch.int64)}, r"\(2, 4\) and \(2, 5\)"),
        ({"scores": torch.ones(2)}, "3, 2 and 3"),
        ({"object_map": torch.full((2, 4), 4)}, "ids 4..4.*3 detections"),
        ({"part_map": torch.full((2, 4), 3)}, "part 3.*2 parts"),
        ({"part_map": torch.zeros(2, 4, dtype=torch.int64)}, "5 pixels.*object without a part"),
        ({"part_prob": torch.zeros(3, 2, 5)}, r"\(3, 2, 5\)"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
