"""Part models of transformers, from the hub or a folder.

Letters: C channels, H, W size of the image, H', W' size of the model's input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...extras import require
from ...taxonomies import PartTaxonomy, named_background, taxonomy_from_id2label
from ..inputs import PartScores, Source
from ..resources import choose_device, from_pretrained
from .outputs import read_output
from .read import checked_scores

__all__ = ["HfParts"]


class HfParts(Source):
    """A semantic segmentation model, or a mask classifier, of transformers.

    Args:
        name: on the hub, or a folder that ``save_pretrained`` wrote model and processor to.
        taxonomy: of the model's labels; default: by its ``config.id2label``.
        background: "first" or "last"; default: by its ``config.id2label``.
        align_corners: of its logits; no model of transformers is known to need it.
        device: for the model.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: no such model, or it has no image processor.
        ValueError: a model that does not segment, or that wants more than an image.
    """

    def __init__(
        self,
        name: str,
        *,
        taxonomy: PartTaxonomy | None = None,
        background: str | None = None,
        align_corners: bool | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        transformers = require("transformers", "models")
        self._name = name
        self._model = _load(transformers, name).eval().to(choose_device(device))
        self._processor = from_pretrained(transformers.AutoImageProcessor, name)
        labels = self._model.config.id2label
        if taxonomy is None:
            taxonomy, background = _by_labels(name, labels, background)
        self.taxonomy = taxonomy
        background = background or named_background([labels[i] for i in sorted(labels)])
        self._said = {"background": background, "align_corners": align_corners}

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores:
        options = {}
        if getattr(self._processor, "do_center_crop", False):
            options["do_center_crop"] = False  # its scores would not cover the image
        inputs = self._processor(Image.fromarray(pixels), return_tensors="pt", **options)
        mask = inputs.get("pixel_mask")
        if getattr(self._processor, "do_pad", False) and mask is None:
            raise ValueError(
                f"hf:{self._name}: its processor pads images and does not say where. Call model "
                "and processor in a function of your own, take the padding off, and pass that."
            )
        output = self._model(**inputs.to(self._model.device))
        given = read_output(output, "logits")
        if given is None:
            raise ValueError(f"hf:{self._name} gives {type(output).__name__}, which has no logits.")
        if mask is not None and not bool(mask.all()):
            given.values = _without_padding(given.values, mask[0])
        return checked_scores(
            given, **self._said, taxonomy=self.taxonomy, source=f"hf:{self._name}"
        )


def _load(transformers, name: str):
    config = from_pretrained(transformers.AutoConfig, name)
    if config.model_type == "oneformer":
        raise ValueError(
            f"hf:{name} is a OneFormer, which wants a task beside the image: call model and "
            "processor in a function of your own that returns the model's output."
        )
    for group in ("Semantic", "Universal"):
        mapping = getattr(transformers, f"MODEL_FOR_{group.upper()}_SEGMENTATION_MAPPING")
        if type(config) in mapping:
            return from_pretrained(getattr(transformers, f"AutoModelFor{group}Segmentation"), name)
    raise ValueError(
        f"hf:{name} is a {config.model_type}, which transformers has no semantic or universal "
        "segmentation of."
    )


def _by_labels(name: str, id2label: dict[int, str], background: str | None):
    """The taxonomy, and where the background is."""
    taxonomy, background = taxonomy_from_id2label(id2label, background=background)
    if background == "none":
        names = ", ".join(taxonomy.part_names)
        raise ValueError(
            f"hf:{name}: none of its labels is called background ({names}). Say where it is, "
            "background='first' or 'last', and name the parts: taxonomy=."
        )
    return taxonomy, background


def _without_padding(values: Tensor, mask: Tensor) -> Tensor:
    """(C, rows, columns) of the part of the input that is image; the padding is below and right.

    The edge of the image lies between two samples of the output, so this is at the input's size.

    Args:
        values: (1, C, h, w) or (C, h, w).
        mask: (H', W'), 1 where there is image.
    """
    rows, columns = int(mask.any(1).sum()), int(mask.any(0).sum())
    values = values[None] if values.dim() == 3 else values
    values = F.interpolate(values, size=tuple(mask.shape), mode="bilinear", align_corners=False)
    return values[0, :, :rows, :columns]
