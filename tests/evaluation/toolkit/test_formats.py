"""Exported files read back give the same numbers, also by the official evaluators' logic."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instance_crf.data.coco_tables import taxonomy_of_categories
from instance_crf.evaluation import Parsing, PartParsingMetrics
from instance_crf.evaluation.contingency import IGNORE
from instance_crf.evaluation.toolkit.export import export_predictions, make_writer
from instance_crf.evaluation.toolkit.formats import PREDICTION_READERS, TRUTH_READERS, WRITERS
from instance_crf.evaluation.toolkit.formats.base import lookup
from instance_crf.evaluation.toolkit.formats.cihp import write_cihp_truth
from instance_crf.evaluation.toolkit.formats.coco import (
    COCOPredictions,
    COCOTruth,
    write_coco_truth,
)
from instance_crf.evaluation.toolkit.formats.panoptic import PanopticWriter
from instance_crf.evaluation.toolkit.formats.partpq import default_part_ids, default_scene_ids
from instance_crf.evaluation.toolkit.formats.tvg import write_tvg_truth
from instance_crf.structures import PartInstances
from instance_crf.taxonomies.schema import PartTaxonomy

PERSON = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))
ZOO = PartTaxonomy(
    part_names=("head", "legs", "wheel", "door"),
    object_names=("dog", "car"),
    part_owner=(0, 0, 1, 1),
)


@pytest.fixture
def pairs(make_pair):
    """Image id -> (prediction, truth); a hole in the ids, and one empty prediction."""
    pairs = {f"{seed:07d}": make_pair(seed) for seed in (0, 1, 2, 5)}
    shape = pairs["0000005"][1].part_map.shape
    pairs["0000005"] = (Parsing.empty(shape), pairs["0000005"][1])
    return pairs


def results_of(pairs, taxonomy=PERSON, **options):
    metrics = PartParsingMetrics(taxonomy.part_names, taxonomy.object_names, **options)
    for image_id, (prediction, truth) in pairs.items():
        metrics.add(image_id, prediction, truth)
    return metrics.compute()


def export(format_name, root, pairs, taxonomy=PERSON, **options):
    predictions = [(image_id, prediction) for image_id, (prediction, _) in pairs.items()]
    export_predictions(format_name, root, taxonomy, predictions, **options)


def read_back(format_name, root, pairs, taxonomy=PERSON, **options):
    """The pairs with predictions from files."""
    reader = PREDICTION_READERS[format_name](root, taxonomy, **options)
    assert reader.image_ids() == sorted(pairs)
    return {image_id: (reader.read(image_id), truth) for image_id, (_, truth) in pairs.items()}


def write_canonical(root, pairs):
    for name in ("Category_ids", "Human_ids"):
        (root / name).mkdir(parents=True)
    for image_id, (_, truth) in pairs.items():
        part_map = np.where(truth.part_map == IGNORE, 255, truth.part_map).astype(np.uint8)
        object_map = np.where(truth.object_map == IGNORE, 255, truth.object_map).astype(np.uint8)
        Image.fromarray(part_map).save(root / "Category_ids" / f"{image_id}.png")
        Image.fromarray(object_map).save(root / "Human_ids" / f"{image_id}.png")


# --- round trips of predictions ---


@pytest.mark.parametrize("format_name", ["cihp", "panoptic"])
def test_a_round_trip_keeps_every_number(tmp_path, pairs, format_name):
    export(format_name, tmp_path, pairs)
    assert results_of(read_back(format_name, tmp_path, pairs)) == results_of(pairs)


@pytest.mark.parametrize("background_line", [True, False])
def test_tvg_round_trip_keeps_what_it_holds(tmp_path, pairs, background_line):
    """Segments and parts; the format has no objects."""
    export("tvg", tmp_path, pairs, background_line=background_line)
    results, expected = results_of(read_back("tvg", tmp_path, pairs)), results_of(pairs)
    assert set(results) == {"part_apr", "part_seg", "panoptic"}
    for task in ("part_apr", "part_seg"):
        assert results[task] == expected[task]
    assert results["panoptic"]["PQ"] == expected["panoptic"]["PQ"]


def test_mhp_round_trip_ranks_segments_by_their_person(tmp_path, pairs):
    export("mhp", tmp_path, pairs)
    results, expected = results_of(read_back("mhp", tmp_path, pairs)), results_of(pairs)
    for task in ("object_apr", "part_seg", "person_ap", "panoptic"):
        assert results[task] == expected[task]

    def by_person(parsing):
        score_of = dict(zip(parsing.object_ids, parsing.object_scores, strict=True))
        scores = np.array([score_of[i] for i in parsing.segment_ids >> 16])
        return replace(parsing, segment_scores=scores)

    ranked = {i: (by_person(prediction), truth) for i, (prediction, truth) in pairs.items()}
    assert results["part_apr"] == results_of(ranked)["part_apr"]


def test_partpq_round_trip_keeps_the_unscored_numbers(tmp_path, pairs):
    export("partpq", tmp_path, pairs, scene_ids=(15,), part_ids=(1, 2, 4, 3))
    options = {"scene_ids": (15,), "part_ids": (1, 2, 4, 3)}
    results = results_of(read_back("partpq", tmp_path, pairs, **options))
    expected = results_of(pairs)
    assert results == {task: expected[task] for task in ("part_seg", "panoptic")}
    colors = np.asarray(Image.open(tmp_path / "0000000.png"))
    prediction = pairs["0000000"][0]
    assert set(np.unique(colors[prediction.object_map > 0][:, 0])) == {15}
    assert (colors[prediction.part_map == 3][:, 2] == 4).all()
    assert (colors[prediction.object_map == 0][:, 0] == 255).all()
    listed = json.loads((tmp_path / "images.json").read_text())["images"]
    assert [image["id"] for image in listed] == list(pairs)


def test_coco_round_trip_compares_masks_by_pycocotools(tmp_path, pairs):
    export("coco", tmp_path / "predictions", pairs)
    write_coco_truth(tmp_path / "truth", PERSON, [(i, t) for i, (_, t) in pairs.items()])
    truth = COCOTruth(tmp_path / "truth", PERSON)
    predictions = COCOPredictions(tmp_path / "predictions", PERSON, truth)
    metrics = PartParsingMetrics(PERSON.part_names, ("person",), ("sds", "coco"))
    for image_id in truth.image_ids():
        for kind, targets in (("parts", metrics.parts), ("objects", metrics.objects)):
            guesses, true = predictions.regions(kind, image_id), truth.regions(kind, image_id)
            for metric in targets.values():
                metric.add_regions(
                    image_id,
                    scores=guesses.scores,
                    classes=guesses.classes,
                    ious=guesses.iou(true),
                    truth_classes=true.classes,
                    truth_crowd=true.crowd,
                )
    expected = results_of(pairs, protocols=("sds", "coco"))
    for task, metric in (*metrics.parts.items(), *metrics.objects.items()):
        assert metric.compute() == expected[task]


def test_several_object_classes_survive_where_the_format_can_hold_them(tmp_path, make_pair):
    pairs = {str(seed): make_pair(seed, classes=2) for seed in range(4)}
    expected = results_of(pairs, ZOO)
    export("panoptic", tmp_path / "panoptic", pairs, ZOO)
    assert results_of(read_back("panoptic", tmp_path / "panoptic", pairs, ZOO), ZOO) == expected
    export("partpq", tmp_path / "partpq", pairs, ZOO)
    results = results_of(read_back("partpq", tmp_path / "partpq", pairs, ZOO), ZOO)
    assert results["panoptic"] == expected["panoptic"]
    for format_name in ("cihp", "mhp"):
        with pytest.raises(ValueError, match="holds one object class; the taxonomy has dog, car"):
            make_writer(format_name, tmp_path, ZOO)


def test_a_models_result_is_exported_by_the_score_asked_for(tmp_path):
    object_map = torch.tensor([[1, 1, 2, 0]])
    result = PartInstances.from_label_maps(
        object_map,
        torch.tensor([[1, 2, 1, 0]]),
        boxes=torch.zeros(2, 4),
        scores=torch.tensor([0.9, 0.4]),
        classes=torch.zeros(2, dtype=torch.int64),
        part_prob=torch.full((5, 1, 4), 0.25),
    )
    export_predictions("cihp", tmp_path / "q", PERSON, [("a", result)])
    export_predictions("cihp", tmp_path / "d", PERSON, [("a", result)], score_name="detection")
    table = "instance_parsing/a.txt"
    assert (tmp_path / "q" / table).read_text() == "1 0.25\n2 0.25\n1 0.25\n"
    rows = [line.split() for line in (tmp_path / "d" / table).read_text().splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "1"]
    assert [float(row[1]) for row in rows] == pytest.approx([0.9, 0.9, 0.4])


def test_lookup_leaves_other_ids_and_ignored_pixels_at_zero():
    label_map = np.array([[IGNORE, 0, 3, 9, 7]])
    expected = [[0, 0, 1, 2, 0]]
    assert lookup(label_map, np.array([3, 9]), np.array([1, 2])).tolist() == expected
    assert lookup(label_map.astype(np.uint8), np.array([3, 9]), [1, 2]).tolist() == expected


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="Unknown format 'voc'; it is one of cihp, mhp"):
        make_writer("voc", tmp_path, PERSON)
    assert set(WRITERS) == {"cihp", "mhp", "tvg", "panoptic", "coco", "partpq"}


# --- round trips of ground truth ---


def as_prediction(truth):
    """The ground truth as read, with scores, so that it can be evaluated."""
    return replace(
        truth,
        part_map=np.maximum(truth.part_map, 0),
        object_map=None if truth.object_map is None else np.maximum(truth.object_map, 0),
        segment_map=None if truth.segment_map is None else np.maximum(truth.segment_map, 0),
        segment_scores=np.linspace(1, 0, len(truth.segment_ids)),
        object_scores=np.linspace(1, 0, len(truth.object_ids)),
    )


def test_ground_truth_from_every_format_gives_the_same_numbers(tmp_path, pairs):
    write_canonical(tmp_path / "canonical", pairs)
    panoptic = PanopticWriter(tmp_path / "panoptic", PERSON, name="val")
    for image_id, (_, truth) in pairs.items():
        write_cihp_truth(tmp_path / "official", image_id, truth)
        write_tvg_truth(tmp_path / "tvg", image_id, truth)
        panoptic.add(image_id, truth)
    panoptic.close()
    expected = results_of(pairs)
    for folder, format_name in (
        ("canonical", "cihp"),
        ("official", "cihp"),
        ("tvg", "tvg"),
        ("panoptic", "panoptic"),
    ):
        reader = TRUTH_READERS[format_name](tmp_path / folder, PERSON)
        assert reader.image_ids() == sorted(pairs)
        read = {i: (prediction, reader.read(i)) for i, (prediction, _) in pairs.items()}
        assert results_of(read) == expected, folder


@pytest.mark.parametrize("format_name", ["canonical", "tvg", "panoptic"])
def test_ignored_pixels_survive(tmp_path, make_pair, format_name):
    prediction, truth = make_pair(0)
    ignored = np.zeros(truth.part_map.shape, dtype=bool)
    ignored[5:15, 5:20] = True
    part_map = np.where(ignored, IGNORE, truth.part_map.astype(int))
    object_map = np.where(ignored, IGNORE, truth.object_map.astype(int))
    ids = np.unique(object_map)
    truth = Parsing.of_maps(
        part_map, object_map, object_ids=ids[ids > 0], object_classes=np.zeros((ids > 0).sum(), int)
    )
    if format_name == "canonical":
        write_canonical(tmp_path, {"a": (prediction, truth)})
        read = TRUTH_READERS["cihp"](tmp_path, PERSON).read("a")
    elif format_name == "tvg":
        write_tvg_truth(tmp_path, "a", truth)
        read = TRUTH_READERS["tvg"](tmp_path, PERSON).read("a")
    else:
        with PanopticWriter(tmp_path, PERSON) as writer:
            writer.add("a", truth)
        read = TRUTH_READERS["panoptic"](tmp_path, PERSON).read("a")
    protocols = ("sds", "tvg")
    expected = results_of({"a": (prediction, truth)}, protocols=protocols)
    assert results_of({"a": (prediction, read)}, protocols=protocols) == expected


def test_mhp_ground_truth_of_persons_that_overlap(tmp_path, make_pair):
    """Version 2's three channels; APp sees whole persons, the image's map the later one."""
    first, second = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    first[:4], second[2:6] = 1, 2
    for index, person in enumerate((first, second), start=1):
        rgb = np.stack([person, person * 0, person * 0], axis=-1)
        Image.fromarray(rgb).save(tmp_path / f"12_02_{index:02d}.png")
    reader = TRUTH_READERS["mhp"](tmp_path, PERSON)
    assert reader.image_ids() == ["12"]
    truth = reader.read("12")
    np.testing.assert_array_equal(truth.person_maps, [first, second])
    np.testing.assert_array_equal(truth.part_map[:, 0], [1, 1, 2, 2, 2, 2, 0, 0])
    np.testing.assert_array_equal(truth.object_map[:, 0], [1, 1, 2, 2, 2, 2, 0, 0])
    prediction = Parsing.of_maps(first, first, object_ids=np.array([1]), object_classes=np.zeros(1))
    prediction = replace(prediction, object_scores=np.ones(1), segment_scores=np.ones(1))
    results = results_of({"12": (prediction, truth)})
    assert results["person_ap"]["PCP50"] == 50  # the first person is whole, the second missed


def test_an_empty_mhp_person_is_left_out(tmp_path):
    person = np.ones((4, 4), np.uint8)
    for index, label_map in enumerate((person, person * 0), start=1):
        Image.fromarray(label_map).save(tmp_path / f"12_02_{index:02d}.png")
    assert len(TRUTH_READERS["mhp"](tmp_path, PERSON).read("12").object_ids) == 1


# --- the official evaluators' reading, written down again ---


def masks(label_map, ids):
    return [label_map == i for i in ids]


def non_interpolated_or_all_points(hits, scores, count, interpolated):
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.array(hits)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return precision[hits].sum() / count


@pytest.mark.filterwarnings("ignore:Protocol")
def test_the_cihp_evaluators_reading_gives_our_ap(tmp_path, pairs):
    """Line k of the txt is value k of the png; one class at a time; every hit counts."""
    export("cihp", tmp_path / "out", pairs)
    for image_id, (_, truth) in pairs.items():
        write_cihp_truth(tmp_path / "gt", image_id, truth)
    expected = PartParsingMetrics(PERSON.part_names, ("person",), "cihp")
    for image_id, pair in pairs.items():
        expected.add(image_id, *pair)
    ap = expected.parts["part_apr"].ap.compute().ap
    for part in range(1, 5):
        for column, threshold in enumerate((0.1, 0.5, 0.7)):
            hits, scores, count = [], [], 0
            for path in sorted((tmp_path / "out/instance_parsing").glob("*.txt")):
                guess = np.asarray(Image.open(path.with_suffix(".png")))
                rows = [line.split() for line in path.read_text().splitlines()]
                ids = [k for k, row in enumerate(rows, start=1) if int(row[0]) == part]
                truth_rows = (tmp_path / "gt" / path.name).read_text().splitlines()
                true_ids = [int(r.split()[0]) for r in truth_rows if int(r.split()[1]) == part]
                true = np.asarray(Image.open(tmp_path / "gt" / f"{path.stem}.png"))
                count += len(true_ids)
                for k in ids:
                    mask = guess == k
                    ious = [(mask & t).sum() / (mask | t).sum() for t in masks(true, true_ids)]
                    hits.append(max(ious, default=0.0) > threshold)
                    scores.append(float(rows[k - 1][1]))
            value = non_interpolated_or_all_points(hits, scores, count, interpolated=True)
            assert ap[part - 1, (0, 4, 6)[column]] == pytest.approx(value)


@pytest.mark.filterwarnings("ignore:Protocol")
def test_the_tvg_evaluators_reading_gives_our_ap(tmp_path, pairs):
    """Lines go with the ascending values of the png, the background's first."""
    export("tvg", tmp_path / "out", pairs)
    for image_id, (_, truth) in pairs.items():
        write_tvg_truth(tmp_path, image_id, truth)
    expected = PartParsingMetrics(PERSON.part_names, ("person",), "tvg")
    for image_id, pair in pairs.items():
        expected.add(image_id, *pair)
    ap = expected.parts["part_apr"].ap.compute().ap
    for part in range(1, 5):
        hits, scores, count = [], [], 0
        for path in sorted((tmp_path / "out").glob("*.png")):
            guess = np.asarray(Image.open(path)).copy()
            rows = [line.split() for line in path.with_suffix(".txt").read_text().splitlines()]
            values = np.unique(guess)
            assert len(values) == len(rows)
            instances = np.asarray(Image.open(tmp_path / "SegmentationPartInstance" / path.name))
            classes = np.asarray(Image.open(tmp_path / "SegmentationPart" / path.name))
            # MATLAB's first pixel: down the columns.
            first = {e: classes.T[instances.T == e][0] for e in np.unique(instances)}
            elements = [e for e in first if first[e] == part]
            count += len(elements)
            for value, (label, score) in zip(values, rows, strict=True):
                if int(label) == part:
                    mask = guess == value
                    true = masks(instances, elements)
                    hits.append(
                        max([(mask & t).sum() / (mask | t).sum() for t in true] + [0]) > 0.5
                    )
                    scores.append(float(score))
        value = non_interpolated_or_all_points(hits, scores, count, interpolated=False)
        assert ap[part - 1, 4] == pytest.approx(value)


