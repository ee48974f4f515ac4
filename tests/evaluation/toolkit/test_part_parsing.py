"""The metrics against per-pixel brute force, and what they do in the corners."""

from dataclasses import replace

import numpy as np
import pytest

from instance_crf.evaluation import Parsing, PartParsingMetrics
from instance_crf.evaluation.contingency import IGNORE
from instance_crf.evaluation.parsing import Comparison
from instance_crf.evaluation.toolkit.person import class_ious

PARTS = ("head", "torso", "upper-arms", "legs")


def evaluate(pairs, protocols="sds", objects=("person",), **options):
    metrics = PartParsingMetrics(PARTS, objects, protocols, **options)
    for index, (prediction, truth) in enumerate(pairs):
        metrics.add(index, prediction, truth)
    return metrics.compute()


def as_prediction(truth):
    return replace(
        truth,
        segment_scores=np.linspace(0.9, 0.1, len(truth.segment_ids)),
        object_scores=np.linspace(0.9, 0.1, len(truth.object_ids)),
    )


# --- perfect and empty predictions ---


def test_the_ground_truth_as_prediction_is_perfect(make_pair):
    truths = [make_pair(seed)[1] for seed in range(4)]
    results = evaluate([(as_prediction(t), t) for t in truths], ("sds", "tvg", "coco"))
    for task, numbers in results.items():
        for key, value in numbers.items():
            assert value == pytest.approx(100.0), (task, key)


def test_no_prediction_and_an_empty_one_give_zero(make_pair):
    truths = [make_pair(seed)[1] for seed in range(3)]
    missing = evaluate([(None, t) for t in truths])
    empty = evaluate([(Parsing.empty(t.part_map.shape), t) for t in truths])
    assert missing == empty
    assert missing["part_apr"]["APr_vol"] == missing["object_apr"]["APr_vol"] == 0
    assert missing["person_ap"]["PCP50"] == missing["panoptic"]["PartPQ"] == 0
    assert missing["part_seg"]["IoU/head"] == 0 < missing["part_seg"]["IoU/background"]


def test_images_without_prediction_count(make_pair):
    pairs = [make_pair(seed) for seed in range(4)]
    with_hole = [(None if i == 2 else p, t) for i, (p, t) in enumerate(pairs)]
    full, hole = evaluate(pairs), evaluate(with_hole)
    assert hole["part_apr"]["APr10"] < full["part_apr"]["APr10"]
    assert hole["person_ap"]["PCP50"] <= full["person_ap"]["PCP50"]
    without = evaluate([pair for i, pair in enumerate(pairs) if i != 2])
    with pytest.warns(UserWarning):
        cihp_hole = evaluate(with_hole, "cihp", objects=("person", "dog"))
    with pytest.warns(UserWarning):
        cihp_without = evaluate(
            [p for i, p in enumerate(pairs) if i != 2], "cihp", objects=("person", "dog")
        )
    assert cihp_hole["part_apr"] == cihp_without["part_apr"]
    assert hole["part_apr"] != without["part_apr"]


def test_every_key_is_printable_and_every_value_a_float(make_pair):
    results = evaluate([make_pair(0)], ("sds", "tvg"))
    assert list(results)[:4] == ["part_apr", "part_apr_tvg", "object_apr", "object_apr_tvg"]
    for numbers in results.values():
        for key, value in numbers.items():
            assert "-" not in key
            assert type(value) is float
    assert {"APr_vol", "APr50", "APr60", "APr70", "APr_vol/upper_arms"} <= set(results["part_apr"])
    assert {"APr_vol", "APr50", "APr90"} <= set(results["object_apr"])


