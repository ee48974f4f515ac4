"""What made a result: against other sources of the same."""

import json
import shutil
import subprocess
import sys
from datetime import date

import detectron2
import pytest
import torch

import instance_crf
from instance_crf.experiments.machine import _commit, describe


def test_what_is_described():
    made = describe()
    assert set(made) == {"date", "machine", "threads", "versions"}
    assert made["threads"] == torch.get_num_threads()
    assert abs(date.fromisoformat(made["date"]) - date.today()).days <= 1
    cores, _, cpu = made["machine"].partition(" x ")
    assert int(cores) >= 1 and cpu
    versions = made["versions"]
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["detectron2"].startswith(detectron2.__version__)
    assert versions["python"] == sys.version.split()[0]
    json.dumps(made)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    other = tmp_path / "other.txt"
    other.write_text("tracked")
    version = instance_crf.__version__
    assert _commit(package) == version  # no checkout
    git("init", "-q")
    git("add", "other.txt")
    git("commit", "-qm", "Something else")
    assert _commit(package) == version  # in somebody's checkout, but not of it
    git("add", "package")
    git("commit", "-qm", "The package")
    git("tag", "-am", "A release", "v9")
    head = git("rev-parse", "HEAD")
    assert _commit(package) == head[:10]
    other.write_text("changed")
    assert _commit(package) == f"{head[:10]}-dirty"
