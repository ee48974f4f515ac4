"""Evaluation is usable where neither Detectron2 nor torch is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
