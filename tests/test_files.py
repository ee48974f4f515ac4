"""Files and folders: errors that name them, writing whole or not at all, one writer at a time."""

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from instance_crf.files import (
    InUseError,
    atomic_path,
    check_writable,
    inside,
    lock_folder,
    read_json,
    read_text,
    read_yaml,
    remove_temporaries,
)


def test_text_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes("\ufeffé\n".encode())
    assert read_text(path) == "é\n"


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml])
def test_unreadable_text_names_the_file(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="none.txt does not exist"):
        read(tmp_path / "none.txt")
    path = tmp_path / "latin.txt"
    path.write_bytes("né".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt is not text in UTF-8: byte 0xe9 at 1"):
        read(path)
    with pytest.raises(OSError) as raised:
        read(tmp_path)
    assert raised.value.filename == str(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"a": nul}', "[" * 100_000, "1" * 5000])
def test_broken_json_names_the_file(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="broken.json is not JSON"):
        read_json(path)


def test_json_of_another_kind(tmp_path):
    path = tmp_path / "list.json"
    path.write_text("[1]")
    assert read_json(path) == read_json(path, list) == [1]
    with pytest.raises(ValueError, match=r"list.json must hold an object .* a list"):
        read_json(path, dict)
    path.write_text("null")
    with pytest.raises(ValueError, match="must hold a list .* None"):
        read_json(path, list)


@pytest.mark.parametrize(
    "text", ["a: [", "!!python/object/apply:os.getcwd []", "2024-13-45", "{" * 5000]
)
def test_broken_yaml_names_the_file(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="broken.yaml is not YAML"):
        read_yaml(path)


def test_names_inside_a_folder(tmp_path):
    assert inside(tmp_path, "a/b.png", "x") == tmp_path / "a/b.png"
    assert inside(tmp_path, "..a/b..png", "x") == tmp_path / "..a/b..png"


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../b", "/etc/passwd", "a\\..\\..\\b", "C:/x", "a\0b", "", " ", None, 3],
)
def test_names_that_lead_out_of_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match="list.json, file_name"):
        inside(tmp_path, name, "list.json, file_name")


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, durable):
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_text("first")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(RuntimeError), atomic_path(path, durable=durable) as temporary:
        temporary.write_text("sec")
        raise RuntimeError
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


def test_an_error_of_writing_names_the_file(tmp_path):
    path = tmp_path / "file.txt"
    with pytest.raises(OSError, match="No space left") as raised, atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(path)
    with pytest.raises(OSError) as raised, atomic_path(tmp_path):
        pass
    assert raised.value.filename == str(tmp_path)
    path.write_text("")
    with pytest.raises(OSError) as raised, atomic_path(path / "below"):
        pass
    assert str(path) in raised.value.filename


@pytest.mark.parametrize("suffix", [".png", ".npy", ".txt", ".figure.png"])
def test_every_library_that_fails_to_write_names_the_file(tmp_path, suffix, full_disk):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    path.write_text("old")
    with (
        pytest.raises(OSError, match="cannot be written: ") as raised,
        full_disk(),
        atomic_path(path) as name,
    ):
        if suffix == ".npy":
            np.save(name, noise)
        elif suffix == ".txt":
            name.write_text(str(noise.tolist()))
        elif suffix == ".figure.png":
            figure = Figure(figsize=(20, 20))
            figure.subplots().plot([1, 3, 2])
            figure.savefig(name, format="png")
        else:
            Image.fromarray(noise).save(name)
    assert raised.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_whether_it_can_be_written_is_asked_before(tmp_path, full_disk):
    (tmp_path / "file").write_text("old")
    for path, folder in (("file", False), ("new/file", False), ("new", True), ("a/b", True)):
        check_writable(tmp_path / path, folder=folder)
    check_writable(None)
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"
    (tmp_path / "new").mkdir()
    for path, folder, reason in (
        ("file", True, "Not a directory"),
        ("file/below", True, "Not a directory"),
        ("file/below", False, "Not a directory"),
        ("new", False, "Is a directory"),
        ("x" * 300, False, "File name too long"),
    ):
        with pytest.raises(OSError, match=f"cannot be written: {reason}") as raised:
            check_writable(tmp_path / path, folder=folder)
        assert raised.value.filename == str(tmp_path / path)
    with pytest.raises(OSError, match="cannot be written") as raised, full_disk():
        check_writable(tmp_path / "new/file")
    assert raised.value.filename == str(tmp_path / "new/file")


