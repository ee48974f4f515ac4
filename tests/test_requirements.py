"""The requirements' lower bounds, asked of the package index: there is such a set of versions."""

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
NEWEST = (3, 12)
"""The last Python for which all of the least versions have wheels."""
LARGE = {"torch", "torchvision"}
"""With CUDA some 3 GB, which old versions of pip download even to see what they require."""


def least_versions():
    lines = [
        line
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text().splitlines()
        if line and not line.startswith("#")
    ]
    return {
        requirement.name: next(s.version for s in requirement.specifier if s.operator == ">=")
        for requirement in map(Requirement, lines)
    }


def ask(*arguments):
    """(exit status, what pip says)."""
    process = subprocess.run(
        [*PIP, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return process.returncode, process.stdout


@pytest.fixture(scope="module")
def index():
    """Skips where there is none."""
    status, said = ask("index", "versions", "packaging", "--timeout", "5", "--retries", "0")
    if status:
        pytest.skip(f"pip reaches no package index: {said.strip().splitlines()[-1:]}")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] > NEWEST, reason=f"no wheels beyond Python {NEWEST}")
def test_the_least_versions_go_together(index, tmp_path):
    least = {name: version for name, version in least_versions().items() if name not in LARGE}
    pins = tmp_path / "least.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in least.items()))
    status, said = ask("install", "--dry-run", "--ignore-installed", "--requirement", pins)
    assert status == 0, said[-3000:]
    (found,) = [line for line in said.splitlines() if line.startswith("Would install ")]
    for name in least:
        assert f" {name}-".lower().replace("_", "-") in found.lower().replace("_", "-")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE))
def test_the_least_versions_of_large_packages_exist(index, name):
    status, said = ask("index", "versions", name)
    assert status == 0 and f" {least_versions()[name]}.0," in said, said
