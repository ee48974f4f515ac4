"""The package as it is installed: its requirements, and a wheel in an environment without extras.

The environment is a new one into which the distributions that the wheel requires are linked from
the one that runs the tests, so that nothing is downloaded.
"""

import json
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from instance_crf.cli import main
from instance_crf.data.label_io import read_object_map, write_object_map, write_part_map
from instance_crf.evaluation import Parsing, export_predictions
from instance_crf.taxonomies.schema import PartTaxonomy

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt")
LIGHT = {"torch", "numpy", "scipy", "numba", "pillow"}
ABSENT = (
    *("detectron2", "torchvision", "cv2", "pycocotools", "matplotlib", "tqdm", "yaml", "fvcore"),
    *("iopath", "yacs", "omegaconf", "hydra", "tabulate", "termcolor", "tensorboard", "pytest"),
)


# --- requirements ---


@pytest.fixture
def setup_arguments(monkeypatch):
    """What setup.py tells setuptools."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def lower_bounds(lines):
    """{name: version} of ``name>=version`` lines; comments and upper bounds are left out."""
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(r.name): next(s.version for s in r.specifier if s.operator == ">=")
        for r in requirements
    }


def test_the_core_is_light(setup_arguments):
    assert set(lower_bounds(setup_arguments["install_requires"])) == LIGHT


def test_the_command_is_installed(setup_arguments):
    (script,) = setup_arguments["entry_points"]["console_scripts"]
    name, place = script.split("=")
    assert name == "instance-crf" and pkgutil.resolve_name(place) is main


def test_requirements_files_agree_with_the_extras(setup_arguments):
    extras = setup_arguments["extras_require"]
    everything = lower_bounds([*setup_arguments["install_requires"], *extras["train"]])
    listed = lower_bounds((ROOT / "requirements.txt").read_text().splitlines())
    to_build = {"setuptools", "wheel"}
    assert {name: listed[name] for name in listed.keys() - to_build} == everything
    developers = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert lower_bounds(developers) == lower_bounds(extras["dev"])


def test_train_covers_the_other_extras_and_what_detectron2_requires(setup_arguments):
    extras = setup_arguments["extras_require"]
    assert set(extras["eval"]) | set(extras["viz"]) <= set(extras["train"])
    names = {canonicalize_name(Requirement(line).name) for line in extras["train"]} | LIGHT
    for line in metadata.requires("detectron2") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert canonicalize_name(requirement.name) in names, line


# --- the wheel ---


def command(*arguments, **options):
    """What a command prints; its error output is shown if it fails."""
    arguments = [str(argument) for argument in arguments]
    process = subprocess.run(
        arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def build_wheel(folder):
    """The wheel of a copy of the sources; the tree is left as it is."""
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", *REQUIREMENTS):
        shutil.copy(ROOT / name, source)
    package = "projects/InstanceCRF/instance_crf"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / package, source / package, ignore=ignored)
    command(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", folder, source),
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements_of(name, known=None):
    """The distribution ``name`` with all that it requires here, extras aside, by name."""
    known = {} if known is None else known
    name = canonicalize_name(name)
    if name not in known:
        known[name] = metadata.distribution(name)
        for line in known[name].requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                requirements_of(requirement.name, known)
    return known


def light_environment(folder):
    """The Python of a new environment that has :data:`LIGHT`, what that requires, and no more."""
    command(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(command(python, "-I", "-c", code).strip())
    found = {}
    for name in LIGHT:
        requirements_of(name, found)
    for distribution in found.values():
        tops = {Path(file).parts[0] for file in distribution.files}
        for top in tops - {"..", "__pycache__"}:
            target = Path(distribution.locate_file(top))
            if not (packages / top).exists():
                (packages / top).symlink_to(target, target_is_directory=target.is_dir())
    return python


@pytest.fixture(scope="module")
def light_python(tmp_path_factory):
    """The Python of an environment into which the wheel is installed as pip installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    python = light_environment(folder / "environment")
    pip = (sys.executable, "-m", "pip", "--python", python)
    command(*pip, "install", "--no-deps", "--no-index", build_wheel(folder))
    command(*pip, "check")  # every requirement is met, with the version that it asks for
    return python


def run(python, code, folder):
    """What ``code`` prints; neither PYTHONPATH nor the current folder count."""
    return command(python, "-I", "-c", code, cwd=folder)


