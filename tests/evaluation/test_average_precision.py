"""AP against hand-computed numbers, brute force, pycocotools and the properties of an AP."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instance_crf.evaluation import PROTOCOLS, AveragePrecision, Protocol, get_protocol
from instance_crf.evaluation.average_precision import average_precision, match

SOUND = ("sds", "sds_matlab", "voc07", "coco", "app")
DEFECTIVE = ("tvg", "cihp", "aph")
ALL = SOUND + DEFECTIVE


def one_image_ap(protocol, ious, scores, threshold):
    """AP of one class in one image."""
    ious = np.atleast_2d(ious)
    metric = AveragePrecision(1, protocol)
    metric.add(
        "image",
        scores=scores,
        classes=np.zeros(len(scores)),
        ious=ious,
        truth_classes=np.zeros(ious.shape[1]),
    )
    return metric.compute().at(threshold)


# --- hand-computed ---


@pytest.mark.parametrize("protocol", ALL)
def test_perfect_predictions_give_one(protocol):
    threshold = get_protocol(protocol).thresholds[0]
    assert one_image_ap(protocol, np.eye(3), [0.9, 0.5, 0.1], threshold) == 1.0


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("tvg", 2.0), ("cihp", 2.0), ("sds", 1.0), ("sds_matlab", 1.0), ("voc07", 1.0)],
)
def test_two_fragments_of_one_ground_truth(protocol, expected):
    """Both fragments have IoU 0.4 > 0.1: the protocols without duplicate check count both."""
    expectation = (
        pytest.warns(UserWarning, match="AP can exceed 100")
        if expected > 1
        else contextlib.nullcontext()
    )
    with expectation:
        assert one_image_ap(protocol, [[0.4], [0.4]], [0.9, 0.8], 0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("tvg", 0), ("cihp", 0), ("sds_matlab", 0), ("aph", 0), ("voc07", 1), ("sds", 1), ("coco", 1)],
)
def test_iou_of_exactly_one_half(protocol, expected):
    assert one_image_ap(protocol, [[0.5]], [0.9], 0.5) == expected


@pytest.mark.parametrize("tenths", range(1, 10))
def test_a_tie_at_any_threshold_is_decided_by_the_comparison_alone(tenths):
    """0.1 * 3 > 3 / 10 in floating point; the thresholds are decimals, so that a tie is a tie."""
    iou, threshold = tenths / 10, PROTOCOLS["sds"].thresholds[tenths - 1]
    assert one_image_ap("sds", [[iou]], [0.9], threshold) == 1
    assert one_image_ap("sds_matlab", [[iou]], [0.9], threshold) == 0


def test_duplicate_bound_to_its_best_ground_truth_or_free_to_take_another():
    """The second prediction overlaps the taken ground truth most, and another one enough."""
    ious = np.array([[0.6, 0.0], [0.5, 0.3]])
    assert one_image_ap("sds", ious, [0.9, 0.8], 0.2) == pytest.approx(0.5)
    assert one_image_ap("sds_matlab", ious, [0.9, 0.8], 0.2) == pytest.approx(1.0)


def test_integrals_by_hand():
    """Hit, miss, hit of two ground truths: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    flags = np.array([1, 0, 1], dtype=np.int8)
    assert average_precision(flags, 2, "sum") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(flags, 2, "all_points") == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(flags, 2, "11_points") == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert average_precision(flags, 2, "101_points") == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_sum_is_not_interpolated():
    """Miss, hit, hit: the envelope lifts the first hit to 2/3, the plain sum does not."""
    flags = np.array([0, 1, 1], dtype=np.int8)
    assert average_precision(flags, 2, "sum") == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(flags, 2, "all_points") == pytest.approx(2 / 3)


def test_recall_points_that_a_recall_equals_are_reached():
    """Recall 3/10 reaches the point 0.3 of the 11."""
    flags = np.ones(3, dtype=np.int8)
    assert average_precision(flags, 10, "11_points") == pytest.approx(4 / 11)


def test_predictions_that_are_not_counted_leave_the_ranking():
    assert average_precision(np.array([-1, 1], dtype=np.int8), 1, "all_points") == 1.0


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Unknown protocol 'voc12'; it is one of sds"):
        AveragePrecision(1, "voc12")
    with pytest.raises(ValueError, match="Unknown integral"):
        average_precision(np.ones(1, np.int8), 1, "trapezoid")
    with pytest.raises(ValueError, match="thresholds must be IoUs"):
        Protocol("mine", "", thresholds=(0.5, 1.5))


# --- absent classes, images without predictions, crowds ---


