"""YOLOX networks in ONNX, as its own tool exports them: raw outputs, not decoded.

The photo is scaled to fit into the input, put at the upper left, and the rest filled; channels are
blue, green, red, 0..255. Letters: A cells of all strides; C classes; H, W size of the image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ....extras import require
from ...inputs import Detections, Source
from ...resources import existing_file, open_onnx
from ..checks import check_detections
from ..classes import class_table, name_classes

__all__ = ["decode", "letterbox", "load"]

_STRIDES = (8, 16, 32)
_FILL = 114
_NMS_IOU = 0.65
_LARGEST_LOG = 10.0  # no side is e^10 strides long: larger values are pixels


class _Yolox(Source):
    def __init__(self, session, input_size, table, least_score) -> None:
        self.session, self.input_size = session, input_size
        self.table, self.least_score = table, least_score

    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> Detections:
        size = pixels.shape[:2]
        inputs, scale = letterbox(pixels, self.input_size)
        output = self.session.run(None, {self.session.get_inputs()[0].name: inputs[None]})[0]
        boxes, class_scores = decode(np.asarray(output[0], dtype=np.float32), self.input_size)
        scores, labels = torch.from_numpy(class_scores).max(1)
        boxes = torch.from_numpy(boxes) / scale
        kept = (scores >= self.least_score).nonzero().squeeze(1)
        nms = require("torchvision.ops", "models").batched_nms
        kept = kept[nms(boxes[kept], scores[kept], labels[kept], _NMS_IOU)]
        boxes = boxes[kept]
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size[1])
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size[0])
        names, known = name_classes(labels[kept], len(kept), self.table)
        found = Detections(boxes=boxes, scores=scores[kept], class_names=names, known_classes=known)
        return check_detections(found, size)


def load(name: str, *, least_score: float, class_names=None, input_size=None) -> Source:
    """``FILE``, the network.

    Args:
        name: the .onnx file; one input (1, 3, h, w), one output (1, A, 5 + C).
        least_score: detections below it are left out; the score is that of the object times that
            of its class.
        class_names: C names; default: COCO's, for C = 80.
        input_size: (h, w) of the input, where the file leaves it open.

    Raises:
        ValueError: not such a network; class_names of another number.
        FileNotFoundError: no such file.
    """
    path = existing_file(name, "The network")
    session = open_onnx(path, path)
    input_size = _input_size(session, input_size, path)
    count = _class_count(session, input_size, path)
    table = class_table(class_names) or _coco_table()
    if len(table) != count:
        given = "class_names has" if class_names is not None else "COCO's table, the default, has"
        raise ValueError(
            f"{path} has {count} classes, but {given} {len(table)}; give its own as class_names=."
        )
    return _Yolox(session, input_size, table, least_score)


def letterbox(pixels: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """(H, W, 3) uint8 RGB -> the network's input (3, h, w) float32 BGR, and its scale."""
    resize = require("cv2", "models").resize  # other ways of scaling give other detections
    height, width = pixels.shape[:2]
    scale = min(input_size[0] / height, input_size[1] / width)
    inner = max(1, int(height * scale)), max(1, int(width * scale))
    canvas = np.full((*input_size, 3), _FILL, dtype=np.float32)
    canvas[: inner[0], : inner[1]] = resize(pixels, inner[::-1])[..., ::-1]  # bilinear
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)), scale


def decode(output: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of the raw output.

    Args:
        output: (A, 5 + C) x, y in cells from the cell's corner, logarithms of width and height in
            cells, the object's score, and the classes'; strides 8, 16, 32, row by row.
        input_size: (h, w) of the input.

    Returns:
        (A, 4) float32 x1 y1 x2 y2 in pixels of the input, and (A, C) scores.

    Raises:
        ValueError: the sizes are pixels already.
    """
    if output[:, 2:4].max(initial=0) > _LARGEST_LOG:
        raise ValueError(
            f"The network's output has sizes up to {output[:, 2:4].max():g}, where logarithms are "
            "expected: it decodes its boxes itself. Export it without --decode_in_inference."
        )
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: input_size[0] // stride, : input_size[1] // stride]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((rows.size, 1), stride, dtype=np.float32))
    cells, strides = np.concatenate(cells), np.concatenate(strides)
    centre = (output[:, :2] + cells) * strides
    half = np.exp(output[:, 2:4]) * strides / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    return boxes, output[:, 4:5] * output[:, 5:]


def _input_size(session, given, path: Path) -> tuple[int, int]:
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != 3 or len(session.get_inputs()) != 1:
        raise ValueError(f"{path} has the input {shape}; a YOLOX network has (1, 3, h, w).")
    height, width = shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        if given is not None and tuple(given) != (height, width):
            raise ValueError(f"input_size is {given}, but {path} takes {height}x{width} only.")
        return height, width
    if given is None:
        raise ValueError(f"{path} leaves the size of its input open: give input_size=(h, w).")
    return int(given[0]), int(given[1])


def _class_count(session, input_size: tuple[int, int], path: Path) -> int:
    """C, by the output's shape; where the file leaves that open, by a run."""
    cells = sum((input_size[0] // stride) * (input_size[1] // stride) for stride in _STRIDES)
    shape = tuple(session.get_outputs()[0].shape)
    if not all(isinstance(n, int) for n in shape):
        nothing = np.full((1, 3, *input_size), _FILL, dtype=np.float32)
        shape = session.run(None, {session.get_inputs()[0].name: nothing})[0].shape
    if len(shape) != 3 or shape[1] != cells or shape[2] < 6:
        raise ValueError(
            f"{path} gives {shape} for an input of {input_size[0]}x{input_size[1]}; a YOLOX "
            f"network gives (1, {cells}, 5 + classes). Other networks: run them, and give parse "
            "what they find."
        )
    return shape[2] - 5


def _coco_table() -> dict[int, str]:
    """COCO's 80 classes: torchvision's table without the numbers that mean nothing."""
    detection = require("torchvision.models.detection", "models")
    names = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return dict(enumerate(name for name in names if name not in ("__background__", "N/A")))
