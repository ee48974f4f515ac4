"""tools/evaluate_predictions.py on files of every format."""

import importlib.util
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import instance_crf
from instance_crf.commands.evaluate import read_list
from instance_crf.evaluation import METRICS, PartParsingMetrics
from instance_crf.evaluation.toolkit.export import export_predictions
from instance_crf.evaluation.toolkit.formats.cihp import CIHPTruth
from instance_crf.evaluation.toolkit.formats.coco import write_coco_truth
from instance_crf.evaluation.toolkit.formats.panoptic import PanopticWriter
from instance_crf.evaluation.toolkit.formats.tvg import write_tvg_truth
from instance_crf.evaluation.toolkit.runner import Evaluation, evaluate_folder
from instance_crf.evaluation.toolkit.taxonomies import TAXONOMY_NAMES, find_taxonomy
from instance_crf.taxonomies.schema import PartTaxonomy

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/evaluate_predictions.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

TAXONOMY = PartTaxonomy(part_names=("head", "torso", "arms", "legs"))
IDS = tuple("abcd")


def write_truth(folder, pairs):
    """The canonical layout, with its taxonomy."""
    for name in ("Category_ids", "Human_ids"):
        (folder / name).mkdir(parents=True)
    for image_id, (_, truth) in pairs.items():
        Image.fromarray(truth.part_map).save(folder / "Category_ids" / f"{image_id}.png")
        Image.fromarray(truth.object_map).save(folder / "Human_ids" / f"{image_id}.png")
    (folder / "taxonomy.json").write_text(json.dumps(TAXONOMY.to_dict()))


@pytest.fixture
def pairs(make_pair):
    return {image_id: make_pair(seed) for seed, image_id in enumerate(IDS)}


@pytest.fixture
def expected(pairs):
    metrics = PartParsingMetrics(TAXONOMY.part_names, ("person",), ("sds", "coco"))
    for image_id, pair in pairs.items():
        metrics.add(image_id, *pair)
    return metrics.compute()


def predictions_of(pairs):
    return [(image_id, prediction) for image_id, (prediction, _) in pairs.items()]


def run(folder, *options):
    """The content of --json."""
    path = folder / "numbers.json"
    argv = ["--predictions", folder / "predictions", "--ground-truth", folder / "truth"]
    argv += ["--protocol", "sds", "coco", "--json", path, "--num-workers", 1, *options]
    assert tool.main([str(a) for a in argv]) == 0
    return json.loads(path.read_text())


