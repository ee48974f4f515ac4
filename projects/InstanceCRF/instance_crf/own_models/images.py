"""A picture, whatever it comes as, as (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.image_io import check_depth, read_image

__all__ = ["has_shape_of", "is_image", "read_picture"]

_SAME_SHAPE = 0.05  # of the ratio of width to height


def is_image(value: Any) -> bool:
    """Whether `read_picture` takes it; otherwise it may be several of them."""
    return isinstance(value, (str, os.PathLike, Image.Image, np.ndarray, torch.Tensor))


def read_picture(value: Any) -> tuple[np.ndarray, Path | None]:
    """The pixels of a picture, and its file if that is what is given.

    Args:
        value: a path (rotated as its EXIF tag says); a Pillow image (taken as it is); a NumPy array
            (H, W, 3) or (H, W), uint8, RGB; a tensor (3, H, W), uint8 in 0-255 or floating point
            in 0-1.

    Returns:
        (H, W, 3) uint8 RGB, and the path or None.

    Raises:
        FileNotFoundError, ValueError: no such file; no picture.
    """
    if isinstance(value, (str, os.PathLike)):
        path = Path(value).expanduser()
        return read_image(path), path
    if isinstance(value, Image.Image):
        check_depth(value.mode, "The image")
        return np.asarray(value.convert("RGB")), None
    if isinstance(value, torch.Tensor):
        return _of_tensor(value), None
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"The image is a {type(value).__name__}; it must be a path, a Pillow image, a NumPy "
            "array (H, W, 3) or a tensor (3, H, W)."
        )
    if value.dtype != np.uint8:
        raise ValueError(
            f"The image is an array of {value.dtype}; it must be uint8, 0-255. Of one in 0-1: "
            "(255 * image).round().astype(np.uint8); in 0-255: image.round().astype(np.uint8)."
        )
    if value.ndim == 2:
        value = np.repeat(value[:, :, None], 3, axis=2)
    if value.ndim != 3 or value.shape[2] != 3 or not value.size:
        hint = ""
        if value.ndim == 3 and value.shape[2] == 4:
            hint = " Leave the transparency out: image[:, :, :3]."
        elif value.ndim == 3 and value.shape[0] == 3:
            hint = " Put the channels last: image.transpose(1, 2, 0)."
        raise ValueError(
            f"The image is an array {value.shape}; it must be (H, W, 3), red first, not empty."
            + hint
        )
    return value, None


def has_shape_of(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether (h, w) has the same ratio as the image's (H, W), but for the rounding of few rows."""
    ratio = size[1] * image_size[0] / (size[0] * image_size[1])
    return max(ratio, 1 / ratio) <= 1 + _SAME_SHAPE + 1 / min(size)


def _of_tensor(value: torch.Tensor) -> np.ndarray:
    if value.dim() != 3 or value.shape[0] != 3 or not value.numel():
        raise ValueError(
            f"The image is a tensor {tuple(value.shape)}; it must be (3, H, W), red first, not "
            "empty. Several images are given as a list."
        )
    if value.is_floating_point():
        low, high = value.aminmax()
        if not (0 <= low and high <= 1):
            raise ValueError(
                f"The image is a tensor of {value.dtype} from {float(low):g} to {float(high):g}; "
                "of floating point it must be in 0-1, before any normalisation; or give uint8."
            )
        value = (value * 255).round().to(torch.uint8)
    elif value.dtype != torch.uint8:
        raise ValueError(
            f"The image is a tensor of {value.dtype}; it must be uint8 in 0-255, or floating "
            "point in 0-1."
        )
    return np.ascontiguousarray(value.detach().cpu().permute(1, 2, 0).numpy())
