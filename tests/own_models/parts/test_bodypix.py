"""BodyPix' reader, on small networks written in its format and on the real one."""

import base64
import json
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from instance_crf.data.image_io import read_image
from instance_crf.data.label_io import read_object_map
from instance_crf.own_models import parts
from instance_crf.own_models.parts.bodypix import load_bodypix
from instance_crf.own_models.parts.bodypix_tfjs import GraphModel
from instance_crf.taxonomies import get_taxonomy

SCALE, LEAST = 0.004, -0.9
HEADS = {"float_segments": 1, "float_part_heatmaps": 24, "float_long_offsets": 34}


@dataclass
class Network:
    """A graph in the making: nodes and tensors as TensorFlow.js lists them."""

    nodes: list = field(default_factory=list)
    tensors: dict = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def node(self, op, name, *inputs, **attributes):
        node = {"name": name, "op": op, "attr": attributes}
        self.nodes.append({**node, "input": list(inputs)} if inputs else node)
        return name

    def constant(self, name, *shape):
        self.tensors[name] = self.rng.integers(0, 500, shape)  # stored numbers
        return self.node("Const", name)

    def layer(self, x, name, *shape, stride=1, dilations=(1, 1, 1, 1), padding=b"SAME", relu=True):
        """A convolution, depthwise if the kernel has one channel for each, a bias, ReLU6."""
        depthwise = name.startswith("depthwise")
        attributes = {
            "strides": {"list": {"i": [str(s) for s in (1, stride, stride, 1)]}},
            "dilations": {"list": {"i": [str(d) for d in dilations]}},
            "padding": {"s": base64.b64encode(padding).decode()},
            "data_format": {"s": base64.b64encode(b"NHWC").decode()},
        }
        op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
        kernel = self.constant(f"{name}/weights", *shape)
        bias = self.constant(f"{name}/bias", shape[2] * shape[3] if depthwise else shape[3])
        x = self.node(op, f"{name}/conv", x, kernel, **attributes)
        x = self.node("BiasAdd", name, x, bias)
        return self.node("Relu6", f"{name}/relu", x) if relu else x

    def values(self):
        """The tensors as they are meant."""
        return {name: stored * SCALE + LEAST for name, stored in self.tensors.items()}


def small_bodypix(dilations=(2, 2, 1, 1), strides=(2, 2, 2), heads=None):
    """BodyPix in little: stride 8, a dilated convolution, the three heads."""
    network = Network()
    x = network.node("Placeholder", "sub_2")
    x = network.layer(x, "first", 3, 3, 3, 4, stride=strides[0])
    x = network.layer(x, "depthwise", 3, 3, 4, 2, stride=strides[1])
    x = network.layer(x, "second", 3, 3, 8, 6, stride=strides[2])
    x = network.layer(x, "depthwise_dilated", 3, 3, 6, 1, dilations=dilations)
    for head, channels in (heads or HEADS).items():
        network.layer(x, f"{head}_layer", 1, 1, 6, channels, relu=False)
        network.nodes[-1]["name"] = head  # the bias
    network.node("Squeeze", "not needed", x)
    return network


def write(folder, network, *, stored="uint16", shards=2, file="model-stride8.json"):
    """The folder of a network, its nodes in any order."""
    folder.mkdir(exist_ok=True)
    entries, data = [], b""
    for name, numbers in network.tensors.items():
        entry = {"name": name, "shape": list(numbers.shape), "dtype": "float32"}
        if stored in ("uint8", "uint16"):
            entry["quantization"] = {"dtype": stored, "scale": SCALE, "min": LEAST}
            data += numbers.astype(stored).tobytes()
        else:
            entry |= {"quantization": {"dtype": stored}} if stored == "float16" else {}
            data += network.values()[name].astype(stored).tobytes()
        entries.append(entry)
    paths = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
    length = len(data) // shards + 1
    for i, path in enumerate(paths):
        (folder / path).write_bytes(data[i * length : (i + 1) * length])
    nodes = random.Random(0).sample(network.nodes, len(network.nodes))
    content = {
        "format": "graph-model",
        "modelTopology": {"node": nodes},
        "weightsManifest": [{"paths": paths, "weights": entries}],
    }
    (folder / file).write_text(json.dumps(content))
    return folder


