"""tools/install_detectron2.py: refuses what it does not know, installs wholly or not at all."""

import base64
import csv
import hashlib
import importlib.util
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "install_detectron2.py"
spec = importlib.util.spec_from_file_location("install_detectron2", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

# What a wheel of the same layout holds, in small.
CONTENT = {
    "LabGym/__init__.py": "raise SystemExit('of another licence')\n",
    "LabGym/detectron2/__init__.py": "from LabGym.detectron2.layers import ops\n",
    "LabGym/detectron2/layers/__init__.py": "",
    "LabGym/detectron2/layers/ops.py": "import LabGym.detectron2\n# LabGym alone stays\n",
    "LabGym/detectron2/model_zoo/configs/Base.yaml": "NAME: LabGym.detectron2\n",
    "labgym-3.1.2.dist-info/METADATA": "Name: LabGym\n",
}
RESTORED = {
    "detectron2/__init__.py": "from detectron2.layers import ops\n",
    "detectron2/layers/__init__.py": "",
    "detectron2/layers/ops.py": "import detectron2\n# LabGym alone stays\n",
    "detectron2/model_zoo/configs/Base.yaml": "NAME: LabGym.detectron2\n",
}


def files_of(folder):
    """Relative names and contents of a folder's files, byte code aside."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in CONTENT.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def tree_digest(tmp_path):
    """The digest of the restored tree, by the command line that the tool's docstring gives."""
    folder = tmp_path / "expected"
    for name, text in RESTORED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = "find detectron2 -name '*.py' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    return subprocess.check_output(command, shell=True, cwd=folder, text=True).split()[0]


@pytest.fixture
def environment(tmp_path):
    """A virtual environment with nothing in it: (its python, its site-packages)."""
    folder = tmp_path / "env"
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python", next(folder.glob("lib/python*/site-packages"))


@pytest.fixture
def installed(environment, wheel, tree_digest):
    python, site_packages = environment
    tool.install(wheel, site_packages, tool.sha256_of(wheel), tree_digest)
    return python, site_packages


def run_tool(python, *args):
    return subprocess.run([python, TOOL, *args], capture_output=True, text=True, timeout=60)


def test_refuses_a_wheel_of_another_digest(environment, wheel):
    python, site_packages = environment
    before = files_of(site_packages)
    result = run_tool(python, "--wheel", wheel)
    assert result.returncode == 1
    assert f"refusing the wheel {wheel}" in result.stderr
    assert tool.sha256_of(wheel) in result.stderr and tool.WHEEL_SHA256 in result.stderr
    assert files_of(site_packages) == before


def test_refuses_a_missing_wheel(environment, tmp_path):
    python, site_packages = environment
    result = run_tool(python, "--wheel", tmp_path / "absent.whl")
    assert result.returncode == 1 and f"no wheel {tmp_path / 'absent.whl'}" in result.stderr
    assert "Traceback" not in result.stderr
    assert files_of(site_packages) == {}


@pytest.mark.parametrize("change", ["content", "missing file", "extra file"])
def test_refuses_a_tree_of_another_digest(tmp_path, tree_digest, change):
    content = dict(CONTENT)
    if change == "content":
        content["LabGym/detectron2/layers/ops.py"] += "x = 1\n"
    elif change == "missing file":
        del content["LabGym/detectron2/layers/ops.py"]
    else:
        content["LabGym/detectron2/layers/more.py"] = ""
    wheel = tmp_path / "changed.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    site_packages = tmp_path / "site-packages"
    site_packages.mkdir()
    with pytest.raises(tool.InstallError, match="refusing the tree restored from") as error:
        tool.install(wheel, site_packages, tool.sha256_of(wheel), tree_digest)
    assert tree_digest in str(error.value)
    assert list(site_packages.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.py", "{0}/evil.py", "/{0}/evil.py"])
def test_refuses_a_path_that_leaves_the_package(tmp_path, name):
    wheel = tmp_path / "evil.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("LabGym/detectron2/" + name.format(tmp_path), "")
    with pytest.raises(tool.InstallError, match="evil.py"):
        tool.restore_package(wheel, tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("evil.py"))


def test_takes_detectron2_alone_and_restores_its_name(installed):
    _, site_packages = installed
    files = files_of(site_packages)
    package = {name: text.decode() for name, text in files.items() if tool.DIST_INFO not in name}
    assert package == RESTORED


def test_tree_digest_is_that_of_the_command_line(installed, tree_digest):
    _, site_packages = installed
    assert tool.tree_sha256(site_packages / "detectron2") == tree_digest


def test_record_lists_every_file_with_its_hash(installed):
    _, site_packages = installed
    files = files_of(site_packages)
    rows = list(csv.reader((site_packages / tool.DIST_INFO / "RECORD").open()))
    assert sorted(name for name, _, _ in rows) == sorted(files)
    for name, digest, size in rows:
        if name.endswith("RECORD"):
            assert (digest, size) == ("", "")
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode()
        assert digest == "sha256=" + expected.rstrip("=") and int(size) == len(files[name])


def test_metadata_is_what_importlib_and_pip_read(installed):
    python, site_packages = installed
    script = "import importlib.metadata as m; d = m.metadata('detectron2'); print(d['Version'])"
    version = subprocess.check_output([python, "-c", script], text=True).strip()
    assert version == tool.VERSION == "0.6+864913f"
    pip = [sys.executable, "-m", "pip", "--python", python]
    shown = subprocess.check_output([*pip, "show", "-f", "detectron2"], text=True)
    assert "License: Apache-2.0" in shown and tool.COMMIT in shown
    assert "detectron2/layers/ops.py" in shown
    licence = (site_packages / tool.DIST_INFO / "LICENSE").read_text()
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence


def test_second_run_changes_nothing(installed):
    python, site_packages = installed
    before = files_of(site_packages)
    for args in ([], ["--check"], ["--wheel", "absent.whl"]):
        result = run_tool(python, *args)
        assert result.returncode == 0, result.stderr
        assert f"detectron2 {tool.VERSION} at {site_packages}" in result.stdout
        assert "left alone" in result.stdout
    assert files_of(site_packages) == before


def test_someone_elses_detectron2_is_left_alone(environment):
    python, site_packages = environment
    (site_packages / "detectron2" / "layers").mkdir(parents=True)
    (site_packages / "detectron2" / "__init__.py").write_text("mine = True\n")
    (site_packages / "detectron2" / "layers" / "__init__.py").touch()
    before = files_of(site_packages)
    result = run_tool(python)
    assert result.returncode == 0 and "of unknown version" in result.stdout
    assert files_of(site_packages) == before


def test_detectron2_that_cannot_be_imported_is_named_and_left(environment):
    python, site_packages = environment
    (site_packages / "detectron2").mkdir()
    (site_packages / "detectron2" / "__init__.py").write_text("import no_such_module\n")
    before = files_of(site_packages)
    result = run_tool(python)
    assert result.returncode == 1
    assert "No module named 'no_such_module'" in result.stderr
    assert files_of(site_packages) == before


def test_check_installs_nothing(environment):
    python, site_packages = environment
    result = run_tool(python, "--check")
    assert result.returncode == 1 and "detectron2 is not installed" in result.stdout
    assert files_of(site_packages) == {}


def test_an_interrupted_installation_is_taken_up_again(installed, wheel, tree_digest):
    _, site_packages = installed
    expected = files_of(site_packages)
    # Killed between the two renames: pip's folder is there, the package is not.
    (site_packages / "detectron2").rename(site_packages.parent / "aside")
    tool.install(wheel, site_packages, tool.sha256_of(wheel), tree_digest)
    assert files_of(site_packages) == expected


def test_pip_uninstall_removes_everything(installed):
    python, site_packages = installed
    subprocess.check_call([python, "-c", "import detectron2"])  # leaves byte code to be removed
    command = [sys.executable, "-m", "pip", "--python", python, "uninstall", "-y", "detectron2"]
    subprocess.check_output(command, text=True)
    assert list(site_packages.iterdir()) == []


@pytest.mark.slow
def test_the_real_wheel(environment, tmp_path):
    python, site_packages = environment
    try:
        wheel = tool.download_wheel(tmp_path)
    except tool.InstallError as error:
        pytest.skip(f"the wheel cannot be downloaded here: {error}")
    assert run_tool(python, "--wheel", wheel).returncode == 0
    package = site_packages / "detectron2"
    assert tool.tree_sha256(package) == tool.TREE_SHA256
    assert b"LabGym" not in b"".join(path.read_bytes() for path in package.rglob("*.py"))
    assert (package / "model_zoo/configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml").is_file()
