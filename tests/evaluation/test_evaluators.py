"""The Detectron2 evaluators: ground truth from the catalog, every image counts, many processes."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from PIL import Image

from instance_crf.evaluation import PartInstanceEvaluator, PartParsingMetrics, PredictionExporter
from instance_crf.evaluation.parsing import parsing_of_result
from instance_crf.evaluation.toolkit.formats import PREDICTION_READERS
from instance_crf.structures import SCORE_NAMES, PartInstances
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMY = PartTaxonomy(part_names=("head", "torso", "upper-arms", "legs"))
NAME = "evaluators_test_val"
NUM_IMAGES = 5


def result_of(prediction, seed):
    """A model's result with a random Q and confidence."""
    generator = torch.Generator().manual_seed(seed)
    count = int(prediction.object_map.max())
    shape = prediction.part_map.shape
    return PartInstances.from_label_maps(
        torch.from_numpy(prediction.object_map.astype(np.int64)),
        torch.from_numpy(prediction.part_map.astype(np.int64)),
        boxes=torch.tensor([[0.0, 0.0, shape[1], shape[0]]]).expand(count, 4),
        scores=torch.rand(count, generator=generator),
        classes=torch.zeros(count, dtype=torch.int64),
        part_prob=torch.rand(5, *shape, generator=generator),
        confidence=torch.rand(shape, generator=generator),
    )


@pytest.fixture
def dataset(tmp_path, make_pair):
    """A registered dataset, and (image id, result) pairs of a model."""
    records, results, truths = [], [], {}
    for seed in range(NUM_IMAGES):
        prediction, truth = make_pair(seed)
        image_id = f"{seed:04d}"
        for kind, label_map in (("part", truth.part_map), ("object", truth.object_map)):
            Image.fromarray(label_map).save(tmp_path / f"{image_id}_{kind}.png")
        records.append(
            {
                "file_name": str(tmp_path / f"{image_id}.jpg"),
                "image_id": image_id,
                "height": truth.part_map.shape[0],
                "width": truth.part_map.shape[1],
                "part_file_name": str(tmp_path / f"{image_id}_part.png"),
                "object_file_name": str(tmp_path / f"{image_id}_object.png"),
                "annotations": [
                    {"object_id": int(i), "category_id": 0, "iscrowd": 0} for i in truth.object_ids
                ],
            }
        )
        results.append((image_id, result_of(prediction, seed)))
        truths[image_id] = truth
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(taxonomy=TAXONOMY)
    yield records, results, truths
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def run(evaluator, results):
    evaluator.reset()
    for image_id, result in results:
        evaluator.process([{"image_id": image_id}], [{"part_instances": result}])
    return evaluator.evaluate()


def test_numbers_are_those_of_the_metrics(dataset):
    _, results, truths = dataset
    metrics = PartParsingMetrics(TAXONOMY.part_names, ("person",))
    for image_id, result in results:
        metrics.add(image_id, parsing_of_result(result), truths[image_id])
    assert run(PartInstanceEvaluator(NAME), results) == metrics.compute()


def test_images_that_never_came_count(dataset, caplog):
    _, results, truths = dataset
    metrics = PartParsingMetrics(TAXONOMY.part_names, ("person",))
    for image_id, result in results:
        prediction = parsing_of_result(result) if image_id < "0003" else None
        metrics.add(image_id, prediction, truths[image_id])
    with caplog.at_level(logging.WARNING):
        numbers = run(PartInstanceEvaluator(NAME), results[:3])
    assert numbers == metrics.compute()
    assert "2 of 5 images" in caplog.text


def test_the_protocol_is_logged_and_written(dataset, tmp_path, caplog):
    _, results, _ = dataset
    evaluator = PartInstanceEvaluator(
        NAME, protocol=("voc07", "tvg"), output_dir=str(tmp_path / "out")
    )
    with caplog.at_level(logging.INFO):
        numbers = run(evaluator, results)
    assert "part_apr  [protocol voc07]" in caplog.text
    assert "part_apr_tvg  [protocol tvg]" in caplog.text
    written = json.loads((tmp_path / "out/part_instance_evaluation.json").read_text())
    assert written["protocols"]["part_apr"] == "voc07"
    assert written["results"] == numbers


def test_any_score_can_rank(dataset):
    """And all of them can be compared in one run."""
    _, results, _ = dataset
    study = run(PartInstanceEvaluator(NAME, compare_scores=True), results)["scores"]
    for name in SCORE_NAMES:
        numbers = run(PartInstanceEvaluator(NAME, score_name=name), results)
        assert study[f"part_APr_vol/{name}"] == numbers["part_apr"]["APr_vol"]
        assert study[f"object_APr50/{name}"] == numbers["object_apr"]["APr50"]
        assert study["part_APr_vol/oracle"] == numbers["part_apr"]["APr_oracle"]
    assert len({study[f"part_APr_vol/{name}"] for name in SCORE_NAMES}) > 1
    assert study["object_APr_vol/share"] != study["object_APr_vol/detection"]


def test_a_second_run_starts_anew(dataset):
    _, results, _ = dataset
    evaluator = PartInstanceEvaluator(NAME)
    assert run(evaluator, results) == run(evaluator, results)
    with pytest.raises(ValueError, match="Image '0000' was evaluated twice"):
        evaluator.process([{"image_id": "0000"}], [{"part_instances": results[0][1]}])


