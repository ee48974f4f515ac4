"""Mask R-CNN over parts: its targets, whose a part mask is, what is painted, all by hand."""

import torch
from detectron2.structures import BitMasks, Boxes, Instances

from instance_crf.modeling.part_mask_rcnn import best_of_each, owners_of_parts, part_targets

BASELINE = ("baselines/tiny_part_mask_rcnn.yaml", "MODEL.ROI_MASK_HEAD.CONV_DIM", 8)
PERSON = 0


def objects_of(object_seg, ids):
    found = Instances(tuple(object_seg.shape))
    found.gt_object_ids = torch.tensor(ids)
    found.gt_classes = torch.zeros(len(ids), dtype=torch.int64)
    found.gt_masks = BitMasks(object_seg == found.gt_object_ids[:, None, None])
    found.gt_boxes = found.gt_masks.get_bounding_boxes()
    return found


def test_targets_by_counting():
    part_seg = torch.randint(0, 5, (9, 12))
    part_seg[torch.rand(9, 12) < 0.2] = 255
    object_seg = torch.randint(-1, 4, (9, 12))
    found = part_targets(objects_of(object_seg, [3, 1]), part_seg, object_seg, 2)
    assert found.gt_classes[:2].tolist() == [0, 0]
    rows = {}
    for k in range(2, len(found)):
        (owner,) = object_seg[found.gt_masks.tensor[k]].unique().tolist()
        (part,) = part_seg[found.gt_masks.tensor[k]].unique().tolist()
        rows[owner, part] = k
        assert found.gt_classes[k] == 2 + part - 1
    for owner in (3, 1):
        for part in range(1, 5):
            pixels = [
                (y, x)
                for y in range(9)
                for x in range(12)
                if object_seg[y, x] == owner and part_seg[y, x] == part
            ]
            assert ((owner, part) in rows) == bool(pixels)
            if pixels:
                k = rows.pop((owner, part))
                assert found.gt_masks.tensor[k].nonzero().tolist() == [list(p) for p in pixels]
                ys, xs = zip(*pixels, strict=True)
                box = [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
                assert found.gt_boxes.tensor[k].tolist() == box
    assert not rows


def test_targets_without_people():
    nobody = torch.zeros(6, 7, dtype=torch.int64)
    found = part_targets(objects_of(nobody, [])[:0], nobody, nobody, 1)
    assert len(found) == 0 and found.gt_masks.tensor.shape == (0, 6, 7)


def masks(*spans):
    """Of pictures of one row, 10 pixels wide."""
    found = torch.zeros(len(spans), 1, 10, dtype=torch.bool)
    for mask, (left, right) in zip(found, spans, strict=True):
        mask[0, left:right] = True
    return found


def test_owners_by_hand():
    objects = masks((0, 5), (3, 10))
    parts = masks((0, 4), (4, 8), (2, 6), (9, 10), (5, 5), (3, 7))
    # Shares: 1 and 1/4; 1/4 and 1; 3/4 and 3/4, where the better object is first; 0 and 1; none;
    # 1/2 and 1, where the better object has enough.
    every = torch.ones(6, 2, dtype=torch.bool)
    assert owners_of_parts(parts, objects, every).tolist() == [1, 2, 1, 2, 0, 1]
    assert owners_of_parts(parts, objects[:1], every[:, :1]).tolist() == [1, 0, 1, 0, 0, 1]
    every[0, 0] = every[2, 0] = False
    assert owners_of_parts(parts, objects, every).tolist() == [0, 2, 2, 2, 0, 1]
    assert owners_of_parts(parts, objects[:0], every[:, :0]).tolist() == [0] * 6
    assert owners_of_parts(parts[:0], objects, every[:0]).tolist() == []


def test_the_best_of_each_by_hand():
    owners, part_ids = torch.tensor([1, 1, 1, 2, 1]), torch.tensor([3, 4, 3, 3, 4])
    assert best_of_each(owners, part_ids).tolist() == [0, 1, 3]


def detections(*rows):
    """(class, score, left, right) in one row of 10 pixels."""
    found = Instances((1, 10))
    spans = [row[2:] for row in rows]
    found.pred_masks = masks(*spans)
    found.pred_boxes = Boxes(torch.tensor([[a, 0, b, 1] for a, b in spans]).float().view(-1, 4))
    found.pred_classes = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    found.scores = torch.tensor([row[1] for row in rows])
    return found


def test_painting_by_hand(make_model):
    model = make_model(*BASELINE)
    found = detections(
        (PERSON, 0.75, 0, 6),
        (1, 0.5, 0, 4),  # part 1 of the first
        (1, 0.25, 3, 6),  # again, not as good: left out
        (2, 0.625, 3, 6),  # part 2, over the end of part 1
        (PERSON, 0.875, 6, 8),
        (3, 0.5, 6, 7),  # part 3 of the second
        (4, 0.5, 7, 10),  # a third in each of two: an object of its own
        (PERSON, 0.5, 9, 10),  # without parts
    )
    result, sem_seg, boxes = model.parse(found)
    assert result.part_map.tolist() == [[1, 1, 1, 2, 2, 2, 3, 4, 4, 4]]
    assert result.object_map.tolist() == [[2, 2, 2, 2, 2, 2, 1, 3, 3, 3]]
    assert boxes.scores.tolist() == [0.875, 0.75, 0.5, 0]
    assert boxes.pred_boxes.tensor[3].tolist() == result.boxes[2].tolist() == [7, 0, 10, 1]
    assert boxes.pred_classes.tolist() == [PERSON] * 4
    assert result.left_out_scores.tolist() == [0.5]
    assert result.object_scores["detection"].tolist() == [0.875, 0.75, 0]
    assert result.score_name == "mean_q"
    assert result.scores.tolist() == [0.875 * 0.5, 0.75 * (0.5 + 0.625) / 2, 0]
    assert result.segment_scores["mean_q"].tolist() == [0.5, 0.5, 0.625, 0.5]
    assert torch.equal(sem_seg.argmax(0), result.part_map.long())
    assert sem_seg[1].tolist() == [[0.5] * 3 + [0] * 7]