def test_a_tvg_segment_has_the_class_of_its_first_pixel_down_the_columns(tmp_path):
    """By rows the first pixel of segment 1 is part 2's, of segment 2 part 1's."""
    for name, rows in (
        ("SegmentationPartInstance", [[0, 1, 2], [1, 1, 2], [0, 2, 2]]),
        ("SegmentationPart", [[0, 2, 1], [1, 1, 1], [0, 2, 1]]),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(rows, np.uint8)).save(tmp_path / name / "a.png")
    truth = TRUTH_READERS["tvg"](tmp_path, PERSON).read("a")
    assert truth.segment_ids.tolist() == [1, 2]
    assert truth.segment_parts.tolist() == [1, 2]


def class_ious(first, second, count):
    """IoU of each class of two part maps, NaN where neither has it."""
    both = np.array([((first == k) & (second == k)).sum() for k in range(count)])
    any_ = np.array([((first == k) | (second == k)).sum() for k in range(count)])
    return np.where(any_ > 0, both / np.maximum(any_, 1), np.nan)


def test_the_mhp_evaluators_reading_gives_our_numbers(tmp_path, pairs):
    """A person is the parts under its tag; it takes the true person of the best mean IoU."""
    export("mhp", tmp_path, pairs)
    rows, num_persons = [], 0
    for line in (tmp_path / "results.txt").read_text().splitlines():
        key, *values = line.split()
        seg, tag = (
            np.asarray(Image.open(tmp_path / n / f"{key}.png"))
            for n in ("global_seg", "global_tag")
        )
        truth = pairs[key][1]
        persons = [np.where(truth.object_map == g, truth.part_map, 0) for g in truth.object_ids]
        num_persons += len(persons)
        for number, score in zip(values[::2], values[1::2], strict=True):
            person = np.where(tag == int(number), seg, 0)
            rows.append((float(score), key, [class_ious(person, t, 5) for t in persons], persons))
    rows.sort(key=lambda row: -row[0])
    taken, hits, correct = set(), [], []
    for _, key, ious, persons in rows:
        best = int(np.argmax([np.nanmean(v) for v in ious]))
        hits.append(np.nanmean(ious[best]) > 0.5 and (key, best) not in taken)
        if hits[-1]:
            taken.add((key, best))
            present = len(np.unique(persons[best][persons[best] > 0]))
            correct.append((ious[best][1:] > 0.5).sum() / present)
    ap = non_interpolated_or_all_points(hits, [r[0] for r in rows], num_persons, interpolated=True)
    expected = results_of(pairs)["person_ap"]
    assert expected["APp50"] == pytest.approx(100 * ap)
    assert expected["PCP50"] == pytest.approx(100 * sum(correct) / num_persons)


