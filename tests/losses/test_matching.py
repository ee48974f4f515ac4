"""Eq. 4 against numbers by hand, and against a search over every permutation."""

import itertools

import numpy as np
import pytest
import torch

from instance_crf.crf import build_label_space
from instance_crf.losses import match_ground_truth
from instance_crf.losses.matching import segment_iou

HEAD, TORSO = 1, 2


def label_table(num_detections, num_parts=2):
    classes = torch.zeros(num_detections, dtype=torch.int64)
    owner = torch.zeros(num_parts, dtype=torch.int64)
    return build_label_space(classes, owner).label_index()


def maps(*rows):
    return torch.tensor(rows, dtype=torch.int64)


def test_objects_get_the_numbers_of_the_detections():
    # Ground truth calls the left person 7 and the right one 3; the prediction calls them 2 and 1.
    gt_object, gt_part = maps([7, 7, 0, 3, 3]), maps([HEAD, TORSO, 0, HEAD, TORSO])
    pred_object, pred_part = maps([2, 2, 0, 1, 1]), maps([HEAD, TORSO, 0, HEAD, TORSO])
    target = match_ground_truth(
        pred_object, pred_part, gt_object, gt_part, label_table=label_table(2)
    )
    # Label of detection i (from 0) and part j is i * P + j.
    assert target.tolist() == [[3, 4, 0, 1, 2]]