# --- brute force, pixel by pixel ---


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_is_that_of_pixels(make_pair, seed):
    pairs = [make_pair(10 * seed + k) for k in range(3)]
    rng = np.random.default_rng(seed)
    predicted, true = [], []
    for index, (prediction, truth) in enumerate(pairs):
        ignored = rng.random(truth.part_map.shape) < 0.1
        part_map = np.where(ignored, IGNORE, truth.part_map.astype(int))
        pairs[index] = (prediction, replace(truth, part_map=part_map))
        predicted.append(prediction.part_map[~ignored])
        true.append(truth.part_map[~ignored])
    predicted, true = np.concatenate(predicted), np.concatenate(true)
    results = evaluate(pairs)["part_seg"]
    expected = [
        ((predicted == k) & (true == k)).sum() / ((predicted == k) | (true == k)).sum()
        for k in range(5)
    ]
    assert results["mIoU"] == pytest.approx(100 * np.mean(expected))
    assert results["mIoU_parts"] == pytest.approx(100 * np.mean(expected[1:]))
    assert results["IoU/upper_arms"] == pytest.approx(100 * expected[3])
    assert results["pixel_accuracy"] == pytest.approx(100 * (predicted == true).mean())


def test_absent_classes_of_mean_iou(make_pair):
    """Nowhere: left out. Only predicted: 0, in the mean."""
    part_map = np.array([[0, 1], [0, 1]], dtype=np.uint8)
    truth = Parsing.of_maps(part_map, part_map, object_ids=[1], object_classes=[0])
    results = evaluate([(as_prediction(truth), truth)])["part_seg"]
    assert results["mIoU"] == 100 and np.isnan(results["IoU/legs"])
    wrong = Parsing.of_maps(part_map * 4, part_map, object_ids=[1], object_classes=[0])
    results = evaluate([(as_prediction(wrong), truth)])["part_seg"]
    assert results["IoU/legs"] == 0 and results["mIoU"] == pytest.approx(100 / 3)


def person_map(parsing, object_id):
    return np.where(parsing.object_map == object_id, parsing.part_map, 0)


def iou_of_classes(first, second, classes):
    unions = [((first == k) | (second == k)).sum() for k in classes]
    hits = [((first == k) & (second == k)).sum() for k in classes]
    return np.array([h / u if u else np.nan for h, u in zip(hits, unions, strict=True)])


@pytest.mark.parametrize("seed", range(4))
def test_person_ious_are_those_of_whole_image_part_maps(make_pair, seed):
    prediction, truth = make_pair(seed)
    ious, num_parts = class_ious(Comparison.of("a", prediction, truth), 5)
    for row, i in enumerate(prediction.object_ids):
        for column, g in enumerate(truth.object_ids):
            expected = iou_of_classes(person_map(prediction, i), person_map(truth, g), range(5))
            np.testing.assert_allclose(ious[row, column], expected)
    expected = [len(np.unique(person_map(truth, g))) - 1 for g in truth.object_ids]
    assert num_parts.tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_person_maps_equal_disjoint_ones_where_they_are_disjoint(make_pair, seed):
    prediction, truth = make_pair(seed)
    maps = np.stack([person_map(truth, g) for g in truth.object_ids]).astype(np.int32)
    expected = class_ious(Comparison.of("a", prediction, truth), 5)
    actual = class_ious(Comparison.of("a", prediction, replace(truth, person_maps=maps)), 5)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


def test_pcp_and_app_by_brute_force(make_pair):
    pairs = [make_pair(seed) for seed in range(6)]
    rows, num_persons = [], 0
    for index, (prediction, truth) in enumerate(pairs):
        num_persons += len(truth.object_ids)
        for i, score in zip(prediction.object_ids, prediction.object_scores, strict=True):
            ious = [
                iou_of_classes(person_map(prediction, i), person_map(truth, g), range(5))
                for g in truth.object_ids
            ]
            rows.append((-score, index, ious))
    rows.sort(key=lambda r: r[0])
    taken, hits, correct = set(), [], []
    for _, index, ious in rows:
        means = [np.nanmean(v) for v in ious]
        best = int(np.argmax(means))
        hit = means[best] > 0.5 and (index, best) not in taken
        hits.append(hit)
        if hit:
            taken.add((index, best))
            truth = pairs[index][1]
            parts = np.unique(person_map(truth, truth.object_ids[best]))
            correct.append((ious[best][1:] > 0.5).sum() / (parts > 0).sum())
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    results = evaluate(pairs)["person_ap"]
    assert results["APp50"] == pytest.approx(100 * envelope[hits].sum() / num_persons)
    assert results["PCP50"] == pytest.approx(100 * sum(correct) / num_persons)
    assert 0 < results["PCP50"] < 100


