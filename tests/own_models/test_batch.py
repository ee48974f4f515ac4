"""Many photos into one folder: nothing twice, nothing by half, nothing of other settings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import instance_crf
from instance_crf.cli import main
from instance_crf.own_models import Detections, PartScores, Source, parse
from instance_crf.own_models.batch import BatchReport, describe_error, parse_folder
from instance_crf.own_models.batch_folder import RESULT_ENDINGS
from instance_crf.taxonomies import PartTaxonomy

TAXONOMY = PartTaxonomy(part_names=("head", "body", "legs"))
NAMES = ("ann.jpg", "bob.png", "cat.png", "dan.jpg")
SIZE = (40, 60)


def draw(seed):
    """Two people in three colours, somewhere, on noise."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(90, 130, (*SIZE, 3), dtype=np.uint8)
    for left in (4 + seed, 32 + seed):
        for part in range(3):
            picture[6 + 9 * part : 15 + 9 * part, left : left + 16] = 30
            picture[6 + 9 * part : 15 + 9 * part, left : left + 16, part] = 220
    return picture


class PartsByColor(Source):
    """A part model: probabilities by the strongest of red, green and blue."""

    taxonomy = TAXONOMY

    def __call__(self, pixels, path=None):
        return PartScores(torch.from_numpy(parts_by_color(pixels)), "prob", taxonomy=TAXONOMY)


class TwoBoxes(Source):
    """A detector: people are to the left and to the right of the middle of what is coloured."""

    def __call__(self, pixels, path=None):
        return Detections(**{k: torch.from_numpy(v) for k, v in two_boxes(pixels).items()})


def parts_by_color(pixels):
    colored = np.moveaxis(pixels > 180, 2, 0)
    background = ~colored.any(axis=0, keepdims=True)
    prob = 0.1 + np.concatenate([background, colored]).astype(np.float32)
    return prob / prob.sum(axis=0)


def two_boxes(pixels):
    columns = np.flatnonzero((pixels > 180).any(axis=(0, 2)))
    left, right, middle = columns[0], columns[-1] + 1, (columns[0] + columns[-1]) / 2
    boxes = np.array([[left, 6, middle, 33], [middle, 6, right, 33]], np.float32)
    return {"boxes": boxes, "scores": np.array([0.9, 0.8], np.float32)}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(draw(seed)).save(folder / name, quality=95)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(photos, out, parts=None, detector=None, **options):
    options = {"working_size": 48, **options}
    return parse_folder(photos, out, parts or PartsByColor(), detector or TwoBoxes(), **options)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(paths):
    return [path.name for path in paths]


# --- what is written ---


def test_the_results_are_those_of_parse(photos, out, tmp_path):
    report = run(photos, out)
    assert report == BatchReport([photos / name for name in NAMES], [], [])
    for name in NAMES:
        result = parse(
            photos / name, part_prob=PartsByColor(), detections=TwoBoxes(), working_size=48
        )
        assert len(result) == 2
        result.save(tmp_path / "expected", Path(name).stem)
    written = content(out)
    settings = json.loads(written.pop("settings.json"))
    assert written == content(tmp_path / "expected")
    stems = [Path(name).stem for name in NAMES]
    assert set(written) == {stem + ending for stem in stems for ending in RESULT_ENDINGS}
    assert settings["instance_crf"] == instance_crf.__version__
    assert settings["taxonomy"] == json.loads(json.dumps(TAXONOMY.to_dict()))
    assert settings["working_size"] == 48 and settings["parts"].endswith("PartsByColor")
    bob = settings["photos"]["bob"]
    assert bob == {"path": str(photos / "bob.png"), "bytes": (photos / "bob.png").stat().st_size}


def test_functions_and_single_photos_do_as_well(photos, out, tmp_path):
    run(photos / "bob.png", out)
    again = [str(photos / "b*.png"), photos / "bob.png"]
    report = run(again, tmp_path / "o2", parts_by_color, two_boxes, taxonomy=TAXONOMY)
    assert names(report.done) == ["bob.png"]
    one, two = content(out), content(tmp_path / "o2")
    assert one.pop("settings.json") != two.pop("settings.json")
    assert one == two and len(one) == 4


def test_options_of_parse_count(photos, out):
    run(photos / "ann.jpg", out, merge={"upper": ["head", "body"]}, pictures=False)
    assert set(content(out)) == {"settings.json", "ann.json", "ann.png", "ann_parts.png"}
    assert set(np.unique(np.array(Image.open(out / "ann_parts.png")))) == {0, 1}
    assert json.loads((out / "settings.json").read_text())["merge"] == {"upper": ["head", "body"]}


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ({"working_size": 5}, ValueError, "working_size is 5"),
        ({"merge": {"upper": ["head", "tail"]}}, ValueError, "tail"),
        ({"taxonomy": "nobody's"}, ValueError, "nobody's"),
        ({"size": 48}, TypeError, "size"),
    ],
)
def test_wrong_options_are_refused_before_the_first_photo(photos, out, wrong, error, message):
    with pytest.raises(error, match=message):
        run(photos, out, **wrong)
    assert not out.exists()


