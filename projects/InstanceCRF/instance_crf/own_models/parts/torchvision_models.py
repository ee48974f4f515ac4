"""Segmentation models of torchvision, with a state dict of one's own.

Letters: C channels, H, W size of the image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...extras import require
from ...taxonomies import PartTaxonomy, taxonomy_from_id2label
from ..inputs import PartScores, Source
from ..resources import choose_device, fill, public_torchvision, read_state_dict
from .outputs import read_output
from .read import checked_scores

__all__ = ["TorchvisionParts"]

_CLASSIFIERS = ("classifier.4.weight", "classifier.low_classifier.weight")
"""Whose rows are the channels: of FCN and DeepLabV3, of LR-ASPP."""


class TorchvisionParts(Source):
    """A model of ``torchvision.models.segmentation``.

    Args:
        spec: ``NAME`` with torchvision's own weights, or ``NAME:WEIGHTS_FILE``, a saved state dict
            (or a checkpoint that has it as ``model``).
        taxonomy: of the channels; parse's ``parts`` otherwise. Of torchvision's own weights, by
            their categories.
        background: "first" (default) or "last".
        size: the shorter side that photos are resized to; default: that of torchvision's weights.
        device: for the model.

    Raises:
        ImportError: torchvision is not installed.
        FileNotFoundError: no such file of weights.
        ValueError: an unknown model, weights that are not its, a ``size`` that is none.
    """

    def __init__(
        self,
        spec: str,
        *,
        taxonomy: PartTaxonomy | None = None,
        background: str | None = None,
        size: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        torchvision = require("torchvision", "models")
        name, _, file = spec.partition(":")
        known = torchvision.models.list_models(torchvision.models.segmentation)
        if name not in known:
            raise ValueError(
                f"torchvision has no segmentation model {name!r}; it has {', '.join(known)}."
            )
        if size is not None and not (isinstance(size, int) and size > 0):
            raise ValueError(f"size is {size!r}; it must be a whole number of pixels, at least 1.")
        weights = torchvision.models.get_model_weights(name).DEFAULT
        self._spec, self._device, self.taxonomy = spec, choose_device(device), taxonomy
        if file:
            self._model = _with_weights(torchvision, name, file)
        else:
            self._model = public_torchvision(name, weights, {})
            self.taxonomy = taxonomy or _by_categories(weights.meta["categories"])
        self._model.eval().to(self._device)
        self._transform = weights.transforms(**({"resize_size": size} if size else {}))
        self._background = background

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        output = self._model(self._transform(image).to(self._device)[None])
        return checked_scores(
            read_output(output, "logits"),
            background=self._background,
            taxonomy=self.taxonomy,
            source=f"torchvision:{self._spec}",
        )


def _with_weights(torchvision, name: str, file: str):
    state = read_state_dict(file)
    classifiers = [key for key in _CLASSIFIERS if key in state]
    if not classifiers:
        raise ValueError(
            f"{file} is no state dict of {name}: it has none of {', '.join(_CLASSIFIERS)}. Save "
            "model.state_dict()."
        )
    options = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in state) else {}
    model = torchvision.models.get_model(
        name,
        weights=None,
        weights_backbone=None,
        num_classes=len(state[classifiers[0]]),
        **options,
    )
    fill(model, state, f"{file} is no state dict of {name}")
    return model


def _by_categories(categories: list[str]) -> PartTaxonomy:
    """Of torchvision's own weights, whose first is the background."""
    return taxonomy_from_id2label(dict(enumerate(categories)), background="first")[0]