def test_devices_and_pipes_are_written_themselves(tmp_path):
    """As ``--json /dev/stdout`` of a root user."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for number, path in enumerate((pipe, link)):
            check_writable(path)
            with atomic_path(path) as name:
                name.write_text(f"{number}")
            assert os.read(reader, 10) == b"%d" % number
    finally:
        os.close(reader)
    assert pipe.is_fifo() and link.is_symlink() and len(os.listdir(tmp_path)) == 2
    device = tmp_path / "full"
    device.symlink_to("/dev/full")
    with pytest.raises(OSError, match="cannot be written: No space") as raised:  # noqa: SIM117
        with atomic_path(device) as name:
            name.write_text("1")
    assert raised.value.filename == str(device) and device.is_symlink()


def test_an_error_about_another_file_stays(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, atomic_path(tmp_path / "file.txt"):
        open(tmp_path / "source")
    assert raised.value.filename == str(tmp_path / "source")


def test_temporaries_of_killed_writers(tmp_path):
    code = (
        "import os, sys; from instance_crf.files import atomic_path\n"
        "with atomic_path(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "a/b/file.txt"
    subprocess.run([sys.executable, "-c", code, str(path)])
    assert len(list(path.parent.iterdir())) == 1
    (path.parent / "kept.txt").touch()
    remove_temporaries(tmp_path, below=False)
    remove_temporaries(path.parent.parent, below=False)
    assert len(list(path.parent.iterdir())) == 2
    remove_temporaries(tmp_path)
    assert os.listdir(path.parent) == ["kept.txt"]


@pytest.mark.parametrize("beside", [False, True])
def test_a_folder_has_one_writer(tmp_path, beside):
    pytest.importorskip("fcntl")
    folder = tmp_path / "new"
    with lock_folder(folder, "training", beside=beside):
        with pytest.raises(InUseError, match=rf"new is in use: process {os.getpid()} is training"):
            with lock_folder(folder, "exporting", beside=beside):
                pass
        if beside:
            folder.mkdir()
            folder.rename(tmp_path / "old")
            with pytest.raises(InUseError), lock_folder(folder, "exporting", beside=True):
                pass
    with lock_folder(folder, "exporting", beside=beside):
        pass
    assert not list(tmp_path.rglob("*lock"))


def test_never_two_holders_of_a_lock(tmp_path):
    """A holder removes the lock's file; who has opened it before must not take it for the lock."""
    pytest.importorskip("fcntl")
    code = (
        "import os, sys, time; from instance_crf.files import InUseError, lock_folder\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        with lock_folder(sys.argv[1], 'counting'):\n"
        "            os.close(os.open(sys.argv[1] + '/one', os.O_CREAT | os.O_EXCL))\n"
        "            os.unlink(sys.argv[1] + '/one')\n"
        "    except InUseError: pass\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_a_lock_ends_with_its_process(tmp_path):
    pytest.importorskip("fcntl")
    code = (
        "import os, sys; from instance_crf.files import lock_folder\n"
        "with lock_folder(sys.argv[1], 'training'): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    with lock_folder(tmp_path, "training"):
        pass


@pytest.mark.parametrize(
    "text, key", [("a: 1\nb: 2\na: 3\n", "'a'"), ("x:\n  - {train: 1, train: 2}\n", "'train'")]
)
def test_a_key_that_comes_twice_is_refused_in_one_line(tmp_path, text, key):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.yaml .*the key {key} comes twice .*line") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_keys_that_are_taken_over_may_be_changed(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n1: one\n'1': text\n"
    (tmp_path / "a.yaml").write_text(text)
    found = read_yaml(tmp_path / "a.yaml")
    assert found["a"] == {"x": 1, "y": 2} and found["b"] == {"x": 1, "y": 3}
    assert found[1] == "one" and found["1"] == "text"