def absent_class(protocol, predicted):
    """Class 0 perfect; class 1 has no ground truth."""
    metric = AveragePrecision(2, protocol)
    metric.add(
        "a",
        scores=[0.9, 0.8][: 1 + predicted],
        classes=[0, 1][: 1 + predicted],
        ious=[[1.0], [0.0]][: 1 + predicted],
        truth_classes=[0],
    )
    return metric.compute()


@pytest.mark.parametrize("predicted", [False, True])
def test_a_class_without_ground_truth_is_skipped_by_default(predicted):
    result = absent_class("sds", predicted)
    assert np.isnan(result.ap[1]).all()
    assert result.volume == 1.0


@pytest.mark.parametrize("predicted", [False, True])
def test_a_class_without_ground_truth_poisons_the_mean_of_tvg(predicted):
    with pytest.warns(UserWarning, match="NaN"):
        assert np.isnan(absent_class("tvg", predicted).volume)


def test_a_class_without_ground_truth_in_cihp_is_zero_or_nan():
    with pytest.warns(UserWarning, match="counts as 0"):
        assert absent_class("cihp", predicted=False).volume == 0.5
    with pytest.warns(UserWarning, match="counts as 0"):
        assert np.isnan(absent_class("cihp", predicted=True).volume)


@pytest.mark.parametrize(
    ("protocol", "expected"), [("sds", 0.5), ("tvg", 0.5), ("coco", 0.5), ("cihp", 1.0)]
)
def test_an_image_without_a_prediction_counts_unless_the_protocol_leaves_it_out(protocol, expected):
    metric = AveragePrecision(1, protocol)
    metric.add("a", scores=[0.9], classes=[0], ious=[[1.0]], truth_classes=[0])
    metric.add(
        "b",
        scores=[],
        classes=[],
        ious=np.zeros((0, 1)),
        truth_classes=[0],
        has_prediction=False,
    )
    result = metric.compute()
    assert result.at(0.5) == pytest.approx(expected, abs=0.01)  # 101 points: 51 / 101
    assert result.num_images == (1 if protocol == "cihp" else 2)


def test_an_empty_submission_is_a_submission():
    metric = AveragePrecision(1, "cihp")
    metric.add("b", scores=[], classes=[], ious=np.zeros((0, 1)), truth_classes=[0])
    assert metric.compute().volume == 0.0


def test_nothing_at_all_is_nan():
    assert np.isnan(AveragePrecision(3).compute().volume)


@pytest.mark.parametrize(("protocol", "expected"), [("coco", 1.0), ("sds", 0.5)])
def test_a_prediction_in_a_crowd(protocol, expected):
    """COCO does not count it; elsewhere a crowd is no ground truth and it is a false positive."""
    metric = AveragePrecision(1, protocol)
    metric.add(
        "a",
        scores=[0.9, 0.8],
        classes=[0, 0],
        ious=[[0.0, 0.9], [1.0, 0.0]],
        truth_classes=[0, 0],
        truth_crowd=[False, True],
    )
    assert metric.compute().at(0.5) == pytest.approx(expected)


def test_the_oracle_ranks_hits_first():
    metric = AveragePrecision(1, "sds")
    metric.add("a", scores=[0.9, 0.1], classes=[0, 0], ious=[[0.0], [1.0]], truth_classes=[0])
    result = metric.compute()
    assert result.volume == pytest.approx(0.5)
    assert result.mean(result.oracle).mean() == pytest.approx(1.0)


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [np.nan]}, "Image 'a': a score is NaN"),
        ({"scores": [np.inf]}, "Image 'a': a score is NaN or infinite"),
        ({"ious": [[np.nan]]}, "Image 'a': an IoU is NaN"),
        ({"classes": [2]}, "predicted classes span 2..2, expected 0..1"),
        ({"truth_classes": [-1]}, "ground-truth classes span -1..-1"),
        ({"classes": [0, 1]}, "1 scores for 2 predictions"),
    ],
)
def test_bad_input_names_the_image(change, message):
    image = {"scores": [0.5], "classes": [0], "ious": [[1.0]], "truth_classes": [0]}
    with pytest.raises(ValueError, match=message):
        AveragePrecision(2).add("a", **(image | change))


def test_an_image_counts_once():
    image = {"scores": [0.5], "classes": [0], "ious": [[1.0]], "truth_classes": [0]}
    metric, other = AveragePrecision(1), AveragePrecision(1)
    metric.add("a", **image)
    other.add("a", **image)
    with pytest.raises(ValueError, match="'a' was evaluated twice"):
        metric.add("a", **image)
    with pytest.raises(ValueError, match="'a' was evaluated twice"):
        metric.merge(other)
    with pytest.raises(ValueError, match="Cannot merge 'voc07'"):
        metric.merge(AveragePrecision(1, "voc07"))


