"""Training that is killed ten times and resumed ends where one ends that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 20
# Imports once, and trains in a process of its own for every line of options that it reads.
SERVER = """
import json, os, runpy, sys, traceback
sys.path.insert(0, "tools")
import instance_crf, torch, train_net
import instance_crf.modeling
from detectron2.engine import default_argument_parser
torch.set_num_threads(1)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        status = 1
        try:
            train_net.main(default_argument_parser().parse_args(json.loads(line)))
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.write(3, f"{process}\\n".encode())
    os.write(3, f"{os.waitpid(process, 0)[1]}\\n".encode())
"""


@pytest.fixture
def train(tiny, tiny_opts, tmp_path):
    """A function (output, *options) -> the status of a training's process.

    It is killed with ``kill_after=(checkpoints, seconds)``: so long after so many were written.
    """
    folders = {"images": "Images", "parts": "Category_ids", "objects": "Human_ids"}
    splits = {
        split: {key: f"{folder}/{name}" for key, name in folders.items()}
        for split, folder in (("train", "Training"), ("val", "Validation"))
    }
    parts = ["head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"]
    (tiny / "own.yaml").write_text(yaml.dump({"name": "own", "parts": parts, "splits": splits}))
    ours, theirs = os.pipe()
    log = open(tmp_path / "server.txt", "w")
    server = subprocess.Popen(
        ["bash", "-c", f'exec "$0" -c "$1" 3>&{theirs}', sys.executable, SERVER],
        stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, cwd=ROOT, pass_fds=[theirs],
    )  # fmt: skip
    os.close(theirs)
    answers = os.fdopen(ours)

    def run(output, *options, kill_after=None):
        before = progress(output)
        flags = [o for o in options if str(o).startswith("--")]
        pairs = [o for o in options if not str(o).startswith("--")]
        config = ROOT / "configs/SyntheticPeople/instance_crf.yaml"
        arguments = ["--config-file", config, *flags, *tiny_opts, "OUTPUT_DIR", output]
        arguments += ["DATASETS.PART_YAML", tiny / "own.yaml", "SOLVER.MAX_ITER", ITERATIONS]
        arguments += ["DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "('own_val',)"]
        arguments += ["SOLVER.CHECKPOINT_PERIOD", 1, "TEST.PICTURES", 0, *pairs]
        server.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        server.stdin.flush()
        process = int(answers.readline())
        if kill_after is not None:
            checkpoints, seconds = kill_after
            while progress(output)[0] == before[0] or progress(output)[1] < before[1] + checkpoints:
                time.sleep(0.01)
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        return int(answers.readline())

    yield run
    server.stdin.close()
    assert server.wait() == 0
    log.close()


def progress(output):
    """How often training began, by its log, and how many checkpoints there are."""
    log = output / "log.txt"
    starts = log.read_text().count("Starting training from") if log.exists() else 0
    return starts, len(list(output.glob("model_*.pth")))


def final(output):
    """The end of a training: its weights, the optimizer's moments, and its evaluation."""
    checkpoint = torch.load(output / "model_final.pth", weights_only=True)
    moments = checkpoint["trainer"]["_trainer"]["optimizer"]["state"]
    return checkpoint["model"], moments, json.loads((output / "results.json").read_text())


@pytest.mark.slow
def test_ten_kills(train, tmp_path):
    """Not a bit differs, and nothing unfinished is left."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert train(alone) == 0
    moments_of_death = random.Random(0)
    kills = 0
    for _ in range(10):
        moment = moments_of_death.randint(0, 1), moments_of_death.uniform(0, 0.3)
        kills += train(killed, "--resume", kill_after=moment) == signal.SIGKILL
    assert kills >= 5  # a fast machine may be through before
    assert train(killed, "--resume", "DATALOADER.NUM_WORKERS", 2) == 0
    (expected, moments, results), (weights, others, found) = final(alone), final(killed)
    assert expected.keys() == weights.keys() and moments.keys() == others.keys()
    for name, value in expected.items():
        assert torch.equal(value, weights[name]), name
    for index, state in moments.items():
        for key, value in state.items():
            assert torch.equal(value, others[index][key]), (index, key)
    assert results == found
    assert not list(killed.glob(".tmp_*"))
