"""Images in, part instances out, without knowing a config's keys.

Legend of shapes: H, W image size in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from . import register
from .checkpoint import load_weights, part_names_of
from .own_models.images import is_image, read_picture
from .taxonomies.schema import PartTaxonomy

__all__ = ["PartInstancePredictor"]

ImageLike = np.ndarray | Image.Image | str | os.PathLike


class PartInstancePredictor:
    """A trained model as a function of images.

    ``PartInstancePredictor(cfg)`` calls :func:`instance_crf.register`, builds the model, loads
    ``cfg.MODEL.WEIGHTS`` and takes the sizes and the channel order from ``cfg.INPUT``; with
    keywords, any built model will do::

        instance_crf.register()  # load_config looks data sets up
        cfg = load_config("config.yaml", ["MODEL.WEIGHTS", "model_final.pth"])
        predictor = PartInstancePredictor(cfg)
        result = predictor("photo.jpg")["part_instances"]
        results = predictor(["a.jpg", "b.jpg", array])

    Attributes:
        model: the model, in evaluation mode.
        taxonomy: names and colours of the parts, None if not known.
    """

    @configurable
    def __init__(
        self,
        *,
        model: nn.Module,
        min_size: int = 800,
        max_size: int = 1333,
        image_format: str = "BGR",
        batch_size: int = 1,
        taxonomy: PartTaxonomy | None = None,
    ):
        """
        Args:
            model: takes and returns what :class:`~.modeling.meta_arch.InstanceCRF` does.
            min_size: images are resized so that their shorter side has so many pixels; 0 = never.
            max_size: ... unless the longer side would get more than this.
            image_format: channel order that the model was trained with, "BGR" or "RGB".
            batch_size: images that go through the model at a time.
            taxonomy: names and colours of the parts.

        Raises:
            ValueError: an unknown channel order, a batch size below 1.
        """
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; predicting knows BGR and RGB.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self.model = model.eval()
        self.resize = T.ResizeShortestEdge([min_size, min_size], max_size)
        self.image_format = image_format
        self.batch_size = batch_size
        self.taxonomy = taxonomy

    @classmethod
    def from_config(cls, cfg: CfgNode, *, batch_size: int = 1) -> dict[str, Any]:
        register()
        names = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
        taxonomy = MetadataCatalog.get(names[0]).get("taxonomy") if names else None
        model = build_model(cfg)
        load_weights(model, cfg.MODEL.WEIGHTS, part_names_of(names))
        return {
            "model": model,
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "image_format": cfg.INPUT.FORMAT,
            "batch_size": batch_size,
            "taxonomy": taxonomy,
        }

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> dict | list[dict]:
        """
        Args:
            images: one image or several: (H, W, 3) uint8 arrays in BGR order, Pillow images, or
                file names.

        Returns:
            The model's output for one image; a list of them for several. All maps and boxes are
            in pixels of the image as given; ``part_instances`` knows the image and the taxonomy.

        Raises:
            FileNotFoundError, ValueError: a file is missing or unreadable, an array is no image.
        """
        if is_image(images):
            return next(self.predict([images]))
        return list(self.predict(images))

    def predict(self, images: Iterable[ImageLike]) -> Iterator[dict]:
        """As calling with several images, but one batch at a time: for more than fit in memory."""
        images = iter(images)
        while batch := [self._read(image) for image in islice(images, self.batch_size)]:
            with torch.inference_mode():
                outputs = self.model([self._to_input(*image) for image in batch])
            for output, (rgb, _) in zip(outputs, batch, strict=True):
                result = replace(output["part_instances"], taxonomy=self.taxonomy, image=rgb)
                yield {**output, "part_instances": result}

    def _read(self, image: ImageLike) -> tuple[np.ndarray, dict[str, str]]:
        """(H, W, 3) RGB of its own memory, and the ``file_name`` where there is one."""
        if not isinstance(image, np.ndarray | torch.Tensor):
            rgb, path = read_picture(image)
            return rgb, {} if path is None else {"file_name": os.fspath(path)}
        is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8
        if not is_array or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            kind = "an array" if isinstance(image, np.ndarray) else "a tensor"
            raise ValueError(
                "An image must be a (H, W, 3) uint8 array in BGR order, a Pillow image, or a file "
                f"name; got {kind} {tuple(image.shape)} {image.dtype}."
            )
        # Always a copy: whoever reads a video may fill the array anew.
        return image[:, :, ::-1].copy(), {}

    def _to_input(self, rgb: np.ndarray, name: dict[str, str]) -> dict[str, Any]:
        """The model's input dict of one image."""
        height, width = rgb.shape[:2]
        image = np.ascontiguousarray(rgb if self.image_format == "RGB" else rgb[:, :, ::-1])
        resize = self.resize.get_transform(image)
        resize.new_h, resize.new_w = max(1, resize.new_h), max(1, resize.new_w)  # of thin images
        resized = resize.apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width, **name}
