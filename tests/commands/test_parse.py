"""`instance-crf parse`, as it is typed: files in, files out, whatever stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import instance_crf
from instance_crf.cli import main
from instance_crf.data.label_io import write_part_map
from instance_crf.own_models.batch_folder import RESULT_ENDINGS
from instance_crf.taxonomies import PartTaxonomy

TAXONOMY = PartTaxonomy(part_names=("head", "body", "legs"))
SIZE = (48, 72)


@pytest.fixture
def saved(tmp_path):
    """Photos of two people, ids of their parts as PNGs, boxes in a COCO file."""
    return save_example(tmp_path, ("ann", "bob", "cat"))


def save_example(folder, names):
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    boxes = []
    for name in names:
        picture = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
        parts = np.zeros(SIZE, np.uint8)
        for x, color in ((6, (220, 60, 60)), (34, (60, 60, 220))):
            rows = slice(4, 44)
            parts[rows, x : x + 24] = 1 + np.arange(40)[:, None] * 3 // 40
            picture[rows, x : x + 24] = color
            boxes.append({"image_id": name, "category_id": 1, "bbox": [x, 4, 24, 40]})
        Image.fromarray(picture).save(folder / f"photos/{name}.png")
        write_part_map(folder / f"parts/{name}.png", parts)
    content = {
        "images": [{"id": name, "file_name": f"{name}.png"} for name in names],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": boxes,
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    set_scores(folder, 0.9)
    (folder / "taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))
    return folder


def set_scores(folder, score):
    content = json.loads((folder / "boxes.json").read_text())
    for box in content["annotations"]:
        box["score"] = score
    (folder / "boxes.json").write_text(json.dumps(content))


def arguments(saved, *more, output="out"):
    argv = ["parse", saved / "photos", "--parts", saved / "parts", "--output", saved / output]
    argv += ["--detector", f"coco:{saved / 'boxes.json'}", "--size", 64]
    return [str(a) for a in (*argv, "--taxonomy", saved / "taxonomy.json", *more)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ids(path):
    return set(np.unique(np.array(Image.open(path))).tolist())


def test_parse(saved, capsys):
    assert main(arguments(saved)) == 0
    assert capsys.readouterr().out == f"3 images done; results in {saved / 'out'}\n"
    names = {name + ending for name in ("ann", "bob", "cat") for ending in RESULT_ENDINGS}
    before = content(saved / "out")
    assert set(before) == {"settings.json", *names}
    for name in ("ann", "bob", "cat"):
        persons = np.array(Image.open(saved / f"out/{name}.png"))
        parts = np.array(Image.open(saved / f"parts/{name}.png"))
        assert (persons[:, 6:30][parts[:, 6:30] > 0] == persons[20, 10]).mean() > 0.98
        assert (persons[:, 34:58][parts[:, 34:58] > 0] == persons[20, 40]).mean() > 0.98
        assert ids(saved / f"out/{name}.png") == {0, 1, 2}
        assert (np.array(Image.open(saved / f"out/{name}_parts.png")) == parts).mean() > 0.98
        assert len(json.loads((saved / f"out/{name}.json").read_text())["boxes"]) == 2
    assert main(arguments(saved)) == 0
    assert "0 images done, 3 were done before" in capsys.readouterr().out
    assert content(saved / "out") == before


def test_what_was_not_done_is_listed(saved, capsys):
    (saved / "parts/bob.png").unlink()
    (saved / "photos/cat.png").write_bytes(b"junk")
    (saved / "photos/._ann.png").write_bytes(b"what macOS leaves on foreign disks")
    Image.new("1", (20_000, 10_000)).save(saved / "photos/dan.png")
    assert main(arguments(saved)) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("1 images done;")
    *_, title, bob, cat, dan = printed.err.splitlines()
    assert title == "3 not done:" and "dan.png has more than" in dan
    assert "bob.png" in bob and str(saved / "parts") in bob
    assert cat.strip().startswith(f"Cannot read the image {saved / 'photos/cat.png'}")
    assert {path.stem for path in (saved / "out").glob("*.json")} == {"ann", "settings"}


def test_other_settings(saved, capsys):
    assert main(arguments(saved)) == 0
    capsys.readouterr()
    assert main(arguments(saved, "--size", "32")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "working_size: was 64, now 32" in line
    assert "--output" in line and "--overwrite" in line
    set_scores(saved, 0.8)
    assert main(arguments(saved)) == 1
    assert "sha256.coco:" in capsys.readouterr().err
    assert main(arguments(saved, "--overwrite")) == 0
    assert json.loads((saved / "out/ann.json").read_text())["scores"] == pytest.approx([0.8] * 2)


def test_settings_say_what_made_the_results(saved):
    options = ["--option", "kind=map", "--detector-option", "least_score=0.3", "--no-pictures"]
    assert main(arguments(saved, *options)) == 0
    settings = json.loads((saved / "out/settings.json").read_text())
    assert settings["parts"] == str(saved / "parts")
    assert settings["detector"] == f"coco:{saved / 'boxes.json'}"
    assert settings["part_options"] == {"kind": "map"}
    assert settings["detector_options"] == {"least_score": 0.3}
    assert settings["taxonomy"]["part_names"] == ["head", "body", "legs"]
    assert set(settings["versions"]) == {"torch"} and settings["pictures"] is False
    assert not list((saved / "out").glob("*_picture*"))


def test_the_detectors_own_threshold_hides_nothing(saved):
    set_scores(saved, 0.02)
    for least, found in (("0.01", {0, 1, 2}), ("0.03", {0})):
        assert main(arguments(saved, "--least-score", least, output=least)) == 0
        assert ids(saved / least / "ann.png") == found


def test_merged_parts(saved, capsys):
    groups = {"upper": ["head", "body"], "lower": ["legs"]}
    (saved / "groups.json").write_text(json.dumps(groups))
    assert main(arguments(saved, "--merge", "upper=head,body; lower=legs", output="a")) == 0
    assert main(arguments(saved, "--merge", str(saved / "groups.json"), output="b")) == 0
    assert content(saved / "a") == content(saved / "b")
    assert ids(saved / "a/ann_parts.png") == {0, 1, 2}
    assert main(arguments(saved, "--merge", "upper=head,tail")) == 1
    assert "tail" in capsys.readouterr().err and not (saved / "out").exists()


def test_without_opencv_there_are_no_pictures(saved, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(arguments(saved)) == 0
    assert "note: there will be no pictures" in capsys.readouterr().err
    assert len(content(saved / "out")) == 1 + 3 * 3


def test_warnings_are_lines(saved, capsys):
    write_part_map(saved / "parts/bob.png", np.zeros(SIZE, np.uint8))
    assert main(arguments(saved)) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "Warning" not in line]
    (line,) = [line for line in warned if "bob.png" in line and line.startswith("warning: ")]
    assert "background" in line


@pytest.mark.parametrize(
    "more, message",
    [
        (["--size", "0"], "'0' is no whole number of at least 16"),
        (["--size", "big"], "'big' is no whole number"),
        (["--least-score", "1"], "'1' is no number from 0 to below 1"),
        (["--least-score", "nan"], "'nan' is no number"),
        (["--option", "kind"], "'kind' is not like KEY=VALUE"),
        (["--detector-option", "a b=1"], "'a b=1' is not like KEY=VALUE"),
        (["--option", "taxonomy=lip"], "there is --taxonomy for that"),
    ],
)
def test_wrong_arguments(saved, more, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments(saved, *more))
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--taxonomy", "nobody"], "nobody"),
        (["--merge", "head"], "not like"),
        (["--parts", "nowhere/"], "nowhere"),
        (["--detector", "coco:nowhere.json"], "nowhere.json"),
        (["--detector", "yolo"], "yolo"),
        (["--option", "colour=red"], "colour"),
        (["--detector-option", "colour=red"], "colour"),
    ],
)
def test_wrong_values_end_in_one_line(saved, more, message, capsys):
    assert main(arguments(saved, *more)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (saved / "out").exists()


def test_results_that_cannot_be_written_end_in_one_line(saved, full_disk, capsys):
    (saved / "file").touch()
    argv = arguments(saved, output="file")
    argv[argv.index("--parts") + 1] = "not looked at"
    assert main(argv) == 1
    line = f"error: {saved / 'file'}: cannot be written: Not a directory\n"
    assert capsys.readouterr().err == line
    with full_disk():
        assert main(arguments(saved, output="full")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {saved / 'full'}") and "cannot be written" in error


def test_given_parts_are_not_overwritten(saved, capsys):
    before = content(saved / "parts")
    assert main(arguments(saved, "--overwrite", output="parts")) == 1
    assert "name another --output" in capsys.readouterr().err
    assert content(saved / "parts") == before


def test_parts_without_names(saved, capsys):
    argv = arguments(saved)
    assert main(argv[: argv.index("--taxonomy")]) == 1
    assert "add --taxonomy" in capsys.readouterr().err


def start(argv):
    """The command in a process of its own, which takes an interrupt even if this one was begun in
    the background, where shells have it ignored."""
    package = str(Path(instance_crf.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "instance_crf", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": package, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "number, status", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_stopped_and_started_again(tmp_path, number, status):
    saved = save_example(tmp_path, [f"{i:03d}" for i in range(60)])
    process = start(arguments(saved))
    deadline = time.monotonic() + 300
    while not len(list((saved / "out").glob("0*.json"))) >= 3:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    printed, error = process.communicate()
    assert process.returncode == status
    done = len(list((saved / "out").glob("0*.json")))
    assert 3 <= done < 60
    if number == signal.SIGINT:
        assert not printed and "Traceback" not in error
        line = f"interrupted: what is done is in {saved / 'out'}; the same command goes on"
        assert error.splitlines()[-1] == line
        assert not list((saved / "out").glob(".tmp_*"))
    process = start(arguments(saved))
    printed, error = process.communicate()
    assert process.returncode == 0, error
    assert printed.startswith(f"{60 - done} images done, {done} were done before;")
    assert main(arguments(saved, output="whole")) == 0
    assert content(saved / "out") == content(saved / "whole")
