"""Votes for keypoints as evidence, against numbers worked out by hand."""

import math

import pytest
import torch

from instance_crf.own_models.parts.votes import follow_offsets, keypoint_vote_evidence


def test_an_offset_is_added_to_the_place_of_its_sample():
    y = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[0.0] * 3, [0.0] * 3]])
    x = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.0, -9.0]], [[7.0] * 3, [7.0] * 3]])
    votes = follow_offsets(torch.cat([y, x]), 8, steps=0)  # K = 2, h = 2, w = 3
    assert votes.shape == (2, 2, 2, 3)
    assert votes[0, 0].tolist() == [[0.5, 8, 16], [0, 8, 7]]  # x
    assert votes[0, 1].tolist() == [[1, 2, 3], [12, 13, 14]]  # y
    assert votes[1, 0].tolist() == [[7, 15, 23], [7, 15, 23]]


def test_a_vote_is_cast_again_from_where_it_points_to():
    """Samples at 0, 8, 16: the first points to 12, between the others; the others out of sight."""
    offsets = torch.tensor([[[0.0] * 3] * 2, [[12.0, -20.0, 3.0]] * 2])
    assert follow_offsets(offsets, 8, steps=0)[0, 0, 0].tolist() == [12, -12, 19]
    once = follow_offsets(offsets, 8, steps=1)[0, 0, 0]
    # 12 + (-20 + 3) / 2; from the first sample, 0 + 12; from the last, 16 + 3.
    assert once.tolist() == pytest.approx([3.5, 12, 19])
    twice = follow_offsets(offsets, 8)[0, 0, 0]
    # 3.5 is 7/16 of the way to the second sample: 3.5 + 12 * 9/16 - 20 * 7/16.
    assert twice.tolist() == pytest.approx([1.5, 3.5, 19])


def two_samples(*places):
    """(K, 2, 1, 2) votes of two samples, at x = 0.5 and 4.5 of a picture of 5 x 1 pixels.

    ``places``: of each keypoint, where the two samples vote it to be.
    """
    return torch.tensor(places).transpose(1, 2)[:, :, None]


def test_distance_to_the_pose_of_a_box():
    votes = two_samples([[0.0, 0.0], [3.0, 4.0]], [[10.0, 0.0], [10.0, 1.0]])
    boxes = torch.tensor([[0.0, 0.0, 2.0, 8.0], [4.0, 0.0, 5.0, 1.0]])  # a sample each
    evidence = keypoint_vote_evidence(votes, boxes, torch.full((1, 2), 0.3), (1, 5))
    # The squares of the keypoints' distances are 25 and 1, their mean 13; areas 16 and 1.
    assert evidence.shape == (2, 1, 2)
    assert evidence[0, 0].tolist() == pytest.approx([1, math.exp(-13 / 16 / 2 * 16)])
    assert evidence[1, 0].tolist() == pytest.approx([math.exp(-13 / 1 / 2 * 16), 1])


def test_the_pose_is_the_mean_of_people():
    votes = two_samples([[0.0, 0.0], [8.0, 0.0]])
    box = torch.tensor([[0.0, 0.0, 5.0, 5.0]])
    someone = torch.tensor([[0.75, 0.25]])
    evidence = keypoint_vote_evidence(votes, box, someone, (1, 5))  # the pose is at x = 2
    assert evidence[0, 0].tolist() == pytest.approx(
        [math.exp(-4 / 25 / 2 * 16), math.exp(-36 / 25 / 2 * 16)]
    )
    nobody = keypoint_vote_evidence(votes, box, torch.zeros(1, 2), (1, 5))  # at x = 4
    assert nobody[0, 0].tolist() == pytest.approx([math.exp(-16 / 25 / 2 * 16)] * 2)


@pytest.mark.parametrize(
    "box",
    [
        [2.9, 0.2, 3.0, 0.8],  # between the samples, nearer to the second
        [40.0, 0.0, 50.0, 1.0],  # outside of the picture
        [4.0, 0.5, 4.0, 0.5],  # of no size
    ],
)
def test_a_box_without_a_sample_takes_the_nearest(box):
    votes = two_samples([[0.0, 0.0], [60.0, 0.0]])
    evidence = keypoint_vote_evidence(votes, torch.tensor([box]), torch.ones(1, 2), (1, 5))
    assert evidence[0, 0, 1] == 1 and evidence[0, 0, 0] < 1e-6


def test_no_detections():
    votes = torch.rand(17, 2, 3, 4)
    evidence = keypoint_vote_evidence(votes, torch.zeros(0, 4), torch.ones(3, 4), (30, 40))
    assert evidence.shape == (0, 3, 4)


def test_the_same_at_every_size_and_place():
    generator = torch.Generator().manual_seed(0)
    votes = torch.rand(17, 2, 9, 11, generator=generator) * 40
    someone = torch.rand(9, 11, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 33.0], [11.0, 5.0, 41.0, 33.0]])
    evidence = keypoint_vote_evidence(votes, boxes, someone, (33, 41))
    assert 0 <= evidence.min() and evidence.max() <= 1 and evidence.std() > 0.02
    # 3 times as large: pixel centres 0.5..40.5 become 1.5..121.5 of a picture of 123 pixels, whose
    # outer centres are 0.5 and 122.5; the samples move, but are in the same boxes.
    large = keypoint_vote_evidence(votes * 3, boxes * 3, someone, (99, 123))
    torch.testing.assert_close(large, evidence)
    moved = votes + torch.tensor([500.0, -70.0])[:, None, None]  # all votes are wrong alike
    torch.testing.assert_close(
        keypoint_vote_evidence(moved, boxes, someone, (33, 41)), evidence, atol=1e-5, rtol=1e-4
    )
