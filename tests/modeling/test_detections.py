import pytest
import torch
from detectron2.structures import Boxes, Instances

from instance_crf.modeling.detections import (
    detections_from_ground_truth,
    jitter_boxes,
    keep_best,
    keep_classes,
)


def ground_truth(boxes, size=(100, 200)):
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.arange(len(boxes))
    return instances


def detections(scores, boxes=None):
    instances = Instances((100, 200))
    instances.pred_boxes = Boxes(
        torch.tensor(boxes or [[0.0, 0, 9, 9]] * len(scores)).reshape(-1, 4)
    )
    instances.scores = torch.tensor(scores)
    return instances


def test_ground_truth_boxes_have_score_one():
    result = detections_from_ground_truth(ground_truth([[10, 20, 30, 60], [0, 0, 200, 100]]))
    assert result.pred_boxes.tensor.tolist() == [[10, 20, 30, 60], [0, 0, 200, 100]]
    assert result.scores.tolist() == [1, 1]
    assert result.pred_classes.tolist() == [0, 1]


def test_jitter_stays_within_its_fraction_and_the_image():
    boxes = torch.tensor([[10.0, 20, 30, 60]]).repeat(2000, 1)
    moved = jitter_boxes(boxes, 0.1)
    centre = (moved[:, :2] + moved[:, 2:]) / 2 - torch.tensor([20.0, 40])
    size = (moved[:, 2:] - moved[:, :2]) / torch.tensor([20.0, 40])
    assert centre[:, 0].abs().max() <= 2 + 1e-4 and centre[:, 1].abs().max() <= 4 + 1e-4
    assert centre[:, 0].abs().max() > 1.8 and size.min() < 0.92 and size.max() > 1.08
    assert 0.9 - 1e-4 <= size.min() and size.max() <= 1.1 + 1e-4
    clipped = detections_from_ground_truth(ground_truth([[0, 0, 200, 100]]), jitter=0.5)
    x1, y1, x2, y2 = clipped.pred_boxes.tensor[0].tolist()
    assert 0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 100


def test_best_first():
    kept = keep_best(detections([0.2, 0.9, 0.5, 0.7]), score_thresh=0.5, max_per_image=2)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])


def test_boxes_without_area_are_dropped():
    boxes = [[5.0, 5, 5, 9], [0, 0, 4, 4]]
    kept = keep_best(detections([0.9, 0.8], boxes), score_thresh=0.0, max_per_image=5)
    assert kept.scores.tolist() == pytest.approx([0.8])


def test_classes_that_own_no_part_are_dropped():
    found = detections([0.9, 0.8, 0.7, 0.6])
    found.pred_classes = torch.tensor([14, 3, 7, 14])
    kept = keep_classes(found, torch.tensor([7, 14]))
    assert kept.pred_classes.tolist() == [1, 0, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert len(keep_classes(found[:0], torch.tensor([7, 14]))) == 0


def test_none_at_all():
    assert len(keep_best(detections([]), score_thresh=0.5, max_per_image=5)) == 0
    assert len(detections_from_ground_truth(ground_truth([]), jitter=0.1)) == 0
