"""Overlaps from one histogram against pycocotools and against masks."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from instance_crf.evaluation.contingency import (
    IGNORE,
    group_overlaps,
    pair_segments,
    tabulate,
)
from instance_crf.evaluation.parsing import Comparison
from instance_crf.evaluation.regions import object_overlaps, part_overlaps


def encode(masks):
    return [mask_util.encode(np.asfortranarray(m, np.uint8)) for m in masks]


def segment_masks(parsing):
    owners, parts = parsing.segment_ids >> 16, parsing.segment_parts
    return [
        (parsing.object_map == i) & (parsing.part_map == j)
        for i, j in zip(owners, parts, strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_pairwise_iou_equals_pycocotools(make_pair, seed):
    prediction, truth = make_pair(seed)
    comparison = Comparison.of("a", prediction, truth)
    expected = mask_util.iou(
        encode(segment_masks(prediction)),
        encode(segment_masks(truth)),
        [0] * len(truth.segment_ids),
    )
    np.testing.assert_allclose(part_overlaps(comparison).iou(), expected, atol=1e-12)
    objects = [
        [parsing.object_map == i for i in parsing.object_ids] for parsing in (prediction, truth)
    ]
    expected = mask_util.iou(*map(encode, objects), [0] * len(objects[1]))
    np.testing.assert_allclose(object_overlaps(comparison).iou(), expected, atol=1e-12)


def test_iou_with_a_crowd_is_the_share_of_the_prediction(make_pair):
    prediction, truth = make_pair(0)
    crowd = np.ones(len(truth.object_ids), dtype=bool)
    masks = [[p.object_map == i for i in p.object_ids] for p in (prediction, truth)]
    expected = mask_util.iou(*map(encode, masks), [1] * len(crowd))
    overlaps = object_overlaps(Comparison.of("a", prediction, truth))
    np.testing.assert_allclose(overlaps.iou(crowd), expected, atol=1e-12)


@pytest.mark.parametrize("largest", [5, 3000, 2**30])
def test_ids_of_any_size(largest):
    """Small ids take a table, large ones a sort; the counts are those of masks either way."""
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(1, largest, 6))
    maps = [rng.choice([IGNORE, 0, *ids], (9, 7)).astype(np.int64) for _ in range(4)]
    table = tabulate(maps[:2], maps[2:])
    assert table.counts.sum() == 63
    for row in range(len(table.counts)):
        for column in range(table.counts.shape[1]):
            inside = (maps[0] == table.prediction.object_id[row]) & (
                maps[1] == table.prediction.part[row]
            )
            inside &= (maps[2] == table.truth.object_id[column]) & (
                maps[3] == table.truth.part[column]
            )
            assert table.counts[row, column] == inside.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_dtypes_and_strides(dtype):
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 5, (12, 10)).astype(dtype) for _ in range(2))
    strided = np.stack([first, second], axis=-1)
    expected = tabulate((first, first), (second, second))
    actual = tabulate((strided[..., 0],) * 2, (strided[..., 1],) * 2)
    np.testing.assert_array_equal(actual.counts, expected.counts)


def test_a_pair_with_none_is_no_segment_and_with_ignored_is_ignored():
    segments = pair_segments(np.array([0, 1, 1, 2, IGNORE, 1]), np.array([1, 0, 2, 2, 1, IGNORE]))
    assert segments[:2].tolist() == [0, 0]
    assert segments[2] != segments[3] and min(segments[2:4]) > 0
    assert segments[4:].tolist() == [IGNORE, IGNORE]


def test_erased_pixels_leave_the_prediction():
    """A prediction of 4 pixels, 2 of them on the ground truth and 2 on ignored pixels."""
    prediction = np.array([[1, 1, 1, 1]])
    truth = np.array([[1, 1, IGNORE, IGNORE]])
    table = tabulate((prediction, prediction), (truth, truth))
    labels = table.prediction.segment_id, [pair_segments(1, 1)]
    true = table.truth.segment_id, [pair_segments(1, 1)]
    assert group_overlaps(table, *labels, *true).iou() == 0.5
    erased = table.truth.segment_id == IGNORE
    assert group_overlaps(table, *labels, *true, erased=erased).iou() == 1.0


def test_empty_sides():
    nothing = np.zeros((3, 4), dtype=np.uint8)
    table = tabulate((nothing, nothing), (nothing, nothing))
    none = np.zeros(0, dtype=np.int64)
    labels = table.prediction.segment_id
    assert group_overlaps(table, labels, none, labels, none).iou().shape == (0, 0)
    assert group_overlaps(table, labels, none, labels, np.array([7])).iou().shape == (0, 1)


def test_maps_of_different_sizes_are_refused(make_pair):
    prediction, _ = make_pair(0, size=(40, 48))
    _, truth = make_pair(0, size=(48, 40))
    with pytest.raises(ValueError, match=r"Image 'street': .*\(40, 48\), \(48, 40\)"):
        Comparison.of("street", prediction, truth)
