"""Files of weights: read without running anything; broken ones name themselves."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from instance_crf.weights_file import UNSAFE, is_whole, read_weights_file


class Evil:
    """Makes a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"model": {"weight": torch.randn(50, 40)}, "iteration": 3}, path)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_zoos_pickle(tmp_path, protocol):
    """numpy arrays and numbers in containers need no trust."""
    content = {
        "model": OrderedDict(weight=np.arange(6, dtype=np.float32).reshape(2, 3), big=np.eye(9)),
        "__author__": "somebody",
        "numbers": [np.float64(0.5), np.int64(3), (1, None), b"\xffbytes"],
    }
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_weights_file(tmp_path / "zoo.pkl")
    for name, value in content["model"].items():
        assert found["model"][name].dtype == value.dtype
        assert np.array_equal(found["model"][name], value)
    assert found["numbers"][:3] == content["numbers"][:3]
    assert found["__author__"] == "somebody"


@pytest.mark.parametrize("name", ["evil.pth", "evil.pyth", "evil.pkl", "old.pth"])
def test_what_a_file_holds_is_not_run(tmp_path, name, monkeypatch, caplog):
    path, made = tmp_path / name, tmp_path / "made"
    content = {"model": Evil(made)}
    if name == "old.pth":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"{name} holds more than weights \(.*{UNSAFE}=1"):
        read_weights_file(path)
    assert not made.exists()
    monkeypatch.setenv(UNSAFE, "1")
    read_weights_file(path)
    assert made.exists() and "runs what it holds" in caplog.text


def test_codecs_that_do_more_than_latin1_are_refused(tmp_path):
    class Coded:
        def __reduce__(self):
            import _codecs

            return _codecs.encode, ("text", "rot13")

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": Coded()}))
    with pytest.raises(ValueError, match="_codecs.encode to rot13"):
        read_weights_file(tmp_path / "a.pkl")


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    if how == "zeros":  # a power cut
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    cut = {"empty": 0, "cut off": len(content) // 2, "cut at the end": len(content) - 1}
    path.write_bytes(content[: cut.get(how, len(content))])


@pytest.mark.parametrize("how", ["empty", "cut off", "cut at the end", "flipped", "zeros"])
def test_broken_files_name_themselves(whole, how):
    damage(whole, how)
    size = os.path.getsize(whole)
    with pytest.raises(ValueError, match=rf"whole.pth is broken, or .* \({size} bytes\): ."):
        read_weights_file(whole)
    assert is_whole(whole) == (how == "flipped")


@pytest.mark.parametrize("name", ["text.pth", "text.pkl", "text.pyth"])
def test_what_is_no_weights(tmp_path, name):
    path = tmp_path / name
    path.write_text("<html>Not found</html>\n" * 20)
    with pytest.raises(ValueError, match=f"{name} is broken, or no file of weights"):
        read_weights_file(path)
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps([1, 2]))
    else:
        torch.save([1, 2], path)
    with pytest.raises(ValueError, match=f"{name} holds a list, not a dict"):
        read_weights_file(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pth does not exist"):
        read_weights_file(tmp_path / "absent.pth")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", ["x.pth", "x.pkl"])
def test_a_file_that_may_not_be_read_is_not_called_broken(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    (tmp_path / name).chmod(0)
    with pytest.raises(PermissionError, match=name):
        read_weights_file(tmp_path / name)
