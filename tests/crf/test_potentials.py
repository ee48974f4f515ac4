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


def energies(box=None, everywhere=None, epsilon=1e-3, **options):
    """(L, 3) energies of the one row of pixels, with w1 and w2; None leaves a term out."""
    factor = 0
    if box is not None:
        factor = factor + box * box_term(BOXES, SCORES, 1, 3, **options)
    if everywhere is not None:
        factor = factor + everywhere * global_term(BOXES, 1, 3)
    return unary_energy(Q, factor, SPACE, epsilon)[0].t()


def test_box_term_by_hand():
    psi = [
        [0.0, 0.0, 0.0],
        [0.9 * 0.3, 0.9 * 0.7, 0.0],
        [0.9 * 0.2, 0.9 * 0.1, 0.0],
        [0.0, 0.4 * 0.7, 0.4 * 0.0],
        [0.0, 0.4 * 0.1, 0.4 * 0.9],
    ]
    torch.testing.assert_close(energies(box=2.0), -torch.log(2 * torch.tensor(psi) + 1e-3))
    factor = box_term(BOXES, SCORES, 1, 3)
    torch.testing.assert_close(factor[0, 1], torch.tensor([0.0, 0.9, 0.4]))


def test_box_term_of_the_background_is_a_box_around_the_image():
    with_box, without = energies(box=1.0, background_score=0.5), energies(box=1.0)
    torch.testing.assert_close(with_box[0], -torch.log(0.5 * Q[0, 0] + 1e-3))
    torch.testing.assert_close(with_box[1:], without[1:])


def test_global_term_by_hand():
    psi = [
        [0.5, 0.2, 0.1],
        [0.3, 0.7, 0.0],
        [0.2, 0.1, 0.9],
        [0.3, 0.7, 0.0],
        [0.2, 0.1, 0.9],
    ]
    torch.testing.assert_close(energies(everywhere=0.5), -torch.log(0.5 * torch.tensor(psi) + 1e-3))


def test_unary_energy_by_hand():
    energy = energies(box=2.0, everywhere=0.5)
    assert energy[1, 0].item() == pytest.approx(-math.log(2 * 0.9 * 0.3 + 0.5 * 0.3 + 1e-3))
    assert energy[0, 2].item() == pytest.approx(-math.log(0.5 * 0.1 + 1e-3))
    assert energy[3, 2].item() == pytest.approx(-math.log(1e-3))


@pytest.mark.parametrize("classes, owners", [([0, 0], [0, 0]), ([1, 0], [0, 1])])
def test_unary_energy_of_any_label_space_label_by_label(classes, owners):
    space = build_label_space(torch.tensor(classes), torch.tensor(owners))
    factor = torch.rand(4, 3, 3, dtype=torch.float64)
    q = torch.rand(3, 4, 3, dtype=torch.float64)
    energy = unary_energy(q, factor, space, 1e-2)
    for label, (i, j) in enumerate(
        zip(space.label_instance.tolist(), space.label_part.tolist(), strict=True)
    ):
        expected = -torch.log(factor[..., i] * q[j] + 1e-2)
        torch.testing.assert_close(energy[..., label], expected)
    leaves = q.requires_grad_(), factor.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, f: unary_energy(q, f, space, 1e-2), leaves)


def test_a_tight_box_holds_all_pixels_of_the_object():
    # Columns 2..4 and rows 1..1 as pixel edges.
    mask = box_masks(torch.tensor([[2.0, 1.0, 5.0, 2.0]]), height=3, width=6)[..., 0]
    expected = torch.zeros(3, 6, dtype=torch.bool)
    expected[1, 2:5] = True
    assert torch.equal(mask, expected)


def test_a_pixel_belongs_to_the_box_that_holds_its_centre():
    mask = box_masks(torch.tensor([[0.5, -3.0, 2.5, 9.0], [0.6, 0.4, 2.4, 0.6]]), 1, 4)
    assert mask[0, :, 0].tolist() == [
        True,
        True,
        False,
        False,
    ]  # centre 2.5 is the end
    assert mask[0, :, 1].tolist() == [False, True, False, False]


def test_score_transforms():
    torch.testing.assert_close(transform_scores(SCORES), SCORES)
    tvg = transform_scores(torch.tensor([1.0, 0.5, 0.0]), "tvg")
    torch.testing.assert_close(tvg, torch.tensor([0.7310586, 0.5, 0.2689414]))
    with pytest.raises(ValueError, match="'square'"):
        transform_scores(SCORES, "square")
