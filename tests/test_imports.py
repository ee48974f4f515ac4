"""What importing loads: nothing that a light installation lacks, whatever Detectron2 there is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import instance_crf

# Everything but torch, numpy, scipy, numba and Pillow that the whole project imports somewhere.
HEAVY = (
    *("detectron2", "torchvision", "cv2", "pycocotools", "matplotlib", "tqdm", "yaml", "fvcore"),
    *("iopath", "yacs", "omegaconf", "hydra", "tabulate", "termcolor", "tensorboard"),
    *("transformers", "onnxruntime", "onnx", "supervision", "ultralytics"),
)
# The modules and packages that may import the above at once; all others must do without.
NEEDS_EXTRAS = {
    "checkpoint",
    "config",
    "config_check",
    "config_files",
    "data.augmentation",
    "data.color",
    "data.datasets.config",
    "data.datasets.own",
    "data.mapper",
    "data.order",
    "data.synthetic",
    "data.transforms",
    "distributed",
    "evaluation.evaluators",
    "evaluation.toolkit.pictures",
    "experiments.rows",
    "experiments.run",
    "experiments.tasks",
    "experiments.training",
    "hooks",
    "modeling",
    "predictor",
    "solver",
    "visualization",
}

BLOCK = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
"""
IMPORT_ALL = (
    BLOCK
    + """
import importlib, json, pkgutil, instance_crf
failed = {}
def attempt(name):
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name.removeprefix("instance_crf.")] = repr(error)
for module in pkgutil.walk_packages(instance_crf.__path__, "instance_crf.", lambda name: None):
    attempt(module.name)
print(json.dumps(failed))
"""
)
NEW_PACKAGES = """
import json, sys
{before}
known = set(sys.modules)
import {module}
new = {{name.partition(".")[0] for name in set(sys.modules) - known}}
print(json.dumps(sorted(new - sys.stdlib_module_names)))
"""


def run(code, *, folder=None, path=()):
    """What ``code`` prints in a Python of its own, in ``folder``, with ``path`` first."""
    package = str(Path(instance_crf.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), package])}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_only_the_glue_needs_extras():
    failed = json.loads(run(IMPORT_ALL))
    assert set(failed) <= NEEDS_EXTRAS, {k: v for k, v in failed.items() if k not in NEEDS_EXTRAS}
    assert {"config", "modeling"} <= set(failed)  # the blocker blocks
    assert "pip install 'instance-crf[viz]'" in failed["visualization"]


def test_detectron2s_warnings_are_not_shown():
    code = "import instance_crf, sys; instance_crf.register(); import detectron2.engine"
    package = str(Path(instance_crf.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        **{"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": package}},
    )
    assert done.returncode == 0 and "jit" not in done.stderr, done.stderr


TOOLS = sorted(
    (Path(__file__).parents[1] / "tools").glob("[!i]*.py")
)  # install_detectron2 has none
TOOLS += sorted((Path(__file__).parents[1] / "datasets").glob("*.py"))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.name)
def test_tools_import_the_package_before_detectron2(tool):
    """So that its filter is there when Detectron2 warns."""
    lines = tool.read_text().splitlines()
    imports = [x for x in lines if x.startswith(("import ", "from "))]
    first = next((i for i, x in enumerate(imports) if "detectron2" in x.split()[1]), len(imports))
    package = [i for i, x in enumerate(imports) if x.split()[1].startswith("instance_crf")]
    assert first == len(imports) or package[0] < first


def test_the_package_imports_nothing():
    assert json.loads(run(NEW_PACKAGES.format(before="", module="instance_crf"))) == [
        "instance_crf"
    ]


@pytest.mark.parametrize("module", ["crf", "losses", "structures", "evaluation"])
def test_what_importing_loads_beside_torch(module):
    before = "import torch, scipy.optimize, scipy.sparse.csgraph, PIL.ImageOps"
    code = NEW_PACKAGES.format(before=before, module=f"instance_crf.{module}")
    assert json.loads(run(code)) == ["instance_crf"]


USE_CRF = """
import sys, torch, instance_crf.crf
crf = instance_crf.crf.DenseInstanceCRF()
assert "detectron2" not in sys.modules
try:
    instance_crf.register()
except ImportError as error:
    print(type(error.__cause__).__name__, error)
"""


NOT_INSTALLED = """
import sys
from importlib.machinery import PathFinder
class CurrentFolder:
    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [""]) if name == "detectron2" else None
sys.meta_path.insert(0, CurrentFolder())
"""


def test_a_folder_that_happens_to_be_called_detectron2(tmp_path):
    """To Python it is a package where none is installed."""
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2/notes.txt").write_text("nothing")
    printed = run(NOT_INSTALLED + USE_CRF, folder=tmp_path)
    assert printed.startswith("ModuleNotFoundError Detectron2 cannot be imported")
    assert "No module named 'detectron2.modeling'" in printed


@pytest.mark.parametrize(
    "content, cause",
    [
        ("raise RuntimeError('compiled for another torch')", "RuntimeError"),
        ("raise ImportError('undefined symbol')", "ImportError"),
        ("", "ModuleNotFoundError"),  # some package of this name, but not Detectron2
    ],
)
def test_a_broken_detectron2(content, cause, tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2/__init__.py").write_text(content)
    printed = run(USE_CRF, path=[tmp_path])
    assert printed.startswith(f"{cause} Detectron2 cannot be imported ({cause}: ")
    assert "instance-crf[train]" in printed and "tools/install_detectron2.py" in printed


def test_register_without_detectron2():
    printed = run(BLOCK + USE_CRF)
    assert printed.startswith("ModuleNotFoundError Detectron2 cannot be imported")


def test_registering_again_leaves_what_was_registered_since():
    instance_crf.register()
    name = "cihp_val"
    loader, metadata = DatasetCatalog[name], MetadataCatalog.get(name)
    try:
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda: [{"mine": True}])
        instance_crf.register()
        assert DatasetCatalog.get(name) == [{"mine": True}]
        assert MetadataCatalog.get(name) is metadata
    finally:
        DatasetCatalog.remove(name)
        DatasetCatalog.register(name, loader)