def test_the_partpq_evaluators_reading_gives_our_number(tmp_path, pairs):
    """Channels: scene class, instance, part; IoU > 0.5 matches; parts over the whole image."""
    export("partpq", tmp_path, pairs, scene_ids=(15,), part_ids=(1, 2, 4, 3))
    total, hits, false_positives, false_negatives = 0.0, 0, 0, 0
    for image in json.loads((tmp_path / "images.json").read_text())["images"]:
        scene, number, part = np.moveaxis(
            np.asarray(Image.open(tmp_path / image["file_name"])).astype(int), -1, 0
        )
        part = np.array([0, 1, 2, 4, 3])[np.where(part == 255, 0, part)]
        truth = pairs[image["id"]][1]
        guesses = [(scene == 15) & (number == n) for n in np.unique(number[scene == 15])]
        trues = [truth.object_map == g for g in truth.object_ids]
        matched = 0
        for guess in guesses:
            for true in trues:
                if (guess & true).sum() / (guess | true).sum() > 0.5:
                    counted = ~(true & (truth.part_map == 0))
                    first = np.where(guess, part, 0)[counted]
                    second = np.where(true, truth.part_map, 0)[counted]
                    total += np.nanmean(class_ious(first, second, 5))
                    matched += 1
        hits += matched
        false_positives += len(guesses) - matched
        false_negatives += len(trues) - matched
    value = total / (hits + 0.5 * false_positives + 0.5 * false_negatives)
    assert 0 < value < 1
    assert results_of(pairs)["panoptic"]["PartPQ"] == pytest.approx(100 * value)


