#!/usr/bin/env python
"""Install Detectron2 into the running Python environment, without a compiler or a git checkout.

Detectron2 has no release that works with current PyTorch, numpy and Pillow, and none on the Python
package index. The wheel ``LabGym`` 3.1.2 carries the whole Python part of Detectron2 (Apache-2.0)
under ``LabGym/detectron2/``, import name prefixed. This tool downloads that wheel, takes that
folder alone, undoes the prefix, which gives back facebookresearch/detectron2 at the commit below
byte for byte, checks both digests and installs the result as an ordinary package: ``pip list``,
``pip show`` and ``pip uninstall detectron2`` know it.

The C++ part of Detectron2 (rotated boxes, deformable convolution, fast COCO evaluation) is not in
it. To use your own build of Detectron2 instead, install that first: an installed Detectron2 is
never touched.

    python tools/install_detectron2.py               # download and install
    python tools/install_detectron2.py --wheel FILE  # install from a wheel downloaded before
    python tools/install_detectron2.py --check       # only say what is installed
"""

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

COMMIT = "864913f0e57e87a75c8cc0c7d79ecbd774fc669b"
VERSION = f"0.6+{COMMIT[:7]}"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_REQUIREMENT = "LabGym==3.1.2"
WHEEL_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
TREE_SHA256 = "14fe9f5482046d8504e8c63825a22830d55804771ba8dbf503f6ad13be64e2fd"
PREFIX = "LabGym/detectron2/"
LICENSE_FILE = Path(__file__).resolve().parent.parent / "LICENSE"

METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Python part of facebookresearch/detectron2 at commit {COMMIT}, not compiled
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Classifier: License :: OSI Approved :: Apache Software License
Requires-Python: >=3.7
""" + "".join(
    f"Requires-Dist: {name}\n"
    for name in "Pillow matplotlib pycocotools termcolor yacs tabulate cloudpickle tqdm tensorboard"
    " fvcore iopath omegaconf hydra-core packaging".split()
)


class InstallError(Exception):
    """Nothing was installed; the message says why and what to do."""


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree_sha256(package: Path) -> str:
    """Digest of a package's Python files: names and contents.

    The same as, in the folder that holds the package,
    ``find detectron2 -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum``.
    """
    files = {p.relative_to(package.parent).as_posix(): p for p in package.rglob("*.py")}
    lines = (f"{sha256_of(files[n])}  {n}\n" for n in sorted(files, key=os.fsencode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def require_digest(what: str, found: str, expected: str) -> None:
    """Raises InstallError if two digests differ."""
    if found != expected:
        raise InstallError(
            f"refusing {what}: its sha256 is\n  {found}\nbut this tool expects\n  {expected}"
        )


def download_wheel(folder: Path) -> Path:
    """Downloads the pinned wheel with pip (its mirrors, proxies and certificates apply)."""
    # The wheel declares Python < 3.11; only files are taken from it, hence --python-version.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--only-binary=:all:", "--python-version", "3.10", WHEEL_REQUIREMENT]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise InstallError(
            f"pip could not download {WHEEL_REQUIREMENT} (see above). Without a network, fetch the "
            "wheel elsewhere with\n  pip download --no-deps --only-binary=:all: --python-version "
            f"3.10 {WHEEL_REQUIREMENT}\nand give it with --wheel FILE."
        )
    return next(folder.glob("*.whl"))


def restore_package(wheel: Path, package: Path) -> None:
    """Extracts Detectron2 alone from the wheel to the folder ``package``, import name restored."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith(PREFIX) or name.endswith("/"):
                continue
            target = package / name[len(PREFIX) :]
            if ".." in target.parts or package not in target.parents:
                raise InstallError(f"refusing {wheel}: it holds the path {name}")
            content = archive.read(name)
            if target.suffix == ".py":
                content = content.replace(b"LabGym.detectron2", b"detectron2")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def write_dist_info(staging: Path) -> None:
    """Writes the ``.dist-info`` folder by which pip knows the package, RECORD last."""
    info = staging / DIST_INFO
    info.mkdir()
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "LICENSE").write_bytes(LICENSE_FILE.read_bytes())
    (info / "INSTALLER").write_text("tools/install_detectron2.py\n")
    (info / "REQUESTED").touch()
    (info / "top_level.txt").write_text("detectron2\n")
    (info / "WHEEL").write_text(
        "Wheel-Version: 1.0\nGenerator: tools/install_detectron2.py\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = []
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=")
        name = path.relative_to(staging).as_posix()
        record.append(f"{name},sha256={digest.decode()},{path.stat().st_size}\n")
    record.append(f"{DIST_INFO}/RECORD,,\n")
    (info / "RECORD").write_text("".join(record))


def install(
    wheel: Path,
    site_packages: Path,
    wheel_sha256: str = WHEEL_SHA256,
    expected_tree_sha256: str = TREE_SHA256,
) -> None:
    """Installs Detectron2 from ``wheel`` into ``site_packages``: wholly, or not at all.

    Raises:
        InstallError: the wheel or the restored tree is not the expected one, or there is a
            ``detectron2`` folder already.
    """
    if not wheel.is_file():
        raise InstallError(f"there is no wheel {wheel}")
    require_digest(f"the wheel {wheel}", sha256_of(wheel), wheel_sha256)
    package = site_packages / "detectron2"
    if package.exists():
        raise InstallError(f"{package} exists already; remove it (pip uninstall detectron2) first")
    if not os.access(site_packages, os.W_OK):
        raise InstallError(f"{site_packages} is not writable; use a virtual environment")
    # Staged on the same file system, so that what comes last is two renames. The package is the
    # very last: interrupted between the two, the next run finds no package and goes on.
    staging = Path(tempfile.mkdtemp(prefix=".detectron2-", dir=site_packages))
    try:
        restore_package(wheel, staging / "detectron2")
        tree = tree_sha256(staging / "detectron2")
        require_digest(f"the tree restored from {wheel}", tree, expected_tree_sha256)
        write_dist_info(staging)
        info = site_packages / DIST_INFO
        shutil.rmtree(info, ignore_errors=True)
        (staging / DIST_INFO).rename(info)
        try:
            (staging / "detectron2").rename(package)
        except BaseException:
            shutil.rmtree(info, ignore_errors=True)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


FIND = """
import importlib.metadata as metadata, importlib.util as util
spec = util.find_spec("detectron2")
if spec is None:
    raise SystemExit(3)
try:
    version = metadata.version("detectron2")
except metadata.PackageNotFoundError:
    version = "of unknown version"
where = spec.origin or list(spec.submodule_search_locations)[0]
print(f"detectron2 {version} at {where}", flush=True)
import detectron2.layers
"""


def find_installed() -> "str | None":
    """Says which Detectron2 this environment has; None if it has none.

    Raises:
        InstallError: there is one, but it cannot be imported.
    """
    # Isolated mode: neither the current folder nor PYTHONPATH may pass for an installation.
    found = subprocess.run(
        [sys.executable, "-I", "-c", FIND], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if found.returncode == 3:
        return None
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["unknown error"])[-1]
        raise InstallError(
            f"{found.stdout.strip() or 'detectron2'} is installed but cannot be imported:\n"
            f"  {reason}\nInstall what it misses (pip install torch torchvision; pip install -r "
            "requirements.txt), or remove it with pip uninstall detectron2 and run this again."
        )
    return found.stdout.strip()


def main(argv: "list[str] | None" = None) -> int:
    """Command line; returns the exit status (0: Detectron2 is there)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="install from this wheel, do not download")
    parser.add_argument("--check", action="store_true", help="install nothing, say what is there")
    args = parser.parse_args(argv)
    try:
        installed = find_installed()
        if installed:
            print(f"{installed} is installed; left alone")
            return 0
        if args.check:
            print("detectron2 is not installed; run python tools/install_detectron2.py")
            return 1
        site_packages = Path(sysconfig.get_paths()["purelib"])
        with tempfile.TemporaryDirectory() as folder:
            wheel = args.wheel
            if wheel is None:
                print(f"downloading {WHEEL_REQUIREMENT} (2 MB), it carries Detectron2", flush=True)
                wheel = download_wheel(Path(folder))
            install(wheel, site_packages)
        print(f"installed detectron2 {VERSION} in {site_packages}")
        return 0
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