def test_aph_is_class_agnostic(make_pair):
    """A person taken for a dog is a hit of APh, and of no object APr."""
    prediction, truth = make_pair(3, noise=0, shift=0, people=1)
    prediction = replace(prediction, object_classes=1 - truth.object_classes)
    results = evaluate([(prediction, truth)], objects=("person", "dog"))
    assert results["person_ap"]["APh_vol"] == 100
    assert results["object_apr"]["APr_vol"] == 0


def masks_of(parsing):
    owners = parsing.segment_ids >> 16
    return [
        ((parsing.object_map == i) & (parsing.part_map == j), j)
        for i, j in zip(owners, parsing.segment_parts, strict=True)
    ]


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize("seed", range(3))
def test_pq_by_brute_force(make_pair, seed):
    pairs = [make_pair(20 * seed + k) for k in range(4)]
    expected = []
    for part in range(1, 5):
        total, hits, false_positives, false_negatives = 0.0, 0, 0, 0
        for prediction, truth in pairs:
            guesses = [m for m, j in masks_of(prediction) if j == part]
            truths = [m for m, j in masks_of(truth) if j == part]
            values = [iou(p, g) for p in guesses for g in truths if iou(p, g) > 0.5]
            total, hits = total + sum(values), hits + len(values)
            false_positives += len(guesses) - len(values)
            false_negatives += len(truths) - len(values)
        expected.append(total / (hits + 0.5 * false_positives + 0.5 * false_negatives))
    results = evaluate(pairs)["panoptic"]
    assert results["PQ"] == pytest.approx(100 * np.mean(expected))
    assert results["PQ/legs"] == pytest.approx(100 * expected[3])


@pytest.mark.parametrize("seed", range(3))
def test_part_pq_by_brute_force(make_pair, seed):
    pairs = [make_pair(30 * seed + k) for k in range(4)]
    total, hits, num_guesses, num_truths = 0.0, 0, 0, 0
    for prediction, truth in pairs:
        num_guesses += len(prediction.object_ids)
        num_truths += len(truth.object_ids)
        for i in prediction.object_ids:
            for g in truth.object_ids:
                if iou(prediction.object_map == i, truth.object_map == g) > 0.5:
                    first, second = person_map(prediction, i), person_map(truth, g)
                    classes = np.union1d(first, second)
                    total += np.mean(iou_of_classes(first, second, classes))
                    hits += 1
    quality = total / (0.5 * num_guesses + 0.5 * num_truths)
    results = evaluate(pairs)["panoptic"]
    assert 0 < hits < num_truths
    assert results["PartPQ"] == pytest.approx(100 * quality)
    assert results["PartSQ"] == pytest.approx(100 * total / hits)


# --- ignored pixels, crowds, files that know less ---


def band_of_ignored_pixels():
    """A prediction that reaches 2 columns beyond the ground truth, onto ignored pixels."""
    true = np.zeros((4, 8), dtype=np.int32)
    true[:, :4], true[:, 4:6] = 1, IGNORE
    guess = np.zeros((4, 8), dtype=np.int32)
    guess[:, :6] = 1
    make = {"object_ids": np.array([1]), "object_classes": np.array([0])}
    truth = Parsing.of_maps(true, true, **make)
    return as_prediction(Parsing.of_maps(guess, guess, **make)), truth


@pytest.mark.filterwarnings("ignore:Protocol")
def test_an_ignored_band_does_not_change_tvg_and_changes_cihp():
    prediction, truth = band_of_ignored_pixels()
    results = {}
    for name in ("tvg", "cihp", "sds"):
        metrics = PartParsingMetrics(PARTS[:1], ("person",), name)
        metrics.add("a", prediction, truth)
        results[name] = metrics.compute()
    assert results["tvg"]["part_apr"]["APr90"] == results["tvg"]["object_apr"]["APr90"] == 100
    for name in ("cihp", "sds"):
        assert results[name]["part_apr"]["APr60"] == 100  # IoU is 16 / 24
        assert results[name]["part_apr"]["APr70"] == results[name]["object_apr"]["APr70"] == 0
    # Mean IoU, PQ and PartPQ leave ignored pixels out under any protocol.
    assert results["cihp"]["part_seg"]["mIoU"] == 100
    assert results["cihp"]["panoptic"]["PQ"] == results["cihp"]["panoptic"]["PartPQ"] == 100


