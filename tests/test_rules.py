"""The simple rules against brute force: every pixel asks every box."""

import numpy as np
import pytest
import torch

from instance_crf.rules import (
    NEAREST,
    SIMPLE_RULES,
    box_owners,
    mask_owners,
    owners_by_class,
)

SIZE = (9, 14)


def wish(name, box, score, y, x):
    """Of one box for one pixel, in plain Python."""
    x1, y1, x2, y2 = box
    across = (x - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = (y - (y1 + y2) / 2) / ((y2 - y1) / 2)
    wishes = {
        "best-scoring box wins": score,
        "nearest box centre": -(across**2 + down**2),
        "smallest box": -(x2 - x1) * (y2 - y1),
    }
    return wishes[name]


@pytest.fixture
def problem():
    """Boxes that overlap, stick out of the image and lie beside all foreground."""
    corners = np.array([[1.5, 1, 7, 8], [4, 2.2, 12, 9], [5, 3, 9, 6.6], [-3, -2, 4, 3.5]])
    scores = np.array([0.6, 0.9, 0.5, 0.3])
    foreground = np.random.default_rng(0).random(SIZE) < 0.7
    return corners, scores, foreground


@pytest.mark.parametrize("name", SIMPLE_RULES)
def test_against_every_pixel_asking_every_box(problem, name):
    boxes, scores, foreground = problem
    expected = np.zeros(SIZE, int)
    for y, x in np.argwhere(foreground):
        wishes = {
            i: wish(name, box, scores[i], y + 0.5, x + 0.5)
            for i, box in enumerate(boxes)
            if box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]
        }
        if wishes:
            expected[y, x] = max(wishes, key=wishes.get) + 1
    found = box_owners(SIMPLE_RULES[name], *map(torch.from_numpy, problem))
    assert found.dtype == torch.int64 and found.tolist() == expected.tolist()
    assert set(np.unique(expected)) >= {0, 1, 2, 4}


def test_by_hand():
    """Three pixels in a row, in both boxes: centres at 1.5 and 2; half widths 1.5 and 2."""
    boxes, scores = torch.tensor([[0.0, 0, 3, 1], [0, 0, 4, 1]]), torch.tensor([0.2, 0.8])
    foreground = torch.tensor([[True, True, True, True, True]])
    owners = {n: box_owners(p, boxes, scores, foreground) for n, p in SIMPLE_RULES.items()}
    assert owners["best-scoring box wins"].tolist() == [[2, 2, 2, 2, 0]]
    assert owners["smallest box"].tolist() == [[1, 1, 1, 2, 0]]
    # At 0.5: 1 / 1.5 and 1.5 / 2; at 2.5: 1 / 1.5 and 0.5 / 2.
    assert owners[NEAREST].tolist() == [[1, 1, 2, 2, 0]]


@pytest.mark.parametrize("preference", SIMPLE_RULES.values(), ids=list(SIMPLE_RULES))
def test_equals_and_nothing(preference):
    foreground = torch.ones(2, 3, dtype=torch.bool)
    twice = torch.tensor([[0.0, 0, 3, 2]] * 2)
    assert (box_owners(preference, twice, torch.tensor([0.5, 0.5]), foreground) == 1).all()
    nothing = box_owners(preference, torch.zeros(0, 4), torch.zeros(0), foreground)
    assert nothing.shape == (2, 3) and not nothing.any()
    background = torch.zeros_like(foreground)
    assert not box_owners(preference, twice, torch.tensor([0.5, 0.5]), background).any()


def test_masks():
    masks = torch.tensor([[[1, 1, 0, 0, 1]], [[0, 1, 1, 0, 1]], [[0, 0, 1, 0, 1]]]).bool()
    foreground = torch.tensor([[True, True, True, True, False]])
    scores = torch.tensor([0.3, 0.8, 0.8])
    assert mask_owners(masks, scores, foreground).tolist() == [[1, 2, 2, 0, 0]]
    # Half covers; less does not.
    soft = torch.where(masks, 0.5, 0.49)
    assert mask_owners(soft, scores, foreground).tolist() == [[1, 2, 2, 0, 0]]
    assert not mask_owners(masks[:0], scores[:0], foreground).any()


def test_parts_go_to_detections_of_their_class():
    """Two dogs (class 1) and a person (0); the person's parts are 1 and 3, the dog's is 2."""
    part_map, asked = torch.tensor([[0, 1, 2, 2, 3]]), {}

    def rule(mine, free):
        asked[tuple(mine.tolist())] = free.tolist()
        return torch.where(free, torch.tensor([[1, 1, 1, len(mine), 0]]), 0)

    owner = owners_by_class(rule, part_map, torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0]))
    assert owner.dtype == torch.int64 and owner.tolist() == [[0, 2, 1, 3, 0]]
    assert asked == {(1,): [[0, 1, 0, 0, 1]], (0, 2): [[0, 0, 1, 1, 0]]}
    nobody = torch.zeros(0, dtype=torch.int64)
    assert not owners_by_class(rule, part_map, nobody, torch.tensor([0, 1, 0])).any()