@pytest.mark.slow
def test_the_light_environment_has_no_extras(light_python, tmp_path):
    code = f"from importlib.util import find_spec; print([m for m in {ABSENT} if find_spec(m)])"
    assert run(light_python, code, tmp_path).strip() == "[]"
    where = run(light_python, "import instance_crf; print(instance_crf.__file__)", tmp_path)
    assert Path(where.strip()).is_relative_to(light_python.parents[1])


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(light_python, tmp_path):
    code = "import instance_crf; print(instance_crf.__path__[0])"
    installed = Path(run(light_python, code, tmp_path).strip())
    sources = ROOT / "projects/InstanceCRF/instance_crf"
    there, here = (
        {
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for folder in (installed, sources)
    )
    assert there == here


EXERCISE = """
import torch
torch.manual_seed(0)
{readme}
loss = -labelling.marginals()[1:].clamp_min(1e-6).log().mean()
loss.backward()
gradients = [p.grad.item() for p in crf.parameters() if p.grad is not None and p.numel() == 1]
assert gradients and all(torch.tensor(gradients).isfinite())

from instance_crf.structures import PartInstances
result = PartInstances.from_label_maps(
    person, part, boxes=boxes, scores=torch.tensor([0.9, 0.8]), classes=torch.tensor([0, 0])
)
id_map, segments = result.panoptic()
people = [result.person(k).sum().item() for k in range(len(result))]
saved = [path.name for path in result.save("saved", "a")]
print(json.dumps([segments, [id_map.sum().item(), people, saved, repr(result)], gradients]))
"""


@pytest.mark.slow
def test_crf_and_structures_there_as_here(light_python, tmp_path):
    """The example of the README, with its gradients and its result's views."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (readme,) = [block for block in blocks if "FactoredInstanceCRF" in block]
    code = "import json\n" + EXERCISE.format(readme=readme)
    there = json.loads(run(light_python, code, tmp_path))
    here = json.loads(command(sys.executable, "-c", code, cwd=tmp_path))
    assert there[0], "nobody was found: nothing was compared"
    assert there[:2] == here[:2]
    assert there[2] == pytest.approx(here[2], rel=1e-4)


TAXONOMY = PartTaxonomy(part_names=("head", "torso", "legs"))


@pytest.fixture
def saved(tmp_path):
    """Ground truth in ``truth/`` and noisy predictions in ``predictions/``."""
    rng = np.random.default_rng(0)
    predictions = []
    for image_id in ("a", "b", "c"):
        parts, objects = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
        for person in (1, 2, 3):
            columns = slice(20 * person - 18, 20 * person - 4)
            parts[4:36, columns] = 1 + np.arange(32)[:, None] * 3 // 32
            objects[4:36, columns] = person
        write_part_map(tmp_path / f"truth/Category_ids/{image_id}.png", parts)
        write_object_map(tmp_path / f"truth/Human_ids/{image_id}.png", objects.astype(np.int32))
        wrong = (rng.random(parts.shape) < 0.25) & (parts > 0)
        parts = np.where(wrong, rng.integers(1, 4, parts.shape), parts).astype(np.uint8)
        count = len(np.unique(parts[objects > 0] + 4 * objects[objects > 0]))
        parsing = Parsing.of_maps(
            parts,
            np.roll(objects, 3, axis=1) * (parts > 0),
            object_ids=np.array([1, 2, 3]),
            object_classes=np.zeros(3, dtype=np.int64),
            object_scores=rng.random(3),
            segment_scores=rng.random(count),
        )
        predictions.append((image_id, parsing))
    (tmp_path / "truth/taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))
    for format_name in ("cihp", "panoptic"):
        export_predictions(format_name, tmp_path / format_name, TAXONOMY, predictions)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["cihp", "panoptic"])
def test_evaluation_there_as_here(light_python, saved, format_name):
    numbers = {}
    for name, python in (("there", light_python), ("here", sys.executable)):
        path = saved / f"{name}.json"
        command(
            *(python, ROOT / "tools/evaluate_predictions.py", "--format", format_name),
            *("--predictions", saved / format_name, "--ground-truth", saved / "truth"),
            *("--ground-truth-format", "cihp", "--json", path, "--num-workers", 2),
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH" or name == "here"},
        )
        numbers[name] = json.loads(path.read_text())["results"]
    assert numbers["there"] == numbers["here"]
    assert 10 < numbers["there"]["part_seg"]["mIoU"] < 90


@pytest.mark.slow
def test_the_command_there_as_here(light_python, tmp_path):
    here = command(sys.executable, "-m", "instance_crf", "taxonomies", cwd=ROOT)
    assert "mhp_v2" in here
    for start in ([light_python.with_name("instance-crf")], [light_python, "-Im", "instance_crf"]):
        assert command(*start, "taxonomies", cwd=tmp_path) == here
        assert command(*start, "--help", cwd=tmp_path).startswith("usage: instance-crf")


@pytest.mark.slow
def test_parsing_there(light_python, tmp_path):
    """Parts and boxes in files need no library; pictures do, and are left out."""
    parts = np.zeros((60, 80), np.uint8)
    parts[5:55, 20:50] = 1 + np.arange(50)[:, None] * 3 // 50
    write_part_map(tmp_path / "parts/a.png", parts)
    write_part_map(tmp_path / "photos/a.png", 80 * parts)
    (tmp_path / "taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))
    boxes = {"a.png": {"boxes": [[20, 5, 50, 55]], "scores": [0.9]}}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    command(
        *(light_python.with_name("instance-crf"), "parse", "photos", "--parts", "parts"),
        *("--detector", "coco:boxes.json", "--taxonomy", "taxonomy.json", "--output", "out"),
        cwd=tmp_path,
    )
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.json", "a.png", "a_parts.png", "settings.json"}
    assert (read_object_map(tmp_path / "out/a.png") == (parts > 0)).mean() > 0.98


@pytest.mark.slow
def test_what_needs_an_extra_says_so(light_python, saved):
    code = (
        "from instance_crf.taxonomies.schema import PartTaxonomy\n"
        "from instance_crf.evaluation.toolkit.export import export_predictions\n"
        "from instance_crf.evaluation.toolkit.formats.cihp import CIHPTruth\n"
        f"taxonomy = PartTaxonomy(part_names={TAXONOMY.part_names})\n"
        "truth = CIHPTruth('truth', taxonomy).read('a')\n"
        "try:\n"
        "    export_predictions('coco', 'coco', taxonomy, [('a', truth)])\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    printed = run(light_python, code, saved)
    assert "pycocotools" in printed and "pip install 'instance-crf[eval]'" in printed
