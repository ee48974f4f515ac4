"""Preparing data sets while processes are killed, come twice, or find the disk full or read-only.

The real scripts run as a user runs them. In the end the data set is that of a run without trouble:
the same files with the same bytes, and nothing else.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "datasets"
COUNT = 52  # enough for several processes


@pytest.fixture
def lip(tmp_path, photo, png, mask):
    """LIP's release: a function that writes the training list, of ``count`` images."""
    for i in range(1, COUNT + 1):
        photo(tmp_path / f"LIP/train_images/{i}.jpg")
        png(tmp_path / f"LIP/train_segmentations/{i}.png", mask(0, 0, 30, 30) * (i % 19 + 1))

    def listed(count):
        ids = "".join(f"{i}\n" for i in range(1, count + 1))
        (tmp_path / "LIP/train_id.txt").write_text(ids)
        return tmp_path / "LIP"

    listed(COUNT)
    return listed


@pytest.fixture(params=["synthetic", "lip"])
def command(request, lip):
    """A function (output folder, images) -> the command that prepares a data set there."""

    def synthetic(output, count=COUNT):
        size = ["--train", str(count), "--val", "1", "--size", "32"]
        return ["prepare_synthetic.py", "--root", str(output), *size]

    def conversion(output, count=COUNT):
        source = ["--source", str(lip(count)), "--splits", "train"]
        return ["prepare_lip.py", "--output", str(output / "lip"), *source]

    def build(*arguments):
        script, *rest = {"synthetic": synthetic, "lip": conversion}[request.param](*arguments)
        return [sys.executable, str(SCRIPTS / script), *rest, "--workers", "2"]

    return build


def finish(command):
    """Run to the end, after processes that are just ending."""
    for _ in range(20):
        result = subprocess.run(command, capture_output=True, text=True)
        if "is in use" not in result.stderr:
            break
        time.sleep(0.1)
    assert result.returncode == 0, result.stderr
    return result


def start(command):
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def content(folder):
    """{path: bytes, None for a folder} of all that there is."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {name: None if path.is_dir() else path.read_bytes() for name, path in paths.items()}


def wait_for(folder, name, process):
    while not any(folder.rglob(name)) and process.poll() is None:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_any_moment(command, tmp_path):
    """Every other time the workers are left to notice it themselves."""
    with start(command(tmp_path / "whole")) as process:
        wait_for(tmp_path / "whole", "Images", process)
        began = time.monotonic()
        assert process.wait() == 0
    took = time.monotonic() - began
    whole = content(tmp_path / "whole")
    moments = random.Random(0)
    cut = 0
    for trial in range(10):
        folder = tmp_path / f"killed{trial}"
        with start(command(folder)) as process:
            wait_for(folder, "Images", process)
            time.sleep(moments.uniform(0, 0.9 * took))
            if trial % 2:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        cut += process.returncode != 0
        finish(command(folder))
        assert content(folder) == whole
    assert "already" in finish(command(folder)).stdout
    assert content(folder) == whole
    assert cut >= 5


def test_two_at_once(command, tmp_path):
    """The second is told so; the first, stopped meanwhile, ends as if alone."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "out"
    with start(command(folder)) as first:
        wait_for(folder, "Images", first)
        os.killpg(first.pid, signal.SIGSTOP)
        second = subprocess.run(command(folder), capture_output=True, text=True)
        os.killpg(first.pid, signal.SIGCONT)
        output = first.communicate()
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert f"is in use: process {first.pid} is preparing" in line
    assert first.returncode == 0, output
    finish(command(tmp_path / "alone"))
    assert content(folder) == content(tmp_path / "alone")


def test_full_disk(command, tmp_path, small_disk):
    """The old data stays; when there is room again, the run goes on."""
    disk = small_disk(1)
    disk.run(*command(disk.path, 3)).check_returncode()
    old = content(disk.files)
    (disk.files / "fill").write_bytes(bytes(700_000))
    result = disk.run(*command(disk.path), "--force")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: {disk.path}") and "No space left on device" in line
    (disk.files / "fill").unlink()
    now = content(disk.files)
    assert {name: now.get(name) for name in old} == old
    disk.resize(8)
    disk.run(*command(disk.path), "--force").check_returncode()
    finish(command(tmp_path / "roomy"))
    assert content(disk.files) == content(tmp_path / "roomy")


def test_read_only_disk(command, small_disk):
    """A complete data set is found to be so; another is one line."""
    disk = small_disk(4)
    disk.run(*command(disk.path, 3)).check_returncode()
    old = content(disk.files)
    disk.set_read_only()
    again = disk.run(*command(disk.path, 3))
    assert again.returncode == 0 and "already" in again.stdout
    result = disk.run(*command(disk.path, 3), "--force")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {disk.path}") and "Read-only file system" in line
    assert content(disk.files) == old