def test_a_prediction_inside_void_is_no_false_positive_of_pq():
    prediction, truth = band_of_ignored_pixels()
    extra = np.zeros((4, 8), dtype=np.int32)
    extra[:, :4], extra[:, 4:6] = 1, 2
    extra = Parsing.of_maps(
        np.minimum(extra, 1), extra, object_ids=np.array([1, 2]), object_classes=np.zeros(2, int)
    )
    results = evaluate([(as_prediction(extra), truth)])["panoptic"]
    assert results["PQ"] == results["ObjectPQ"] == results["PartPQ"] == 100


def test_crowds_are_absorbed_by_coco_and_no_miss_anywhere(make_pair):
    prediction, truth = make_pair(5, noise=0, shift=0)
    crowd = np.arange(len(truth.object_ids)) == 0
    truth = Parsing.of_maps(
        truth.part_map,
        truth.object_map,
        object_ids=truth.object_ids,
        object_classes=truth.object_classes,
        object_crowd=crowd,
    )
    assert not np.isin(truth.segment_ids >> 16, truth.object_ids[crowd]).any()
    results = evaluate([(prediction, truth)], ("sds", "coco"))
    assert results["object_apr_coco"]["APr_vol"] == 100
    assert results["panoptic"]["ObjectPQ"] == results["panoptic"]["PartPQ"] == 100
    assert results["object_apr"]["APr_oracle"] == 100


def test_objects_without_parts_are_objects_but_no_persons_of_app():
    object_map = np.array([[1, 1, 2, 2, 0]], dtype=np.uint8)
    part_map = np.array([[1, 1, 0, 0, 0]], dtype=np.uint8)
    truth = Parsing.of_maps(part_map, object_map, object_ids=[1, 2], object_classes=[0, 0])
    only = Parsing.of_maps(part_map, part_map, object_ids=[1], object_classes=[0])
    results = evaluate([(as_prediction(only), truth)])
    assert results["object_apr"]["APr50"] == 50
    assert results["person_ap"]["APp50"] == results["person_ap"]["PCP50"] == 100
    assert results["panoptic"]["PartPQ"] == 100 and results["panoptic"]["ObjectRQ"] < 100


def test_what_the_files_do_not_know_is_left_out(make_pair):
    prediction, truth = make_pair(0)
    no_scores = replace(prediction, segment_scores=None, object_scores=None)
    assert set(evaluate([(no_scores, truth)])) == {"part_seg", "panoptic"}
    segments = np.where(
        prediction.object_map > 0, prediction.object_map.astype(int) * 8 + prediction.part_map, 0
    )
    no_objects = replace(
        prediction,
        object_map=None,
        segment_map=segments,
        segment_ids=(prediction.segment_ids >> 16) * 8 + prediction.segment_parts,
        object_ids=np.zeros(0, int),
        object_scores=None,
    )
    results = evaluate([(no_objects, truth)])
    assert set(results) == {"part_apr", "part_seg", "panoptic"}
    assert "PartPQ" not in results["panoptic"]
    assert results["part_apr"] == evaluate([(prediction, truth)])["part_apr"]


def test_the_order_and_the_split_of_images_do_not_show_in_any_digit(make_pair):
    pairs = {seed: make_pair(seed) for seed in range(9)}
    results = []
    for order in (range(9), reversed(range(9))):
        metrics = [PartParsingMetrics(PARTS, ("person",), ("sds", "coco")) for _ in range(3)]
        for seed in order:
            metrics[seed % 3 if order != range(9) else 0].add(seed, *pairs[seed])
        metrics[0].merge(metrics[1])
        metrics[2].merge(metrics[0])
        results.append(metrics[2].compute())
    assert results[0] == results[1]


def test_unknown_ids_name_the_image(make_pair):
    prediction, truth = make_pair(0)
    with pytest.raises(ValueError, match="Image 'x'.*part id 4, expected 0..3"):
        PartParsingMetrics(PARTS[:3], ("person",), metrics=["part_seg"]).add("x", prediction, truth)
    with pytest.raises(ValueError, match="Unknown metrics"):
        PartParsingMetrics(PARTS, ("person",), metrics=["miou"])
