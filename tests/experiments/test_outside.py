"""Recall outside shrunk boxes, by hand and against a loop over pixels."""

import math

import numpy as np
import pytest
import torch

from instance_crf.experiments.outside import OutsideRecall


def brute_force(images, scale):
    """(right, all), pixel by pixel."""
    right = total = 0
    for predicted, true, ids in images:
        for i in ids:
            pixels = [(int(y), int(x)) for y, x in np.argwhere(true == i)]
            if not pixels:
                continue
            ys, xs = zip(*pixels, strict=True)
            box = min(xs), min(ys), max(xs) + 1, max(ys) + 1
            cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            w, h = scale * (box[2] - box[0]) / 2, scale * (box[3] - box[1]) / 2
            common = {}
            for y, x in pixels:
                k = int(predicted[y, x])
                common[k] = common.get(k, 0) + (k > 0)
            best = max(sorted(k for k in common if k) or [None], key=lambda k: common.get(k, 0))
            for y, x in pixels:
                if not (cx - w <= x + 0.5 < cx + w and cy - h <= y + 0.5 < cy + h):
                    total += 1
                    right += predicted[y, x] == best
    return right, total


@pytest.mark.parametrize("scale", [0.0, 0.5, 0.75, 1.0])
def test_against_a_loop_over_pixels(make_people, scale):
    images = [make_people(seed) for seed in range(8)]
    recall = OutsideRecall(scale)
    for image in images:
        recall.add(*image)
    assert (recall.right, recall.total) == brute_force(images, scale)
    assert scale == 1 or 0 < recall.right < recall.total


@pytest.fixture
def make_people():
    def make(seed):
        """Blobs, and what somebody found of them: shifted, noisy, one object split."""
        rng = np.random.default_rng(seed)
        true = np.zeros((30, 37), dtype=np.int32)
        for i in range(1, 5):
            y, x = rng.integers(0, 22), rng.integers(0, 28)
            true[y : y + rng.integers(3, 14), x : x + rng.integers(3, 12)] = i
        predicted = np.roll(true, rng.integers(-2, 3, 2), (0, 1))
        predicted[(predicted == 1) & (rng.random(true.shape) < 0.5)] = 6
        predicted[rng.random(true.shape) < 0.2] = 0
        return predicted, true, [1, 2, 4, 9]  # 3 is a crowd, 9 has no pixel

    return make


def test_by_hand():
    true = np.zeros((10, 10), dtype=np.uint8)
    true[1:9, 1:9] = 1  # shrunk to half: 3..7; 64 pixels, 48 outside
    predicted = np.zeros((10, 10), dtype=np.int32)
    predicted[1:9, 1:6] = 2  # 40 pixels of the person, 40 - 4 * 3 = 28 outside
    predicted[1:9, 6:10] = 5
    recall = OutsideRecall(0.5)
    recall.add(torch.from_numpy(predicted), true, [1])
    assert recall.compute() == {"recall": 100 * 28 / 48}


def test_the_object_is_that_of_the_whole_person():
    """Not that of most of its pixels outside."""
    true = np.ones((1, 10), dtype=np.uint8)
    predicted = np.array([[3, 3, 3, 2, 2, 2, 2, 0, 0, 0]])  # shrunk to 0.4: 3..7
    recall = OutsideRecall(0.4)
    recall.add(predicted, true, [1])
    assert (recall.right, recall.total) == (0, 6)


def test_nothing_found_and_nothing_there():
    recall = OutsideRecall()
    assert math.isnan(recall.compute()["recall"])
    recall.add(np.zeros((8, 8)), np.ones((8, 8)), [1])
    assert recall.compute() == {"recall": 0.0} and recall.total == 64 - 36
    recall.add(np.zeros((8, 8)), np.zeros((8, 8)), [1])
    assert recall.total == 64 - 36


def test_errors():
    with pytest.raises(ValueError, match=r"scale is 1.5; .* 0..1"):
        OutsideRecall(1.5)
    with pytest.raises(ValueError, match=r"is \(8, 9\) .*, but the true one is \(8, 8\)"):
        OutsideRecall().add(np.zeros((8, 9)), np.zeros((8, 8)), [])
