"""ONNX files: made here, with their results by hand; and BodyPix' own, where they are."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.own_models.parts import load_part_model, to_q
from instance_crf.own_models.parts.onnx_padding import with_explicit_padding
from instance_crf.taxonomies import PartTaxonomy

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper = onnx.helper

TAXONOMY = PartTaxonomy(("red", "green", "blue"))
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 12, 3)).astype(np.uint8)
WEIGHT = RNG.normal(size=(4, 3, 1, 1)).astype(np.float32)


def constant(name, values):
    return onnx.numpy_helper.from_array(np.asarray(values), name)


def saved(path, nodes, inputs, outputs, constants):
    """A model of float32 in and out."""
    infos = [
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in group.items()]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "parts", *infos, constants)
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return f"onnx:{path}"


def conv(path, shape=(1, 3, 8, 12), softmax=False):
    """A 1 x 1 convolution of the input, (1, 3, H, W)."""
    nodes = [helper.make_node("Conv", ["photo", "weight"], ["scores"], kernel_shape=[1, 1])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["prob"], axis=1))
    outputs = {"prob" if softmax else "scores": (1, 4, *shape[2:])}
    return saved(path, nodes, {"photo": shape}, outputs, [constant("weight", WEIGHT)])


def by_hand(values):
    """Of (H, W, 3)."""
    return np.einsum("oc,hwc->ohw", WEIGHT[:, :, 0, 0], values)


@pytest.mark.parametrize(
    "options, values",
    [
        ({"range": "0-1"}, PIXELS / 255),
        ({"range": "-1-1"}, PIXELS / 127.5 - 1),
        ({"range": "0-255"}, PIXELS * 1.0),
        ({"range": "0-1", "channels": "BGR"}, PIXELS[..., ::-1] / 255),
        ({"range": "0-1", "mean": 0.5, "std": 0.25}, (PIXELS / 255 - 0.5) / 0.25),
        (
            {"range": "0-1", "channels": "BGR", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]},
            (PIXELS[..., ::-1] / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3],
        ),
    ],
)
def test_what_the_model_is_given(tmp_path, options, values):
    spec = conv(tmp_path / "parts.onnx")
    source = load_part_model(spec, taxonomy=TAXONOMY, kind="logits", **options)
    scores = source(PIXELS)
    assert (scores.kind, scores.background, scores.align_corners) == ("logits", "first", False)
    assert scores.taxonomy is TAXONOMY
    expected = by_hand(values)
    np.testing.assert_allclose(scores.values, expected, atol=1e-4 * np.abs(expected).max())


def test_options_in_a_file_beside_it(tmp_path):
    spec = conv(tmp_path / "parts.onnx")
    stored = {"range": "-1-1", "kind": "logits", "background": "last", "taxonomy": "cihp"}
    (tmp_path / "parts.json").write_text(json.dumps(stored))
    source = load_part_model(spec.removesuffix(".onnx"))
    assert source.taxonomy.num_parts == 19
    scores = source(PIXELS)
    np.testing.assert_allclose(scores.values, by_hand(PIXELS / 127.5 - 1), atol=1e-4)
    assert scores.background == "last"
    said = load_part_model(spec, background="first", taxonomy=TAXONOMY)
    assert said(PIXELS).background == "first" and said.taxonomy is TAXONOMY


def test_probabilities(tmp_path):
    spec = conv(tmp_path / "parts.onnx", softmax=True)
    scores = load_part_model(spec, kind="prob", range="0-1")(PIXELS)
    expected = torch.from_numpy(by_hand(PIXELS / 255)).softmax(0).float()
    torch.testing.assert_close(scores.values, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="parts.onnx: part_logits .* are probabilities"):
        load_part_model(spec, kind="logits", range="0-1")(PIXELS)


def test_the_photo_is_stretched_to_a_fixed_input(tmp_path):
    spec = conv(tmp_path / "parts.onnx", shape=(1, 3, 4, 4))
    scores = load_part_model(spec, kind="logits", range="0-1")(PIXELS)
    resized = np.asarray(Image.fromarray(PIXELS).resize((4, 4), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(scores.values, by_hand(resized / 255), atol=1e-5)


@pytest.mark.parametrize(
    "options, size",
    [
        ({"size": (6, 10)}, (6, 10)),
        ({"size": 24}, (16, 24)),
        ({"size": 24, "stride": 8}, (16, 24)),
        ({"size": 20, "stride": 8}, (16, 16)),
        ({"size": 25, "stride": 8, "plus_one": True}, (17, 25)),
        ({"size": (17, 33), "stride": 16, "plus_one": True}, (17, 33)),
    ],
)
def test_the_size_of_an_input_of_any_size(tmp_path, options, size):
    spec = conv(tmp_path / "parts.onnx", shape=(1, 3, "h", "w"))
    scores = load_part_model(spec, kind="logits", range="0-1", **options)(PIXELS)
    assert scores.values.shape == (4, *size)
    assert scores.align_corners == options.get("plus_one", False)


def test_channels_last_and_a_person(tmp_path):
    """(1, H, W, 3) to parts (1, H, W, 3), which are the input itself, and their sum less 1."""
    nodes = [
        helper.make_node("Identity", ["photo"], ["parts"]),
        helper.make_node("ReduceSum", ["photo", "axes"], ["sum"], keepdims=1),
        helper.make_node("Sub", ["sum", "one"], ["person"]),
    ]
    constants = [constant("axes", np.array([3])), constant("one", np.float32(1))]
    inputs, outputs = {"photo": (1, 8, 12, 3)}, {"parts": (1, 8, 12, 3), "person": (1, 8, 12, 1)}
    spec = saved(tmp_path / "parts.onnx", nodes, inputs, outputs, constants)
    options = {"kind": "logits", "range": "-1-1"}
    scores = load_part_model(spec, output="parts", person_output="person", **options)(PIXELS)
    values = (PIXELS / 127.5 - 1).astype(np.float32)
    assert scores.background == "none"
    np.testing.assert_allclose(scores.values, values.transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_allclose(scores.person_logit, values.sum(2)[None] - 1, atol=1e-5)
    for said in ({}, {"output": "scores"}, {"output": "parts", "person_output": "people"}):
        with pytest.raises(ValueError, match="has the outputs parts, person; said"):
            load_part_model(spec, **options, **said)


def test_a_map(tmp_path):
    nodes = [helper.make_node("ArgMax", ["photo"], ["ids"], axis=1, keepdims=0)]
    photo = helper.make_tensor_value_info("photo", onnx.TensorProto.FLOAT, (1, 3, 8, 12))
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, (1, 8, 12))
    graph = helper.make_graph(nodes, "parts", [photo], [ids])
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "m.onnx")
    scores = load_part_model(f"onnx:{tmp_path / 'm.onnx'}", kind="map", range="0-255")(PIXELS)
    np.testing.assert_array_equal(scores.values, PIXELS.argmax(2))


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, ["range is not said", "'-1-1'", "parts.json"]),
        ({"range": "0-1"}, ["kind is not said", "'logits'"]),
        ({"range": "0..1", "kind": "logits"}, ["range is '0..1'"]),
        ({"range": "0-1", "kind": "logits", "channels": "GBR"}, ["channels is 'GBR'"]),
        ({"range": "0-1", "kind": "logits", "mean": [1, 2]}, ["mean has 2 numbers"]),
        ({"range": "0-1", "kind": "logits", "std": [1, 0, 1]}, ["std", "above 0"]),
        ({"range": "0-1", "kind": "logits", "std": "one"}, ["std cannot be read as numbers"]),
        ({"range": "0-1", "kind": "logits", "stride": 0}, ["stride is 0"]),
        ({"range": "0-1", "kind": "logits", "stride": "8"}, ["stride is '8'"]),
        ({"range": "0-1", "kind": "logits", "size": 0}, ["size is 0"]),
        ({"range": "0-1", "kind": "logits", "size": "big"}, ["size is 'big'"]),
        ({"range": "0-1", "kind": "logits", "size": [8]}, ["size is [8]"]),
        ({"range": "0-1", "kind": "logits", "size": [8, -8]}, ["size is [8, -8]"]),
        ({"range": "0-1", "kind": "logits", "plus_one": "no"}, ["plus_one is 'no'"]),
        ({"range": "0-1", "kind": "logits", "align_corners": 2}, ["align_corners is 2"]),
        ({"range": "0-1", "kind": "logits", "scale": 2}, ["no option scale", "person_output"]),
        ({"range": "0-1", "kind": "logits", "layout": "NHWC"}, ["NHWC", "[1, 3, 8, 12]"]),
        ({"range": "0-1", "kind": "logits", "background": "0"}, ["background is '0'"]),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, words):
    with pytest.raises(ValueError) as error:
        load_part_model(conv(tmp_path / "parts.onnx"), **options)
    assert all(word in str(error.value) for word in words), error.value


def test_sizes_that_do_not_fit(tmp_path):
    fixed = conv(tmp_path / "fixed.onnx")
    free = conv(tmp_path / "free.onnx", shape=(1, 3, "h", "w"))
    options = {"kind": "logits", "range": "0-1"}
    with pytest.raises(ValueError, match=r"\(8, 16\) does not fit: the model's is \[8, 12\]"):
        load_part_model(fixed, size=(8, 16), **options)(PIXELS)
    with pytest.raises(ValueError, match="takes any size .*size="):
        load_part_model(free, **options)(PIXELS)
    with pytest.raises(ValueError, match="multiples of 8 plus 1"):
        load_part_model(free, size=(16, 17), stride=8, plus_one=True, **options)(PIXELS)
    square = conv(tmp_path / "square.onnx", shape=(1, 3, "h", 3))
    with pytest.raises(ValueError, match="say layout="):
        load_part_model(square, **options)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.onnx"):
        load_part_model(f"onnx:{tmp_path / 'nowhere.onnx'}")
    spec = conv(tmp_path / "parts.onnx")
    (tmp_path / "parts.json").write_text("{")
    with pytest.raises(ValueError, match="parts.json is not JSON"):
        load_part_model(spec)
    (tmp_path / "parts.json").write_text("[1]")
    with pytest.raises(ValueError, match="parts.json holds a list"):
        load_part_model(spec)
    (tmp_path / "parts.json").write_text('{"rnage": "0-1"}')
    with pytest.raises(ValueError, match="parts.json: there is no option rnage"):
        load_part_model(spec)
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(ValueError, match="text.onnx: ONNX Runtime refuses it"):
        load_part_model(f"onnx:{tmp_path / 'text.onnx'}", range="0-1", kind="logits")


# Dilated convolutions with automatic padding


def dilated(path, kernel=(3, 3), dilations=(2, 2), strides=(1, 1), auto_pad="SAME_UPPER"):
    weight = RNG.normal(size=(4, 3, *kernel)).astype(np.float32)
    node = helper.make_node(
        "Conv",
        ["photo", "weight"],
        ["scores"],
        name="dilated",
        kernel_shape=kernel,
        dilations=dilations,
        strides=strides,
        auto_pad=auto_pad,
    )
    inputs, outputs = {"photo": (1, 3, 8, 12)}, {"scores": (1, 4, "h", "w")}
    return weight, saved(path, [node], inputs, outputs, [constant("weight", weight)])


@pytest.mark.parametrize(
    "kernel, dilations, pads",
    [
        ((3, 3), (2, 2), (2, 2, 2, 2)),
        ((2, 3), (3, 2), (2, 2, 1, 2)),
        ((3, 2), (1, 3), (1, 2, 1, 1)),
    ],
)
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_dilated_convolutions(tmp_path, kernel, dilations, pads, auto_pad):
    """Pads are left, right, top, bottom; of an odd number, SAME_UPPER has more at the end."""
    weight, spec = dilated(tmp_path / "d.onnx", kernel, dilations, auto_pad=auto_pad)
    scores = load_part_model(spec, kind="logits", range="0-1")(PIXELS)
    image = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
    bottom, right, top, left = pads if auto_pad == "SAME_UPPER" else (*pads[2:], *pads[:2])
    padded = torch.nn.functional.pad(image, (left, right, top, bottom))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(weight), dilation=dilations)
    assert expected.shape == (4, 8, 12)
    torch.testing.assert_close(scores.values, expected, atol=1e-5, rtol=1e-4)


def test_dilated_convolutions_that_cannot_be_helped(tmp_path, monkeypatch):
    _, strided = dilated(tmp_path / "strided.onnx", strides=(2, 2))
    options = {"kind": "logits", "range": "0-1"}
    with pytest.raises(ValueError, match="'dilated' is dilated.*strides"):
        load_part_model(strided, **options)(PIXELS)
    _, spec = dilated(tmp_path / "d.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match="auto_pad=SAME_UPPER.*pip install onnx"):
        load_part_model(spec, **options)(PIXELS)


def test_other_convolutions_are_left_alone(tmp_path):
    _, spec = dilated(tmp_path / "d.onnx", dilations=(1, 1))
    path = tmp_path / "d.onnx"
    assert onnx.load_from_string(with_explicit_padding(path, None)) == onnx.load(path)
    assert load_part_model(spec, kind="logits", range="0-1")(PIXELS)


def test_without_onnxruntime(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "parts.onnx").write_text("a network")
    with pytest.raises(ImportError, match=r"pip install 'instance-crf\[models\]'"):
        load_part_model(f"onnx:{tmp_path / 'parts.onnx'}", range="0-1", kind="prob")


@pytest.mark.parametrize("stride", [8, 16])
def test_bodypix(real_folder, stride):
    """Another network of the same family says much the same, at both strides."""
    options = {
        "range": "-1-1",
        "kind": "logits",
        "stride": stride,
        "plus_one": True,
        "size": 513,
        "output": "part_heatmaps",
        "person_output": "segments",
    }
    file = real_folder / f"weights/bodypix_mobilenet050_stride{stride}.onnx"
    source = load_part_model(f"onnx:{file}", **options)
    path = real_folder / "photos/cihp_12008.jpg"
    pixels = np.asarray(Image.open(path))
    scores = source(pixels)
    assert scores.background == "none" and scores.align_corners
    other = load_part_model(real_folder / "q")(pixels, path)
    q, expected = (to_q(s, (80, 120), 24, image_size=pixels.shape[:2]) for s in (scores, other))
    found, true = q[0] < 0.5, expected[0] < 0.5
    assert float((found & true).sum() / (found | true).sum()) > 0.7
    assert float((q.argmax(0) == expected.argmax(0))[found & true].float().mean()) > 0.6