def by_loops(network, image):
    """The heads, (h, w, C), from TensorFlow's definition of "SAME", a pixel at a time."""
    values = network.values()

    def convolve(x, kernel, stride, dilation, depthwise):
        height, width = (-(-n // stride) for n in x.shape[:2])
        taps = kernel.shape[0]
        pads = [
            max(0, (m - 1) * stride + (taps - 1) * dilation + 1 - n) // 2
            for m, n in zip((height, width), x.shape[:2], strict=True)
        ]
        channels = kernel.shape[2] * kernel.shape[3] if depthwise else kernel.shape[3]
        out = np.zeros((height, width, channels))
        for r, c in np.ndindex(height, width):
            for i, j in np.ndindex(taps, taps):
                y, at = r * stride + i * dilation - pads[0], c * stride + j * dilation - pads[1]
                if 0 <= y < x.shape[0] and 0 <= at < x.shape[1]:
                    tap = x[y, at]
                    if depthwise:
                        out[r, c] += (tap[:, None] * kernel[i, j]).reshape(-1)
                    else:
                        out[r, c] += tap @ kernel[i, j]
        return out

    def layer(x, name, stride=1, dilation=1):
        kernel, depthwise = values[f"{name}/weights"], name.startswith("depthwise")
        return convolve(x, kernel, stride, dilation, depthwise) + values[f"{name}/bias"]

    x = image.astype(float)
    for name, stride, dilation in (
        *(("first", 2, 1), ("depthwise", 2, 1), ("second", 2, 1)),
        ("depthwise_dilated", 1, 2),
    ):
        x = layer(x, name, stride, dilation).clip(0, 6)
    return {head: layer(x, f"{head}_layer") for head in HEADS}


@pytest.mark.parametrize("size", [(17, 25), (16, 22), (33, 20)])
@pytest.mark.parametrize("dilations", [(2, 2, 1, 1), (1, 2, 2, 1)])
def test_the_numbers_of_loops(size, dilations, tmp_path):
    network = small_bodypix(dilations)
    image = np.random.default_rng(1).uniform(-1, 1, (*size, 3)).astype(np.float32)
    model = GraphModel(write(tmp_path, network) / "model-stride8.json", tuple(HEADS))
    found = model(torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = by_loops(network, image)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert values.std() > 0.1
        np.testing.assert_allclose(found[name][0].permute(1, 2, 0), values, atol=1e-4)


@pytest.mark.parametrize("stored, off", [("float32", 1e-4), ("float16", 2e-2)])
def test_floats(stored, off, tmp_path):
    network, x = small_bodypix(), torch.rand(1, 3, 17, 17)
    found, expected = (
        GraphModel(write(tmp_path / s, network, stored=s) / "model-stride8.json", tuple(HEADS))(x)
        for s in (stored, "uint16")
    )
    for name in HEADS:
        torch.testing.assert_close(found[name], expected[name], atol=off, rtol=off)


def test_the_source(tmp_path):
    network = small_bodypix()
    model = load_bodypix(write(tmp_path, network), longer_side=49)
    pixels = np.random.default_rng(2).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    scores = model(pixels)
    assert scores.kind == "logits" and scores.background == "none" and scores.align_corners
    assert scores.taxonomy == model.taxonomy == get_taxonomy("bodypix")
    # 60 / 90 * 49 = 32.7, and 32 + 1 is next to it.
    assert scores.values.shape == (24, 5, 7) and scores.person_logit.shape == (1, 5, 7)
    image = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].double(),
        (33, 49),
        mode="bilinear",
        align_corners=True,
    )
    expected = by_loops(network, image[0].permute(1, 2, 0).numpy() / 127.5 - 1)
    for found, name in (
        (scores.values, "float_part_heatmaps"),
        (scores.person_logit, "float_segments"),
    ):
        np.testing.assert_allclose(found.permute(1, 2, 0), expected[name], atol=1e-3)

    boxes = torch.tensor([[0.0, 0.0, 50.0, 60.0], [40.0, 10.0, 100.0, 60.0], [3.0, 3.0, 4.0, 4.0]])
    votes = scores.votes(boxes)
    assert votes.shape == (3, 5, 7) and 0 <= votes.min() and votes.max() <= 1
    assert scores.votes(boxes[:0]).shape == (0, 5, 7)
    torch.testing.assert_close(scores.votes(boxes[1:2]), votes[1:2])


def test_votes_are_in_pixels_of_the_image(tmp_path):
    """All pixels of each half vote for one place, but the two halves for places far apart."""
    network = small_bodypix()
    model = load_bodypix(write(tmp_path, network), longer_side=49)
    offsets = torch.zeros(34, 5, 7)
    place = torch.where(torch.arange(7) < 3, 8.0, 40.0)  # x, of the network's 49
    offsets[17:] = place - 8 * torch.arange(7)
    offsets[:17] = 16 - 8 * torch.arange(5)[:, None]
    heads = {
        "float_segments": torch.full((1, 1, 5, 7), 9.0),
        "float_part_heatmaps": torch.zeros(1, 24, 5, 7),
        "float_long_offsets": offsets[None],
    }
    model.network = lambda image: heads
    votes = model(np.zeros((60, 100, 3), np.uint8)).votes(
        torch.tensor([[0.0, 0.0, 40.0, 60.0], [60.0, 0.0, 100.0, 60.0]])
    )
    # The places are 32 / 48 * 99 = 66 pixels of the image apart; a box has an area of 2400.
    far = np.exp(-(66**2) / 2400 / (2 * 0.25**2))
    np.testing.assert_allclose(votes[0, :, :3], 1, atol=1e-5)
    np.testing.assert_allclose(votes[0, :, 3:], far, rtol=1e-3)
    np.testing.assert_allclose(votes[1, :, 3:], 1, atol=1e-5)


def test_pixels_of_a_large_photo_are_averaged(tmp_path):
    model = load_bodypix(write(tmp_path, small_bodypix()), longer_side=49)
    fine = np.zeros((196, 196, 3), np.uint8)
    fine[::2, ::2] = fine[1::2, 1::2] = 254  # squares of one pixel
    grey = np.full_like(fine, 127)
    torch.testing.assert_close(model(fine).values, model(grey).values)
    assert not torch.allclose(model(grey).values, model(grey // 2).values, atol=1e-3)


def test_by_name_where_names_are_known(tmp_path):
    write(tmp_path, small_bodypix())
    load = getattr(parts, "load_part_model", None)
    if load is None:
        pytest.skip("part models cannot be named yet")
    assert load(f"bodypix:{tmp_path}", longer_side=49).longer_side == 49


def test_files(tmp_path):
    folder = write(tmp_path, small_bodypix(), file="model.json")
    assert load_bodypix(folder).network.file == folder / "model.json"
    assert load_bodypix(folder / "model.json").network.file == folder / "model.json"
    write(folder, small_bodypix())
    assert load_bodypix(str(folder)).network.file == folder / "model-stride8.json"


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of BodyPix .*nowhere"):
        load_bodypix(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither model-stride8\.json nor model\.json"):
        load_bodypix(tmp_path)
    write(tmp_path, small_bodypix())
    (tmp_path / "group1-shard2of2.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard2of2\.bin does not exist; model-stride8"):
        load_bodypix(tmp_path)


@pytest.mark.parametrize("change", [-2, 2])
def test_shards_of_another_size(change, tmp_path):
    write(tmp_path, small_bodypix())
    shard = tmp_path / "group1-shard2of2.bin"
    data = shard.read_bytes()
    shard.write_bytes(data[:change] if change < 0 else data + b"00")
    length = sum(p.stat().st_size for p in tmp_path.glob("*.bin"))
    with pytest.raises(ValueError, match=f"{length} bytes, .* listed have {length - change}"):
        load_bodypix(tmp_path)


def test_eight_bits_are_refused(tmp_path):
    write(tmp_path, small_bodypix(), stored="uint8")
    with pytest.raises(ValueError, match=r"8 bits \(quantBytes 1\), .*Take .* 16 bits"):
        load_bodypix(tmp_path)
    write(tmp_path, small_bodypix(), stored="int64")
    content = json.loads((tmp_path / "model-stride8.json").read_text())
    content["weightsManifest"][0]["weights"][0]["dtype"] = "int64"
    (tmp_path / "model-stride8.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'first/weights' is int64, stored as int64; known is"):
        load_bodypix(tmp_path)


def change_node(network, name, **changes):
    next(node for node in network.nodes if node["name"] == name).update(changes)


def test_graphs_that_are_not_known(tmp_path):
    network = small_bodypix()
    change_node(network, "first/relu", op="Relu")
    change_node(network, "second/relu", op="MaxPool")
    with pytest.raises(ValueError, match="not known here: MaxPool, Relu. Known are Conv2D, Dep"):
        load_bodypix(write(tmp_path, network))

    heads = {name: n for name, n in HEADS.items() if name != "float_long_offsets"}
    with pytest.raises(ValueError, match="no node 'float_long_offsets', which is needed"):
        load_bodypix(write(tmp_path, small_bodypix(heads=heads)))

    with pytest.raises(ValueError, match="float_part_heatmaps has 20 channels; BodyPix has 24"):
        load_bodypix(write(tmp_path, small_bodypix(heads=HEADS | {"float_part_heatmaps": 20})))

    network = small_bodypix()
    network.layer("sub_2", "more", 3, 3, 3, 6, padding=b"VALID", relu=False)
    change_node(
        network,
        "float_segments_layer/conv",
        input=["more/conv", "float_segments_layer/weights"],
    )
    with pytest.raises(ValueError, match="more/conv has padding VALID and layout NHWC; SAME"):
        load_bodypix(write(tmp_path, network))

    network = small_bodypix()
    change_node(network, "first/weights", op="Placeholder")
    with pytest.raises(ValueError, match="has 2 inputs; it must have one"):
        load_bodypix(write(tmp_path, network))

    network = small_bodypix()
    del network.tensors["second/bias"]
    with pytest.raises(ValueError, match="lists no weights for its constant 'second/bias'"):
        load_bodypix(write(tmp_path, network))


def test_tensors_that_do_not_fit(tmp_path):
    network = small_bodypix()
    network.tensors["second/weights"] = network.tensors["second/weights"][:, :, :5]
    with pytest.raises(ValueError, match="second/conv: a kernel for 5 channels meets 8 of them"):
        load_bodypix(write(tmp_path, network))
    network = small_bodypix()
    stored = network.tensors["depthwise_dilated/weights"]
    network.tensors["depthwise_dilated/weights"] = stored[:, :, :4]
    with pytest.raises(ValueError, match="depthwise_dilated/conv: a kernel for 4 channels meets 6"):
        load_bodypix(write(tmp_path, network))
    network = small_bodypix()
    network.tensors["first/bias"] = network.tensors["first/bias"][:1]  # would broadcast
    with pytest.raises(ValueError, match=r"first: a bias of shape \(1,\) meets 4 channels"):
        load_bodypix(write(tmp_path, network))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"modelTopology": {"node": [1]}}'])
def test_other_files(text, tmp_path):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json is not (JSON|a graph model)"):
        load_bodypix(tmp_path)


def test_options(tmp_path):
    write(tmp_path, small_bodypix(), file="model.json")
    with pytest.raises(ValueError, match="longer_side is 8; it must be above the stride, 8"):
        load_bodypix(tmp_path, longer_side=8)
    with pytest.raises(ValueError, match="has a stride of 8, not 16"):
        load_bodypix(tmp_path, stride=16)
    model = load_bodypix(tmp_path, longer_side=9)
    assert model(np.zeros((1, 300, 3), np.uint8)).values.shape == (24, 2, 2)
    for pixels in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((3, 9, 9), np.uint8)):
        with pytest.raises(ValueError, match=r"takes \(H, W, 3\) uint8 RGB pixels, not \("):
            model(pixels)


# ------------------------------------------------------------------------------ the real network
def places(value, path=()):
    """Where something stands in a JSON, as paths of keys."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


JUNK = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=5)),
    *(st.just([]), st.just({}), st.just("../model-stride8.json"), st.just("/etc/hostname")),
)


@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_model_with_one_wrong_value(data, tmp_path):
    file = write(tmp_path, small_bodypix()) / "model-stride8.json"
    content = json.loads(file.read_text())
    *path, last = data.draw(st.sampled_from(list(places(content))))
    holder = content
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(JUNK)
    file.write_text(json.dumps(content))
    try:
        model = GraphModel(file, tuple(HEADS))
        model(torch.zeros(1, 3, 16, 16))
    except (ValueError, OSError) as error:
        assert str(tmp_path) in str(error)


@pytest.fixture(scope="module")
def real_model(real_folder):
    return load_bodypix(real_folder / "weights/bodypix_mobilenet075")


@pytest.mark.parametrize("name", ["cihp_2190", "coco128_165", "coco128_113"])
def test_the_logits_of_photographs(name, real_model, real_folder):
    """As another program wrote them, in half precision: to 0.01, corners too."""
    scores = real_model(read_image(real_folder / f"photos/{name}.jpg"))
    with np.load(real_folder / f"q/{name}.npz") as expected:
        for found, key in ((scores.values, "part_logits"), (scores.person_logit, "person_logit")):
            np.testing.assert_allclose(found, expected[key].astype(np.float32), atol=0.01)


def test_stride_16(real_folder):
    model = load_bodypix(real_folder / "weights/bodypix_mobilenet075", stride=16, longer_side=385)
    assert model(np.zeros((300, 400, 3), np.uint8)).values.shape == (24, 19, 25)


@pytest.mark.parametrize("name", ["ochuman_2", "cihp_32190"])
def test_votes_tell_two_people_apart(name, real_model, real_folder):
    """Of the pixels in both boxes, more than four in five go to the right person."""
    truth = read_object_map(real_folder / f"truth/{name}_persons.png")
    places = [np.nonzero(truth == i) for i in (1, 2)]
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in places]
    votes = real_model(read_image(real_folder / f"photos/{name}.jpg")).votes(
        torch.tensor(boxes, dtype=torch.float32)
    )
    votes = F.interpolate(votes[None], truth.shape, mode="bilinear", align_corners=True)[0]
    left, top = np.max(boxes, axis=0)[:2]
    right, bottom = np.min(boxes, axis=0)[2:]
    both = np.zeros(truth.shape, bool)
    both[top:bottom, left:right] = True
    contested = both & (truth > 0)
    assert contested.sum() > 10000
    assert (votes.argmax(0).numpy() + 1 == truth)[contested].mean() > 0.8
