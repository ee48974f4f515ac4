"""Evaluation is usable where neither Detectron2 nor torch is."""

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import instance_crf
from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.evaluation import PartParsingMetrics
from instance_crf.taxonomies.schema import PartTaxonomy

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "import sys; sys.modules['detectron2'] = sys.modules['torch'] = None; "


def run(code):
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize(
    "module",
    [
        "instance_crf.evaluation.average_precision",
        "instance_crf.evaluation.toolkit.export",
        "instance_crf.evaluation.toolkit.part_parsing",
        "instance_crf.evaluation.toolkit.formats",
        "instance_crf.evaluation.toolkit.runner",
        "instance_crf.evaluation.toolkit.report",
    ],
)
def test_modules_import(module):
    run(f"import {module}")


def test_the_tool_runs():
    code = "import runpy; sys.argv = ['tool', '--help']; "
    code += "runpy.run_path('tools/evaluate_predictions.py', run_name='__main__')"
    assert "--ground-truth" in run(code)


def test_taxonomies_by_name():
    code = "from pathlib import Path; "
    code += "from instance_crf.evaluation.toolkit.taxonomies import TAXONOMY_NAMES, find_taxonomy; "
    code += "print({n: find_taxonomy(n, Path('.'), 'cihp').num_parts for n in TAXONOMY_NAMES})"
    assert ast.literal_eval(run(code)) == {
        "pascal_person_part": 6,
        "lip": 19,
        "cihp": 19,
        "atr": 17,
        "segformer_clothes": 17,
        "fashn": 17,
        "sapiens": 27,
        "sapiens2": 28,
        "mhp_v1": 18,
        "mhp_v2": 58,
        "bodypix": 24,
        "densepose": 24,
        "pascal_part_person": 24,
        "pascal_part": 72,
        "pascal_part_fine": 197,
        "voc": 20,
    }


EXPORT = """
import pickle
from instance_crf.evaluation import export_predictions
pairs, taxonomy = pickle.load(open("pairs.pkl", "rb"))
export_predictions("cihp", "out", taxonomy, [(i, prediction) for i, (prediction, _) in pairs])
"""


@pytest.mark.parametrize(
    "start", [["tools/evaluate_predictions.py"], ["-m", "instance_crf", "evaluate"]]
)
def test_the_command_gives_its_numbers_without_torch(tmp_path, make_pair, start):
    """In all of its processes: torch and Detectron2 are packages that cannot be imported."""
    for name in ("torch", "torchvision", "detectron2"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise SystemExit('imported')")
    taxonomy = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))
    pairs = [(f"{seed:03d}", make_pair(seed)) for seed in range(20)]
    metrics = PartParsingMetrics(taxonomy.part_names, taxonomy.object_names)
    for image_id, (prediction, truth) in pairs:
        metrics.add(image_id, prediction, truth)
        write_part_map(tmp_path / f"truth/Category_ids/{image_id}.png", truth.part_map)
        write_object_map(
            tmp_path / f"truth/Human_ids/{image_id}.png", truth.object_map.astype(np.int32)
        )
    (tmp_path / "truth/taxonomy.json").write_text(json.dumps(taxonomy.to_dict()))
    (tmp_path / "pairs.pkl").write_bytes(pickle.dumps((pairs, taxonomy)))
    path = [str(tmp_path / "blocked"), str(Path(instance_crf.__file__).parents[1])]
    command = [*start, "--format", "cihp", "--predictions", "out", "--ground-truth", "truth"]
    command += ["--json", "numbers.json", "--num-workers", "2"]
    if start[0] != "-m":
        command[0] = str(ROOT / start[0])
    for arguments in (["-c", EXPORT], command):
        subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
            check=True,
        )
    assert json.loads((tmp_path / "numbers.json").read_text())["results"] == metrics.compute()
