"""Object detectors of transformers (DETR, RT-DETR, YOLOS, ...), from the hub or a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ....extras import require
from ...inputs import Detections, Source
from ...resources import choose_device, first_line, from_pretrained
from ..classes import class_table
from ..reading import read_detections

__all__ = ["load"]


class _TransformersDetector(Source):
    def __init__(self, model, processor, table, device, least_score) -> None:
        self.model, self.processor = model.eval().to(device), processor
        self.table, self.device, self.least_score = table, device, least_score

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> Detections:
        size = pixels.shape[:2]
        inputs = self.processor(images=Image.fromarray(pixels), return_tensors="pt")
        outputs = self.model(**inputs.to(self.device))
        found = self.processor.post_process_object_detection(
            outputs, threshold=self.least_score, target_sizes=[size]
        )[0]
        found = read_detections(found, size=size, class_names=self.table)
        return found.take(found.scores >= self.least_score)


def load(
    name: str, *, least_score: float, class_names=None, device: str | None = None, **options
) -> Source:
    """``NAME`` of the hub, or a folder of ``save_pretrained``, model and image processor.

    Args:
        name: e.g. ``PekingU/rtdetr_r18vd``, or the folder.
        least_score: detections below it are left out.
        class_names: default: the configuration's ``id2label``.
        device: default: the GPU, if there is one.
        **options: for both ``from_pretrained``, such as ``revision`` or ``local_files_only``.
    """
    transformers = require("transformers", "models")
    try:
        processor = from_pretrained(transformers.AutoImageProcessor, name, **options)
        model = from_pretrained(transformers.AutoModelForObjectDetection, name, **options)
    except ValueError as error:
        raise ValueError(f"{name} is not an object detector: {first_line(error)}") from error
    if not hasattr(processor, "post_process_object_detection"):
        raise ValueError(
            f"{name}: its {type(processor).__name__} has no post_process_object_detection."
        )
    table = class_table(model.config.id2label if class_names is None else class_names)
    return _TransformersDetector(model, processor, table, choose_device(device), least_score)