# --- against independent computations ---


def random_data(seed, images=6, classes=2, most=7):
    rng = np.random.default_rng(seed)
    data = []
    for index in range(images):
        m, g = rng.integers(0, most, 2)
        data.append(
            {
                "image_id": f"{index:03d}",
                "scores": rng.permutation(1000)[:m] / 1000 + index / 1e6,
                "classes": rng.integers(0, classes, m),
                "ious": rng.random((m, g)).round(2),
                "truth_classes": rng.integers(0, classes, g),
            }
        )
    return data


def run(data, protocol, classes=2):
    metric = AveragePrecision(classes, protocol)
    for image in data:
        metric.add(**image)
    return metric.compute()


def brute_force(data, protocol, class_index, threshold):
    """AP written down again from the protocols' definitions, one prediction at a time."""
    rows, truths = [], 0
    for image in data:
        wanted = np.flatnonzero(image["truth_classes"] == class_index)
        truths += len(wanted)
        for row in np.flatnonzero(image["classes"] == class_index):
            rows.append((-image["scores"][row], image["image_id"], image["ious"][row, wanted]))
    rows.sort(key=lambda r: r[:2])
    used, hits = {}, []
    for _, name, ious in rows:
        taken = used.setdefault(name, set())
        good = ious >= threshold if protocol.inclusive else ious > threshold
        if protocol.matching == "unlimited":
            hits.append(bool(good.any()))
            continue
        if protocol.matching == "argmax":
            choice = [int(ious.argmax())] if len(ious) else []
            choice = [c for c in choice if good[c] and c not in taken]
        else:
            order = np.argsort(-ious, kind="stable")
            if protocol.equal_ious == "last":
                order = np.lexsort((-np.arange(len(ious)), -ious))
            choice = [c for c in order if good[c] and c not in taken]
        hits.append(bool(choice))
        taken.update(choice[:1])
    if truths == 0:
        return np.nan
    precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    recall = [sum(hits[: k + 1]) / truths for k in range(len(hits))]
    if protocol.integral == "sum":
        return sum(p for p, h in zip(precision, hits, strict=True) if h) / truths

    def best(r):
        return max([p for p, q in zip(precision, recall, strict=True) if q >= r], default=0.0)

    if protocol.integral == "all_points":
        levels = sorted({0.0, *recall})
        return sum((b - a) * best(b) for a, b in zip(levels[:-1], levels[1:], strict=True))
    count = 11 if protocol.integral == "11_points" else 101
    points = np.arange(11) / 10 if count == 11 else np.linspace(0, 1, 101)
    return float(np.mean([best(r) for r in points]))


@pytest.mark.filterwarnings("ignore:Protocol")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force(name, seed):
    data, protocol = random_data(seed), PROTOCOLS[name]
    result = run(data, name)
    for class_index in range(2):
        for column, threshold in enumerate(protocol.thresholds):
            expected = brute_force(data, protocol, class_index, threshold)
            assert result.ap[class_index, column] == pytest.approx(expected, nan_ok=True)


