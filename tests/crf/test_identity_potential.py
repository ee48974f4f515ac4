"""The identity potential: each cue against numbers by hand, their sum against plain tensors."""

import math

import pytest
import torch

from instance_crf.crf import potentials
from instance_crf.crf.place import count_places, region_templates, templates_from_counts
from instance_crf.crf.potentials import (
    CUES,
    IMPOSSIBLE,
    PLACE_RANGE,
    box_cue,
    centre_cue,
    evidence_cue,
    identity_energy,
    place_cue,
    score_cue,
    size_cue,
)

BOXES = torch.tensor([[0.0, 0.0, 4.0, 8.0], [2.0, 1.0, 6.0, 3.0]])
SCORES = torch.tensor([0.9, 0.25])
HEIGHT, WIDTH = 8, 10
Y, X = torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5


def test_score_cue_by_hand():
    cue = score_cue(torch.tensor([0.5, 0.0]))
    assert cue.flatten().tolist() == pytest.approx([math.log(0.5), math.log(0.001)])


def test_box_cue_by_hand():
    cue = box_cue(BOXES, Y, X)
    assert cue.shape == (2, HEIGHT, WIDTH)
    assert cue[0, 7, 3] == pytest.approx(math.log(1.001), abs=1e-5)
    assert cue[0, 7, 4] == pytest.approx(math.log(0.001), rel=1e-5)
    inside = potentials.box_masks(BOXES, HEIGHT, WIDTH).permute(2, 0, 1)
    torch.testing.assert_close(cue.exp(), inside + 0.001)


def test_centre_cue_is_1_at_the_sides_and_ends_at_12():
    y, x = torch.tensor([0.0, 4.0, 40.0]), torch.tensor([0.0, 2.0, 4.0])
    cue = centre_cue(BOXES[:1], y, x)[0]
    assert cue.tolist() == [[-2.0, -1.0, -2.0], [-1.0, 0.0, -1.0], [-12.0, -12.0, -12.0]]


def test_size_cue_of_a_quarter_of_the_picture():
    cue = size_cue(torch.tensor([[0.0, 0.0, 4.0, 5.0]]), 8, 10)
    assert cue.item() == pytest.approx(math.log(2))


def test_evidence_cue_by_hand():
    cue = evidence_cue(torch.tensor([[[0.0, 0.5]]]), torch.tensor(0.1))
    assert cue.flatten().tolist() == pytest.approx([math.log(0.1), math.log(0.6)])


def test_place_cue_against_grid_sample():
    """Everywhere in the box and around, boxes that stick out included."""
    boxes = torch.tensor([[-3.0, -2.0, 5.0, 9.0], [4.0, 1.0, 9.0, 7.0], [1.0, 1.0, 3.0, 3.0]])
    g = torch.Generator().manual_seed(0)
    templates = torch.rand(2, 6, 6, generator=g)
    q = torch.rand(2, HEIGHT, WIDTH, generator=g)
    q = q / q.sum(0)
    cue = place_cue(boxes, q, templates, Y, X)
    low, high = PLACE_RANGE
    # Interpolated are logarithms, above that of the floor, so that beyond the grid is the floor.
    excess = torch.log(templates + 0.15) - math.log(0.15)
    for box, actual in zip(boxes, cue, strict=True):
        u = (X - box[0]) / (box[2] - box[0])
        v = (Y - box[1]) / (box[3] - box[1])
        grid = torch.stack(torch.meshgrid(v, u, indexing="ij")[::-1], dim=-1)
        grid = 2 * (grid - low) / (high - low) - 1
        sampled = torch.nn.functional.grid_sample(
            excess[None], grid[None], align_corners=False, padding_mode="zeros"
        )[0]
        torch.testing.assert_close(actual, (q * (sampled + math.log(0.15))).sum(0))


def plain_energy(boxes, scores, size, weights, *, reach, q, templates, evidence, floor, nobody):
    """As in the definition, all at once."""
    y, x = (torch.arange(n, dtype=boxes.dtype) + 0.5 for n in size)
    known = {
        "score": score_cue(scores),
        "box": box_cue(boxes, y, x),
        "centre": centre_cue(boxes, y, x),
        "size": size_cue(boxes, *size),
        "place": place_cue(boxes, q, templates, y, x),
        "evidence": evidence_cue(evidence, floor),
    }
    potential = sum(weights[name] * known[name] for name in weights)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    offset_x = (x - centre[:, :1]).abs() / half[:, :1]
    offset_y = (y - centre[:, 1:]).abs() / half[:, 1:]
    within = torch.maximum(offset_y[:, :, None], offset_x[:, None, :]) < reach
    energy = torch.where(within, -potential, IMPOSSIBLE)
    first = -nobody.expand(1, *size) if nobody is not None else within.any(0)[None] * IMPOSSIBLE
    return torch.cat([first, energy]).permute(1, 2, 0)


