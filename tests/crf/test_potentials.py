import math

import pytest
import torch

from instance_crf.crf import build_label_space
from instance_crf.crf.potentials import (
    box_masks,
    box_term,
    global_term,
    transform_scores,
    unary_energy,
)

# Q on a 1x3 image with 2 parts, and two detections: the first covers pixels 0-1, the other 1-2.
Q = torch.tensor([[[0.5, 0.2, 0.1]], [[0.3, 0.7, 0.0]], [[0.2, 0.1, 0.9]]])
BOXES = torch.tensor([[0.0, 0.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0]])
SCORES = torch.tensor([0.9, 0.4])
SPACE = build_label_space(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))


def test_box_term_by_hand():
    expected = [
        [0.0, 0.0, 0.0],
        [0.9 * 0.3, 0.9 * 0.7, 0.0],
        [0.9 * 0.2, 0.9 * 0.1, 0.0],
        [0.0, 0.4 * 0.7, 0.4 * 0.0],
        [0.0, 0.4 * 0.1, 0.4 * 0.9],
    ]
    psi = box_term(Q, BOXES, SCORES, SPACE)
    torch.testing.assert_close(psi[:, 0], torch.tensor(expected))


def test_box_term_of_the_background_is_a_box_around_the_image():
    psi = box_term(Q, BOXES, SCORES, SPACE, background_score=1.0)
    torch.testing.assert_close(psi[0], Q[0])
    torch.testing.assert_close(psi[1:], box_term(Q, BOXES, SCORES, SPACE)[1:])


def test_global_term_by_hand():
    expected = [
        [0.5, 0.2, 0.1],
        [0.3, 0.7, 0.0],
        [0.2, 0.1, 0.9],
        [0.3, 0.7, 0.0],
        [0.2, 0.1, 0.9],
    ]
    torch.testing.assert_close(global_term(Q, SPACE)[:, 0], torch.tensor(expected))


def test_unary_energy_by_hand():
    psi_box = box_term(Q, BOXES, SCORES, SPACE)
    energy = unary_energy(psi_box, global_term(Q, SPACE), 2.0, 0.5, 1e-3)
    assert energy[1, 0, 0].item() == pytest.approx(-math.log(2 * 0.9 * 0.3 + 0.5 * 0.3 + 1e-3))
    assert energy[0, 0, 2].item() == pytest.approx(-math.log(0.5 * 0.1 + 1e-3))
    assert energy[3, 0, 2].item() == pytest.approx(-math.log(1e-3))


def test_unary_energy_without_a_term():
    psi = global_term(Q, SPACE)
    torch.testing.assert_close(
        unary_energy(None, psi, 5.0, 2.0, 1e-8), unary_energy(psi, None, 2.0, 5.0, 1e-8)
    )
    with pytest.raises(ValueError, match="box term"):
        unary_energy(None, None, 1.0, 1.0, 1e-8)


def test_a_tight_box_holds_all_pixels_of_the_object():
    # Columns 2..4 and rows 1..1 as pixel edges.
    mask = box_masks(torch.tensor([[2.0, 1.0, 5.0, 2.0]]), height=3, width=6)[0]
    expected = torch.zeros(3, 6, dtype=torch.bool)
    expected[1, 2:5] = True
    assert torch.equal(mask, expected)


def test_a_pixel_belongs_to_the_box_that_holds_its_centre():
    mask = box_masks(torch.tensor([[0.5, -3.0, 2.5, 9.0], [0.6, 0.4, 2.4, 0.6]]), 1, 4)
    assert mask[0, 0].tolist() == [True, True, False, False]  # centres 0.5 and 1.5; 2.5 is the end
    assert mask[1, 0].tolist() == [False, True, False, False]


def test_score_transforms():
    torch.testing.assert_close(transform_scores(SCORES), SCORES)
    tvg = transform_scores(torch.tensor([1.0, 0.5, 0.0]), "tvg")
    torch.testing.assert_close(tvg, torch.tensor([0.7310586, 0.5, 0.2689414]))
    with pytest.raises(ValueError, match="'square'"):
        transform_scores(SCORES, "square")
