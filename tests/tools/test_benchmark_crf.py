"""tools/benchmark_crf.py on pictures that take no time."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_crf", ROOT / "tools/benchmark_crf.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def test_table_and_json(benchmark, tmp_path, capsys):
    path = tmp_path / "crf.json"
    arguments = "--sizes 60x40 --detections 2 --thetas 20,20,3 --repeats 2 --scenes 1 --threads 1"
    arguments += f" --no-peers --reference --json {path}"
    assert benchmark.main(arguments.split()) == 0
    table = capsys.readouterr().out
    assert "60x40 D=2 theta=20,20,3 peaked" in table and "60x40 D=2 theta=20,20,3 flat" in table
    peaked, flat = json.loads(path.read_text())
    for result in (peaked, flat):
        assert [(row["variant"], row["what"]) for row in result["rows"]] == [
            (variant, what)
            for what in ("forward", "forward_backward")
            for variant in ("exact", "dropping", "reference")
        ]
        for row in result["rows"]:
            seconds = row["seconds"]
            assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert result["rows"][0]["speedup"]["median"] == 1
        assert result["errors"]["reference vs exact"]["max_marginal"] < 1e-3
        assert result["errors"]["dropping vs exact"]["max_marginal"] < 0.02
    assert peaked["active_fraction"] < flat["active_fraction"] == 1


@pytest.mark.parametrize("arguments", ["--sizes 60", "--thetas 20,20"])
def test_unreadable_arguments(benchmark, arguments, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(arguments.split())
    assert "argument --" in capsys.readouterr().err
