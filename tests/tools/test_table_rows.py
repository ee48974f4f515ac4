"""Rows: all of them run on random networks; the truth in the place of a piece is the truth."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances

from instance_crf.config import load_config
from instance_crf.data.mapper import PartInstanceMapper
from instance_crf.experiments import rows
from instance_crf.experiments.plan import CONDITIONS, CURVES, DETECTION_FILES, Recipe, make_rows
from instance_crf.experiments.run import Run
from instance_crf.experiments.tables import SYSTEMS
from instance_crf.experiments.training import Training
from instance_crf.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
ROWS = make_rows()


def test_the_evidence_of_the_truth_goes_to_who_finds_a_person():
    truth = Instances((10, 20))
    truth.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]]))
    truth.gt_object_ids = torch.tensor([7, 3])
    objects = torch.zeros(10, 20, dtype=torch.int32)
    objects[:, :10], objects[:, 10:] = 7, 3
    found = Instances((10, 20))
    found.pred_boxes = Boxes(
        torch.tensor([[11.0, 0, 20, 10], [10.0, 0, 20, 10], [0.0, 0, 4, 10], [0.0, 0, 9, 10]])
    )
    evidence = rows.true_evidence({"instances": truth, "object_seg": objects}, found)
    assert evidence[0].sum() == evidence[2].sum() == 0  # a worse one of two, and a poor one
    assert torch.equal(evidence[1], (objects == 3).float())
    assert torch.equal(evidence[3], (objects == 7).float())


@pytest.fixture
def run(tiny, tiny_opts, tmp_path):
    """All stages of a seed with random networks, in the place of training."""
    recipe = Recipe(
        pretrain=("SyntheticPeople/pretrain",),
        base=("SyntheticPeople/parts",),
        tune=("SyntheticPeople/instance_crf",),
        baselines="tiny_",
        train=("tiny_train",),
        splits=("tiny_val",),
    )
    training = Training(ROOT, tmp_path / "out", recipe, 1.0, tuple(tiny_opts))
    run = Run.of_recipe(training, "tiny")
    for stage in run.stages:
        folder = training.folder(1, stage.name)
        arguments = training.command(1, stage, 4, folder).arguments
        first, *opts = map(str, arguments[list(arguments).index("--config-file") + 1 :])
        cfg = load_config(first, opts)
        torch.manual_seed(0)
        folder.mkdir(parents=True)
        checkpointer = DetectionCheckpointer(build_model(cfg), str(folder))
        checkpointer.save("model_final")
        checkpointer.save("model_0000000")
        (folder / "config.yaml").write_text(cfg.dump())
    boxes = [
        {
            "image_id": record["image_id"],
            "category_id": 1,
            "bbox": BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYWH_ABS),
            "score": 0.9,
        }
        for record in DatasetCatalog.get("tiny_val")
        for a in record["annotations"]
    ]
    for name in DETECTION_FILES.values():
        write_json(training.folder(1, "detections") / name.format(split="tiny_val"), boxes)
    return run


def test_a_row_is_what_the_network_gives_when_it_sees_a_picture_at_another_size(run):
    row = next(row for row in ROWS if row.name == "+ end to end")
    folder = run.training.folder(1, row.stage)
    cfg = rows._config(folder, ROOT / "configs", row, "tiny_val", "as found")
    mapper = PartInstanceMapper(cfg, is_train=False)
    picture = mapper(DatasetCatalog.get("tiny_val")[0])
    picture["height"], picture["width"] = 2 * picture["height"], 2 * picture["width"]
    model = build_model(cfg).eval()
    head, (wanted,) = model.crf_head, model([picture])
    wanted = wanted["part_instances"]
    model.crf_head = rows.Tap()
    model([picture])
    (found,) = rows._label(row, head, model.crf_head.call, picture)
    assert len(wanted) and torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.object_map, wanted.object_map)


@pytest.mark.slow
def test_all_rows_and_all_tables(run):
    training = run.training
    for stage in run.stages:
        if stage.name in CURVES or any(row.stage == stage.name for row in ROWS):
            folder = training.folder(1, stage.name)
            rows.rows_of_stage(folder, ROOT / "configs", "sds", ["tiny_val"])
            run.collect(1)
    results = read_json(run.output / "seed_1" / "results.json", dict)
    assert set(results["rows"]) == {row.name for row in ROWS}
    for row in ROWS:
        found = results["rows"][row.name]["tiny_val"]
        assert list(found) == (list(CONDITIONS) if row.disturbed else ["as found"])
    # People apart from one another: true boxes and parts give the truth.
    best = results["rows"]["true boxes and parts"]["tiny_val"]["as found"]
    for task, metric in (("part_apr", "APr_vol"), ("object_apr", "APr90"), ("part_seg", "mIoU")):
        assert best[task][metric] == pytest.approx(100)
    assert best["outside"]["recall"] == pytest.approx(100)
    for name, points in results["curve"].items():
        assert points[0]["minutes"] > 0 and "part_apr" in points[0]["tiny_val"]
        # A checkpoint on the way, and the last one; what trains on from it is another.
        assert len(points) == (3 if name == "factored, not trained" else 2)
    assert results["curve"]["factored, not trained"][-1]["minutes"] == pytest.approx(1.2)
    assert results["minutes"]["full"] == pytest.approx(1.2)

    text = run.report()
    assert text == (run.output / "tables.md").read_text()
    for row in SYSTEMS:
        assert text.count(f"\n| {row} |") >= 3, row
    assert {p.name for p in run.output.glob("*.png")} == {
        f"tiny_val_{what}.png" for what in ("thresholds", "paper", "gains", "training")
    }

    file = training.folder(1, "full") / "rows.json"  # nothing is left to do
    before = file.stat().st_mtime_ns
    rows.rows_of_stage(file.parent, ROOT / "configs", "sds", ["tiny_val"])
    assert file.stat().st_mtime_ns == before
    done = json.loads(file.read_text())
    stale = json.loads(file.read_text())  # of a row that was something else
    stale["rows"]["whose not smoothed"]["tiny_val"]["as found"]["part_seg"]["mIoU"] = 7.0
    stale["origins"]["whose not smoothed|tiny_val|as found"] = "another"
    file.write_text(json.dumps(stale))
    rows.rows_of_stage(file.parent, ROOT / "configs", "sds", ["tiny_val"])
    assert read_json(file, dict) == done

    weights = file.parent / "model_final.pth"  # of another training, all rows are done again
    content = torch.load(weights)
    content["model"]["part_head.predictor.bias"] += 0.5
    torch.save(content, weights)
    rows.rows_of_stage(file.parent, ROOT / "configs", "sds", ["tiny_val"])
    origins = read_json(file, dict)["origins"]
    assert origins.keys() == done["origins"].keys()
    # The checkpoint on the way is what it was.
    assert [key for key in origins if origins[key] == done["origins"][key]] == ["curve|1"]
