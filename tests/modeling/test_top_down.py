"""Top-down parsing: targets cell by cell, pasting as Detectron2 does it, painting by hand."""

import torch
import torch.nn.functional as F
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from instance_crf.modeling.top_down import PartMaps, paste

BASELINE = ("baselines/tiny_top_down.yaml", "MODEL.ROI_MASK_HEAD.CONV_DIM", 8)


def test_targets_cell_by_cell():
    part_seg = torch.randint(0, 4, (13, 17))
    part_seg[torch.rand(13, 17) < 0.2] = 255
    object_seg = torch.randint(-1, 3, (13, 17))
    maps = PartMaps(part_seg, object_seg, torch.tensor([2, 1, 2]))
    boxes = torch.tensor([[0, 0, 17, 13], [3.2, 1.7, 9.9, 12.1], [4, 4, 5, 5]])
    found = maps.crop(boxes, 6)
    assert found.shape == (3, 6, 6) and len(maps) == 3
    assert len(maps[1:]) == 2 and torch.equal(maps[1:].crop(boxes[1:], 6), found[1:])
    for k, (owner, (left, top, right, bottom)) in enumerate(
        zip([2, 1, 2], boxes.tolist(), strict=True)
    ):
        for m in range(6):
            for n in range(6):
                y = int(top + (m + 0.5) / 6 * (bottom - top))
                x = int(left + (n + 0.5) / 6 * (right - left))
                part, who = part_seg[y, x].item(), object_seg[y, x].item()
                if who == owner:
                    expected = part
                elif who == -1 or (who == 0 and part == 255):
                    expected = 255
                else:
                    expected = 0
                assert found[k, m, n] == expected


def test_loss_by_hand(make_model):
    """Ignored cells are left out of the mean; classes have weights."""
    head = make_model(*BASELINE, "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 3.0).roi_heads.mask_head
    regions = Instances((40, 40))
    regions.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 32, 32]]))
    parts = torch.full((40, 40), 255)
    parts[:16] = 2
    regions.gt_parts = PartMaps(parts, torch.ones_like(parts), torch.tensor([1]))
    feature = torch.rand(1, 8, 16, 16)
    loss = head.train()(feature, [regions])["loss_parts"]
    log_prob = head.net.layers(feature).log_softmax(1)[0, 2, :16]
    torch.testing.assert_close(loss, -3 * head.class_weights[2] * log_prob.mean())
    assert head.class_weights[2] == 1


def test_pasting_as_detectron2():
    """Which fades over the outermost half cell, where we do not."""
    for box in ([3, 5, 19, 21], [2.3, 4.6, 25.1, 17.2], [-6.5, 3, 12, 30]):
        probs = torch.rand(3, 7, 7)
        pasted, (rows, columns) = paste(probs, box, (24, 28))
        assert pasted.shape == (3, rows.stop - rows.start, columns.stop - columns.start)
        boxes = torch.tensor([box] * 3).float()
        expected = paste_masks_in_image(probs, boxes, (24, 28), threshold=-1).float() / 255
        x, y = torch.arange(28) + 0.5, torch.arange(24) + 0.5
        cell_x, cell_y = (box[2] - box[0]) / 14, (box[3] - box[1]) / 14
        inner = ((y > box[1] + cell_y) & (y < box[3] - cell_y))[:, None] & (
            (x > box[0] + cell_x) & (x < box[2] - cell_x)
        )
        whole = torch.zeros(3, 24, 28)
        whole[:, rows, columns] = pasted
        torch.testing.assert_close(whole[:, inner], expected[:, inner], atol=1 / 255, rtol=0)
        inside = ((y > box[1]) & (y < box[3]))[:, None] & (x > box[0]) & (x < box[2])
        assert torch.equal(whole.sum(0) > 0, inside)


def test_painting_by_hand(make_model):
    """Two people of 4 x 4 pixels, one cell a pixel, the better one over the other."""
    model = make_model(*BASELINE)
    found = Instances((4, 6))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4]]))
    found.scores = torch.tensor([0.5, 0.75])
    found.pred_classes = torch.zeros(2, dtype=torch.int64)
    labels = torch.tensor([[[1, 1, 2, 2]] * 4, [[3, 3, 0, 4]] * 4])
    found.pred_parts = F.one_hot(labels, 7).permute(0, 3, 1, 2) * 0.6 + 0.4 / 7
    result, sem_seg, boxes = model.parse(found)
    assert result.part_map.tolist() == [[3, 3, 1, 4, 2, 2]] * 4
    assert result.object_map.tolist() == [[1, 1, 2, 1, 2, 2]] * 4
    assert boxes.scores.tolist() == [0.75, 0.5]
    best = 0.6 + 0.4 / 7
    torch.testing.assert_close(sem_seg.max(0).values, torch.full((4, 6), best))
    assert torch.equal(sem_seg.argmax(0), result.part_map.long())
    expected = torch.tensor([0.75, 0.75, 0.5, 0.5]) * best
    torch.testing.assert_close(result.segment_scores["product"], expected)
    torch.testing.assert_close(result.scores, torch.tensor([0.75, 0.5]) * best)


def test_someone_where_background_has_less_than_half(make_model):
    """Also where background is the likeliest."""
    model = make_model(*BASELINE)
    found = Instances((2, 2))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 2, 2]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
    found.pred_parts = (
        torch.tensor([0.45, 0.3, 0.25, 0, 0, 0, 0]).view(1, 7, 1, 1).repeat(1, 1, 2, 2)
    )
    assert model.parse(found)[0].part_map.eq(1).all()
    model.part_owner[0] = 1  # of another class
    assert model.parse(found)[0].part_map.eq(2).all()
    model.part_owner[:] = 1
    assert not model.parse(found)[0].part_map.any()
