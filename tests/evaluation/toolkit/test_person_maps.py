"""The measures of person maps against numbers by hand."""

import numpy as np
import pytest

from instance_crf.evaluation.toolkit.person_maps import (
    PERSON_MAP_METRICS,
    bootstrap,
    compare_person_maps,
    match_boxes,
    metric_cells,
    numbered_by_detection,
    summarize,
    tight_boxes,
)

TRUTH = np.repeat([[1, 1, 1, 2, 2, 2]], 4, axis=0)
PREDICTED = np.repeat([[1, 1, 1, 1, 2, 2]], 4, axis=0)
BOXES = np.array([[0.0, 0, 4, 4], [2, 0, 6, 4]])
SCORES = np.array([0.5, 0.9])


def test_by_hand():
    counts = compare_person_maps(PREDICTED, TRUTH, BOXES, SCORES)
    assert counts.ious.tolist() == [12 / 16, 8 / 12]
    # Columns 2 and 3 are in both boxes; column 3 went to the wrong person.
    assert (counts.contested, counts.answered, counts.right) == (8, 8, 4)
    assert counts.scores.tolist() == [0.9, 0.5] and counts.hits.all() and counts.positives == 2
    expected = [100, 100 * (12 / 16 + 8 / 12) / 2, 50, 100]
    assert summarize([counts]) == pytest.approx(expected)


def test_false_alarms_lower_what_is_ranked_below_them():
    predicted = np.vstack([PREDICTED, np.full((1, 6), 3)])
    truth = np.vstack([TRUTH, np.zeros((1, 6), int)])
    boxes = np.vstack([BOXES, [[0, 4, 6, 5]]])
    for score, precisions in ((0.95, (2 / 3, 2 / 3)), (0.7, (1, 2 / 3)), (0.1, (1, 1))):
        counts = compare_person_maps(predicted, truth, boxes, np.append(SCORES, score))
        assert summarize([counts])[0] == pytest.approx(50 * sum(precisions))


def test_each_person_is_found_once():
    predicted = np.array([[1] * 6 + [2] * 4])
    truth = np.ones((1, 10), int)
    boxes = np.array([[0.0, 0, 6, 1], [6, 0, 10, 1]])
    counts = compare_person_maps(predicted, truth, boxes, SCORES)
    assert counts.hits.tolist() == [False, True] and counts.ious.tolist() == [0.6]
    assert summarize([counts])[0] == pytest.approx(50)


def test_what_does_not_count():
    truth = TRUTH.copy()
    truth[:, 3:] = -1
    counts = compare_person_maps(PREDICTED, truth, BOXES, SCORES)
    assert counts.ious.tolist() == [1.0]
    assert counts.contested == 4  # column 3 has no truth
    assert counts.scores.tolist() == [0.5]  # the other person is all on what does not count


def test_people_who_are_not_annotated_leave_ap_out():
    partial = compare_person_maps(PREDICTED, TRUTH, BOXES, SCORES, truth_complete=False)
    assert len(partial.hits) == 0 and partial.positives == 0 and partial.right == 4
    complete = compare_person_maps(TRUTH, TRUTH, BOXES, SCORES)
    assert summarize([partial, complete])[0] == 100


def test_without_boxes_or_people():
    nothing = np.zeros((4, 6), int)
    no_boxes, no_scores = np.zeros((0, 4)), np.zeros(0)
    counts = compare_person_maps(nothing, TRUTH, no_boxes, no_scores)
    assert summarize([counts]).tolist() == [0, 0, 0, 0]
    counts = compare_person_maps(PREDICTED, nothing, BOXES, SCORES)
    assert counts.hits.tolist() == [False, False] and len(counts.ious) == 0
    assert tight_boxes(nothing).shape == (0, 4)


def test_boxes_are_matched_from_the_best_on():
    truth_boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [50, 0, 60, 10]])
    boxes = np.array([[0.0, 0, 10, 8], [0, 0, 10, 9], [20, 0, 30, 5], [50, 0, 60, 4]])
    assert match_boxes(boxes, truth_boxes).tolist() == [1, 2, -1]


def test_bootstrap_is_a_summary_of_what_was_drawn():
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(6):
        truth = rng.integers(0, 3, (8, 8))
        predicted = np.where(rng.random((8, 8)) < 0.6, truth, rng.integers(0, 4, (8, 8)))
        boxes = np.array([[0.0, 0, 8, 8], [0, 0, 7, 8], [2, 2, 5, 5]])
        counts.append(compare_person_maps(predicted, truth, boxes, rng.random(3)))
    drawn = np.random.default_rng(3).integers(6, size=(20, 6))
    expected = [summarize([counts[i] for i in one]) for one in drawn]
    assert np.ptp(expected, axis=0).min() >= 0 and np.ptp(expected, axis=0)[:3].min() > 0
    np.testing.assert_allclose(bootstrap(counts, 20, seed=3), expected)


def test_refusals():
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(6, 4\)"):
        compare_person_maps(PREDICTED, TRUTH.T, BOXES, SCORES)
    with pytest.raises(ValueError, match=r"persons 0\.\.2, there are 1 boxes"):
        compare_person_maps(PREDICTED, TRUTH, BOXES[:1], SCORES[:1])


def test_many_samples_are_those_of_few():
    counts = [compare_person_maps(PREDICTED, TRUTH, BOXES, SCORES * f) for f in (1, 0.5)]
    counts.append(compare_person_maps(TRUTH, TRUTH, BOXES, SCORES * 0.7))
    many = bootstrap(counts, 250)
    assert many.shape == (250, 4) and len(np.unique(many[:, 1])) > 2
    assert np.array_equal(many[:60], bootstrap(counts, 60))
    assert np.array_equal(many[100:130], bootstrap(counts, 130)[100:])


def test_objects_under_the_numbers_of_their_detections():
    object_map = np.array([[0, 1, 2], [2, 2, 1]])
    owner, scores = numbered_by_detection(
        object_map, np.array([3, 0], np.int32), np.array([0.5, 0.25]), 5
    )
    assert owner.tolist() == [[0, 4, 1], [1, 1, 4]] and owner.dtype == np.int32
    assert scores.tolist() == [0.25, 0, 0, 0.5, 0]


def test_cells_have_intervals_but_for_answered():
    values = dict(zip(PERSON_MAP_METRICS, (1.0, 2.25, 3.0, 4.0), strict=True))
    assert metric_cells(values) == ["1.0", "2.2", "3.0", "4.0"]
    interval = dict.fromkeys(PERSON_MAP_METRICS, (-1.0, 2.0))
    cells = metric_cells(values, interval)
    assert cells[0] == "1.0 (-1.0 to +2.0)" and cells[3] == "4.0"