def test_person_mode_keeps_one_identity_where_segment_mode_splits_it():
    # Head won by detection 1, both torso pixels by detection 2.
    gt_object, gt_part = maps([1, 1, 1]), maps([HEAD, TORSO, TORSO])
    pred_object, pred_part = maps([1, 2, 2]), maps([HEAD, TORSO, TORSO])
    arguments = (pred_object, pred_part, gt_object, gt_part)
    person = match_ground_truth(*arguments, label_table=label_table(2), mode="person")
    segment = match_ground_truth(*arguments, label_table=label_table(2), mode="segment")
    identity = (segment[0] - 1) // 2 + 1
    assert identity.tolist() == [1, 2, 2]
    assert len({(label - 1) // 2 for label in person[0].tolist()}) == 1


@pytest.mark.parametrize("unmatched, expected", [("ignore", -1), ("background", 0)])
def test_objects_without_a_detection(unmatched, expected):
    gt_object, gt_part = maps([1, 1, 2, 2]), maps([HEAD, HEAD, HEAD, HEAD])
    pred_object, pred_part = maps([0, 0, 1, 1]), maps([0, 0, HEAD, HEAD])
    target = match_ground_truth(
        pred_object, pred_part, gt_object, gt_part, label_table=label_table(1), unmatched=unmatched
    )
    assert target.tolist() == [[expected, expected, 1, 1]]


@pytest.mark.parametrize("unmatched, expected", [("ignore", -1), ("background", 0)])
def test_no_detection_at_all(unmatched, expected):
    gt_object, gt_part = maps([0, 1, 1]), maps([0, HEAD, TORSO])
    nothing = torch.zeros(1, 3, dtype=torch.int64)
    target = match_ground_truth(
        nothing, nothing, gt_object, gt_part, label_table=label_table(0), unmatched=unmatched
    )
    assert target.tolist() == [[0, expected, expected]]


def test_ignored_pixels_and_parts_of_nobody_stay_out():
    gt_object = maps([1, -1, 1, 0, 1, 0])
    gt_part = maps([HEAD, HEAD, 255, TORSO, 0, 0])
    pred_object, pred_part = maps([1, 1, 1, 1, 1, 1]), maps([HEAD] * 6)
    target = match_ground_truth(
        pred_object, pred_part, gt_object, gt_part, label_table=label_table(1)
    )
    assert target.tolist() == [[1, -1, -1, -1, 0, 0]]


def test_classes_own_their_parts():
    # Part 1 belongs to class 0, part 2 to class 1; detections are of class 1 and class 0.
    table = build_label_space(torch.tensor([1, 0]), torch.tensor([0, 1])).label_index()
    gt_object, gt_part = maps([1, 1, 2, 2]), maps([1, 1, 2, 2])
    pred_object, pred_part = maps([2, 2, 1, 1]), maps([1, 1, 2, 2])
    target = match_ground_truth(pred_object, pred_part, gt_object, gt_part, label_table=table)
    assert target.tolist() == [[int(table[2, 1])] * 2 + [int(table[1, 2])] * 2]


def test_matching_maximises_the_summed_iou_over_all_permutations():
    generator = torch.Generator().manual_seed(0)

    def random_maps(objects):
        part = torch.randint(0, 3, (8, 8), generator=generator)
        return torch.randint(1, objects + 1, (8, 8), generator=generator) * (part > 0), part

    for _ in range(20):
        gt_object, gt_part = random_maps(3)
        pred_object, pred_part = random_maps(4)
        target = match_ground_truth(
            pred_object, pred_part, gt_object, gt_part, label_table=label_table(4)
        )
        iou = np.zeros((2, 3, 4))
        for j, g, d in itertools.product(range(2), range(3), range(4)):
            truth = ((gt_object == g + 1) & (gt_part == j + 1)).numpy()
            guess = ((pred_object == d + 1) & (pred_part == j + 1)).numpy()
            iou[j, g, d] = (truth & guess).sum() / max(1, (truth | guess).sum())
        best = max(
            sum(iou[:, g, d].sum() for g, d in enumerate(choice))
            for choice in itertools.permutations(range(4), 3)
        )
        chosen = 0.0
        for g in range(3):
            labels = target[(gt_object == g + 1) & (gt_part > 0)]
            detection = {(int(x) - 1) // 2 for x in labels if x > 0}
            assert len(detection) <= 1
            chosen += sum(iou[:, g, d].sum() for d in detection)
        assert chosen == pytest.approx(best)


def test_segment_iou_by_hand():
    iou = segment_iou(
        maps([1, 1, 1, 0]),
        maps([HEAD, HEAD, TORSO, 0]),
        maps([1, 1, 1, 1]),
        maps([HEAD, TORSO, TORSO, TORSO]),
        num_detections=1,
        num_objects=1,
        num_parts=2,
    )
    assert iou.squeeze().tolist() == pytest.approx([1 / 2, 1 / 3])


def test_non_contiguous_maps_give_the_same():
    generator = torch.Generator().manual_seed(1)
    part = torch.randint(0, 3, (9, 7), generator=generator)
    objects = torch.randint(1, 3, (9, 7), generator=generator) * (part > 0)
    arguments = (objects, part, objects.flip(1), part.flip(1))
    contiguous = match_ground_truth(*arguments, label_table=label_table(2))
    strided = match_ground_truth(
        *(x.t().contiguous().t() for x in arguments), label_table=label_table(2)
    )
    assert torch.equal(contiguous, strided)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mode": "pixel"}, "matching mode 'pixel'"),
        ({"unmatched": "drop"}, "'drop'"),
        ({"gt_part": maps([1, 3])}, "part id 3.*2 parts"),
        ({"gt_part": maps([1, 1, 1])}, "one size"),
    ],
)
def test_bad_input(change, message):
    arguments = dict.fromkeys(("pred_object", "pred_part", "gt_object", "gt_part"), maps([1, 1]))
    with pytest.raises(ValueError, match=message):
        match_ground_truth(**{**arguments, "label_table": label_table(1), **change})


def test_labels_of_nobody_are_the_target_where_there_is_no_detection():
    """Of an object without a detection and of parts of no object, whatever ``unmatched`` says."""
    one = torch.zeros(1, dtype=torch.int64)
    table = build_label_space(one, torch.tensor([0, 0]), nobody=True).label_index()
    assert table.tolist() == [[0, 3, 4], [-1, 1, 2]]
    gt_object = torch.tensor([[1, 1, 2, 0, 0, -1]])
    gt_part = torch.tensor([[1, 2, 2, 1, 0, 1]])
    pred_object, pred_part = torch.tensor([[1, 1, 0, 0, 0, 0]]), torch.tensor([[1, 2, 2, 0, 0, 0]])
    for unmatched in ("ignore", "background"):
        target = match_ground_truth(
            pred_object, pred_part, gt_object, gt_part, label_table=table, unmatched=unmatched
        )
        assert target.tolist() == [[1, 2, 4, 3, 0, -1]]
