"""Detectors of torchvision, public or one's own."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import torch

from ....extras import require
from ...inputs import Detections, Source
from ...resources import choose_device, fill, public_torchvision, read_state_dict
from ..classes import class_table
from ..reading import read_detections

__all__ = ["load"]


class _TorchvisionDetector(Source):
    def __init__(self, model, transform, table, device, least_score) -> None:
        self.model = model.eval().to(device)
        self.transform, self.table, self.device = transform, table, device
        self.least_score = least_score

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> Detections:
        image = self.transform(torch.tensor(pixels).permute(2, 0, 1)).to(self.device)
        output = self.model([image])[0]
        found = read_detections(output, size=pixels.shape[:2], class_names=self.table)
        return found.take(found.scores >= self.least_score)


def load(
    name: str,
    *,
    least_score: float,
    class_names=None,
    num_classes: int | None = None,
    device: str | None = None,
    **options,
) -> Source:
    """``NAME`` with torchvision's weights, or ``NAME:WEIGHTS_FILE`` with one's own.

    Args:
        name: of :func:`torchvision.models.detection`'s models, e.g. ``fasterrcnn_resnet50_fpn_v2``;
            the file holds a state dict, or a checkpoint with one under ``model``.
        least_score: detections below it are left out.
        class_names: of one's own weights; 0 is the background: ``["__background__", "person"]`` or
            ``{1: "person"}``. Default: the table of torchvision's weights.
        num_classes: of one's own weights, with the background; default: what class_names say.
        device: default: the GPU, if there is one.
        **options: for the model, such as ``min_size``.
    """
    models = require("torchvision.models", "models")
    name, _, file = name.partition(":")
    known = models.list_models(module=models.detection)
    if name not in known:
        raise ValueError(f"torchvision has no detector {name!r}; it has {', '.join(known)}.")
    weights = models.get_model_weights(name).DEFAULT
    table = class_table(class_names)
    if file:
        state = read_state_dict(file)
        table = class_table(weights.meta["categories"]) if table is None else table
        num_classes = num_classes or max(table) + 1
        model = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, **options
        )
        fill(
            model,
            state,
            f"{file} does not hold the weights of this model with {num_classes} classes, the "
            "background among them (num_classes= or class_names= say how many)",
        )
    else:
        if num_classes is not None:
            raise ValueError(
                f"num_classes is for weights of one's own: torchvision:{name}:WEIGHTS_FILE."
            )
        table = class_table(weights.meta["categories"]) if table is None else table
        model = public_torchvision(name, weights, options)
    _check_options(models.get_model_builder(name), type(model), options)
    # The models leave out low scores by themselves, some of them all below 0.2.
    getattr(model, "roi_heads", model).score_thresh = least_score
    return _TorchvisionDetector(
        model, weights.transforms(), table, choose_device(device), least_score
    )


def _check_options(builder, model_class, options: dict) -> None:
    """TypeError for what torchvision would swallow."""
    known = {*inspect.signature(builder).parameters, *inspect.signature(model_class).parameters}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise TypeError(f"{model_class.__name__} has no {unknown[0]!r}")
