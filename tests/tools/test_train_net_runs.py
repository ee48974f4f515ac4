"""A run of tools/train_net.py spoils nothing of another's, and says in a line what is wrong."""

import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser

from instance_crf.data.datasets.register import register_canonical
from instance_crf.files import InUseError, lock_folder

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
train_net = importlib.util.module_from_spec(spec)
spec.loader.exec_module(train_net)

CONFIG = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
CRF = "MODEL.INSTANCE_CRF"


@pytest.fixture
def run(tiny_opts, tmp_path):
    """A function: flags and keys -> what main returns, in OUTPUT_DIR run/."""

    def main(*options):
        flags = [str(option) for option in options if str(option).startswith("--")]
        keys = [str(option) for option in options if not str(option).startswith("--")]
        arguments = ["--config-file", CONFIG, *flags, *tiny_opts]
        arguments += ["OUTPUT_DIR", str(tmp_path / "run"), *keys]
        return train_net.main(default_argument_parser().parse_args(arguments))

    return main


def contents(folder):
    """What a run is made of; logs grow."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if not path.name.startswith(("log.", ".lo"))}


@pytest.fixture
def finished(tiny, tmp_path):
    """The folder of a finished run."""
    folder = tmp_path / "run"
    (folder / "inference").mkdir(parents=True)
    (folder / "config.yaml").write_text("of the finished run")
    (folder / "model_final.pth").write_bytes(b"weights")
    (folder / "results.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "keys",
    [
        (f"{CRF}.MATCHING", "persons"),
        ("TEST.EXPORT", "['chip']"),
        ("TEST.PROTOCOLS", "['sd']"),
        (f"{CRF}.DETECTIONS.SOURCE", "records"),
        (f"{CRF}.DETECTIONS.SOURCE", "record", "DATASETS.DETECTIONS_TEST", "('no.json',)"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 20),
        (f"{CRF}.IDENTITY.REACH", 0.0),
        ("SOLVER.MAX_ITER", 0),
        ("MODEL.DEVICE", "gpu"),
        ("DATASETS.TEST", "('tiny_vla',)"),
        ("DATASETS.TEST", "('cihp_val',)", f"{CRF}.ENABLED", "False"),
        ("DATASETS.TEST", "('pascal_person_part_val',)"),  # not prepared
        ("DATASETS.TRAIN", "('pascal_person_part_train',)"),
        ("SOLVER.CHECKPOINT_PERIOD", 0),
    ],
)
def test_a_refused_run_leaves_a_finished_one_alone(run, finished, keys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = contents(finished)
    with pytest.raises((ValueError, OSError)):
        run(*keys)
    assert contents(finished) == before


@pytest.mark.parametrize("flags", [(), ("--eval-only",)])
def test_a_folder_in_use_is_named(run, finished, flags):
    before = contents(finished)
    with lock_folder(finished, "training"):
        with pytest.raises(InUseError, match=f"run is in use: process {os.getpid()} is training"):
            run(*flags)
    assert contents(finished) == before


@pytest.mark.slow
def test_several_test_sets(run, tiny, tmp_path):
    """Evaluated in the training and after it; each has its results and pictures by its name."""
    metadata = MetadataCatalog.get("tiny_val")
    register_canonical("tiny_again", tiny, "val", metadata.taxonomy)
    sets = ("DATASETS.TEST", "('tiny_val', 'tiny_again')")
    try:
        run(*sets, "TEST.EVAL_PERIOD", 1)
        results = json.loads((tmp_path / "run/results.json").read_text())
        assert set(results) == {"tiny_val", "tiny_again"}
        assert results["tiny_val"] == results["tiny_again"] and results["tiny_val"]["part_seg"]
        lines = (tmp_path / "run/metrics.json").read_text().splitlines()
        assert {"tiny_val/part_seg/mIoU", "tiny_again/part_seg/mIoU"} <= set(json.loads(lines[-1]))
        config = (tmp_path / "run/config.yaml").read_text()
        weights = ("MODEL.WEIGHTS", tmp_path / "run/model_final.pth")
        again = run("--eval-only", *sets, *weights, f"{CRF}.MIN_SHARE", 0.5)
        assert set(again) == {"tiny_val", "tiny_again"}
        assert (tmp_path / "run/config.yaml").read_text() == config  # demo.py is told to use it
        assert "MIN_SHARE: 0.5" in (tmp_path / "run/inference/config.yaml").read_text()
    finally:
        DatasetCatalog.remove("tiny_again")


def typed(*arguments, limit=None):
    """The finished process of the command; ``limit``: the largest file it can write, in bytes."""
    return subprocess.run(
        [sys.executable, ROOT / "tools/train_net.py", *map(str, arguments)],
        **{"capture_output": True, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}},
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
    )


def test_without_arguments_it_says_how_it_is_used():
    done = typed()
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
    assert done.stderr.endswith("error: --config-file is missing\n") and "torch" not in done.stderr


@pytest.mark.slow
def test_what_the_user_gave_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for keys, message in (
        (["MODEL.DEVICE", "gpu"], "error: MODEL.DEVICE is 'gpu'"),
        (
            ["OUTPUT_DIR", tmp_path / "file" / "run", "MODEL.DEVICE", "cpu"],
            f"error: {tmp_path}/file",
        ),
    ):
        done = typed("--config-file", CONFIG, *keys)
        assert done.returncode == 1
        (line,) = [x for x in done.stderr.splitlines() if not x.startswith("W")]
        assert line.startswith(message)


@pytest.mark.slow
def test_a_full_disk_is_named_before_the_work(tmp_path):
    """A limit of the file size stands for it: the system refuses to write in the same way."""
    keys = ["OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cpu"]
    done = typed("--config-file", CONFIG, *keys, limit=4000)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"error: {tmp_path}/run: cannot be written: File too large"
    assert "Traceback" not in done.stderr and not (tmp_path / "run/config.yaml").exists()
