"""Parts of nobody: pixels with a part and no object, for each metric and each file format."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation import Parsing, PartParsingMetrics
from instance_crf.evaluation.toolkit.export import export_predictions
from instance_crf.evaluation.toolkit.formats import PREDICTION_READERS
from instance_crf.taxonomies.schema import PartTaxonomy

PERSON = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))
PROTOCOLS = ("sds", "tvg", "coco")


def without_objects(prediction, lost, keep_parts):
    """The prediction without the objects ``lost``; their pixels keep their part, or become
    background."""
    gone = np.isin(prediction.object_map, lost)
    kept = ~np.isin(prediction.object_ids, lost)
    segments = ~np.isin(prediction.segment_ids >> 16, lost)
    return Parsing.of_maps(
        prediction.part_map if keep_parts else np.where(gone, 0, prediction.part_map),
        np.where(gone, 0, prediction.object_map),
        object_ids=prediction.object_ids[kept],
        object_classes=prediction.object_classes[kept],
        object_scores=prediction.object_scores[kept],
        segment_scores=prediction.segment_scores[segments],
    )


@pytest.fixture
def pairs(make_pair):
    """Image id -> (prediction, truth): of the first image nothing is lost, of the second one
    object, of the third all."""
    return {str(seed): make_pair(seed) for seed in range(3)}


LOST = {"0": [], "1": [2], "2": [1, 2, 3]}


@pytest.fixture
def nobodys(pairs):
    return {i: (without_objects(p, LOST[i], True), t) for i, (p, t) in pairs.items()}


@pytest.fixture
def background(pairs):
    return {i: (without_objects(p, LOST[i], False), t) for i, (p, t) in pairs.items()}


def results_of(pairs):
    metrics = PartParsingMetrics(PERSON.part_names, PERSON.object_names, PROTOCOLS)
    for image_id, (prediction, truth) in pairs.items():
        metrics.add(image_id, prediction, truth)
    return metrics.compute()


def other_tasks(results):
    return {task: numbers for task, numbers in results.items() if task != "part_seg"}


def test_only_the_part_segmentation_counts_parts_of_nobody(pairs, nobodys, background):
    results = results_of(nobodys)
    assert results["part_seg"] == results_of(pairs)["part_seg"]
    assert results["part_seg"] != results_of(background)["part_seg"]
    assert other_tasks(results) == other_tasks(results_of(background))
    assert len(other_tasks(results)) == 2 * len(PROTOCOLS) + 2


def test_overlapping_true_persons_do_not_see_parts_of_nobody(nobodys, background):
    """As in Multi-Human Parsing, where each true person has a map of its own."""

    def with_person_maps(pairs):
        maps = {
            i: [np.where(t.object_map == k, t.part_map, 0) for k in t.object_ids]
            for i, (_, t) in pairs.items()
        }
        return {i: (p, replace(t, person_maps=np.stack(maps[i]))) for i, (p, t) in pairs.items()}

    results = results_of(with_person_maps(nobodys))["person_ap"]
    assert results == results_of(with_person_maps(background))["person_ap"]


def files_of(root):
    """{path: content} of all files; PNGs as arrays."""
    read = {".png": lambda path: np.asarray(Image.open(path))}
    return {
        str(path.relative_to(root)): read.get(path.suffix, lambda p: p.read_text())(path)
        for path in sorted(root.rglob("*.*"))
    }


#: The files of each format in which a part of nobody shows.
SHOWN_IN = {"cihp": "global_parsing", "mhp": "global_seg", "panoptic": "panoptic"}


@pytest.mark.parametrize("format_name", ["cihp", "mhp", "tvg", "panoptic", "coco", "partpq"])
def test_files_claim_no_object_for_parts_of_nobody(tmp_path, nobodys, background, format_name):
    written = []
    for name, pairs in (("nobody", nobodys), ("background", background)):
        predictions = [(image_id, prediction) for image_id, (prediction, _) in pairs.items()]
        export_predictions(format_name, tmp_path / name, PERSON, predictions)
        written.append(files_of(tmp_path / name))
    ours, theirs = written
    assert ours.keys() == theirs.keys()
    shown = SHOWN_IN.get(format_name)
    for name, content in ours.items():
        image_id = name.split("/")[-1].split(".")[0]
        if shown and name.startswith(f"{shown}/"):
            prediction = nobodys[image_id][0]
            nobody = (prediction.part_map > 0) & (prediction.object_map == 0)
            assert np.array_equal(content[~nobody], theirs[name][~nobody])
            # COCO's panoptic format keeps void, id 0, apart from the category background.
            expected = 0 * content if format_name == "panoptic" else prediction.part_map
            assert np.array_equal(content[nobody], expected[nobody])
        elif format_name == "panoptic":
            continue  # the JSON has areas of the background segment: see the next test
        else:
            assert np.array_equal(content, theirs[name])


@pytest.mark.parametrize("format_name", ["cihp", "mhp", "tvg", "panoptic", "partpq"])
def test_numbers_from_files(tmp_path, nobodys, background, format_name):
    """Formats with a part map keep the parts of nobody; for the others they are background."""
    expected = nobodys if SHOWN_IN.get(format_name, "panoptic") != "panoptic" else background
    export_predictions(format_name, tmp_path, PERSON, [(i, p) for i, (p, _) in nobodys.items()])
    reader = PREDICTION_READERS[format_name](tmp_path, PERSON)
    results = results_of({i: (reader.read(i), t) for i, (_, t) in nobodys.items()})
    if format_name == "mhp":  # a segment has its person's score
        results = {task: n for task, n in results.items() if not task.startswith("part_apr")}
    for task, numbers in results.items():
        wanted = results_of(expected)[task]
        for key in numbers:  # what a format does not know is left out: tvg's objects
            assert numbers[key] == wanted[key] or np.isnan([numbers[key], wanted[key]]).all()
    assert "part_seg" in results
