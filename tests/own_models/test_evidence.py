"""Evidence of masks and keypoints against numbers by hand."""

from math import exp, sqrt

import pytest
import torch

from instance_crf.own_models.evidence import (
    COCO_LIMBS,
    LIMB_WIDTH,
    keypoint_evidence,
    mask_evidence,
)


def test_masks_are_averaged_over_each_pixel():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, :2, :3] = True
    masks[1, 3, 5] = True
    found = mask_evidence(masks, (2, 2))
    assert found.dtype == torch.float32
    assert found.tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, pytest.approx(1 / 6)]]]
    found = mask_evidence(masks, (2, 3))
    assert found[0].tolist() == [[1, 0.5, 0], [0, 0, 0]]


def test_masks_at_the_same_and_at_a_larger_size():
    masks = torch.rand(3, 5, 7)
    assert torch.equal(mask_evidence(masks, (5, 7)), masks)
    steep = torch.tensor([[[0.0, 1.0]]])
    assert mask_evidence(steep, (1, 4)).tolist() == [[[0, 0.25, 0.75, 1]]]
    assert mask_evidence(torch.zeros(0, 5, 7), (2, 3)).shape == (0, 2, 3)


def test_one_limb_by_hand():
    """Shoulders at y 10.5, from x 10.5 to 20.5; the box's area is 40²."""
    points = torch.zeros(1, 17, 3)
    points[0, 5], points[0, 6] = torch.tensor([10.5, 10.5, 0.8]), torch.tensor([20.5, 10.5, 0.4])
    found = keypoint_evidence(points, torch.tensor([[0.0, 0, 20, 80]]), (40, 40))
    width = LIMB_WIDTH * 40
    assert found.shape == (1, 40, 40)

    def near(distance, share=0.5):  # 0.4 of its least certain end, relative to 0.8
        return pytest.approx(share * exp(-(distance**2) / (2 * width**2)), abs=1e-6)

    assert float(found[0, 10, 15]) == near(0)
    assert float(found[0, 13, 15]) == near(3)
    assert float(found[0, 10, 24]) == near(4)  # beyond the end
    assert float(found[0, 6, 7]) == near(5, share=1)  # 3 to the left of the surer, 4 above
    assert float(found.max()) == float(found[0, 10, 10]) == 1 and float(found.min()) >= 0


def test_the_nearest_limb_counts_and_uncertain_keypoints_do_not():
    points = torch.zeros(1, 17, 3)
    points[0, 5:8, 2] = 1
    points[0, 5, :2] = torch.tensor([10.5, 10.5])
    points[0, 6, :2] = torch.tensor([20.5, 10.5])
    points[0, 7, :2] = torch.tensor([10.5, 30.5])
    boxes = torch.tensor([[0.0, 0, 40, 40]])
    both = keypoint_evidence(points, boxes, (40, 40))
    assert float(both[0, 10, 15]) == float(both[0, 20, 10]) == 1
    points[0, 7, 2] = 0
    one = keypoint_evidence(points, boxes, (40, 40))
    assert float(one[0, 10, 15]) == 1 and float(one[0, 20, 10]) < 0.1
    assert (both >= one).all()


def test_other_keypoints_are_points():
    points = torch.tensor([[[5.5, 5.5, 1.0], [30.5, 5.5, 1.0]]])
    found = keypoint_evidence(points, torch.tensor([[0.0, 0, 40, 10]]), (12, 40))
    width = LIMB_WIDTH * sqrt(400)
    assert float(found[0, 5, 5]) == float(found[0, 5, 30]) == 1
    assert float(found[0, 5, 8]) == pytest.approx(exp(-9 / (2 * width**2)), abs=1e-6)
    assert float(found[0, 5, 18]) < 1e-6  # no limb between them


def test_brute_force():
    torch.manual_seed(0)
    points = torch.rand(2, 17, 3) * torch.tensor([30, 20, 1])
    boxes = torch.tensor([[0.0, 0, 30, 20], [5, 5, 20, 18]])
    found = keypoint_evidence(points, boxes, (20, 30))
    for d in range(2):
        side = sqrt(float((boxes[d, 2] - boxes[d, 0]) * (boxes[d, 3] - boxes[d, 1])))
        top = float(points[d, :, 2].max())
        for x, y in [(0, 0), (7, 3), (15, 12), (29, 19)]:
            best = 0
            for a, b in (*COCO_LIMBS, *((k, k) for k in range(17))):
                along = torch.linspace(0, 1, 2001)[:, None]
                line = points[d, a, :2] * (1 - along) + points[d, b, :2] * along
                squared = float((line - torch.tensor([x + 0.5, y + 0.5])).square().sum(1).min())
                share = float(torch.minimum(points[d, a, 2], points[d, b, 2])) / top
                best = max(best, share * exp(-squared / (2 * (LIMB_WIDTH * side) ** 2)))
            assert float(found[d, y, x]) == pytest.approx(best, abs=1e-3)


def test_limbs_join_all_keypoints():
    assert {k for limb in COCO_LIMBS for k in limb} == set(range(17))
    assert len(set(map(frozenset, COCO_LIMBS))) == len(COCO_LIMBS) == 19


def test_without_a_certain_keypoint_it_says_nothing():
    points = torch.zeros(2, 17, 3)
    points[1, 0] = torch.tensor([5.0, 5, 1])  # one end of a limb alone
    found = keypoint_evidence(points, torch.tensor([[0.0, 0, 9, 9]] * 2), (10, 10))
    assert (found[0] == 1).all()
    assert float(found[1, 4, 4]) == pytest.approx(exp(-0.5 / (2 * (LIMB_WIDTH * 9) ** 2)))
    assert float(found[1, 0, 9]) < 1e-6
    empty = keypoint_evidence(torch.zeros(1, 0, 3), torch.tensor([[0.0, 0, 9, 9]]), (10, 10))
    assert (empty == 1).all()
    assert keypoint_evidence(torch.zeros(0, 17, 3), torch.zeros(0, 4), (3, 4)).shape == (0, 3, 4)


def test_far_from_a_limb_is_next_to_nothing():
    width = LIMB_WIDTH * 10
    points = torch.tensor([[[3.5, 4.5, 1.0]]])
    found = keypoint_evidence(points, torch.tensor([[0.0, 0, 10, 10]]), (9, 20))[0]
    y, x = torch.meshgrid(torch.arange(9) - 4.0, torch.arange(20) - 3.0, indexing="ij")
    exact = torch.exp(-(x**2 + y**2) / (2 * width**2))
    torch.testing.assert_close(found, exact, atol=4e-4, rtol=0)
    assert torch.equal(found > 0, ((x.abs() <= 4) & (y.abs() <= 4)))
    for away in (-1e6, 1e6):
        points = torch.tensor([[[away, 4.5, 1.0], [away, away, 1.0]]])
        assert not keypoint_evidence(points, torch.tensor([[0.0, 0, 10, 10]]), (9, 20)).any()
