"""Models of torchvision: a saved state dict, loaded and run as torchvision does it."""

import sys

import numpy as np
import pytest
import torch

from instance_crf.own_models.parts import load_part_model
from instance_crf.taxonomies import PartTaxonomy

torchvision = pytest.importorskip("torchvision")

NAME = "lraspp_mobilenet_v3_large"
TAXONOMY = PartTaxonomy(("head", "arms", "legs", "hat"))
PIXELS = np.random.default_rng(0).integers(0, 256, (45, 60, 3)).astype(np.uint8)


def built(name=NAME, **options):
    torch.manual_seed(0)
    options = {"weights_backbone": None, "num_classes": 5} | options
    return torchvision.models.get_model(name, **options).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lraspp.pth"
    torch.save(built().state_dict(), path)
    return path


@pytest.mark.parametrize("size", [None, 64])
def test_a_saved_state_dict(weights, size):
    options = {} if size is None else {"size": size}
    source = load_part_model(f"torchvision:{NAME}:{weights}", taxonomy=TAXONOMY, **options)
    assert source.taxonomy is TAXONOMY
    scores = source(PIXELS)
    assert (scores.kind, scores.background, scores.taxonomy) == ("logits", "first", TAXONOMY)
    # Of 0..1, less mean over deviation, the shorter side 520 or as said.
    image = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
    shorter = size or 520
    resize = torchvision.transforms.functional.resize
    image = resize(image, [shorter, int(shorter * 60 / 45)], antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (image - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = built()(image[None])["out"][0]
    # torchvision rounds the resized photo to whole numbers before it goes on.
    assert float((scores.values - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_a_checkpoint_of_its_training_script(tmp_path, weights):
    state = {f"module.{key}": value for key, value in built().state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "checkpoint.pth")
    checkpoint = load_part_model(f"torchvision:{NAME}:{tmp_path / 'checkpoint.pth'}", size=32)
    plain = load_part_model(f"torchvision:{NAME}:{weights}", size=32, background="last")
    assert checkpoint.taxonomy is None and plain(PIXELS).background == "last"
    assert torch.equal(checkpoint(PIXELS).values, plain(PIXELS).values)


def test_a_deeplab_with_an_auxiliary_classifier(tmp_path):
    model = built("deeplabv3_mobilenet_v3_large", aux_loss=True)
    torch.save(model.state_dict(), tmp_path / "deeplab.pth")
    spec = f"torchvision:deeplabv3_mobilenet_v3_large:{tmp_path / 'deeplab.pth'}"
    scores = load_part_model(spec, size=32)(PIXELS)
    assert scores.values.shape == (5, 32, 42)


def test_weights_that_do_not_fit(tmp_path, weights):
    with pytest.raises(ValueError, match="no segmentation model 'resnet18'; it has .*lraspp"):
        load_part_model(f"torchvision:resnet18:{weights}")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_part_model(f"torchvision:{NAME}:{tmp_path / 'nowhere.pth'}")
    with pytest.raises(ValueError, match="is no state dict of fcn_resnet50"):
        load_part_model(f"torchvision:fcn_resnet50:{weights}")
    state = built().state_dict()
    del state["classifier.cbr.0.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match="(?s)less.pth.*classifier.cbr.0.weight"):
        load_part_model(f"torchvision:{NAME}:{tmp_path / 'less.pth'}")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth.*model.state_dict"):
        load_part_model(f"torchvision:{NAME}:{tmp_path / 'other.pth'}")
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(ValueError, match="text.pth is broken, or no file of weights"):
        load_part_model(f"torchvision:{NAME}:{tmp_path / 'text.pth'}")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="module.pth holds more than weights.*state_dict"):
        load_part_model(f"torchvision:{NAME}:{tmp_path / 'module.pth'}")


@pytest.mark.parametrize("size", [0, -1, 2.5, "big"])
def test_sizes_that_are_none(weights, size):
    with pytest.raises(ValueError, match=f"size is {size!r}; it must be a whole number"):
        load_part_model(f"torchvision:{NAME}:{weights}", size=size)


def test_devices_that_are_none(weights):
    with pytest.raises(ValueError, match="device is 'gpu'"):
        load_part_model(f"torchvision:{NAME}:{weights}", device="gpu")


def test_without_a_connection(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        FileNotFoundError, match=f"could they be downloaded.*torchvision:{NAME}:FILE"
    ):
        load_part_model(f"torchvision:{NAME}")


def test_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"pip install 'instance-crf\[models\]'"):
        load_part_model("torchvision:fcn_resnet50")
