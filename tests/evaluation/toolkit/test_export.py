"""An export replaces another whole, or not at all, also when it is killed."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import instance_crf
from instance_crf.evaluation import export_predictions
from instance_crf.evaluation.toolkit.export_folder import MANIFEST, ExportFolder
from instance_crf.evaluation.toolkit.formats import WRITERS
from instance_crf.evaluation.toolkit.formats.cihp import CIHPTruth
from instance_crf.evaluation.toolkit.formats.coco import write_coco_truth
from instance_crf.evaluation.toolkit.runner import Evaluation, evaluate_folder
from instance_crf.files import InUseError
from instance_crf.taxonomies.schema import PartTaxonomy

PACKAGE = {"PYTHONPATH": str(Path(instance_crf.__file__).parents[1])}
TAXONOMY = PartTaxonomy(part_names=("head", "torso"))
COUNT = 40

# What both this file and the programs that it kills predict: model 1 is shifted more than model 0.
MODELS = """
import numpy as np
from instance_crf.evaluation import Parsing, export_predictions
from instance_crf.taxonomies.schema import PartTaxonomy

TAXONOMY = PartTaxonomy(part_names=("head", "torso"))

def predictions_of(model, count):
    for index in range(count):
        parts = np.zeros((64, 48), np.uint8)
        parts[8:24, 8:24], parts[24:56, 8:24] = 1, 2
        parts = np.roll(parts, (1 + 3 * model) * (index % 4), axis=0)
        yield f"{index:03d}", Parsing.of_maps(
            parts,
            (parts > 0).astype(np.uint8),
            object_ids=np.array([1]),
            object_classes=np.array([0]),
            object_scores=np.array([0.9]),
            segment_scores=np.array([0.5, 0.25]),
        )
"""
namespace = {}
exec(MODELS, namespace)
predictions_of = namespace["predictions_of"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Of all images what is not shifted."""
    folder, truths = tmp_path_factory.mktemp("truth"), []
    [(_, truth)] = predictions_of(0, 1)
    for image_id, _ in predictions_of(0, COUNT):
        for name, label_map in (("Category", truth.part_map), ("Human", truth.object_map)):
            path = folder / "cihp" / f"{name}_ids" / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(label_map).save(path)
        truths.append((image_id, truth))
    write_coco_truth(folder / "coco", TAXONOMY, truths)
    return folder


def number_of(folder, truth, format_name="cihp"):
    """The evaluator's numbers, to the last digit."""
    truth_format = "coco" if format_name == "coco" else "cihp"
    task = Evaluation(
        predictions=folder,
        truth=truth / truth_format,
        prediction_format=format_name,
        truth_format=truth_format,
        taxonomy=TAXONOMY,
        metrics=("part_seg" if format_name == "partpq" else "part_apr",),
    )
    return json.dumps(evaluate_folder(task, workers=1).compute())


@pytest.mark.parametrize("format_name", WRITERS)
def test_a_new_export_replaces_the_old_one(tmp_path, truth, format_name):
    """Also the images that only the old one had; other files stay."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.log").write_text("mine")
    export_predictions(format_name, tmp_path / "alone", TAXONOMY, predictions_of(1, COUNT - 3))
    for model, count in ((0, COUNT), (1, COUNT - 3)):
        export_predictions(format_name, tmp_path / "mine", TAXONOMY, predictions_of(model, count))
    assert number_of(tmp_path / "mine", truth, format_name) == number_of(
        tmp_path / "alone", truth, format_name
    )
    files = {p.relative_to(tmp_path / "alone"): p for p in (tmp_path / "alone").rglob("*")}
    again = {p.relative_to(tmp_path / "mine"): p for p in (tmp_path / "mine").rglob("*")}
    assert set(again) == {*files, Path("notes.log")}
    assert all(again[name].read_bytes() == p.read_bytes() for name, p in files.items() if p.suffix)


@pytest.mark.parametrize("format_name", WRITERS)
def test_an_export_that_fails_leaves_the_old_one(tmp_path, truth, format_name):
    def broken():
        yield from predictions_of(1, 5)
        raise RuntimeError("out of memory")

    for results in (broken(), [*predictions_of(1, 2), *predictions_of(1, 1)]):
        export_predictions(format_name, tmp_path, TAXONOMY, predictions_of(0, COUNT))
        before = number_of(tmp_path, truth, format_name)
        with pytest.raises((RuntimeError, ValueError), match=r"out of memory|'000' has two"):
            export_predictions(format_name, tmp_path, TAXONOMY, results)
        assert number_of(tmp_path, truth, format_name) == before
        assert not (tmp_path / ".tmp_export").exists()


@pytest.mark.parametrize("format_name", ["cihp", "tvg", "partpq", "mhp", "panoptic"])
def test_images_that_are_lost_or_added_later(tmp_path, truth, format_name):
    """As by a copy that was interrupted; without the list it is somebody's folder, and valid."""
    export_predictions(format_name, tmp_path / "one", TAXONOMY, predictions_of(0, COUNT))
    export_predictions(format_name, tmp_path / "few", TAXONOMY, predictions_of(0, COUNT - 1))
    lists = [(tmp_path / name / MANIFEST).read_text() for name in ("one", "few")]
    (tmp_path / "one" / MANIFEST).write_text(lists[1])
    with pytest.raises(ValueError, match=f"one is not as it was exported.* one of '0{COUNT - 1}'"):
        number_of(tmp_path / "one", truth, format_name)
    (tmp_path / "few" / MANIFEST).write_text(lists[0])
    with pytest.raises(ValueError, match=f"few is not as .*has no prediction of '0{COUNT - 1}'"):
        number_of(tmp_path / "few", truth, format_name)
    (tmp_path / "few" / MANIFEST).unlink()
    number_of(tmp_path / "few", truth, format_name)


