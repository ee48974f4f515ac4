"""All seeds of a data set: what a run is made of."""

from pathlib import Path

import pytest
from detectron2.engine import DefaultTrainer

import instance_crf
from instance_crf.config import load_config
from instance_crf.experiments import run as run_module
from instance_crf.experiments.results import read_results
from instance_crf.experiments.run import Run
from instance_crf.files import write_json

instance_crf.register()

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("num_gpus", [0, 1, 4, 8])
def test_a_batch_is_detectron2s_for_so_many_gpus_and_an_iteration_is_one(tmp_path, num_gpus):
    run = Run.of(ROOT, tmp_path, dataset="pascal_person_part", num_gpus=num_gpus)
    (base, *_) = run.stages
    command = run.training.command(1, base, 120, tmp_path / "base").arguments
    start = list(command).index("--config-file") + 1
    first, *opts = map(str, command[start:])
    cfg = DefaultTrainer.auto_scale_workers(load_config(first, opts), num_gpus or 1)
    assert cfg.SOLVER.MAX_ITER == 120 and cfg.SOLVER.CHECKPOINT_PERIOD == 30
    files = [str(ROOT / "configs" / f"{name}.yaml") for name in base.files]
    wanted = DefaultTrainer.auto_scale_workers(load_config(files[0], files[1:]), num_gpus or 1)
    assert cfg.SOLVER.IMS_PER_BATCH == wanted.SOLVER.IMS_PER_BATCH
    assert cfg.SOLVER.BASE_LR == wanted.SOLVER.BASE_LR


def test_a_model_without_a_detector_is_refused(tmp_path):
    with pytest.raises(ValueError, match="r101_psp has no detector .* take one that has"):
        Run.of(ROOT, tmp_path, dataset="pascal_person_part", model="r101_psp")


def test_a_data_set_may_be_a_file_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("DATASETS: {TRAIN: [lip_train], TEST: [lip_val]}\n")
    run = Run.of(ROOT, tmp_path, dataset="mine.yaml", model="tiny_fpn")
    assert run.dataset == "mine" and run.training.recipe.splits == ("lip_val",)
    (base, *_) = run.stages
    assert run.training.config_file(base.files[1]) == tmp_path / "mine.yaml"


def test_a_data_set_without_a_split_to_evaluate_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("DATASETS: {TRAIN: [lip_train], TEST: []}\n")
    run = Run.of(ROOT, tmp_path, dataset=str(tmp_path / "mine.yaml"), model="tiny_fpn")
    with pytest.raises(ValueError, match="mine has nothing to evaluate: DATASETS.TEST is empty"):
        run.run([1], jobs=1)


@pytest.mark.parametrize("num_gpus, used", [(0, 0), (1, 1), (3, 2), (6, 4), (8, 8)])
def test_gpus_that_share_a_batch_evenly(tmp_path, num_gpus, used):
    run = Run.of(ROOT, tmp_path, dataset="lip", model="small_fpn", num_gpus=num_gpus)
    assert run.training.num_gpus == used
    assert not any("IMS_PER_BATCH" in option for option in run.training.opts)


def test_a_seed_says_all_that_added_to_its_numbers(tmp_path, monkeypatch):
    run = Run.of(ROOT, tmp_path, dataset="synthetic_people")

    def collect(commit, person_apr):
        rows = {"full system": {"val": {"as found": {"object_apr": {"APr50": person_apr}}}}}
        write_json(run.training.folder(1, "full") / "rows.json", {"rows": rows, "curve": {}})
        monkeypatch.setattr(run_module, "describe", lambda: {"versions": {"instance_crf": commit}})
        run.collect(1)

    collect("a", 50.0)
    collect("b", 50.0)  # has added nothing
    collect("c", 60.0)
    collect("c", 70.0)
    (found,) = read_results(tmp_path, "synthetic_people").values()
    assert [made["versions"]["instance_crf"] for made in found["made"]] == ["a", "c"]
    assert found["rows"]["full system"]["val"]["as found"]["object_apr"]["APr50"] == 70


def test_results_of_another_data_set_are_not_reported_as_this_ones(tmp_path):
    Run.of(ROOT, tmp_path, dataset="synthetic_people").collect(1)
    (tmp_path / "tables.md").write_text("as it was")
    with pytest.raises(ValueError, match="is of the data set 'synthetic_people', not of 'lip'"):
        Run.of(ROOT, tmp_path, dataset="lip", model="tiny_fpn").report()
    assert (tmp_path / "tables.md").read_text() == "as it was"
