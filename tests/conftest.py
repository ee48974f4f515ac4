"""Shared by all tests: one seed for each test, few threads, Triton's interpreter without a GPU."""

import logging
import os
import random
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples in every run, so that a run says what the code is worth;
# pytest --hypothesis-profile=default looks for others.
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")

# Read when triton is imported, which some test may do long before those that need it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The tests' tensors are small: more threads cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loggers():
    """Detectron2's setup_logger, in whatever test, does not keep records from the next ones."""
    loggers = [logging.getLogger(name) for name in ("instance_crf", "detectron2", "fvcore")]
    before = [(each.level, each.propagate, each.handlers[:]) for each in loggers]
    yield
    for each, (level, each.propagate, each.handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def full_disk():
    """``with full_disk(): ...``: no writer in this process gets beyond 2000 bytes of a file, nor
    does pytest's report, so it must end within the test."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture(scope="session")
def real_folder():
    """Photographs, with the outputs and the weights of public models. They are not in the
    repository: INSTANCE_CRF_REAL names the folder, and without it the tests are skipped."""
    folder = os.environ.get("INSTANCE_CRF_REAL", "")
    if not (Path(folder) / "weights").is_dir():
        pytest.skip("INSTANCE_CRF_REAL names no folder with public models' weights")
    return Path(folder)


class SmallDisk:
    """A disk in memory that only the processes see that `run` starts.

    ``path`` is where they have it, ``files`` the same from here: to look at, to fill, to free.
    """

    def __init__(self, path, megabytes):
        mount = f'mount -t tmpfs -o size={megabytes}m tmpfs "$1" && echo ready && exec cat'
        self.path = path
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", path],
            stdin=subprocess.PIPE,  # it ends when this end closes
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.mounted = self._holder.stdout.readline() == b"ready\n"
        self.files = Path(f"/proc/{self._holder.pid}/root") / path.relative_to("/")

    def run(self, *command):
        """Run a command (absolute paths: it starts in /) to its end; returns what it printed."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--user", "--mount"]
        enter.append("--preserve-credentials")
        return subprocess.run([*enter, *map(str, command)], capture_output=True, text=True)

    def set_read_only(self, read_only=True):
        """Like a disk that the administrator has mounted for reading, also for root."""
        option = "remount," + ("ro" if read_only else "rw")
        self.run("mount", "-o", option, self.path).check_returncode()

    def resize(self, megabytes):
        """Make room, or take it away."""
        self.run("mount", "-o", f"remount,size={megabytes}m", self.path).check_returncode()

    def close(self):
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a `SmallDisk` of some megabytes. Skips where nobody may mount."""
    disks = []

    def mount(megabytes=1):
        path = tmp_path / f"disk{len(disks)}"
        path.mkdir()
        try:
            disks.append(SmallDisk(path, megabytes))
        except FileNotFoundError:
            pytest.skip("no unshare (util-linux) to mount a small disk with")
        if not disks[-1].mounted:
            pytest.skip("this machine does not let its users mount a small disk")
        return disks[-1]

    yield mount
    for disk in disks:
        disk.close()
