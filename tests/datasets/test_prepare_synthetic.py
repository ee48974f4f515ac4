"""The synthetic people on disk: the canonical layout, never half, never overwritten unasked."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instance_crf.data.synthetic import SyntheticPeople
from instance_crf.program import run_program

SCRIPT = Path(__file__).parents[2] / "datasets" / "prepare_synthetic.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("prepare_synthetic", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _run(script, root, *arguments):
    size = ["--train", "3", "--val", "2", "--workers", "1"]
    return run_program(lambda: script.main(["--root", str(root), *size, *arguments]))


def _files(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_layout(script, tmp_path):
    assert _run(script, tmp_path) == 0
    root = tmp_path / "synthetic_people"
    for folder, split, ids in (
        ("Training", "train", ["0000001", "0000002", "0000003"]),
        ("Validation", "val", ["0000001", "0000002"]),
    ):
        assert (root / folder / f"{split}_id.txt").read_text().split() == ids
        for kind in ("Images", "Category_ids", "Human_ids"):
            files = sorted(path.name for path in (root / folder / kind).iterdir())
            assert files == [f"{i}.png" for i in ids]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["synthetic_people"]


def test_files_hold_the_samples(script, tmp_path):
    _run(script, tmp_path, "--seed", "4")
    for folder, seed in (("Training", 8), ("Validation", 9)):
        sample = SyntheticPeople("moderate", seed=seed)[1]
        for kind, wanted in zip(("Images", "Category_ids", "Human_ids"), sample, strict=True):
            with Image.open(tmp_path / "synthetic_people" / folder / kind / "0000002.png") as file:
                np.testing.assert_array_equal(np.asarray(file), wanted)


def test_canonical_reader_reads_it(script, tmp_path):
    pytest.importorskip("detectron2")
    from instance_crf.data.datasets.canonical import load_canonical
    from instance_crf.data.synthetic import TAXONOMY

    _run(script, tmp_path)
    records = load_canonical(tmp_path / "synthetic_people", "val", TAXONOMY)
    assert len(records) == 2
    people = SyntheticPeople("moderate", seed=1)
    for index, record in enumerate(sorted(records, key=lambda r: r["file_name"])):
        assert (record["height"], record["width"]) == (160, 160)
        assert len(record["annotations"]) == people[index].object_map.max()


def test_registered_name_reads_it(script, tmp_path, monkeypatch):
    catalog = pytest.importorskip("detectron2.data").DatasetCatalog
    from instance_crf.data.datasets.synthetic import register_synthetic

    _run(script, tmp_path, "--split", "crowd")
    try:
        register_synthetic(tmp_path)
        assert len(catalog.get("synthetic_crowd_train")) == 3
    finally:
        from instance_crf.data.datasets.register import dataset_root

        register_synthetic(dataset_root())


def test_all_writes_both(script, tmp_path):
    assert _run(script, tmp_path, "--split", "all") == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["synthetic_crowd", "synthetic_people"]
    info = json.loads((tmp_path / "synthetic_crowd" / "dataset.json").read_text())
    assert info["difficulty"] == "hard"
    assert info["splits"]["train"]["pictures"] == 3


def test_validation_never_repeats_training_seeds(script):
    def seeds(split):
        return {
            script.dataset_parameters("people", train=1, val=1, seed=seed)["splits"][split][
                "picture_seed"
            ]
            for seed in range(50)
        }

    assert not seeds("train") & seeds("val")


def test_several_processes_write_the_same(script, tmp_path):
    # 50 pictures: enough for processes. They import the script, so it runs as a user runs it.
    size = ["--size", "32", "--train", "50", "--val", "1"]
    script.main(["--root", str(tmp_path / "one"), *size, "--workers", "1"])
    command = [sys.executable, str(SCRIPT), "--root", str(tmp_path / "two"), *size]
    result = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in _files(tmp_path / name)}
        for name in ("one", "two")
    )
    assert one == two


# Run again


def test_complete_data_set_is_left_alone(script, tmp_path, capsys):
    _run(script, tmp_path)
    before = _files(tmp_path)
    capsys.readouterr()
    assert _run(script, tmp_path) == 0
    assert "already complete" in capsys.readouterr().out
    assert _files(tmp_path) == before


def test_other_parameters_are_refused(script, tmp_path, capsys):
    _run(script, tmp_path)
    before = _files(tmp_path)
    assert _run(script, tmp_path, "--seed", "1") == 1
    message = capsys.readouterr().err
    assert str(tmp_path / "synthetic_people") in message
    assert "seed is 0, asked for 1" in message
    assert "--force" in message
    assert _files(tmp_path) == before


def test_foreign_folder_is_refused(script, tmp_path, capsys):
    precious = tmp_path / "synthetic_people" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("three years")
    assert _run(script, tmp_path) == 1
    assert "not written by this script" in capsys.readouterr().err
    assert precious.read_text() == "three years"


def test_lost_files_are_noticed(script, tmp_path, capsys):
    _run(script, tmp_path)
    (tmp_path / "synthetic_people/Validation/Human_ids/0000002.png").unlink()
    assert _run(script, tmp_path) == 1
    message = capsys.readouterr().err
    assert "Human_ids has 1 files" in message and "says 2" in message


def test_force_replaces(script, tmp_path):
    _run(script, tmp_path)
    assert _run(script, tmp_path, "--seed", "1", "--force") == 0
    info = json.loads((tmp_path / "synthetic_people" / "dataset.json").read_text())
    assert info["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic_people"]
    with Image.open(tmp_path / "synthetic_people/Training/Images/0000001.png") as file:
        np.testing.assert_array_equal(np.asarray(file), SyntheticPeople(seed=2)[0].image)


def _interrupt_third_picture(script, monkeypatch):
    written = script.write_picture

    def interrupted(people, folder, index):
        if index == 2:
            raise KeyboardInterrupt
        written(people, folder, index)

    monkeypatch.setattr(script, "write_picture", interrupted)


def test_interrupted_run_never_looks_complete(script, tmp_path, monkeypatch):
    _interrupt_third_picture(script, monkeypatch)
    assert _run(script, tmp_path) == 130
    assert not (tmp_path / "synthetic_people").exists()

    monkeypatch.undo()
    human_ids = "Training/Human_ids/000000{}.png"
    first = tmp_path / ".synthetic_people.unfinished" / human_ids.format(1)
    written = first.stat().st_mtime_ns
    assert _run(script, tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic_people"]
    root = tmp_path / "synthetic_people"
    assert (root / human_ids.format(1)).stat().st_mtime_ns == written
    assert (root / human_ids.format(3)).exists()


def test_interrupted_run_of_other_parameters_is_not_continued(script, tmp_path, monkeypatch):
    _interrupt_third_picture(script, monkeypatch)
    assert _run(script, tmp_path, "--seed", "6") == 130
    monkeypatch.undo()
    assert _run(script, tmp_path) == 0
    with Image.open(tmp_path / "synthetic_people/Training/Images/0000001.png") as file:
        np.testing.assert_array_equal(np.asarray(file), SyntheticPeople(seed=0)[0].image)


def test_interrupted_force_keeps_the_old_data(script, tmp_path, monkeypatch, capsys):
    _run(script, tmp_path)
    before = _files(tmp_path / "synthetic_people")

    def full_disk(people, folder, index):
        raise OSError("No space left on device")

    monkeypatch.setattr(script, "write_picture", full_disk)
    assert _run(script, tmp_path, "--seed", "1", "--force") == 1
    assert _files(tmp_path / "synthetic_people") == before
    assert _run(script, tmp_path) == 0
    assert ".synthetic_people.unfinished is left of" in capsys.readouterr().out


def test_temporaries_of_a_killed_run_are_not_published(script, tmp_path, monkeypatch, capsys):
    _interrupt_third_picture(script, monkeypatch)
    _run(script, tmp_path)
    monkeypatch.undo()
    photos = "Training/Images/.tmp_{}.png"
    (tmp_path / ".synthetic_people.unfinished" / photos.format(1)).write_bytes(b"half")
    assert _run(script, tmp_path) == 0
    root = tmp_path / "synthetic_people"
    assert not list(root.rglob(".*"))
    # Older versions have published them.
    (root / photos.format(2)).write_bytes(b"half")
    assert _run(script, tmp_path) == 0
    assert "already complete" in capsys.readouterr().out


def test_a_killed_removal_is_not_continued(script, tmp_path, monkeypatch):
    _interrupt_third_picture(script, monkeypatch)
    _run(script, tmp_path)
    remove = shutil.rmtree

    def killed(folder):
        remove(folder / "Training/Images")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    assert _run(script, tmp_path, "--seed", "1") == 130
    monkeypatch.undo()
    assert _run(script, tmp_path) == 0
    photos = tmp_path / "synthetic_people/Training/Images"
    assert sorted(path.stem for path in photos.iterdir()) == ["0000001", "0000002", "0000003"]


def test_a_killed_replacement_leaves_one_data_set(script, tmp_path, capsys):
    _run(script, tmp_path)
    before = sorted(path.name for path in _files(tmp_path))
    (tmp_path / "synthetic_people").rename(tmp_path / "synthetic_people.old")
    assert _run(script, tmp_path) == 0
    assert "already complete" in capsys.readouterr().out
    assert sorted(path.name for path in _files(tmp_path)) == before
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic_people"]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "both"], "both"),
        (["--train", "0"], "'0' is not an integer of at least 1"),
        (["--val", "many"], "'many' is not an integer of at least 1"),
        (["--seed", "-1"], "'-1' is not an integer of at least 0"),
        (["--size", "16"], "'16' is not an integer of at least 32"),
    ],
)
def test_bad_arguments(script, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        script.main(["--root", str(tmp_path), *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_default_root(script, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert script._parse([]).root == tmp_path
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert script._parse([]).root == Path("datasets")
