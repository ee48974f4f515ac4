"""What made a result: the machine and the versions.

Detectron2's own ``collect_env`` is a text for bug reports: compilers and folders, but not the CPU,
nor the commit of a project.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .. import __version__

__all__ = ["describe"]

_PACKAGES = ("torch", "torchvision", "detectron2", "numpy")


def describe() -> dict:
    """``date`` (ISO), ``machine`` (cores that this process may use x CPU, GPUs), ``threads`` of
    torch, ``versions`` of Python and of packages; of this one, the commit where it has one.

    A commit ends with ``-dirty`` if files have changed since. A package that is not installed is
    left out.
    """
    return {
        "date": date.today().isoformat(),
        "machine": ", ".join([f"{_num_cores()} x {_cpu_name()}", *_gpus()]),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **_versions(), "instance_crf": _commit()},
    }


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit(folder: Path = Path(__file__).parents[1]) -> str:
    """The commit of the checkout of the package in ``folder``, else this package's version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie in a checkout of something else, which does not track it.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=10", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return __version__
