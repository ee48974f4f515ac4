"""Whether a wrong input of a part model is found by the detector's boxes."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from instance_crf.cli import main
from instance_crf.own_models import load_detector, load_part_model
from instance_crf.own_models.input_check import InputCheck, alternatives, check_input
from instance_crf.own_models.inputs import PartScores, Source
from instance_crf.taxonomies import PartTaxonomy

PARTS = PartTaxonomy(["body"])


@pytest.fixture
def photos():
    """Red people on grey, of which some is reddish."""
    rng = np.random.default_rng(0)
    pictures, boxes = [], []
    for _ in range(6):
        picture = rng.normal(120, 6, (64, 80, 3))
        x, y = rng.integers(5, 30, 2)
        picture[y : y + 30, x : x + 25] = (200, 60, 60)
        pictures.append(picture.clip(0, 255).astype(np.uint8))
        boxes.append(np.array([[x, y, x + 25, y + 30]], np.float32))
    return pictures, boxes


@pytest.fixture
def detector(photos):
    """Knows the boxes of the photos by their order."""
    by_picture = {picture.tobytes(): box for picture, box in zip(*photos, strict=True)}
    return lambda pixels: (by_picture[pixels.tobytes()], np.array([0.9]))


@pytest.fixture
def file(tmp_path):
    """A model that wants RGB in -1..1: red above blue by 0.75 is a body."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1, :, 0, 0] = 20, 0, -20
    bias = np.array([0, -15], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "parts",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, "H", "W"])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "parts.onnx")
    return tmp_path / "parts.onnx"


def load(file, **options):
    return load_part_model(f"onnx:{file}", taxonomy=PARTS, kind="logits", size=80, **options)


def test_the_right_input_is_right(file, photos, detector):
    check = check_input(load(file, range="-1-1"), detector, photos[0])
    assert (check.stated > 0.95).all() and len(check.stated) == 6
    assert check.verdict() is None and "it seems right" in str(check)
    assert check.agreement["channels BGR"].max() == 0


@pytest.mark.parametrize(
    "said, found",
    [
        ({"range": "0-1"}, "range -1-1"),
        ({"range": "-1-1", "channels": "BGR"}, "channels RGB"),
        ({"range": "0-255"}, "range -1-1"),
        ({"range": "-1-1", "mean": 0.5, "std": 4.0}, "range -1-1"),
    ],
)
def test_a_wrong_input_is_found(file, photos, detector, said, found):
    check = check_input(load(file, **said), detector, photos[0])
    assert check.verdict() == found
    assert f"probably wrong: on 6 photos {found}" in str(check)


def test_what_is_tried_is_what_is_not_stated(file):
    names = [name for name, _ in alternatives(load(file, range="0-1"))]
    assert names == [
        "as stated",
        "channels BGR",
        "range -1-1",
        "range 0-255",
        "range 0-1, mean and std of ImageNet",
    ]
    imagenet = {"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229], "channels": "BGR"}
    names = [name for name, _ in alternatives(load(file, range="0-1", **imagenet))]
    assert names == ["as stated", "channels RGB", "range 0-1", "range -1-1", "range 0-255"]


class RedIsBody(Source):
    """Any other model; ``red`` is the channel that it takes for red."""

    def __init__(self, red):
        self.red = red

    def __call__(self, pixels, path=None):
        redder = torch.from_numpy(pixels[..., self.red] / 255 - pixels[..., 2 - self.red] / 255)
        return PartScores(torch.stack([0 * redder, 20 * redder - 6]), "logits", taxonomy=PARTS)


def test_other_models_are_given_the_other_order_of_channels(photos, detector):
    assert check_input(RedIsBody(0), detector, photos[0]).verdict() is None
    check = check_input(RedIsBody(2), detector, photos[0])
    assert check.verdict() == "channels the other way round"


def test_photos_without_people_do_not_count_and_few_say_nothing(file, photos, detector):
    def some(pixels):
        boxes, scores = detector(pixels)
        return boxes, scores * (pixels[0, 0, 0] % 2)

    some_people = sum(int(picture[0, 0, 0] % 2) for picture in photos[0])
    assert 0 < some_people < 5
    check = check_input(load(file, range="0-1"), some, photos[0])
    assert len(check.stated) == some_people and check.verdict() is None
    assert "too few" in str(check)


def test_a_verdict_needs_most_of_the_photos():
    stated, other = np.full(8, 0.5), np.array([0.9] * 5 + [0.4] * 3)
    assert InputCheck({"as stated": stated, "other": other}).verdict() is None
    other[5] = 0.6
    check = InputCheck({"as stated": stated, "other": other, "worse": stated - 0.1})
    assert check.better("other") == 0.75 and check.verdict() == "other"


@pytest.mark.slow
@pytest.mark.parametrize("said, status", [("-1-1", 0), ("0-1", 1)])
def test_bodypix(real_folder, said, status, capsys):
    argv = ["check", str(real_folder / "photos"), "--most", "8", "--taxonomy", "bodypix"]
    argv += ["--parts", f"onnx:{real_folder}/weights/bodypix_mobilenet050_stride16.onnx"]
    options = ["kind=logits", "size=513", "stride=16", "plus_one=true", "output=part_heatmaps"]
    for option in (*options, "person_output=segments", f"range={said}"):
        argv += ["--option", option]
    argv += ["--detector", f"onnx:{real_folder}/weights/yolox_nano_416.onnx"]
    assert main(argv) == status
    assert ("range -1-1 agrees clearly better" in capsys.readouterr().out) == bool(status)


def test_the_detectors_of_libraries_do(file, photos, tmp_path):
    """A source that wants the path, for images given as files."""
    names = [f"{i}.png" for i in range(6)]
    for name, picture in zip(names, photos[0], strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    boxes = {
        name[0]: {"boxes": box.tolist(), "scores": [0.9]}
        for name, box in zip(names, photos[1], strict=True)
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    detector = load_detector(f"coco:{tmp_path}/boxes.json")
    check = check_input(load(file, range="0-1"), detector, [tmp_path / name for name in names])
    assert check.verdict() == "range -1-1"


def test_photos_that_cannot_be_read_are_named_and_the_others_count(file, photos, tmp_path, capsys):
    for i, picture in enumerate(photos[0]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    boxes = {str(i): {"boxes": box.tolist(), "scores": [0.9]} for i, box in enumerate(photos[1])}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    argv = ["check", str(tmp_path), "--parts", f"onnx:{file}", "--option", "kind=logits"]
    argv += ["--option", "size=80"]
    argv += ["--option", "range=-1-1", "--detector", f"coco:{tmp_path}/boxes.json"]
    (tmp_path / "names.json").write_text(json.dumps(PARTS.to_dict()))
    argv += ["--taxonomy", f"{tmp_path}/names.json"]
    assert main(argv) == 0
    expected = capsys.readouterr().out
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:99])
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert printed.out == expected
    for words in ("huge.png has more than", "cut.png", "2 of 8 photos not checked"):
        assert words in printed.err
    for picture in tmp_path.glob("?.png"):
        picture.unlink()
    assert main(argv) == 1
    assert "\n0 photos with people are too few" in capsys.readouterr().out
