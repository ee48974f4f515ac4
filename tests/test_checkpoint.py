"""Checkpoints are written whole or not at all; what does not fit is refused with its names."""

import pickle
import re
import resource

import pytest
import torch
from torch import nn

from instance_crf.checkpoint import Checkpointer, load_weights


def make_model(parts=6, width=8):
    features = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3))
    return nn.ModuleDict({"features": features, "predictor": nn.Conv2d(width, parts + 1, 1)})


class Counter:
    """Something that a checkpoint has beside the model."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.fixture
def folder(tmp_path):
    """A run's folder with the checkpoints of two iterations."""
    for iteration in (1, 3):
        save(make_model(), tmp_path, f"model_{iteration:07d}", iteration)
    return tmp_path


def save(model, folder, name, value=0):
    Checkpointer(model, str(folder), trainer=Counter(value)).save(name)


def resume(folder, model=None):
    """The value of what is resumed from the folder's last checkpoint."""
    trainer = Counter(-1)
    model = make_model() if model is None else model
    Checkpointer(model, str(folder), trainer=trainer).resume_or_load("", resume=True)
    return trainer.value


def start(path, model):
    Checkpointer(model, trainer=Counter()).resume_or_load(str(path), resume=False)


def test_there_and_back(folder):
    model, other = make_model(), make_model()
    save(model, folder, "model_final", 7)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert resume(folder, other) == 7 and same(model, other)
    load_weights(other, str(folder / "model_0000001.pth"))
    assert not same(model, other)


def test_a_full_disk_leaves_the_old_checkpoint(folder):
    model = make_model(width=300)
    save(model, folder, "model_final", 5)
    before = (folder / "model_final.pth").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written.*model_final.pth"):
            save(make_model(width=300), folder, "model_final", 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "model_final.pth").read_bytes() == before
    assert resume(folder, make_model(width=300)) == 5
    assert not list(folder.glob(".tmp*"))


@pytest.mark.parametrize("how", ["truncated", "empty", "missing"])
def test_a_broken_checkpoint_names_itself_and_the_one_before(folder, how):
    """What the message says to type helps."""
    path = folder / "model_0000003.pth"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if how == "truncated" else 0])
    if how == "missing":
        path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=str(path)) as caught:
        resume(folder)
    follow(str(caught.value))
    assert resume(folder) == 1


def test_a_broken_checkpoint_alone(tmp_path):
    save(make_model(), tmp_path, "model_0000001")
    (tmp_path / "model_0000001.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="has no other: to begin anew, leave --resume out"):
        resume(tmp_path)
    save(make_model(), tmp_path, "model_0000003")
    with pytest.raises(ValueError, match="model_0000001.pth is broken.*0000003.pth is whole"):
        start(tmp_path / "model_0000001.pth", make_model())


def follow(message):
    """Do what a message says."""
    name, file = re.search(r"echo (\S+) > (\S+), then --resume", message).groups()
    with open(file, "w") as last:
        last.write(f"{name}\n")


@pytest.mark.parametrize("content", [None, "", " \n", "absent.pth"])
def test_a_lost_name_of_the_last_checkpoint(folder, content):
    last = folder / "last_checkpoint"
    last.unlink() if content is None else last.write_text(content)
    with pytest.raises(
        (ValueError, FileNotFoundError), match="last_checkpoint|absent.pth"
    ) as caught:
        resume(folder)
    follow(str(caught.value))
    assert resume(folder) == 3


def test_the_last_checkpoint_is_in_the_folder(folder):
    (folder / "last_checkpoint").write_text("../model_0000003.pth")
    with pytest.raises(ValueError, match="leads out of"):
        resume(folder)


def test_resuming_in_a_new_folder_begins(tmp_path):
    assert resume(tmp_path) == resume(tmp_path / "absent") == -1


def test_a_run_of_another_model_is_not_resumed(folder):
    shapes = r"predictor.weight: \(7, 8, 1, 1\) in the file, \(8, 8, 1, 1\) in the model"
    with pytest.raises(ValueError, match=f"model_0000003.pth was written .*{shapes}"):
        resume(folder, make_model(parts=7))
    more = make_model()
    more["head"] = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="head.weight: not in the file; head.bias: not in the"):
        resume(folder, more)
    less = make_model()
    del less["predictor"]
    with pytest.raises(ValueError, match="predictor.weight: not in the model"):
        resume(folder, less)


def test_weights_alone_are_no_run(folder):
    torch.save(make_model().state_dict(), folder / "model_0000003.pth")
    with pytest.raises(ValueError, match="has weights only, without the trainer's state"):
        resume(folder)


def test_starting_from_other_classes(folder, caplog):
    """The classifier starts anew, and it is said; the rest comes from the file."""
    caplog.set_level("INFO", "instance_crf")
    model = make_model(parts=7)
    before = model["predictor"].weight.clone()
    start(folder / "model_0000003.pth", model)
    assert torch.equal(model["predictor"].weight, before)
    theirs = torch.load(folder / "model_0000003.pth", weights_only=True)["model"]
    assert torch.equal(model["features"][0].weight, theirs["features.0.weight"])
    assert "features 4 of 4, predictor 0 of 2" in caplog.text
    assert "predictor.weight: (7, 8, 1, 1) in the file, (8, 8, 1, 1) in the model" in caplog.text


def test_starting_from_other_layers_is_refused(folder):
    shapes = r"features.1.weight: \(8, 8, 3, 3\) in the file, \(9, 9, 3, 3\) in the model"
    with pytest.raises(ValueError, match=f"other layers.*{shapes}"):
        start(folder / "model_0000003.pth", make_model(width=9))


def test_starting_from_a_file_that_shares_nothing(tmp_path):
    torch.save({"model": nn.Linear(2, 3).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth has none of the model's weights"):
        start(tmp_path / "other.pth", make_model())
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth is no checkpoint: epoch is a int"):
        start(tmp_path / "other.pth", make_model())


def test_starting_from_nothing(tmp_path):
    start("", make_model())
    with pytest.raises(FileNotFoundError, match=r"absent.pth \(MODEL.WEIGHTS\)"):
        start(tmp_path / "absent.pth", make_model())


def test_what_cannot_be_downloaded_is_named():
    url = "http://127.0.0.1:1/model_final.pth"
    with pytest.raises(OSError, match=f"^{url} cannot be had: .*refused"):
        start(url, make_model())


def test_a_zoos_names_are_matched(tmp_path):
    """As Detectron2 does with its `.pkl` files."""
    model, other = make_model(), make_model()
    state = {k.removeprefix("features."): v.numpy() for k, v in model.state_dict().items()}
    content = {"model": state, "__author__": "zoo", "matching_heuristics": True}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    start(tmp_path / "zoo.pkl", other)
    assert same(model, other)
    torch.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "zoo.pth")
    third = make_model()
    start(f"{tmp_path}/zoo.pth?matching_heuristics=True", third)
    assert same(model, third)


def test_parts_in_another_order_are_refused(tmp_path, caplog):
    """Other names may be better words for the same; they are told."""
    path = tmp_path / "named.pth"
    Checkpointer(make_model(2), str(tmp_path), part_names=["head", "tail"]).save("named")
    load_weights(make_model(2), str(path), ["head", "tail"])
    load_weights(make_model(2), str(path))
    assert not caplog.text
    with pytest.raises(ValueError, match=r"the parts \['head', 'tail'\], the data set \['tail', "):
        load_weights(make_model(2), str(path), ["tail", "head"])
    load_weights(make_model(2), str(path), ["head", "tip"])
    assert "['head', 'tail'], the data set ['head', 'tip']" in caplog.text