@pytest.mark.parametrize("with_nobody", [True, False])
@pytest.mark.parametrize("numbers", [1, 50, 2**18])
def test_sum_of_cues_and_its_gradients(monkeypatch, with_nobody, numbers):
    """Whatever number of rows is worked on at a time."""
    monkeypatch.setattr(potentials, "_NUMBERS_AT_A_TIME", numbers)
    g = torch.Generator().manual_seed(1)
    boxes, scores = BOXES.double() + 0.25, SCORES.double()
    q = torch.rand(3, HEIGHT, WIDTH, generator=g, dtype=torch.float64)
    q = q / q.sum(0)
    templates = torch.rand(3, 7, 7, generator=g, dtype=torch.float64)
    values = [torch.rand((), generator=g, dtype=torch.float64) + 0.5 for _ in CUES]
    values += [torch.tensor(0.05, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)]
    evidence = torch.rand(2, HEIGHT, WIDTH, generator=g, dtype=torch.float64)
    results = []
    for plain in (True, False):
        leaves = [v.clone().requires_grad_() for v in (*values, evidence)]
        weights = dict(zip(CUES, leaves, strict=False))
        floor, nobody, a = leaves[len(CUES) :]
        nobody = nobody if with_nobody else None
        arguments = boxes, scores, (HEIGHT, WIDTH), weights
        if plain:
            energy = plain_energy(
                *arguments, reach=1.5, q=q, templates=templates,
                evidence=a, floor=floor, nobody=nobody,
            )  # fmt: skip
        else:
            energy = identity_energy(
                *arguments, reach=1.5, part_given_someone=q, templates=templates,
                evidence=a, evidence_floor=floor, nobody=nobody,
            )  # fmt: skip
        used = leaves if with_nobody else [x for x in leaves if x is not leaves[len(CUES) + 1]]
        weight = torch.cos(torch.arange(energy.numel(), dtype=torch.float64)).view_as(energy)
        results.append([energy, *torch.autograd.grad((energy * weight).sum(), used)])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected)


def test_gradcheck():
    g = torch.Generator().manual_seed(2)
    boxes = torch.tensor([[0.0, 0.0, 3.0, 4.0], [1.0, 1.0, 4.0, 3.0]], dtype=torch.float64)
    evidence = torch.rand(2, 4, 5, generator=g, dtype=torch.float64)

    def run(score, centre, by_evidence, floor, nobody, evidence):
        weights = {"score": score, "centre": centre, "evidence": by_evidence}
        return identity_energy(
            boxes, SCORES.double(), (4, 5), weights, reach=1.4, evidence=evidence,
            evidence_floor=floor, nobody=nobody,
        )  # fmt: skip

    scalars = [torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.7, 1.3, 0.1, -2.0)]
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in (*scalars, evidence)])


def test_region_templates_peak_where_the_region_is():
    head, anywhere = region_templates(["head", ""])
    v, u = divmod(int(head.argmax()), 32)
    low, high = PLACE_RANGE
    at = (torch.tensor([u, v]) + 0.5) / 32 * (high - low) + low
    assert (at - torch.tensor([0.5, 0.10])).abs().max() < 0.03
    assert bool((anywhere == 1).all())
    with pytest.raises(ValueError, match="tail"):
        region_templates(["tail"])


def test_counted_places_by_hand():
    """A box of 8 x 8 pixels on a grid of 12 over 1.5 boxes: a cell is a pixel."""
    parts = torch.zeros(10, 10, dtype=torch.uint8)
    objects = torch.zeros(10, 10, dtype=torch.int32)
    parts[1, 1], parts[8, 8], parts[2, 1] = 1, 2, 255
    objects[1, 1] = objects[8, 8] = objects[2, 1] = 7
    boxes = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
    counts = count_places(parts, objects, torch.tensor([7]), boxes, 2, grid=12)
    assert counts.nonzero().tolist() == [[0, 2, 2], [1, 9, 9]]
    assert counts.sum() == 1  # an object counts as one
    templates = templates_from_counts(torch.cat([3 * counts, torch.zeros(1, 12, 12)]))
    assert templates[0, 2, 2] == templates[1, 9, 9] == 1
    assert bool((templates[2] == 1).all())  # never seen: anywhere