# --- going on ---


class Counting(Source):
    """A part model that remembers what it was asked for."""

    taxonomy = TAXONOMY

    def __init__(self):
        self.asked = []

    def __call__(self, pixels, path=None):
        self.asked.append(path.name)
        return PartsByColor()(pixels)


def test_what_is_done_is_skipped(photos, out):
    run(photos, out, Counting())
    before = content(out)
    parts = Counting()
    assert names(run(photos, out, parts).skipped) == list(NAMES) and parts.asked == []
    (out / "bob.json").unlink()
    (out / "dan.json").unlink()
    (out / "dan.png").write_bytes(b"half a picture")
    (out / ".tmp_x.png").write_bytes(b"of a run that was killed")
    report = run(photos, out, parts)
    assert names(report.skipped) == ["ann.jpg", "cat.png"]
    assert names(report.done) == parts.asked == ["bob.png", "dan.jpg"]
    assert content(out) == before


def test_photos_may_be_added(photos, out):
    run(photos / "ann.jpg", out)
    assert names(run([photos / "bob.png"], out).done) == ["bob.png"]
    report = run(photos, out)
    assert names(report.skipped) == ["ann.jpg", "bob.png"]
    assert set(json.loads((out / "settings.json").read_text())["photos"]) == {
        *("ann", "bob", "cat", "dan")
    }


@pytest.mark.parametrize(
    "other, message",
    [
        ({"working_size": 32}, "working_size: was 48, now 32"),
        ({"pictures": False}, "pictures: was true, now false"),
        ({"detector": two_boxes}, "detector: was .*TwoBoxes.*, now .*two_boxes"),
        ({"settings": {"weights": "b.pt"}}, 'weights: was "a.pt", now "b.pt"'),
        ({"taxonomy": PartTaxonomy(("head", "body", "feet"))}, 'was "legs", now "feet"'),
        ({"merge": {"all": ["head", "body", "legs"]}}, r"merge\.?.*: was null, now"),
    ],
)
def test_other_settings_never_mix(photos, out, other, message):
    run(photos / "ann.jpg", out, settings={"weights": "a.pt"})
    before = content(out)
    options = {"settings": {"weights": "a.pt"}, **other}
    with pytest.raises(ValueError, match=f"made with other settings: .*{message}.*--overwrite"):
        run(photos, out, **options)
    assert content(out) == before
    report = run(photos / "ann.jpg", out, **options, resume=False)
    assert names(report.done) == ["ann.jpg"]
    assert names(run(photos / "ann.jpg", out, **options).skipped) == ["ann.jpg"]


def test_results_of_another_version_never_mix(photos, out):
    run(photos / "ann.jpg", out)
    settings = json.loads((out / "settings.json").read_text())
    (out / "settings.json").write_text(json.dumps(settings | {"instance_crf": "0.0.1"}))
    with pytest.raises(ValueError, match='instance_crf: was "0.0.1", now'):
        run(photos, out)


def test_made_anew_with_other_settings_the_rest_is_disowned(photos, out):
    run(photos, out)
    run(photos / "ann.jpg", out, working_size=32, resume=False)
    assert (out / "bob.json").exists()
    with pytest.raises(ValueError, match=r"bob.json is there already, and no settings.json"):
        run(photos, out, working_size=32)
    run(photos, out, working_size=32, resume=False)
    assert len(run(photos, out, working_size=32).skipped) == 4


def test_made_anew_with_the_same_settings_the_rest_stays(photos, out):
    run(photos, out)
    assert names(run(photos / "ann.jpg", out, resume=False).done) == ["ann.jpg"]
    assert len(run(photos, out).skipped) == 4


def test_made_anew_an_image_that_fails_has_no_old_result(photos, out):
    run(photos, out)
    (photos / "bob.png").write_bytes(b"junk")
    assert len(run(photos, out, resume=False).failed) == 1
    assert not list(out.glob("bob*")) and len(list(out.glob("ann*"))) == 4


# --- what goes wrong ---


