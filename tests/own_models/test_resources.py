"""Files, weights and devices, as they come and as they break."""

import numpy as np
import pytest
import torch

from instance_crf.own_models.resources import (
    choose_device,
    existing_file,
    fill,
    read_arrays,
    read_state_dict,
)


def test_files_may_be_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert existing_file("~/file", "The file") == tmp_path / "file"
    for name in ("~/none", "~"):
        with pytest.raises(FileNotFoundError, match=f"The file {tmp_path}.* does not exist"):
            existing_file(name, "The file")


def test_arrays(tmp_path):
    array = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", first=array, second=array[0])
    assert np.array_equal(read_arrays(tmp_path / "a.npy"), array)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["first", "second"] and np.array_equal(found["first"], array)


def test_broken_arrays(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", a=np.arange(1000))
    whole = bytearray((tmp_path / "whole.npz").read_bytes())
    (tmp_path / "cut.npz").write_bytes(whole[:300])
    whole[200:400] = bytes(200)
    (tmp_path / "damaged.npz").write_bytes(whole)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name in ("cut.npz", "damaged.npz", "empty.npy", "objects.npy"):
        with pytest.raises(ValueError, match=f"Cannot read the arrays of .*{name}: "):
            read_arrays(tmp_path / name)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device is 'gpu', which torch cannot use here"):
        choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match="device is 'cuda:0', which torch cannot use here"):
        choose_device(torch.device("cuda:0"))


def test_weights(tmp_path):
    model, path = torch.nn.Linear(2, 3), tmp_path / "w.pth"
    state = model.state_dict()
    for content in (
        state,
        {"model": state, "epoch": 3},
        {f"module.{key}": value for key, value in state.items()},
    ):
        torch.save(content, path)
        other = torch.nn.Linear(2, 3)
        fill(other, read_state_dict(path), "never said")
        assert torch.equal(other.weight, model.weight) and torch.equal(other.bias, model.bias)


def test_what_is_no_weights(tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(FileNotFoundError, match=r"The file of weights .*w\.pth does not exist"):
        read_state_dict(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"w\.pth is broken, or no file of weights"):
        read_state_dict(path)
    torch.save(torch.nn.Linear(2, 3), path)
    with pytest.raises(ValueError, match=r"more than weights \(torch\S*Linear.*state_dict"):
        read_state_dict(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="holds a list, not a dict of weights.*model.state_dict"):
        read_state_dict(path)
    for state in ({}, {"weight": torch.ones(9)}, {"weight": 1, "bias": "text"}):
        with pytest.raises(ValueError, match="my file does not fit: Error") as error:
            fill(torch.nn.Linear(2, 3), state, "my file does not fit")
        assert len(str(error.value)) < 500 and "\n" not in str(error.value)
