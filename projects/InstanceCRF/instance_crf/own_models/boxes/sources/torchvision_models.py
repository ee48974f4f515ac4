"""Detectors of torchvision, public or one's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ....extras import require
from ...inputs import Detections, Source
from ..classes import class_table
from ..reading import read_detections
from .common import choose_device, existing_file, one_line, scored_above

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
        return scored_above(found, self.least_score)


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
        path = existing_file(file, "The file of weights")
        table = class_table(weights.meta["categories"]) if table is None else table
        num_classes = num_classes or max(table) + 1
        model = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, **options
        )
        _load_weights(model, path, num_classes)
    else:
        if num_classes is not None:
            raise ValueError(
                f"num_classes is for weights of one's own: torchvision:{name}:WEIGHTS_FILE."
            )
        table = class_table(weights.meta["categories"]) if table is None else table
        model = _public(models, name, weights, options)
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


def _public(models, name: str, weights, options: dict):
    try:
        return models.get_model(name, weights=weights, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"The weights of torchvision's {name} are neither on this machine nor could they be "
            f"downloaded from {weights.url} ({one_line(error)}). Download the file elsewhere and "
            f"give it: torchvision:{name}:FILE."
        ) from error


def _load_weights(model, path: Path, num_classes: int) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model", content) if isinstance(content, Mapping) else content
        if not isinstance(state, Mapping):
            raise ValueError(f"it holds a {type(state).__name__}, not a state dict")
        model.load_state_dict(state)
    except Exception as error:
        lines = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not hold the weights of this model with {num_classes} classes, the "
            "background among them (num_classes= or class_names= say how many): "
            f"{lines[:400]}"
        ) from error