def test_cihp(tmp_path, pairs, expected, capsys):
    write_truth(tmp_path / "truth", pairs)
    export_predictions("cihp", tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    content = run(tmp_path, "--format", "cihp", "--report", tmp_path / "report")
    assert content["results"] == expected
    assert content["protocols"]["part_apr"] == "sds"
    assert content["protocols"]["part_apr_coco"] == "coco"
    assert content["part_names"] == list(TAXONOMY.part_names)
    printed = capsys.readouterr().out
    assert "part_apr  [protocol sds]" in printed and "part_apr_coco  [protocol coco]" in printed
    pictures = {path.name for path in (tmp_path / "report").iterdir()}
    assert pictures == {
        "pr_part_apr.png",
        "pr_part_apr_coco.png",
        "pr_object_apr.png",
        "pr_object_apr_coco.png",
        "confusion.png",
    }
    for name in pictures:
        picture = np.asarray(Image.open(tmp_path / "report" / name).convert("RGB"))
        assert min(picture.shape[:2]) > 300 and picture.std() > 10


@pytest.mark.parametrize("format_name", ["tvg", "panoptic", "coco", "mhp", "partpq"])
def test_the_other_formats(tmp_path, pairs, expected, format_name, capsys):
    options = ["--format", format_name]
    export_predictions(format_name, tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    truths = [(image_id, truth) for image_id, (_, truth) in pairs.items()]
    if format_name == "tvg":
        for image_id, truth in truths:
            write_tvg_truth(tmp_path / "truth", image_id, truth)
    elif format_name == "coco":
        write_coco_truth(tmp_path / "truth", TAXONOMY, truths)
    elif format_name == "panoptic":
        with PanopticWriter(tmp_path / "truth", TAXONOMY, name="val") as writer:
            for image_id, truth in truths:
                writer.add(image_id, truth)
    else:
        write_truth(tmp_path / "truth", pairs)
        options += ["--ground-truth-format", "cihp"]
    if format_name == "tvg":
        taxonomy = tmp_path / "mine.json"
        taxonomy.write_text(json.dumps(TAXONOMY.to_dict()))
        options += ["--taxonomy", taxonomy]
    results = run(tmp_path, *options)["results"]
    exact = {
        "tvg": {"part_apr", "part_apr_coco", "part_seg"},
        "panoptic": set(expected),
        "coco": {"part_apr", "part_apr_coco", "object_apr", "object_apr_coco"},
        "mhp": set(expected) - {"part_apr", "part_apr_coco"},
        "partpq": {"part_seg", "panoptic"},
    }[format_name]
    for task in exact:
        assert results[task] == expected[task], task
    if format_name == "partpq":
        assert set(results) == exact
        assert "no part_apr: the partpq files do not have the scores" in capsys.readouterr().err


def test_only_the_images_and_metrics_asked_for(tmp_path, pairs):
    write_truth(tmp_path / "truth", pairs)
    export_predictions("cihp", tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    listed = tmp_path / "list.txt"
    listed.write_text("c\na\n\n")
    options = ["--format", "cihp", "--list", listed, "--metrics", "part_seg", "part_apr"]
    results = run(tmp_path, *options)["results"]
    metrics = PartParsingMetrics(
        TAXONOMY.part_names, ("person",), ("sds", "coco"), ("part_seg", "part_apr")
    )
    for image_id in "ac":
        metrics.add(image_id, *pairs[image_id])
    assert results == metrics.compute()


def test_missing_predictions_count_or_not_by_the_protocol(tmp_path, pairs, capsys):
    write_truth(tmp_path / "truth", pairs)
    some = [p for p in predictions_of(pairs) if p[0] != "b"]
    export_predictions("cihp", tmp_path / "predictions", TAXONOMY, some)
    results = run(tmp_path, "--format", "cihp", "--protocol", "sds_matlab", "cihp")["results"]
    for task, kept in (("part_apr", "abcd"), ("part_apr_cihp", "acd")):
        metrics = PartParsingMetrics(
            TAXONOMY.part_names, ("person",), "cihp" if kept == "acd" else "sds_matlab"
        )
        for image_id in kept:
            prediction, truth = pairs[image_id]
            metrics.add(image_id, None if image_id == "b" else prediction, truth)
        assert results[task] == metrics.compute()["part_apr"]


def test_nan_is_null_in_the_json_and_the_defect_a_warning(tmp_path, pairs, capsys):
    taxonomy = PartTaxonomy(part_names=(*TAXONOMY.part_names, "tail"))
    write_truth(tmp_path / "truth", pairs)
    (tmp_path / "truth/taxonomy.json").write_text(json.dumps(taxonomy.to_dict()))
    export_predictions("cihp", tmp_path / "predictions", taxonomy, predictions_of(pairs))
    results = run(tmp_path, "--format", "cihp", "--protocol", "tvg", "sds")["results"]
    assert results["part_apr"]["APr_vol"] is None
    assert results["part_apr_sds"]["APr_vol"] > 0
    assert "warning: Protocol 'tvg' as published" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: (f / "predictions/instance_parsing/a.txt").write_text("1 nan\n"),
            "a.txt, line 1: score must be finite",
        ),
        (
            lambda f: (f / "truth/Human_ids/c.png").write_bytes(b"no image"),
            "Human_ids/c.png",
        ),
        (
            lambda f: Image.fromarray(np.zeros((9, 5), np.uint8)).save(
                f / "truth/Category_ids/b.png"
            ),
            "b.png is 5x9 pixels",
        ),
        (
            lambda f: (f / "predictions/instance_parsing/stray.txt").write_text(""),
            "1 prediction(s) in",
        ),
        (lambda f: (f / "truth/taxonomy.json").write_text("{"), "taxonomy.json is not JSON"),
        (lambda f: (f / "truth/taxonomy.json").write_text("{}"), "it has no part_names"),
    ],
)
def test_broken_files_end_in_one_line_that_names_them(tmp_path, pairs, capsys, break_it, message):
    write_truth(tmp_path / "truth", pairs)
    export_predictions("cihp", tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    break_it(tmp_path)
    argv = ["--format", "cihp", "--num-workers", "1", "--json", str(tmp_path / "numbers.json")]
    argv += ["--predictions", str(tmp_path / "predictions")]
    argv += ["--ground-truth", str(tmp_path / "truth")]
    assert tool.main(argv) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "numbers.json").exists()