def test_names_that_the_reader_would_not_find(tmp_path, truth):
    """A prediction in a folder inside would be missed without a word."""
    [(_, prediction)] = predictions_of(0, 1)
    export_predictions("tvg", tmp_path, TAXONOMY, [("000", prediction), ("sub/001", prediction)])
    with pytest.raises(ValueError, match=r"has no prediction of 'sub/001'"):
        number_of(tmp_path, truth, "tvg")


def test_another_export_during_the_evaluation(tmp_path, truth, monkeypatch):
    export_predictions("cihp", tmp_path, TAXONOMY, predictions_of(0, COUNT))
    read = CIHPTruth.read

    def read_slowly(self, image_id):
        if image_id == "020":
            export_predictions("cihp", tmp_path, TAXONOMY, predictions_of(1, COUNT))
        return read(self, image_id)

    monkeypatch.setattr(CIHPTruth, "read", read_slowly)
    with pytest.raises(ValueError, match="got another export while it was evaluated"):
        number_of(tmp_path, truth)


def test_one_export_at_a_time(tmp_path):
    with ExportFolder(tmp_path), pytest.raises(InUseError, match="is exporting predictions"):
        export_predictions("cihp", tmp_path, TAXONOMY, predictions_of(0, 1))
    export_predictions("cihp", tmp_path, TAXONOMY, predictions_of(0, 1))


def test_a_list_of_files_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text('{"complete": true, "entries": ["../precious"]}')
    with pytest.raises(ValueError, match="leads out of"):
        export_predictions("cihp", tmp_path / "out", TAXONOMY, predictions_of(0, 1))
    assert (tmp_path / "precious").exists()


KILLED_AT = """
import os, signal, sys

def export_until(folder, format_name, left):
    # Renaming is what puts files in their place: SIGKILL before the left-th.
    def count(event, args):
        nonlocal left
        if event == "os.rename" and not str(args[1]).startswith(f"{folder}/.tmp_export/new/"):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    export_predictions(format_name, folder, TAXONOMY, predictions_of(1, 8))

for left in range(1, 100):
    folder = f"{sys.argv[1]}/{left}"
    export_predictions(sys.argv[2], folder, TAXONOMY, predictions_of(0, 8))
    pid = os.fork()
    if not pid:
        export_until(folder, sys.argv[2], left)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
"""


@pytest.mark.parametrize(("format_name", "renames"), [("cihp", 8), ("coco", 6), ("tvg", 34)])
def test_killed_while_places_change(tmp_path, truth, format_name, renames):
    """At every single step: the old numbers, a refusal, and at last the new numbers."""
    subprocess.run(
        [sys.executable, "-c", MODELS + KILLED_AT, str(tmp_path / "out"), format_name],
        env=PACKAGE,
        check=True,
    )
    old, new = (tmp_path / f"model{model}" for model in (0, 1))
    for model, folder in enumerate((old, new)):
        export_predictions(format_name, folder, TAXONOMY, predictions_of(model, 8))
    said = []
    for step in range(1, renames + 2):
        folder = tmp_path / "out" / str(step)
        try:
            said.append(number_of(folder, truth, format_name))
        except ValueError as error:
            assert str(error).startswith(f"{folder} holds no whole export")
            said.append("refused")
    first, *middle, last = said
    assert first == number_of(old, truth, format_name)
    assert last == number_of(new, truth, format_name) != first
    assert set(middle) == {"refused"}
    # The next export puts it right.
    folder = tmp_path / "out/4"
    export_predictions(format_name, folder, TAXONOMY, predictions_of(0, 8))
    assert number_of(folder, truth, format_name) == first
    assert {p.name for p in folder.iterdir()} == {p.name for p in old.iterdir()}


SLOW_EXPORT = """
import sys, time

def slowly():
    print("begun", flush=True)
    for pair in predictions_of(1, 40):
        yield pair
        time.sleep(0.005)

export_predictions(sys.argv[2], sys.argv[1], TAXONOMY, slowly())
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, truth):
    """Ten kills of a real export over an older one."""
    rng, program = random.Random(13), [sys.executable, "-c", MODELS + SLOW_EXPORT]
    old, new, folder = (tmp_path / name for name in ("old", "new", "out"))
    start = time.perf_counter()
    subprocess.run([*program, str(new), "cihp"], env=PACKAGE, check=True)
    longest = time.perf_counter() - start
    export_predictions("cihp", old, TAXONOMY, predictions_of(0, COUNT))
    numbers = [number_of(each, truth) for each in (old, new)]
    assert numbers[0] != numbers[1]
    killed = 0
    for _ in range(10):
        shutil.copytree(old, folder)
        process = subprocess.Popen(
            [*program, str(folder), "cihp"], env=PACKAGE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.7 * longest))
        process.kill()
        killed += b"done" not in process.communicate()[0]
        try:
            assert number_of(folder, truth) in numbers
        except ValueError as error:
            assert str(error).startswith(f"{folder} holds no whole export")
        shutil.rmtree(folder)
    assert killed >= 3
