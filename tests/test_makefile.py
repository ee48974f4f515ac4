"""The Makefile, in a copy: whose environment it uses, and what it removes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path):
    """The Makefile where nothing is required: there is nothing to download."""
    folder = tmp_path / "checkout"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("requirements.txt", "requirements-dev.txt", "setup.py", "pyproject.toml"):
        (folder / name).touch()
    (folder / "tools/install_detectron2.py").touch()
    return folder


def make(folder, *arguments):
    """What it prints. The last step of an installation fails, for there is nothing to install."""
    command = ["make", f"PYTHON={sys.executable}", "TORCH=pip", *arguments]
    return subprocess.run(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


def venv(folder, *flags):
    subprocess.run([sys.executable, "-m", "venv", *flags, folder], check=True)
    (folder / "mine").write_text("kept")


def has_pip(folder):
    command = [folder / "bin/python", "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_an_environment_without_pip_is_used_not_erased(checkout, tmp_path):
    environment = tmp_path / "elsewhere"
    venv(environment, "--without-pip")
    (checkout / ".venv").symlink_to(environment)
    make(checkout, "install")
    assert (environment / "mine").read_text() == "kept" and has_pip(environment)


@pytest.mark.slow
def test_an_environment_is_made_where_there_is_none(checkout):
    assert "-m venv .venv" in make(checkout, "install")
    assert has_pip(checkout / ".venv")
    assert "-m venv" not in make(checkout, "install")


def test_what_is_no_environment_is_left_alone(checkout, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine").write_text("kept")
    (checkout / ".venv").symlink_to(tmp_path / "photos")
    assert ".venv is there, and is no virtual environment: move it away" in make(checkout)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["mine"]


def test_an_environment_of_an_old_python_is_refused(checkout):
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.8.1\nexit 1\n')
    python.chmod(0o755)
    printed = make(checkout, "install")
    assert "needs Python 3.10 or newer, .venv has Python 3.8.1: move .venv away" in printed


def test_clean_removes_links_not_what_is_behind_them(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    behind = tmp_path / "behind"
    for name in ("output/demo", "people", "kernels", "build"):
        (behind / name).mkdir(parents=True)
        (behind / name / "mine").write_text("kept")
    (checkout / "datasets").mkdir()
    links = {
        checkout / "output": "output",
        checkout / "datasets/synthetic_people": "people",
        checkout / "build": "build",
        tmp_path / "cache/instance_crf": "kernels",
    }
    for link, target in links.items():
        link.symlink_to(behind / target)
    make(checkout, "clean")
    assert len(list(behind.rglob("mine"))) == 4
    assert [link.is_symlink() for link in links] == [True, False, False, False]


def test_clean_removes_the_demo(checkout):
    (checkout / "output/demo").mkdir(parents=True)
    (checkout / "output/mine").touch()
    make(checkout, "clean")
    assert [path.name for path in (checkout / "output").iterdir()] == ["mine"]
