"""tools/train_net.py as it is typed: one process and two give the same weights and numbers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from instance_crf.files import InUseError, lock_folder

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/SyntheticPeople/instance_crf.yaml"

#: Registers the data set, and a model that leaves each process's weights and losses.
MODULE = """
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_TAXONOMY
from instance_crf.data.datasets.register import register_canonical
from instance_crf.modeling.meta_arch import InstanceCRF

FOLDER = {folder!r}
for split in ("train", "val"):
    register_canonical(f"tiny_{{split}}", f"{{FOLDER}}/tiny", split, PERSON_PART_TAXONOMY)


@META_ARCH_REGISTRY.register()
class Recording(InstanceCRF):
    def forward(self, inputs):
        if self.training:
            self.steps = [*getattr(self, "steps", []), {{
                name: value.detach().clone() for name, value in self.named_parameters()
            }}]
            torch.save(self.steps, f"{{FOLDER}}/{{comm.get_world_size()}}_{{comm.get_rank()}}.pth")
        return super().forward(inputs)
"""

#: Nothing is drawn at random but the order of the images, and an image's loss is its own.
SAME = """
    SEED 3 MODEL.META_ARCHITECTURE Recording SOLVER.MAX_ITER 2 MODEL.SLIM_RESNET.NORM ''
    MODEL.FPN.NORM '' MODEL.SEM_SEG_HEAD.NORM '' MODEL.IDENTITY_HEAD.NORM ''
    MODEL.DETECTOR.ENABLED False MODEL.INSTANCE_CRF.DETECTIONS.SOURCE ground_truth
    MODEL.INSTANCE_CRF.DETECTIONS.JITTER 0.0 INPUT.RANDOM_FLIP none INPUT.PART_AUG.COLOR none
    INPUT.PART_AUG.BLUR 0.0 INPUT.PART_AUG.ROTATION 0.0 SOLVER.OPTIMIZER SGD
    MODEL.INSTANCE_CRF.OHEM_TOP_K 100 MODEL.SEM_SEG_HEAD.OHEM_TOP_K 100
    INPUT.PART_AUG.SCALE_RANGE [] INPUT.PART_AUG.CROP_SIZE [] MODEL.IDENTITY_HEAD.LOSS_WEIGHT 0.0
    DATASETS.TEST () SOLVER.WARMUP_FACTOR 1.0
""".split()


@pytest.fixture
def command(tiny, tiny_opts, tmp_path):
    """A function: flags, keys -> the finished process of the command."""
    (tmp_path / "tiny_data.py").write_text(MODULE.format(folder=str(tmp_path)))
    package = ROOT / "projects/InstanceCRF"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(package)]),
        "OMP_NUM_THREADS": "1",
    }
    opts = ["''" if option == "" else option for option in tiny_opts]

    def run(flags, *keys, background=False):
        typed = [*opts, "DATASETS.MODULES", "['tiny_data']", *map(str, keys)]
        line = [sys.executable, ROOT / "tools/train_net.py", "--config-file", CONFIG, *flags]
        options = {"env": environment, "cwd": tmp_path}
        if background:
            with open(tmp_path / "background.txt", "w") as log:
                signals = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
                return subprocess.Popen(
                    [*line, *typed], stdout=log, stderr=log, **signals, **options
                )
        return subprocess.run([*line, *typed], capture_output=True, text=True, **options)

    return run


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(command, tmp_path):
    losses = {}
    for processes in (1, 2):
        output = tmp_path / f"run{processes}"
        done = command(["--num-gpus", str(processes)], *SAME, "OUTPUT_DIR", output)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
        losses[processes] = [line["total_loss"] for line in lines if "total_loss" in line]
    assert losses[1] and losses[1] == pytest.approx(losses[2], rel=1e-5)
    alone, first, second = (torch.load(tmp_path / f"{name}.pth") for name in ("1_0", "2_0", "2_1"))
    for name, value in alone[1].items():
        assert torch.equal(first[1][name], second[1][name])
        torch.testing.assert_close(first[1][name], value, msg=name)
    moved = max((value - alone[0][name]).abs().max() for name, value in alone[1].items())
    assert moved > 1e-3  # far more than the tolerance

    results, keys = {}, ["MODEL.WEIGHTS", tmp_path / "run2/model_final.pth", "TEST.PICTURES", 3]
    keys += ["DATASETS.TEST", "('tiny_val',)"]
    config = (tmp_path / "run2/config.yaml").read_text()
    for processes in (1, 2):
        output = tmp_path / f"run{processes}"
        flags = ["--eval-only", "--num-gpus", str(processes)]
        done = command(flags, *SAME, *keys, "OUTPUT_DIR", output)
        assert done.returncode == 0, done.stderr
        results[processes] = json.loads((output / "results.json").read_text())
    assert results[1] == results[2] and results[1]["part_seg"]["mIoU"] > 0
    sheets = [(tmp_path / f"run{n}/pictures/tiny_val/sheet.png").read_bytes() for n in (1, 2)]
    assert sheets[0] == sheets[1]  # of all three pictures, whichever process has seen them
    assert (tmp_path / "run2/config.yaml").read_text() == config  # the training's


@pytest.mark.slow
def test_what_a_process_refuses_is_one_line(command, tmp_path):
    (tmp_path / "tiny/Training/Images/0000001.png").write_bytes(b"broken")
    done = command(["--num-gpus", "2"], *SAME, "OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 1
    assert [x for x in done.stderr.splitlines() if "0000001.png" in x][-1].startswith("error: ")
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_in_use_is_one_line(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--num-gpus", "2", "--dist-url", url]
        done = command(flags, *SAME, "OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 1 and "Traceback" not in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith(f"error: --dist-url is {url}, whose port is in")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--num-gpus", "2")])
def test_a_killed_run_ends_with_all_its_processes(command, tmp_path, flags):
    """It leaves its folder at once, although its workers have inherited the lock, and although a
    script's background processes do not hear SIGINT, by which PyTorch would end them."""
    output = tmp_path / "run"
    keys = ["SOLVER.MAX_ITER", 100000, "SOLVER.CHECKPOINT_PERIOD", 1, "OUTPUT_DIR", output]
    keys += ["MODEL.META_ARCHITECTURE", "InstanceCRF", "DATALOADER.NUM_WORKERS", 2]
    keys += ["DATASETS.TEST", "()"]
    process = command(flags, *SAME, *keys, background=True)
    while not (output / "last_checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 2
    while True:
        try:
            with lock_folder(output, "training"):
                break
        except InUseError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
