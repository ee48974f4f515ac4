"""tools/benchmark_parse.py: its scenes, and its numbers on pictures that take little time."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location(
        "benchmark_parse", ROOT / "tools/benchmark_parse.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def test_a_scene_is_what_is_said(benchmark):
    scene = benchmark.make_scene(320, 240, 40)
    assert scene.image.shape == (240, 320, 3) and scene.logits.shape == (25, 30, 40)
    assert set(np.unique(scene.object_map)) == set(range(6)) and scene.part_map.max() <= 24
    assert ((scene.part_map > 0) == (scene.object_map > 0)).all()
    result = benchmark.run_parse(scene)
    assert (result.part_map.numpy() == scene.part_map).mean() > 0.8 and len(result) == 5
    near = benchmark.near_borders(scene)
    y, x = np.argwhere(np.diff(scene.part_map.astype(int), axis=0))[0]
    assert near[y, x] and near[y + 1, x] and 0 < near.mean() < 0.7


@pytest.mark.slow
def test_the_numbers(benchmark, tmp_path, capsys):
    argv = f"--megapixels 0.2 --repeats 1 --scenes 1 --json {tmp_path / 'parse.json'}"
    assert benchmark.main(argv.split()) == 0
    results = json.loads((tmp_path / "parse.json").read_text())
    assert list(results["times"]) == [
        "1024x768, stride 8",
        "1024x768, full",
        "516x387, stride 8",
    ]
    for row in results["times"].values():
        assert row["seconds"] > 0 and (row["peak_mib"] is None or row["peak_mib"] > 1)
    assert results["import_seconds"] > 0
    for way in ("bilinear", "guided"):
        assert 90 < results["borders"][way]["part"] <= 100
    assert "borders, guided" in capsys.readouterr().out
