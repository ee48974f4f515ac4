"""The command `instance-crf`, as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import instance_crf
from instance_crf.cli import COMMANDS, main
from instance_crf.data.label_io import write_object_map, write_part_map
from instance_crf.evaluation import Parsing, export_predictions
from instance_crf.taxonomies import TAXONOMY_NAMES, PartTaxonomy, get_taxonomy, read_taxonomy

ROOT = Path(__file__).resolve().parents[2]
TAXONOMY = PartTaxonomy(part_names=("head", "body", "legs"))
SIZE = (48, 72)


def start(*arguments, **options):
    """A process of its own, which knows this package."""
    package = str(Path(instance_crf.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


# --- all commands ---


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_needs_no_torch(name):
    code = (
        "import sys; from instance_crf.cli import main\n"
        f"try: main('{name} --help'.split())\n"
        "finally: print('imported', [m for m in ('torch', 'cv2', 'scipy') if m in sys.modules])"
    )
    printed, error = start("-c", code).communicate()
    known = {"evaluate": ["scipy"], "compare": ["scipy"]}.get(name, [])
    assert printed.startswith("usage: instance-crf") and not error
    assert printed.endswith(f"imported {known}\n")
    assert "example" in printed and f"instance-crf {name}" in printed


def test_the_first_help_needs_next_to_nothing():
    code = (
        "import sys; known = set(sys.modules); import instance_crf.cli\n"
        "try: instance_crf.cli.main(['--help'])\n"
        "finally: print(sorted({m.partition('.')[0] for m in set(sys.modules) - known}"
        " - sys.stdlib_module_names))"
    )
    printed, _ = start("-c", code).communicate()
    assert printed.endswith("\n['instance_crf']\n")
    assert all(f"\n    {name}" in printed for name in COMMANDS)


def test_as_a_module():
    process = start("-m", "instance_crf", "--version")
    assert process.communicate() == (f"instance-crf {instance_crf.__version__}\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    "argv", [[], ["pars"], ["parse"], ["taxonomies", "a", "b"], ["evaluate", "--format", "cihp"]]
)
def test_usage_errors_are_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: instance-crf")


def test_a_reader_that_has_had_enough():
    process = start("-m", "instance_crf", "taxonomies", "--json")
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() in (0, 1)


@pytest.mark.parametrize("name", ["parse_images", "evaluate_predictions"])
def test_tools_that_are_commands(name):
    process = start(ROOT / f"tools/{name}.py", "--help")
    printed, _ = process.communicate()
    assert printed.startswith(f"usage: {name}.py") and f"python tools/{name}.py" in printed


# --- taxonomies ---


def test_a_taxonomy_as_json_comes_back(tmp_path, capsys):
    assert main(["taxonomies", "cihp", "--json"]) == 0
    (tmp_path / "my.json").write_text(capsys.readouterr().out)
    assert read_taxonomy(tmp_path / "my.json") == get_taxonomy("cihp")
    assert main(["taxonomies", str(tmp_path / "my.json"), "--json"]) == 0
    assert capsys.readouterr().out == (tmp_path / "my.json").read_text()
    assert main(["taxonomies", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert set(every) == set(TAXONOMY_NAMES)
    assert PartTaxonomy(**every["mhp_v2"]) == get_taxonomy("mhp_v2")


def test_taxonomies_for_people(capsys):
    assert main(["taxonomies"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in TAXONOMY_NAMES)
    assert main(["taxonomies", "lip"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in get_taxonomy("lip").part_names)


def test_no_such_taxonomy(tmp_path, capsys):
    for name, message in (("nobody", "nobody"), (str(tmp_path / "a.json"), "a.json")):
        assert main(["taxonomies", name]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line


# --- evaluate ---


@pytest.mark.parametrize("command", ["parse", "compare"])
def test_an_output_that_cannot_be_written_is_said_before_models_are_loaded(
    tmp_path, capsys, command
):
    (tmp_path / "file").write_text("")
    argv = [command, str(tmp_path), "--parts", "hf:nobody/none", "--detector", "torchvision:none"]
    argv += ["--truth", str(tmp_path)] if command == "compare" else []
    assert main([*argv, "--output", str(tmp_path / "file")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file") and "cannot be written" in line


def test_evaluate(tmp_path, capsys):
    parts, objects = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32)
    parts[4:44, 6:30] = 1 + np.arange(40)[:, None] * 3 // 40
    objects[parts > 0] = 1
    write_part_map(tmp_path / "truth/Category_ids/a.png", parts)
    write_object_map(tmp_path / "truth/Human_ids/a.png", objects)
    (tmp_path / "truth/taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))
    found = Parsing.of_maps(
        np.roll(parts, 4, axis=1),
        np.roll(objects, 4, axis=1),
        object_ids=np.array([1]),
        object_classes=np.array([0]),
        object_scores=np.array([0.9]),
        segment_scores=np.full(3, 0.9),
    )
    export_predictions("cihp", tmp_path / "found", TAXONOMY, [("a", found)])
    argv = ["evaluate", "--format", "cihp", "--predictions", str(tmp_path / "found")]
    argv += ["--ground-truth", str(tmp_path / "truth"), "--json", str(tmp_path / "numbers.json")]
    assert main(argv) == 0
    results = json.loads((tmp_path / "numbers.json").read_text())["results"]
    # Moved by 4 of 24 columns: each part has 20 in common, 28 in all.
    assert results["part_seg"]["IoU/body"] == pytest.approx(100 * 20 / 28)
    assert "part_apr  [protocol sds]" in capsys.readouterr().out
    assert main([*argv[:3], *argv[3:5], "--ground-truth", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