def test_cocos_own_evaluation_gives_our_coco_ap(tmp_path, pairs):
    export("coco", tmp_path / "predictions", pairs)
    write_coco_truth(tmp_path / "truth", PERSON, [(i, t) for i, (_, t) in pairs.items()])
    expected = results_of(pairs, protocols="coco")
    for kind, task in (("parts", "part_apr"), ("objects", "object_apr")):
        truth = COCO(tmp_path / "truth" / f"{kind}.json")
        official = COCOeval(
            truth, truth.loadRes(str(tmp_path / "predictions" / f"{kind}.json")), "segm"
        )
        official.evaluate()
        official.accumulate()
        precision = official.eval["precision"][:, :, :, 0, -1]  # T, R, K; all areas, 100 detections
        assert expected[task]["APr_vol"] == pytest.approx(100 * precision[precision > -1].mean())


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([], "name the taxonomy"),
        ([{"id": 0, "name": "background"}, {"id": 1, "name": "head"}], "'background' is no part"),
        ([{"id": 1, "name": "head"}, {"id": 3, "name": "leg"}], r"\[1, 3\]; expected 1, 2, 3"),
    ],
)
def test_categories_that_make_no_taxonomy(tmp_path, categories, words):
    with pytest.raises(ValueError, match=words):
        taxonomy_of_categories(categories, tmp_path)


