"""Colour augmentation. Images are (H, W, 3) uint8, 0..255; label maps are left alone."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T

__all__ = ["RandomBlur", "RandomChannels", "RandomHSV"]


class RandomHSV(T.Augmentation):
    """Noise on hue, saturation and value, as the paper's authors trained with.

    Args:
        hue: greatest shift in degrees.
        saturation, value: greatest relative change.
        image_format: ``"BGR"`` or ``"RGB"``.
    """

    def __init__(
        self,
        *,
        hue: float = 10.0,
        saturation: float = 0.3,
        value: float = 0.3,
        image_format: str = "BGR",
    ):
        super().__init__()
        self.hue, self.saturation, self.value = hue, saturation, value
        self.image_format = _checked_format(image_format)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        levels = np.arange(256, dtype=np.float64)
        shift, gain_s, gain_v = np.random.uniform(-1, 1, size=3)
        # OpenCV's 8-bit hue counts half degrees, 0..179.
        hue = np.mod(levels + shift * self.hue / 2, 180)
        table = np.stack(
            [hue, levels * (1 + gain_s * self.saturation), levels * (1 + gain_v * self.value)],
            axis=-1,
        )
        table = np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]
        table[..., 0] %= 180
        to_hsv = getattr(cv2, f"COLOR_{self.image_format}2HSV")
        from_hsv = getattr(cv2, f"COLOR_HSV2{self.image_format}")
        return T.ColorTransform(
            lambda img: cv2.cvtColor(cv2.LUT(cv2.cvtColor(img, to_hsv), table), from_hsv)
        )


class RandomChannels(T.Augmentation):
    """Channels permuted, inverted, contrast and brightness changed: shape counts, colour does not.

    Args:
        permute_prob: probability that the colour channels change places.
        invert_prob: probability of the negative.
        contrast, brightness: greatest relative change, of each channel on its own.
    """

    def __init__(
        self,
        *,
        permute_prob: float = 0.5,
        invert_prob: float = 0.3,
        contrast: float = 0.4,
        brightness: float = 0.25,
    ):
        super().__init__()
        self.permute_prob, self.invert_prob = permute_prob, invert_prob
        self.contrast, self.brightness = contrast, brightness

    def get_transform(self, image: np.ndarray) -> T.Transform:
        order = np.random.permutation(3) if np.random.rand() < self.permute_prob else np.arange(3)
        levels = np.arange(256, dtype=np.float64)[:, None]
        if np.random.rand() < self.invert_prob:
            levels = 255 - levels
        gain = 1 + np.random.uniform(-self.contrast, self.contrast, size=3)
        shift = 255 * np.random.uniform(-self.brightness, self.brightness, size=3)
        table = np.clip(np.rint((levels - 127.5) * gain + 127.5 + shift), 0, 255)
        table = np.ascontiguousarray(table.astype(np.uint8)[None])
        return T.ColorTransform(lambda img: cv2.LUT(np.ascontiguousarray(img[..., order]), table))


class RandomBlur(T.Augmentation):
    """Gaussian blur of a standard deviation drawn from 0..``max_sigma`` pixels, half the time."""

    def __init__(self, *, max_sigma: float, prob: float = 0.5):
        super().__init__()
        self.max_sigma, self.prob = max_sigma, prob

    def get_transform(self, image: np.ndarray) -> T.Transform:
        sigma = np.random.uniform(0, self.max_sigma)
        if np.random.rand() >= self.prob or sigma < 0.1:
            return T.NoOpTransform()
        return T.ColorTransform(lambda img: cv2.GaussianBlur(img, (0, 0), sigma))


def _checked_format(image_format: str) -> str:
    if image_format not in ("BGR", "RGB"):
        raise ValueError(
            f"INPUT.FORMAT is {image_format!r}; this augmentation needs 'BGR' or 'RGB'."
        )
    return image_format
