"""YOLOX in ONNX: a network of known outputs, and the public one on photographs."""

import json
from math import log

import numpy as np
import pytest
import torch

from instance_crf.data.image_io import read_image
from instance_crf.own_models.boxes import load_detector, select_classes
from instance_crf.own_models.boxes.sources.yolox import decode, letterbox
from instance_crf.taxonomies import get_taxonomy

onnx = pytest.importorskip("onnx")
CELLS = 8 * 8 + 4 * 4 + 2 * 2  # of an input of 64 x 64


def write_network(path, output, input_shape=(1, 3, 64, 64), shape=None):
    """A network that gives ``output`` whatever it sees."""
    from onnx import TensorProto, helper, numpy_helper

    output = output.astype(np.float32)
    inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)
    outputs = helper.make_tensor_value_info("output", TensorProto.FLOAT, shape or output.shape)
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "known"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(output, "known"),
        numpy_helper.from_array(np.zeros((), dtype=np.float32), "zero"),
    ]
    graph = helper.make_graph(nodes, "known", [inputs], [outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def raw(classes=3):
    """Four cells with something in them, of strides 8, 8, 16 and 32; scores by hand."""
    output = np.zeros((1, CELLS, 5 + classes))
    # Stride 8, row 2, column 3: centre ((3 + 0.5) * 8, (2 + 0.25) * 8) = (28, 18), 16 x 24 pixels.
    output[0, 2 * 8 + 3] = [0.5, 0.25, log(2), log(3), 0.9, 0.8, 0.1, 0.0]
    # Its neighbour says nearly the same, less surely: IoU 14 / 18 of the widths.
    output[0, 2 * 8 + 4] = [-0.25, 0.25, log(2), log(3), 0.5, 0.6, 0.1, 0.0]
    # Stride 16, row 1, column 2: centre (32, 16), 32 x 16; another class.
    output[0, 64 + 1 * 4 + 2] = [0, 0, log(2), 0, 1.0, 0.2, 0.7, 0.0]
    # Stride 32, row 1, column 1: centre (48, 48), 64 x 64, too large for the picture.
    output[0, 64 + 16 + 3] = [0.5, 0.5, log(2), log(2), 0.3, 0.4, 0.1, 0.0]
    return output


def test_boxes_and_scores_by_hand(tmp_path):
    path = write_network(tmp_path / "a.onnx", raw())
    source = load_detector(f"onnx:{path}", class_names=["person", "dog", "cat"])
    found = source(np.zeros((64, 64, 3), dtype=np.uint8), None)
    assert found.class_names == ("person", "dog", "person")
    expected = [[20, 6, 36, 30], [16, 8, 48, 24], [16, 16, 64, 64]]
    assert torch.allclose(found.boxes, torch.tensor(expected).float(), atol=1e-4)
    assert found.scores.tolist() == pytest.approx([0.72, 0.7, 0.12])
    assert found.known_classes == ("person", "dog", "cat")

    # A photo twice as large, and not square: 64 / 128, at the upper left.
    found = source(np.zeros((100, 128, 3), dtype=np.uint8))
    expected = [[40, 12, 72, 60], [32, 16, 96, 48], [32, 32, 128, 100]]
    assert torch.allclose(found.boxes, torch.tensor(expected).float(), atol=1e-4)

    sure = load_detector(f"onnx:{path}", least_score=0.5, class_names=["person", "dog", "cat"])
    assert len(sure(np.zeros((64, 64, 3), dtype=np.uint8))) == 2


def test_neighbours_stay_if_they_overlap_less(tmp_path):
    output = raw()
    output[0, 2 * 8 + 4, 0] = 0  # centres 4 pixels apart: IoU 12 / 20
    path = write_network(tmp_path / "a.onnx", output)
    source = load_detector(f"onnx:{path}", class_names=["person", "dog", "cat"])
    assert len(source(np.zeros((64, 64, 3), dtype=np.uint8))) == 4


def test_letterbox_by_hand():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    inputs, scale = letterbox(pixels, (64, 64))
    assert scale == 1 and inputs.shape == (3, 64, 64) and inputs.dtype == np.float32
    assert (inputs[:, :40] == pixels[..., ::-1].transpose(2, 0, 1)).all()
    assert (inputs[:, 40:] == 114).all()
    inputs, scale = letterbox(np.full((33, 100, 3), 7, dtype=np.uint8), (64, 64))
    assert scale == 0.64 and (inputs[:, :21] == 7).all() and (inputs[:, 21:] == 114).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (10000, 50)])