def test_wrong_arguments(tmp_path, capsys):
    folders = ["--predictions", str(tmp_path), "--ground-truth", str(tmp_path)]
    assert tool.main([*folders, "--format", "tvg", "--taxonomy", "nobody"]) == 1
    assert f"There are {', '.join(TAXONOMY_NAMES)}" in capsys.readouterr().err
    assert tool.main([*folders, "--format", "coco", "--ground-truth-format", "cihp"]) == 1
    assert "need ground truth in the same format" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main([*folders, "--format", "cihp", "--num-workers", "0"])
    listed = tmp_path / "list.txt"
    for content, message in (("a\na\n", "has an image twice"), ("\n", "is empty")):
        listed.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_list(listed)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--json", "truth"),
        ("--json", "a_file/numbers.json"),
        ("--json", "/proc/numbers.json"),
        ("--report", "a_file"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(tmp_path, capsys, option, name):
    """Here there is no ground truth: it is not even looked at."""
    (tmp_path / "truth").mkdir()
    (tmp_path / "a_file").write_text("")
    argv = ["--predictions", str(tmp_path), "--ground-truth", str(tmp_path / "truth")]
    assert tool.main([*argv, "--format", "cihp", option, str(tmp_path / name)]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith("error: ")
    assert f"{tmp_path / name}" in error[0] and "cannot be written: " in error[0]
    assert {path.name for path in tmp_path.iterdir()} == {"truth", "a_file"}


def test_a_full_disk(tmp_path, pairs):
    """Here a limit of a file's size, which is met before the work."""
    write_truth(tmp_path / "truth", pairs)
    export_predictions("cihp", tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    command = [sys.executable, str(ROOT / "tools/evaluate_predictions.py"), "--format", "cihp"]
    command += ["--predictions", "predictions", "--ground-truth", "truth", "--json", "numbers.json"]
    process = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )
    assert process.returncode == 1
    assert process.stderr == "error: numbers.json: cannot be written: File too large\n"
    assert not process.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"predictions", "truth"}


def test_a_list_in_any_usual_coding_of_unicode(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeffa\r\né\r\n".encode())
    assert read_list(path) == ["a", "é"]
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match="ids.txt is not text in UTF-8"):
        read_list(path)
    with pytest.raises(FileNotFoundError, match="none.txt does not exist"):
        read_list(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("protocol", "format_name", "said"),
    [
        ("coco", "cihp", "coco here: cihp files mark no crowds"),
        ("tvg", "coco", "tvg here: coco files have no ignored pixels"),
        ("cihp", "coco", "cihp here: coco files do not list the images without a prediction"),
        ("coco", "coco", None),
        ("tvg", "cihp", None),
        ("cihp", "cihp", None),
    ],
)
def test_what_the_files_cannot_tell_of_a_protocol(
    tmp_path, pairs, capsys, protocol, format_name, said
):
    truths = [(image_id, truth) for image_id, (_, truth) in pairs.items()]
    if format_name == "coco":
        write_coco_truth(tmp_path / "truth", TAXONOMY, truths)
    else:
        write_truth(tmp_path / "truth", pairs)
    export_predictions(format_name, tmp_path / "predictions", TAXONOMY, predictions_of(pairs))
    content = run(tmp_path, "--format", format_name, "--protocol", protocol)
    lines = capsys.readouterr().out.splitlines()
    after = lines[lines.index(f"part_apr  [protocol {protocol}]") + 1].strip()
    if said is None:
        assert after.startswith("APr_vol") and content["caveats"] == {}
    else:
        assert after.startswith(said)
        assert after == f"{protocol} here: {content['caveats'][protocol]}"


def test_taxonomies_by_name(tmp_path):
    for name in TAXONOMY_NAMES:
        assert find_taxonomy(name, tmp_path, "cihp").num_parts > 0
    assert find_taxonomy("SCHP-ATR", tmp_path, "cihp").num_parts == 17
    assert find_taxonomy(None, tmp_path, "cihp").num_parts == 19
    assert find_taxonomy(None, tmp_path, "mhp").num_parts == 58
    assert find_taxonomy(None, tmp_path, "tvg").part_names[2] == "upper arms"


@pytest.fixture
def tasks(tmp_path, make_pair):
    """Format -> what to evaluate, 40 images each."""
    pairs = {f"{seed:03d}": make_pair(seed) for seed in range(40)}
    write_truth(tmp_path / "truth", pairs)
    write_coco_truth(tmp_path / "coco", TAXONOMY, [(i, t) for i, (_, t) in pairs.items()])
    tasks = {}
    for name in ("cihp", "panoptic", "mhp", "tvg", "coco"):
        export_predictions(name, tmp_path / f"out_{name}", TAXONOMY, predictions_of(pairs))
        truth = ("coco", "coco") if name == "coco" else ("truth", "cihp")
        tasks[name] = Evaluation(
            predictions=tmp_path / f"out_{name}",
            truth=tmp_path / truth[0],
            prediction_format=name,
            truth_format=truth[1],
            taxonomy=TAXONOMY,
            metrics=METRICS,
        )
    return tasks


def test_what_other_processes_get_is_their_share(tasks):
    """A pickled share of the files gives the numbers of its images, and knows no others."""
    for task in tasks.values():
        source = task.open()
        whole, merged = task.new_metrics(), task.new_metrics()
        for image_id in source.truth_ids:
            source.add(whole, image_id)
        for ids in (source.truth_ids[:7], source.truth_ids[7:]):
            share = pickle.loads(pickle.dumps(source.restricted_to(ids)))
            part = task.new_metrics()
            for image_id in share.truth_ids:
                share.add(part, image_id)
            merged.merge(part)
        assert merged.compute() == whole.compute()


@pytest.mark.slow
def test_several_processes_give_the_same_numbers_to_the_last_digit(tasks):
    one, two = (evaluate_folder(tasks["cihp"], workers=n).compute() for n in (1, 2))
    assert one == two and one["object_apr"]["APr50"] > 0
    (tasks["cihp"].truth / "Human_ids/030.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Human_ids/030\.png"):
        evaluate_folder(tasks["cihp"], workers=2)


PROGRAM = """
import sys
open("imported", "a").write("once ")
from pathlib import Path
from instance_crf.evaluation.toolkit.runner import Evaluation, evaluate_folder
from instance_crf.taxonomies import get_taxonomy
task = Evaluation(
    Path("out_cihp"), Path("truth"), "cihp", "cihp", get_taxonomy("truth/taxonomy.json")
)
print(evaluate_folder(task, workers=2).compute()["object_apr"]["APr_vol"])
"""


def test_the_processes_do_not_import_the_program_again(tmp_path, tasks):
    """It may import torch and Detectron2, and need not ask whether it is the main module."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(instance_crf.__file__).parents[1])}
    command = [sys.executable, "program.py"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True)
    expected = evaluate_folder(tasks["cihp"], workers=1).compute()["object_apr"]["APr_vol"]
    assert float(printed) == expected
    assert (tmp_path / "imported").read_text() == "once "


def descendants(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def runs(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"  # it may be left to nobody that waits for it


def test_the_processes_end_when_their_parent_is_killed(tmp_path, tasks):
    """They wait for a file that never comes."""
    waited_for = tasks["cihp"].truth / "Human_ids/030.png"
    waited_for.unlink()
    os.mkfifo(waited_for)
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(instance_crf.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while len(descendants(process.pid)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # the two workers, their server, and a tracker of resources
    children = descendants(process.pid)
    process.kill()
    process.wait()
    assert len(children) == 4
    while any(map(runs, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_object_classes_by_their_parts(tmp_path, make_pair):
    """Of the canonical layout, the class of an object is the one that owns most of its parts."""
    zoo = PartTaxonomy(("head", "wheel"), ("dog", "car"), (0, 1))
    for name in ("Category_ids", "Human_ids"):
        (tmp_path / name).mkdir()
    parts = np.array([[1, 1, 0, 2, 2]], dtype=np.uint8)
    objects = np.array([[1, 1, 0, 2, 2]], dtype=np.uint8)
    Image.fromarray(parts).save(tmp_path / "Category_ids/a.png")
    Image.fromarray(objects).save(tmp_path / "Human_ids/a.png")
    assert CIHPTruth(tmp_path, zoo).read("a").object_classes.tolist() == [0, 1]
    Image.fromarray(parts * 0).save(tmp_path / "Category_ids/a.png")
    with pytest.raises(ValueError, match=r"a\.png: object 1 has no part pixel.*object_classes"):
        CIHPTruth(tmp_path, zoo).read("a")
    names = {"a": {"1": "car", "2": "dog", "9": "dog"}, "b": {"1": "dog"}}
    (tmp_path / "object_classes.json").write_text(json.dumps(names))
    reader = CIHPTruth(tmp_path, zoo).restricted_to(["a"])
    assert reader.read("a").object_classes.tolist() == [1, 0]
    assert list(reader.given_classes) == ["a"]