def test_one_photo_does_not_stop_the_others(photos, out):
    (photos / "bob.png").write_bytes(b"junk")

    class Picky(Source):
        taxonomy = TAXONOMY

        def __call__(self, pixels, path=None):
            if path.name == "cat.png":
                raise KeyError("no such\nrow")
            return PartsByColor()(pixels)

    seen = []
    report = run(photos, out, Picky(), on_error=lambda path, error: seen.append((path, error)))
    assert names(report.done) == ["ann.jpg", "dan.jpg"]
    (bob, of_bob), (cat, of_cat) = report.failed
    assert (bob.name, cat.name) == ("bob.png", "cat.png")
    assert of_bob.startswith(f"Cannot read the image {bob}")
    assert of_cat.startswith(f"{cat}: KeyError: ") and "\n" not in of_cat
    assert [(path, type(error)) for path, error in seen] == [(bob, ValueError), (cat, KeyError)]
    assert not list(out.glob("bob*")) + list(out.glob("cat*"))
    Image.fromarray(draw(1)).save(photos / "bob.png")  # mended, and of another size in bytes
    report = run(photos, out, Picky())
    assert names(report.done) == ["bob.png"] and names(report.skipped) == ["ann.jpg", "dan.jpg"]


def test_the_caller_may_stop_at_an_error(photos, out):
    (photos / "bob.png").write_bytes(b"junk")

    def stop(path, error):
        raise error

    with pytest.raises(ValueError, match="bob.png"):
        run(photos, out, on_error=stop)
    assert (out / "ann.json").exists() and not (out / "cat.json").exists()


def test_a_missing_library_stops_the_run(photos, out):
    def parts(pixels):
        raise ImportError("no such library")

    with pytest.raises(ImportError, match="no such library"):
        run(photos, out, parts, taxonomy=TAXONOMY)


def test_a_folder_that_cannot_be_written_stops_the_run(photos, out):
    def boxes(pixels):
        (out / "bob.png").mkdir(exist_ok=True)
        return two_boxes(pixels)

    with pytest.raises(OSError):
        run(photos, out, detector=boxes)
    assert (out / "ann.json").exists() and not (out / "cat.json").exists()
    assert not list(out.glob(".tmp_*"))


def test_what_an_error_is_called():
    path = Path("a/b.jpg")
    assert describe_error(path, ValueError("a/b.jpg is\n broken")) == "a/b.jpg is broken"
    assert describe_error(path, OSError("disk")) == "a/b.jpg: disk"
    assert describe_error(path, ValueError()) == "a/b.jpg: ValueError: "
    assert describe_error(path, IndexError("7")) == "a/b.jpg: IndexError: 7"


# --- public models ---


@pytest.mark.slow
def test_public_models_on_photographs(real_folder, tmp_path):
    weights = real_folder / "weights"
    photos = sorted((real_folder / "photos").iterdir())[:2]
    argv = ["parse", *photos, "--parts", f"bodypix:{weights / 'bodypix_mobilenet075'}"]
    argv += ["--detector", f"onnx:{weights / 'yolox_nano_416.onnx'}", "--output", tmp_path]
    assert main([str(a) for a in (*argv, "--size", 256)]) == 0
    for photo in photos:
        persons = np.array(Image.open(tmp_path / f"{photo.stem}.png"))
        found = json.loads((tmp_path / f"{photo.stem}.json").read_text())
        width, height = Image.open(photo).size
        assert (found["height"], found["width"]) == (height, width) == persons.shape
        assert len(found["objects"]) == persons.max() >= 1


# --- killed ---

KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from batch_example import run
run(sys.argv[1], sys.argv[2] + "/whole")  # also loads the kernels, for all children
replace, calls = os.replace, 0

def kill_at(number):
    # The number-th file is complete under its temporary name, and never gets its own.
    def counting(source, target):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, target)
    os.replace = counting

for number in range(1, 10):
    out = f"{{sys.argv[2]}}/{{number}}"
    if os.fork() == 0:
        kill_at(number)
        run(sys.argv[1], out)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
    if os.fork() == 0:
        report = run(sys.argv[1], out)
        os._exit(len(report.failed))
    assert os.wait()[1] == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_file_and_run_again(photos, out, tmp_path):
    """The second run ends with what one run that was left alone ends with."""
    for name in NAMES[2:]:
        (photos / name).unlink()
    shutil.copy(__file__, tmp_path / "batch_example.py")
    code = KILLED.format(folder=str(tmp_path))
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # others would not survive a fork
    process = subprocess.run(
        [sys.executable, "-c", code, photos, out], capture_output=True, text=True, env=one_thread
    )
    assert process.returncode == 0, process.stderr
    expected = content(out / "whole")
    assert len(expected) == 9  # settings.json and four files for each photo: nine ways to be killed
    for number in range(1, 10):
        assert content(out / str(number)) == expected, number