def test_photos_of_odd_shapes(size, tmp_path):
    path = write_network(tmp_path / "a.onnx", raw())
    source = load_detector(f"onnx:{path}", class_names=["person", "dog", "cat"])
    found = source(np.zeros((*size, 3), dtype=np.uint8))
    limit = torch.tensor([*size[::-1], *size[::-1]])
    assert (found.boxes >= 0).all() and (found.boxes <= limit).all()


def test_input_of_any_size(tmp_path):
    path = write_network(tmp_path / "a.onnx", raw(), (1, 3, "h", "w"), (1, "a", 8))
    with pytest.raises(ValueError, match=r"leaves the size of its input open: give input_size"):
        load_detector(f"onnx:{path}", class_names=["person", "dog", "cat"])
    source = load_detector(
        f"onnx:{path}", class_names=["person", "dog", "cat"], input_size=(64, 64)
    )
    assert len(source(np.zeros((64, 64, 3), dtype=np.uint8))) == 3


def test_what_is_no_yolox(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"network .*none\.onnx does not exist"):
        load_detector(f"onnx:{tmp_path / 'none.onnx'}")
    (tmp_path / "text.onnx").write_text("a network")
    with pytest.raises(ValueError, match=r"text\.onnx: ONNX Runtime refuses it"):
        load_detector(f"onnx:{tmp_path / 'text.onnx'}")
    path = write_network(tmp_path / "v8.onnx", np.zeros((1, 84, 84)))
    with pytest.raises(ValueError, match="has 79 classes, but COCO's table, the default, has 80"):
        load_detector(f"onnx:{path}")
    path = write_network(tmp_path / "v8.onnx", np.zeros((1, 7, 1029)))
    with pytest.raises(ValueError, match=r"gives \(1, 7, 1029\) .*\(1, 84, 5 \+ classes\)"):
        load_detector(f"onnx:{path}")
    path = write_network(tmp_path / "nhwc.onnx", raw(), (1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"the input \[1, 64, 64, 3\]"):
        load_detector(f"onnx:{path}")
    path = write_network(tmp_path / "a.onnx", raw())
    with pytest.raises(ValueError, match="has 3 classes, but class_names has 2"):
        load_detector(f"onnx:{path}", class_names=["person", "dog"])
    with pytest.raises(ValueError, match="takes 64x64 only"):
        load_detector(f"onnx:{path}", class_names=["a", "b", "c"], input_size=(32, 32))


def test_outputs_that_are_decoded_already():
    output = raw()[0]
    output[0, 2:4] = [120, 80]
    with pytest.raises(ValueError, match="sizes up to 120.*decodes its boxes itself"):
        decode(output.astype(np.float32), (64, 64))


def test_the_public_network_on_photographs(real_folder):
    """Its detections of people were kept, rounded to 0.01 pixels and 0.0001."""
    known = json.loads((real_folder / "boxes/yolox_nano.json").read_text())
    source = load_detector(f"onnx:{real_folder / 'weights/yolox_nano_416.onnx'}")
    assert len(source.table) == 80 and source.table[0] == "person" and source.table[79] == (
        "toothbrush"
    )  # fmt: skip
    for name in sorted(known)[::4]:
        photo = read_image(real_folder / f"photos/{name}.jpg")
        found, _ = select_classes(source(photo), get_taxonomy("cihp"))
        boxes = torch.tensor(known[name]["boxes"]).reshape(-1, 4)
        assert len(found) == len(boxes), name
        order = found.scores.argsort(descending=True)
        expected = torch.tensor(known[name]["scores"]).argsort(descending=True)
        assert torch.allclose(found.boxes[order], boxes[expected], atol=0.02), name
        scores = torch.tensor(known[name]["scores"])
        assert torch.allclose(found.scores[order], scores[expected], atol=2e-4), name
