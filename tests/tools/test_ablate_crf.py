"""tools/ablate_crf.py: every row runs; the ground truth in the place of a piece is the truth."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from instance_crf.config import load_config
from instance_crf.modeling import build_instance_crf_head

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("ablate", ROOT / "tools" / "ablate_crf.py")
ablate = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = ablate  # dataclasses look themselves up
spec.loader.exec_module(ablate)

ROWS = ablate.make_rows()


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
    evidence = ablate.true_evidence({"instances": truth, "object_seg": objects}, found)
    assert evidence[0].sum() == evidence[2].sum() == 0  # a worse one of two, and a poor one
    assert torch.equal(evidence[1], (objects == 3).float())
    assert torch.equal(evidence[3], (objects == 7).float())


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_row_is_another_head(row):
    config = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
    start = ablate.JOINT if row.stage == "joint" else []
    head = build_instance_crf_head(load_config(config, [*map(str, start), *map(str, row.opts)]))
    plain = build_instance_crf_head(load_config(config, list(map(str, start))))
    differs = repr(head) != repr(plain) or head.score_name != plain.score_name
    assert differs == bool(row.opts)


@pytest.fixture
def trained(tiny, tiny_opts, tmp_path, monkeypatch):
    """Stages with a random network, in the place of training; the tool's arguments."""
    monkeypatch.setattr(ablate, "SPLITS", ("tiny_val",))

    def train(output, seed, opts):
        stages = {
            "factored": [],
            "joint": ablate.JOINT,
            "offset": ["MODEL.IDENTITY_HEAD.VOTE", "offset"],
            "masks": ["MODEL.MASK_ON", True],
        }
        for stage, own in stages.items():
            folder = output / f"seed_{seed}" / stage
            if folder.exists():
                continue
            folder.mkdir(parents=True)
            opts = [*tiny_opts, *map(str, own)]
            cfg = load_config(str(ROOT / "configs/SyntheticPeople/instance_crf.yaml"), opts)
            torch.manual_seed(seed)
            DetectionCheckpointer(build_model(cfg), str(folder)).save("model_final")
            (folder / "config.yaml").write_text(cfg.dump())

    monkeypatch.setattr(ablate, "train", train)
    return ["--output", str(tmp_path / "out"), "--seeds", "1", "2"]


@pytest.mark.slow
def test_all_rows_with_the_truth_at_the_end(trained, tmp_path, capsys):
    assert ablate.main(trained) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results) == 2 * len(ROWS)
    for seed in (1, 2):  # people apart from one another: true boxes and parts give the truth
        best = results[f"tiny_val|{seed}|true boxes and parts"]
        assert list(best.values()) == pytest.approx([100] * 6)
    table = capsys.readouterr().out
    assert table.count("\n| without place |") == 2 and "100.0 ± 0.0" in table

    again = tmp_path / "out" / "results.json"
    before = again.stat().st_mtime_ns
    assert ablate.main([*trained, "--rows", "true"]) == 0  # nothing is left to do
    assert again.stat().st_mtime_ns == before


def test_differences_are_paired_by_seed(capsys):
    rows = [ablate.Row("a"), ablate.Row("b")]
    values = {("a", 1): 10.0, ("a", 2): 20.0, ("b", 1): 11.0, ("b", 2): 23.0}
    results = {
        f"{split}|{seed}|{name}": dict.fromkeys(ablate.METRICS, value)
        for split in ablate.SPLITS
        for (name, seed), value in values.items()
    }
    ablate.print_tables(results, rows, [1, 2])
    table = capsys.readouterr().out
    assert table.count("| a | 15.0 ± 5.0") == 2
    assert table.count("| b | 17.0 ± 6.0") == 2
    assert table.count("| b | +2.0 ± 1.0") == 2
