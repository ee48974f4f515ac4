"""Results by their attributes: of plain classes, and of the library where it is installed.

The network sees the image scaled to fit into its input and in the middle of it; masks are those of
the input. The truth here is put into an input by resizing and padding, and must come back.
"""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from instance_crf.own_models.boxes import read_detections

NAMES = {0: "person", 1: "bicycle", 16: "dog"}


def truth(size):
    """(2, H, W) bool: an ellipse, and all but a border."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    ellipse = ((x / width - 0.4) / 0.25) ** 2 + ((y / height - 0.5) / 0.4) ** 2 < 1
    frame = (x > width * 0.05) & (x < width * 0.9) & (y > height * 0.1) & (y < height * 0.95)
    return np.stack([ellipse, frame])


def into_input(masks, input_size):
    """(D, h, w) float32 masks of the network's input, the image in the middle of it."""
    size = masks.shape[1:]
    gain = min(input_size[0] / size[0], input_size[1] / size[1])
    height, width = round(size[0] * gain), round(size[1] * gain)
    down, right = input_size[0] - height, input_size[1] - width
    border = ((down // 2, down - down // 2), (right // 2, right - right // 2))
    scaled = [cv2.resize(mask.astype(np.float32), (width, height)) > 0.5 for mask in masks]
    return torch.tensor(np.stack([np.pad(mask, border) for mask in scaled])).float()


def results(size, **fields):
    height, width = size
    boxes = torch.tensor([[0.1, 0.1, 0.7, 0.9], [0.05, 0.1, 0.9, 0.95]])
    boxes = boxes * torch.tensor([width, height, width, height])
    boxes = SimpleNamespace(xyxy=boxes, conf=torch.tensor([0.9, 0.25]), cls=torch.tensor([0.0, 16]))
    empty = {"masks": None, "keypoints": None, "obb": None}
    return SimpleNamespace(
        **{"boxes": boxes, "names": NAMES, "orig_shape": size, **empty, **fields}
    )


def iou(a, b):
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))


def test_boxes():
    given = results((60, 80))
    for value in (given, [given]):
        found = read_detections(value, size=(60, 80))
        assert torch.equal(found.boxes, given.boxes.xyxy)
        assert found.scores.tolist() == [0.9, 0.25] or torch.equal(found.scores, given.boxes.conf)
        assert found.class_names == ("person", "dog")
        assert found.known_classes == ("person", "bicycle", "dog")
        assert found.masks is None and found.keypoints is None
    own = read_detections(given, size=(60, 80), class_names={0: "human", 16: "wolf"})
    assert own.class_names == ("human", "wolf")


@pytest.mark.parametrize(
    "size, input_size",
    [
        ((480, 640), (640, 640)),  # padded above and below
        ((640, 427), (640, 640)),  # an odd number of columns
        ((333, 500), (448, 640)),  # padded to a multiple of 32
        ((720, 1280), (384, 640)),
        ((97, 61), (640, 416)),  # scaled up
        ((480, 640), (480, 640)),  # the very size
        ((480, 640), (160, 160)),  # a quarter of the input
    ],
)
def test_masks_come_to_the_image(size, input_size):
    masks = truth(size)
    letterboxed = into_input(masks, input_size)
    assert letterboxed.shape == (2, *input_size)
    found = read_detections(results(size, masks=SimpleNamespace(data=letterboxed)), size=size)
    assert found.masks.dtype == torch.bool and found.masks.shape == (2, *size)
    least = 0.95 if min(input_size) < min(size) / 2 else 0.98
    assert (iou(found.masks.numpy(), masks) > least).all(), iou(found.masks.numpy(), masks)


def test_masks_as_the_library_supervision_brings_them():
    sv = pytest.importorskip("supervision")
    size, input_size = (333, 500), (448, 640)
    masks = SimpleNamespace(data=into_input(truth(size), input_size))
    given = results(size, masks=masks)
    given.boxes.id = None
    given.orig_img = np.zeros((*size, 3), dtype=np.uint8)
    theirs = sv.Detections.from_ultralytics(given).mask
    ours = read_detections(given, size=size).masks.numpy()
    assert theirs.shape == ours.shape and (iou(ours, theirs) > 0.98).all()


def test_polygons():
    polygons = [
        np.array([[10.0, 10], [50, 10], [50, 40], [10, 40]], dtype=np.float32),
        np.zeros((0, 2), dtype=np.float32),
    ]
    masks = SimpleNamespace(data=None, xy=polygons)
    found = read_detections(results((60, 80), masks=masks), size=(60, 80))
    expected = np.zeros((60, 80), dtype=bool)
    expected[10:40, 10:50] = True
    assert found.masks.dtype == torch.bool and found.masks[1].sum() == 0
    assert iou(found.masks[:1].numpy(), expected[None]) > 0.9


def test_keypoints():
    points = torch.rand(2, 17, 3)
    found = read_detections(
        results((60, 80), keypoints=SimpleNamespace(data=points)), size=(60, 80)
    )
    assert torch.equal(found.keypoints, points)


def test_nothing_found():
    boxes = SimpleNamespace(
        xyxy=torch.zeros(0, 4), conf=torch.zeros(0), cls=torch.zeros(0)
    )  # fmt: skip
    keypoints = SimpleNamespace(data=torch.zeros(0))
    found = read_detections(results((60, 80), boxes=boxes, keypoints=keypoints), size=(60, 80))
    assert len(found) == 0 and found.known_classes == ("person", "bicycle", "dog")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"orig_shape": (80, 60)}, "image of 60x80 pixels, but the image is 80x60"),
        ({"boxes": None}, "no boxes"),
        ({"boxes": None, "obb": object()}, "turned boxes"),
        ({"masks": SimpleNamespace(data=torch.zeros(3, 64, 64))}, "2 boxes, but 3 masks"),
        ({"names": {0: "person"}}, "label 16"),
    ],
)
def test_what_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        read_detections(results((60, 80), **fields), size=(60, 80))


def test_results_of_the_library():
    library = pytest.importorskip("ultralytics.engine.results")
    size, input_size = (333, 500), (448, 640)
    masks = truth(size)
    boxes = torch.tensor([[50.0, 33, 350, 300, 0.9, 0], [25, 33, 450, 316, 0.25, 16]])
    points = torch.rand(2, 17, 3)
    given = library.Results(
        np.zeros((*size, 3), dtype=np.uint8), "photo.jpg", NAMES,
        boxes=boxes, masks=into_input(masks, input_size), keypoints=points,
    )  # fmt: skip
    found = read_detections([given], size=size)
    assert torch.equal(found.boxes, boxes[:, :4]) and torch.equal(found.scores, boxes[:, 4])
    assert found.class_names == ("person", "dog")
    assert (iou(found.masks.numpy(), masks) > 0.98).all()
    assert torch.equal(found.keypoints[..., :2], points[..., :2])
