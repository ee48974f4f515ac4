"""Scale, rotation, mirroring and crop in one step, for an image and its label maps together.

Legend: H, W image size in pixels. Coordinates are continuous (x, y): the centre of the first pixel
is at (0.5, 0.5), as Detectron2 has it.

One affine map computes only the pixels that stay in the crop, reads every source once, and knows
the fill of each map: Detectron2's own rotation fills label maps with 0, which would teach
"background" where there is no picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T

from ..taxonomies.schema import IGNORE_LABEL

__all__ = ["AffineTransform", "RandomAffineCrop", "is_mirrored"]


class AffineTransform(T.Transform):
    """``output = matrix @ (x, y, 1)``, cut to ``size``.

    Images are interpolated and reflected beyond their border. Label maps take the nearest pixel and
    255 (ignored) beyond the border.

    Args:
        matrix: (2, 3) map from source to output coordinates.
        size: (H, W) of the output.
    """

    def __init__(self, matrix: np.ndarray, size: tuple[int, int]):
        super().__init__()
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.size = (int(size[0]), int(size[1]))

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places."""
        return float(np.linalg.det(self.matrix[:, :2])) < 0

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        placed = self._place(img, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.BORDER_REFLECT_101, 0)
        if placed is not None:
            return placed
        img, matrix = self._reduce(img, self.matrix)
        return self._warp(img, matrix, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101, 0)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        fill = (IGNORE_LABEL,) * 4
        nearest = cv2.INTER_NEAREST_EXACT
        placed = self._place(segmentation, nearest, nearest, cv2.BORDER_CONSTANT, fill)
        if placed is not None:
            return placed
        return self._warp(segmentation, self.matrix, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, fill)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords = np.asarray(coords, dtype=np.float64)
        return coords @ self.matrix[:, :2].T + self.matrix[:, 2]

    def inverse(self) -> T.Transform:
        raise NotImplementedError("A crop cannot be undone.")

    def _place(self, array: np.ndarray, larger: int, smaller: int, border: int, fill):
        """The same without rotation: resize, mirror, cut and pad. Several times faster.

        Returns:
            None where the map is not of this kind: with rotation, or with fractions of pixels.
        """
        height, width = array.shape[:2]
        corners = self.apply_coords(np.array([[0, 0], [width, height]], dtype=np.float64))
        ends = np.rint(corners).astype(int)
        if self.matrix[0, 1] or self.matrix[1, 0] or np.abs(ends - corners).max() > 1e-6:
            return None
        (left, top), (right, bottom) = ends.min(axis=0).tolist(), ends.max(axis=0).tolist()
        if right <= left or bottom <= top:
            return None
        if (bottom - top, right - left) != (height, width):
            # Averaging costs more than interpolation, and matters from about 2 : 3 on.
            shrinks = 2 * (bottom - top) * (right - left) < height * width
            size, interp = (right - left, bottom - top), smaller if shrinks else larger
            array = cv2.resize(array, size, interpolation=interp)
        flips = (self.matrix[0, 0] < 0, self.matrix[1, 1] < 0)
        if any(flips):
            array = cv2.flip(array, {(True, False): 1, (False, True): 0, (True, True): -1}[flips])
        out_h, out_w = self.size
        cut = array[max(-top, 0) : out_h - top, max(-left, 0) : out_w - left]
        padding = (max(top, 0), max(out_h - bottom, 0), max(left, 0), max(out_w - right, 0))
        if any(padding):
            return cv2.copyMakeBorder(cut, *padding, border, value=fill)
        return np.ascontiguousarray(cut)

    def _warp(self, array: np.ndarray, matrix: np.ndarray, interp: int, border: int, fill):
        # From pixel corners to OpenCV's pixel centres.
        centred = matrix.copy()
        centred[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        out = cv2.warpAffine(
            np.ascontiguousarray(array),
            centred,
            (self.size[1], self.size[0]),
            flags=interp,
            borderMode=border,
            borderValue=fill,
        )
        return out

    @staticmethod
    def _reduce(img: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average blocks of pixels first where the map shrinks by 2 or more: no aliasing."""
        factor = int(1 / max(np.sqrt(abs(np.linalg.det(matrix[:, :2]))), 1e-6))
        if factor < 2 or min(img.shape[:2]) < 2 * factor:
            return img, matrix
        height, width = img.shape[0] // factor, img.shape[1] // factor
        small = cv2.resize(img, (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix.copy()
        matrix[:, 0] *= img.shape[1] / width
        matrix[:, 1] *= img.shape[0] / height
        return small, matrix


class RandomAffineCrop(T.Augmentation):
    """Random scale, rotation and mirroring, then a random crop; the crop is padded if need be.

    Args:
        scale_range: least and greatest scale, relative to the image's own size.
        crop_size: (H, W) of the output; None keeps the size of the scaled image.
        rotation: greatest angle in degrees, either way.
        flip_prob: probability of a horizontal flip.
    """

    def __init__(
        self,
        *,
        scale_range: tuple[float, float] = (1.0, 1.0),
        crop_size: tuple[int, int] | None = None,
        rotation: float = 0.0,
        flip_prob: float = 0.0,
    ):
        super().__init__()
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f"scale_range is {scale_range}; it must be 0 < least <= greatest.")
        if crop_size is not None and min(crop_size) < 1:
            raise ValueError(f"crop_size is {crop_size}; both sides must be at least 1 pixel.")
        self.scale_range = scale_range
        self.crop_size = crop_size
        self.rotation = rotation
        self.flip_prob = flip_prob

    def get_transform(self, image: np.ndarray) -> AffineTransform:
        height, width = image.shape[:2]
        scale = np.random.uniform(*self.scale_range)
        angle = np.deg2rad(np.random.uniform(-self.rotation, self.rotation))
        mirror = -1.0 if np.random.rand() < self.flip_prob else 1.0
        scaled = max(round(height * scale), 1), max(round(width * scale), 1)
        out_h, out_w = self.crop_size or scaled
        cosine, sine = np.cos(angle), np.sin(angle)
        linear = np.array([[cosine, sine], [-sine, cosine]]) @ np.diag(
            [mirror * scaled[1] / width, scaled[0] / height]
        )
        # The centre of the image goes to a random place: within the slack of the crop, or of the
        # padding.
        slack = np.array([scaled[1] - out_w, scaled[0] - out_h]) / 2
        centre = np.array([out_w, out_h]) / 2 + slack * np.random.uniform(-1, 1, size=2)
        if not angle:  # whole pixels, so that an unscaled crop copies pixels
            corner = np.rint(centre - np.array(scaled[::-1]) / 2)
            centre = corner + np.array(scaled[::-1]) / 2
        offset = centre - linear @ (width / 2, height / 2)
        return AffineTransform(np.column_stack([linear, offset]), (out_h, out_w))


def is_mirrored(transforms: T.Transform) -> bool:
    """Whether the transforms together mirror the picture, so that left parts become right."""
    mirrored = False
    for transform in getattr(transforms, "transforms", [transforms]):
        if isinstance(transform, (T.HFlipTransform, T.VFlipTransform)):
            mirrored = not mirrored
        elif isinstance(transform, AffineTransform):
            mirrored ^= transform.mirrored
    return mirrored