def test_no_part_instances_at_all(dataset):
    numbers = run(PartInstanceEvaluator(NAME), [(i, None) for i, _ in dataset[1]])
    assert numbers["part_apr"]["APr_vol"] == numbers["object_apr"]["APr_vol"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("part_file_name"), r"cannot be evaluated: 1 image\(s\) have no part_file"),
        (lambda r: r.update(part_file_name="/nowhere.png"), "/nowhere.png"),
        (lambda r: r["annotations"].pop(0), r"0000_object\.png has object id 1, which the record"),
    ],
)
def test_broken_records_are_named(dataset, change, message):
    records, results, _ = dataset
    change(records[0])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(PartInstanceEvaluator(NAME), results)


def test_bad_input(dataset):
    records, results, _ = dataset
    evaluator = PartInstanceEvaluator(NAME)
    with pytest.raises(ValueError, match=r"Image 'z' \(z.jpg\) is not in the dataset"):
        evaluator.process([{"image_id": "z", "file_name": "z.jpg"}], [{"part_instances": None}])
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(records[0]["part_file_name"])
    with pytest.raises(ValueError, match=r"0000_part\.png is \(7, 9\).*_object\.png is \(40, 48\)"):
        evaluator.process([{"image_id": "0000"}], [{"part_instances": results[0][1]}])
    with pytest.raises(ValueError, match="Unknown score 'area'"):
        PartInstanceEvaluator(NAME, score_name="area")
    with pytest.raises(ValueError, match="Unknown protocol"):
        PartInstanceEvaluator(NAME, protocol="voc")


def test_memory_does_not_grow_with_image_size(dataset):
    """Of an image only flags, scores and counts stay."""
    _, results, _ = dataset
    evaluator = PartInstanceEvaluator(NAME)
    run(evaluator, results)
    kept = [
        array.size
        for record in evaluator._metrics.parts["part_apr"].ap._images.values()
        for array in (record.scores, record.classes, record.flags, record.truth_classes)
    ]
    segments = sum(len(result.segment_part) for _, result in results)
    assert sum(kept) <= segments * (2 + 9) + NUM_IMAGES * 12


# --- several processes ---


def _evaluate_share(rank, world_size, folder, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    share = results[rank::world_size]
    numbers = run(PartInstanceEvaluator(NAME, protocol=("sds", "coco"), compare_scores=True), share)
    exporter = PredictionExporter(NAME, "panoptic", folder / "panoptic")
    assert run(exporter, share[:1]) == {}  # and then another over it
    assert run(exporter, share) == {}
    assert (numbers is None) == (not comm.is_main_process())
    if numbers is not None:
        (folder / "numbers.json").write_text(json.dumps(numbers))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_same_numbers_to_the_last_digit(dataset, tmp_path):
    """Gloo on the CPU; forked, so that the children know the dataset."""
    records, results, _ = dataset
    expected = run(
        PartInstanceEvaluator(NAME, protocol=("sds", "coco"), compare_scores=True), results
    )
    torch.multiprocessing.start_processes(
        _evaluate_share, (2, tmp_path, results), nprocs=2, start_method="fork"
    )
    assert json.loads((tmp_path / "numbers.json").read_text()) == expected
    reader = PREDICTION_READERS["panoptic"](tmp_path / "panoptic", TAXONOMY)
    assert reader.image_ids() == [record["image_id"] for record in records]


def test_exported_during_evaluation(dataset, tmp_path):
    _, results, truths = dataset
    exporter = PredictionExporter(NAME, "cihp", tmp_path / "cihp", score_name="product")
    run(exporter, results)
    reader = PREDICTION_READERS["cihp"](tmp_path / "cihp", TAXONOMY)
    metrics = PartParsingMetrics(TAXONOMY.part_names, ("person",))
    for image_id, truth in truths.items():
        metrics.add(image_id, reader.read(image_id), truth)
    assert metrics.compute() == run(PartInstanceEvaluator(NAME, score_name="product"), results)


def test_an_export_that_does_not_end_leaves_the_old_one(dataset, tmp_path):
    _, results, _ = dataset
    exporter = PredictionExporter(NAME, "mhp", tmp_path / "mhp")
    run(exporter, results)
    before = (tmp_path / "mhp/results.txt").read_text()
    exporter.reset()
    exporter.process([{"image_id": "0000"}], [{"part_instances": results[1][1]}])
    reader = PREDICTION_READERS["mhp"](tmp_path / "mhp", TAXONOMY)
    assert (tmp_path / "mhp/results.txt").read_text() == before
    np.testing.assert_array_equal(reader.read("0000").object_map, results[0][1].object_map)
    run(exporter, results[:2])
    reader = PREDICTION_READERS["mhp"](tmp_path / "mhp", TAXONOMY)
    assert reader.image_ids() == ["0000", "0001"]
    assert not (tmp_path / "mhp/global_tag/0002.png").exists()


def test_an_image_that_comes_twice_is_not_exported(dataset, tmp_path):
    _, results, _ = dataset
    with pytest.raises(ValueError, match="Image '0001' has two predictions"):
        run(PredictionExporter(NAME, "coco", tmp_path), [*results, results[1]])
