"""Random labellings, predicted and true, for the tests of evaluation."""

import numpy as np
import pytest

from instance_crf.evaluation import Parsing


def _maps(rng, size, people, parts):
    """Overlapping boxes of stacked part stripes; later people cover earlier ones."""
    height, width = size
    part_map = np.zeros(size, dtype=np.uint8)
    object_map = np.zeros(size, dtype=np.uint8)
    for number in range(1, people + 1):
        y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
        h, w = rng.integers(parts, height // 2), rng.integers(2, width // 2)
        stripes = 1 + np.arange(h) * parts // h
        part_map[y : y + h, x : x + w] = stripes[:, None]
        object_map[y : y + h, x : x + w] = number
    return part_map, object_map


def _parsing(rng, part_map, object_map, classes, scored):
    ids = np.unique(object_map)
    ids = ids[ids > 0].astype(np.int64)
    parsing = Parsing.of_maps(
        part_map, object_map, object_ids=ids, object_classes=classes[ids.astype(int) - 1]
    )
    if not scored:
        return parsing
    return Parsing.of_maps(
        part_map,
        object_map,
        object_ids=ids,
        object_classes=parsing.object_classes,
        object_scores=rng.random(len(ids)),
        segment_scores=rng.random(len(parsing.segment_ids)),
    )


@pytest.fixture
def make_pair():
    """A function (seed, …) -> (prediction, truth) that resemble one another."""

    def make(seed, size=(40, 48), people=3, parts=4, classes=1, noise=0.15, shift=2):
        rng = np.random.default_rng(seed)
        part_map, object_map = _maps(rng, size, people, parts)
        object_classes = rng.integers(0, classes, people)
        truth = _parsing(rng, part_map, object_map, object_classes, scored=False)
        dy, dx = rng.integers(-shift, shift + 1, 2)
        part_map = np.roll(part_map, (dy, dx), (0, 1))
        object_map = np.roll(object_map, (dy, dx), (0, 1))
        wrong = (rng.random(size) < noise) & (part_map > 0)
        part_map = np.where(wrong, rng.integers(1, parts + 1, size), part_map).astype(np.uint8)
        wrong = (rng.random(size) < noise) & (object_map > 0)
        object_map = np.where(wrong, rng.integers(1, people + 1, size), object_map)
        prediction = _parsing(rng, part_map, object_map.astype(np.uint8), object_classes, True)
        return prediction, truth

    return make