def coco_ap(truths, predictions, size):
    """AP of every threshold by pycocotools, one class."""
    height, width = size
    images = [{"id": i, "height": height, "width": width} for i in range(len(truths))]
    annotations, results = [], []
    for i, (masks, crowd) in enumerate(truths):
        for mask, is_crowd in zip(masks, crowd, strict=True):
            rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1,
                    "iscrowd": int(is_crowd),
                    "area": float(mask.sum()),
                    "segmentation": rle,
                    "bbox": mask_util.toBbox(rle).tolist(),
                }
            )
    for i, (masks, scores) in enumerate(predictions):
        for mask, score in zip(masks, scores, strict=True):
            rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
            results.append(
                {"image_id": i, "category_id": 1, "segmentation": rle, "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "thing"}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 2]
    return precision.mean(axis=1)


@pytest.mark.parametrize("with_crowd", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_coco_equals_pycocotools(seed, with_crowd):
    """Overlapping boxes as masks, duplicates, false positives, images without either."""
    rng, size = np.random.default_rng(seed), (30, 40)

    def boxes(count):
        masks = np.zeros((count, *size), dtype=bool)
        for mask in masks:
            y, x = rng.integers(0, 18, 2)
            mask[y : y + rng.integers(6, 12), x : x + rng.integers(6, 12)] = True
        return masks

    metric, truths, predictions = AveragePrecision(1, "coco"), [], []
    for index in range(8):
        masks = boxes(rng.integers(0, 4))
        crowd = (rng.random(len(masks)) < 0.3) & with_crowd
        guesses = np.concatenate(
            [np.roll(masks, rng.integers(-2, 3, 2), (1, 2)), boxes(2), masks[:1]]
        )
        scores = rng.permutation(len(guesses)) / 10 + index / 1000
        truths.append((masks, crowd))
        predictions.append((guesses, scores))

        def encode(stack):
            return [mask_util.encode(np.asfortranarray(m, np.uint8)) for m in stack]

        ious = mask_util.iou(encode(guesses), encode(masks), crowd.astype(np.uint8).tolist())
        metric.add(
            index,
            scores=scores,
            classes=np.zeros(len(guesses)),
            ious=np.asarray(ious).reshape(len(guesses), len(masks)),
            truth_classes=np.zeros(len(masks)),
            truth_crowd=crowd,
        )
    expected = coco_ap(truths, predictions, size)
    np.testing.assert_allclose(metric.compute().ap[0], expected, atol=1e-9)


def test_coco_uses_the_best_hundred_of_a_class():
    scores = np.arange(150) / 150
    ious = np.zeros((150, 1))
    ious[49] = 1.0  # the 101st best
    assert one_image_ap("coco", ious, scores, 0.5) == 0.0
    ious[50] = 1.0
    assert one_image_ap("coco", ious, scores, 0.5) == pytest.approx(1 / 100)


def test_whole_numbers_rank_as_numbers():
    """Image 9 has a hit and image 10 a miss, of one score: 9 comes first, as in pycocotools."""
    for ids, expected in (((9, 10), 1.0), (("9", "10"), 0.5)):
        metric = AveragePrecision(1, "sds")
        for image_id, iou in zip(ids, (1.0, 0.0), strict=True):
            truths = np.zeros(int(iou))
            ious = np.full((1, len(truths)), iou)
            metric.add(image_id, scores=[0.5], classes=[0], ious=ious, truth_classes=truths)
        assert metric.compute().volume == expected


# --- properties ---


@pytest.mark.parametrize("protocol", SOUND)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ap_is_in_the_unit_interval_and_below_the_oracle(protocol, seed):
    result = run(random_data(seed), protocol)
    present = result.num_truths > 0
    assert ((result.ap[present] >= 0) & (result.ap[present] <= 1 + 1e-12)).all()
    assert (result.ap[present] <= result.oracle[present] + 1e-12).all()


@pytest.mark.filterwarnings("ignore:Protocol")
@pytest.mark.parametrize("protocol", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_images_does_not_matter(protocol, seed):
    """To the last bit, also when scores are equal, and spread over merged accumulators."""
    data = random_data(seed)
    for image in data:
        image["scores"] = image["scores"].round(1)
    rng = np.random.default_rng(seed)
    shuffled = [data[i] for i in rng.permutation(len(data))]
    expected = run(data, protocol)
    np.testing.assert_array_equal(run(shuffled, protocol).ap, expected.ap)
    halves = AveragePrecision(2, protocol), AveragePrecision(2, protocol)
    for index, image in enumerate(shuffled):
        halves[index % 2].add(**image)
    halves[1].merge(halves[0])
    np.testing.assert_array_equal(halves[1].compute().ap, expected.ap)


@pytest.mark.filterwarnings("ignore:Protocol")
@pytest.mark.parametrize("protocol", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 50), power=st.sampled_from([1, 3, 5]))
def test_only_the_order_of_scores_matters(protocol, seed, scale, power):
    data = random_data(seed)
    expected = run(data, protocol).ap
    for image in data:
        image["scores"] = scale * image["scores"] ** power - 3
    np.testing.assert_array_equal(run(data, protocol).ap, expected)


@pytest.mark.filterwarnings("ignore:Protocol")
@pytest.mark.parametrize("protocol", ALL)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_stricter_threshold_never_raises_ap(protocol, seed):
    ap = run(random_data(seed), protocol).ap
    ap = ap[~np.isnan(ap).any(axis=1)]
    assert (np.diff(ap, axis=1) <= 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), protocol=st.sampled_from(SOUND))
def test_a_ground_truth_is_matched_at_most_once(seed, protocol):
    rng = np.random.default_rng(seed)
    ious, scores = rng.random((8, 3)), rng.random(8)
    flags = match(ious, scores, PROTOCOLS[protocol])
    assert (flags.sum(axis=0) <= 3).all()
