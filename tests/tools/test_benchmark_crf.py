"""tools/benchmark_crf.py on pictures that take no time."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_crf", ROOT / "tools/benchmark_crf.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


SMALL = "--sizes 60x40 --thetas 20,20,3 --repeats 2 --scenes 1 --threads 1 --no-peers"


def test_table_and_json(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("INSTANCE_CRF_REAL", raising=False)
    path = tmp_path / "crf.json"
    arguments = f"{SMALL} --detections 2 --labels 3 --reference --json {path}"
    assert benchmark.main(arguments.split()) == 0
    table = capsys.readouterr().out
    assert "60x40 D=2 theta=20,20,3" in table and "60x40 L=3 theta=20,20,3" in table
    assert "synthetic people" in table
    for result in json.loads(path.read_text()):
        forms = [] if result["case"]["labels"] else ["factored", "factored, what smoothed"]
        assert [(row["variant"], row["what"]) for row in result["rows"]] == [
            (variant, what)
            for what in ("forward", "forward_backward")
            for variant in ("ours", *forms, "reference")
        ]
        for row in result["rows"]:
            seconds = row["seconds"]
            assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert result["rows"][0]["speedup"]["median"] == 1
        assert result["errors"]["reference vs ours"]["max_marginal"] < 1e-3


def test_photographs(benchmark, tmp_path, capsys):
    """A folder as the tool's docstring says it."""
    rng = np.random.default_rng(0)
    for folder in ("photos", "q", "boxes"):
        (tmp_path / folder).mkdir()
    Image.fromarray(rng.integers(0, 256, (80, 90, 3), np.uint8)).save(tmp_path / "photos/a.jpg")
    logits = {"person_logit": (1, 11, 12), "part_logits": (24, 11, 12)}
    made = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in logits.items()}
    np.savez(tmp_path / "q/a.npz", internal_size=np.array([81, 89]), **made)
    boxes = {"a": {"boxes": [[10, 5, 50, 70]], "scores": [0.9]}}
    (tmp_path / "boxes/any.json").write_text(json.dumps(boxes))
    arguments = f"{SMALL} --detections 3 --labels --photographs {tmp_path}"
    assert benchmark.main(arguments.split()) == 0
    table = capsys.readouterr().out
    assert "photographs" in table and "D=3" in table
    case = benchmark.Case(60, 40, (20.0, 20.0, 3.0), detections=3)
    scene = benchmark.make_scene(case, 0, tmp_path)
    assert scene.part_prob.shape == (7, 40, 60) and scene.boxes.shape == (3, 4)
    np.testing.assert_allclose(scene.part_prob.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(scene.boxes[0], [10 / 1.5, 2.5, 50 / 1.5, 35], atol=1e-4)


@pytest.mark.parametrize("arguments", ["--sizes 60", "--thetas 20,20"])
def test_unreadable_arguments(benchmark, arguments, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments.split())
    assert "argument --" in capsys.readouterr().err
