"""Object detectors of transformers (DETR, RT-DETR, YOLOS, ...), from the hub or a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ....extras import require
from ...inputs import Detections, Source
from ..classes import class_table
from ..reading import read_detections
from .common import choose_device, one_line, scored_above

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
        return scored_above(found, self.least_score)


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
    folder = Path(name).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~"))):
        raise FileNotFoundError(f"The folder of a model {folder} does not exist.")
    name = str(folder) if folder.is_dir() else name
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, **options)
        model = transformers.AutoModelForObjectDetection.from_pretrained(name, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"transformers cannot load {name} ({one_line(error)}). Without a connection to the "
            "hub, give a folder, hf:FOLDER, that model.save_pretrained(FOLDER) and "
            "processor.save_pretrained(FOLDER) have written."
        ) from error
    except ValueError as error:
        raise ValueError(f"{name} is not an object detector: {one_line(error)}") from error
    if not hasattr(processor, "post_process_object_detection"):
        raise ValueError(
            f"{name}: its {type(processor).__name__} has no post_process_object_detection."
        )
    table = class_table(model.config.id2label if class_names is None else class_names)
    return _TransformersDetector(model, processor, table, choose_device(device), least_score)