def test_panoptic_json_is_cocos(tmp_path, pairs):
    """Ids are colours, areas and boxes those of the pixels, and nothing is void but ignored."""
    export("panoptic", tmp_path, pairs)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert taxonomy_of_categories(content["categories"], tmp_path).part_names == PERSON.part_names
    assert len(content["annotations"]) == len(content["images"]) == len(pairs)
    for annotation in content["annotations"]:
        rgb = np.asarray(Image.open(tmp_path / "panoptic" / annotation["file_name"])).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(ids).tolist())
        for segment in annotation["segments_info"]:
            rows, columns = np.nonzero(ids == segment["id"])
            assert segment["area"] == len(rows)
            x, y, w, h = segment["bbox"]
            assert (x, y, x + w - 1, y + h - 1) == (
                *(columns.min(), rows.min()),
                *(columns.max(), rows.max()),
            )


# --- limits of the formats ---


def many_segments(count):
    """One object with ``count`` parts of a pixel each, in rows."""
    part_map = np.zeros((2, count), dtype=np.int32)
    part_map[0] = 1 + np.arange(count) % 4
    object_map = np.zeros_like(part_map)
    object_map[0] = 1 + np.arange(count) // 4
    ids = np.unique(object_map[0])
    return Parsing.of_maps(
        part_map,
        object_map,
        object_ids=ids,
        object_classes=np.zeros(len(ids), int),
        object_scores=np.ones(len(ids)),
        segment_scores=np.ones(count),
    )


