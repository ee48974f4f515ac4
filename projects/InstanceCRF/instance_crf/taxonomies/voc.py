"""PASCAL VOC: twenty object classes, each of them its own single part.

Written by torchvision's segmentation models (``COCO_WITH_VOC_LABELS``), among many; background is
first.
"""

from __future__ import annotations

from .schema import PartTaxonomy

__all__ = ["VOC_TAXONOMY", "voc_colors"]

_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """The VOC colour map, without background: what the palettes of very many PNGs hold."""
    return tuple(
        tuple(
            sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
            for channel in range(3)
        )
        for label in range(1, count + 1)
    )


VOC_TAXONOMY = PartTaxonomy(
    part_names=_CLASSES,
    object_names=_CLASSES,
    part_owner=tuple(range(20)),
    part_colors=voc_colors(20),
)
