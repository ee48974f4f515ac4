"""tools/evaluate_photographs.py on a folder with one photograph of two people."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instance_crf.evaluation.toolkit.photographs import Inputs, find_photographs, read_photograph
from instance_crf.program import run_program

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 64)
FILES = ("photos/pair.png", "q/pair.npz", "boxes/any.json", "truth/pair_persons.png")


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools/evaluate_photographs.py"
    spec = importlib.util.spec_from_file_location("evaluate_photographs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """Person 1 in columns 8..31, person 2 in 32..55; eight columns are in both boxes."""
    people = np.zeros(SIZE, np.uint8)
    people[8:40, 8:32], people[8:40, 32:56] = 1, 2
    for path in FILES:
        (tmp_path / path).parent.mkdir()
    colours = np.array([[90, 90, 90], [200, 40, 40], [40, 40, 200]], np.uint8)
    Image.fromarray(colours[people]).save(tmp_path / FILES[0])
    # Samples at every pixel: corners aligned, they are not interpolated.
    person = np.where(people > 0, 4.0, -4.0)[None].astype(np.float16)
    np.savez(tmp_path / FILES[1], person_logit=person, part_logits=np.zeros((24, *SIZE)))
    boxes = {"boxes": [[8, 8, 36, 40], [28, 8, 56, 40], [0, 40, 4, 48]], "scores": [0.9, 0.8, 0.2]}
    (tmp_path / FILES[2]).write_text(json.dumps({"pair": boxes}))
    Image.fromarray(people).save(tmp_path / FILES[3])
    return tmp_path


def test_numbers_by_hand(tool, folder, tmp_path, capsys):
    output = tmp_path / "output"
    arguments = f"{folder} --side 64 --bootstrap 50 --output {output} --pictures 1"
    tool.main(arguments.split())
    content = json.loads((output / "results.json").read_text())
    assert (content["photographs"], content["people"]) == (1, 2)
    rows = content["rows"]
    plain = {r["row"]: r for r in rows if r["group"] != "boxes" and not r["true_boxes"]}
    # The centres are equally far at the border between the two.
    nearest = plain["nearest box centre"]
    assert [nearest[m] for m in tool.PERSON_MAP_METRICS] == [100] * 4 and "interval" not in nearest
    best = plain["best-scoring box wins"]
    assert best["mIoU"] == pytest.approx(100 * (24 / 28 + 20 / 24) / 2)
    assert (best["AP50"], best["contested"], best["answered"]) == (100, 50, 100)
    assert best["interval"]["contested"] == [-50, -50]
    # Colours and centres agree.
    assert plain["factored CRF"]["mIoU"] > 99
    assert plain["true identity"]["interval"] == {m: [0, 0] for m in tool.PERSON_MAP_METRICS}
    assert {r["group"] for r in rows} == set(tool.GROUPS)
    with Image.open(output / "photographs.png") as picture:
        assert picture.width > 5 * SIZE[1]
    table = capsys.readouterr().out
    assert "| best-scoring box wins | 100.0 (+0.0 to +0.0) | 84.5 (-15.5 to -15.5) |" in table
    assert "| true boxes, true foreground | AP50 |" in table


def test_ranking_and_least_share(tool, folder):
    photo = read_photograph(find_photographs(folder)[0], 64)
    method, everything = tool.SIMPLE["best-scoring box wins"], Inputs(0.1)
    # Person 2 has 20 of the 28 columns of its box.
    for share, people in ((0.0, {0, 1, 2}), (0.7, {0, 1, 2}), (0.72, {0, 1})):
        row = tool.Row("", "", method, everything, ranking="share", min_share=share)
        person_map, counts = tool.judge(row, photo)
        assert set(np.unique(person_map)) == people
        expected = [0.9, 0.8 * 20 / 28][: len(people) - 1]
        assert counts.scores.tolist() == pytest.approx(expected)


def test_chosen_rows_bring_their_baseline(tool, folder, capsys):
    tool.main([str(folder), "--side", "64", "--bootstrap", "9", "--rows", "terms"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 5 and "nearest box centre" in lines[1] and " to " in lines[2]


def test_true_inputs(folder):
    photo = read_photograph(find_photographs(folder)[0], 32)
    assert photo.image.shape == (3, 24, 32) and photo.size == SIZE
    true = photo.with_inputs(Inputs(true_boxes=True, true_foreground=True))
    assert true.boxes.tolist() == [[8, 8, 32, 40], [32, 8, 56, 40]]
    assert true.part_prob.sum(0).numpy() == pytest.approx(1)
    assert true.part_prob[0, 10, 10].item() == pytest.approx(0.04)
    boxes = true.crf_inputs()[1]
    assert boxes.tolist() == [[4, 4, 16, 20], [16, 4, 28, 20]]


@pytest.mark.parametrize("missing", FILES)
def test_missing_files_are_named(tool, folder, missing, capsys):
    (folder / missing).unlink()
    assert run_program(lambda: tool.main([str(folder), "--side", "64"])) == 1
    error = capsys.readouterr().err
    wanted = {"photos/pair.png": "photos/pair.jpg", "q/pair.npz": "q/pair.npz"}
    assert wanted.get(missing, str(Path(missing).parent)) in error


def test_other_errors_name_the_file(tool, folder, capsys):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / FILES[3])
    assert run_program(lambda: tool.main([str(folder), "--side", "64"])) == 1
    assert "pair_persons.png is (4, 4)" in capsys.readouterr().err
    (folder / FILES[2]).write_text("{}")
    assert run_program(lambda: tool.main([str(folder), "--side", "64"])) == 1
    assert "any.json has no entry 'pair'" in capsys.readouterr().err
    for arguments in ("--side 8", "--bootstrap 0", "--pictures 1"):
        with pytest.raises(SystemExit):
            tool.main([str(folder), *arguments.split()])