def test_more_than_255_segments_is_an_error_that_says_so(tmp_path):
    with make_writer("cihp", tmp_path / "cihp", PERSON) as writer:
        writer.add("full", many_segments(255))
        with pytest.raises(ValueError, match="256 segments in one image; the cihp format numbers"):
            writer.add("over", many_segments(256))
    with make_writer("tvg", tmp_path / "tvg", PERSON) as writer:
        writer.add("full", many_segments(254))
        with pytest.raises(ValueError, match="255 segments in one image; the tvg format holds 254"):
            writer.add("over", many_segments(255))
    reader = PREDICTION_READERS["cihp"](tmp_path / "cihp", PERSON)
    assert reader.image_ids() == ["full"]
    assert len(reader.read("full").segment_ids) == 255


def test_values_are_dense_whatever_the_objects_ids(tmp_path):
    """Objects 3 and 7, the official CIHP rule would give them ids far apart."""
    object_map = np.array([[3, 3, 7, 0]])
    part_map = np.array([[1, 2, 4, 0]])
    parsing = Parsing.of_maps(
        part_map,
        object_map,
        object_ids=np.array([3, 7]),
        object_classes=np.zeros(2, int),
        object_scores=np.array([0.9, 0.8]),
        segment_scores=np.array([0.3, 0.2, 0.1]),
    )
    export_predictions("cihp", tmp_path, PERSON, [("a", parsing)])
    segments = np.asarray(Image.open(tmp_path / "instance_parsing/a.png"))
    assert segments.dtype == np.uint8 and segments.tolist() == [[1, 2, 3, 0]]
    assert (tmp_path / "instance_parsing/a.txt").read_text() == "1 0.3\n2 0.2\n4 0.1\n"
    people = np.asarray(Image.open(tmp_path / "instance_segmentation/a.png"))
    assert people.tolist() == [[1, 1, 2, 0]]
    table = (tmp_path / "instance_segmentation/a.txt").read_text()
    assert table == "0.9 0 0 0 1\n0.8 0 2 0 2\n"


def test_a_segment_without_pixels_is_refused(tmp_path):
    parsing = many_segments(8)
    parsing = replace(parsing, part_map=np.where(parsing.part_map == 4, 3, parsing.part_map))
    with pytest.raises(ValueError, match="Segment 4 of the prediction has no pixel"):
        export_predictions("cihp", tmp_path, PERSON, [("a", parsing)])


def test_person_part_ids_of_pascal_panoptic_parts():
    taxonomy = PartTaxonomy(
        part_names=("head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
    )
    assert default_part_ids(taxonomy) == (1, 2, 4, 3, 6, 5)
    assert default_scene_ids(taxonomy) == (15,)
    assert default_scene_ids(ZOO) == (1, 2) and default_part_ids(ZOO) == (1, 2, 3, 4)
