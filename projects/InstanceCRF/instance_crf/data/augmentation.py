"""Config keys of the augmentation, and the list of augmentations that they ask for."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from .color import RandomBlur, RandomChannels, RandomHSV
from .transforms import RandomAffineCrop

__all__ = ["COLOR_CHOICES", "add_augmentation_config", "build_augmentations"]

COLOR_CHOICES = ("none", "authors", "channels")


def add_augmentation_config(cfg: CfgNode) -> None:
    """Add ``INPUT.PART_AUG``. With the defaults, Detectron2's own INPUT keys alone are in force."""
    cfg.INPUT.PART_AUG = CfgNode()
    # Least and greatest random scale, relative to the image's own size, e.g. [0.5, 1.5].
    # When given (or CROP_SIZE is), it takes the place of INPUT.MIN_SIZE_TRAIN and INPUT.CROP.
    cfg.INPUT.PART_AUG.SCALE_RANGE = []
    # [height, width] in pixels of the random crop; smaller images are padded (labels: ignored).
    # The paper's authors: [521, 521].
    cfg.INPUT.PART_AUG.CROP_SIZE = []
    # Greatest rotation in degrees, either way.
    cfg.INPUT.PART_AUG.ROTATION = 0.0
    # "none"; "authors": hue, saturation and value noise, as the paper's authors;
    # "channels": channels permuted and inverted, contrast and brightness of each (synthetic data).
    cfg.INPUT.PART_AUG.COLOR = "none"
    # Greatest standard deviation of a Gaussian blur, in pixels; applied half of the time.
    cfg.INPUT.PART_AUG.BLUR = 0.0


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """The augmentations of ``cfg``; at test time only Detectron2's resizing.

    INPUT.RANDOM_FLIP decides about mirroring, whichever way the image is resized.

    Raises:
        ValueError: names the key and its value.
    """
    if not is_train:
        return detection_utils.build_augmentation(cfg, is_train=False)
    node = cfg.INPUT.PART_AUG
    return _geometry(cfg, node) + _color(cfg, node)


def _geometry(cfg: CfgNode, node: CfgNode) -> list[T.Augmentation]:
    scale_range = _pair(node.SCALE_RANGE, "SCALE_RANGE", "least and greatest scale") or (1.0, 1.0)
    crop_size = _pair(node.CROP_SIZE, "CROP_SIZE", "height and width")
    if node.SCALE_RANGE or crop_size:
        flip = cfg.INPUT.RANDOM_FLIP
        if flip not in ("horizontal", "none"):
            raise ValueError(
                f"INPUT.RANDOM_FLIP is {flip!r}; with INPUT.PART_AUG.SCALE_RANGE or CROP_SIZE it "
                "must be 'horizontal' or 'none'."
            )
        return [
            RandomAffineCrop(
                scale_range=scale_range,
                crop_size=crop_size,
                rotation=node.ROTATION,
                flip_prob=0.5 if flip == "horizontal" else 0.0,
            )
        ]
    augmentations = detection_utils.build_augmentation(cfg, is_train=True)
    if cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    if node.ROTATION:
        augmentations.append(RandomAffineCrop(rotation=node.ROTATION))
    return augmentations


def _color(cfg: CfgNode, node: CfgNode) -> list[T.Augmentation]:
    if node.COLOR not in COLOR_CHOICES:
        raise ValueError(
            f"INPUT.PART_AUG.COLOR is {node.COLOR!r}; it must be one of {', '.join(COLOR_CHOICES)}."
        )
    augmentations: list[T.Augmentation] = []
    if node.COLOR == "authors":
        augmentations.append(RandomHSV(image_format=cfg.INPUT.FORMAT))
    elif node.COLOR == "channels":
        augmentations.append(RandomChannels())
    if node.BLUR > 0:
        augmentations.append(RandomBlur(max_sigma=node.BLUR))
    return augmentations


def _pair(values, key: str, meaning: str):
    if values and len(values) != 2:
        raise ValueError(f"INPUT.PART_AUG.{key} is {list(values)}; give {meaning}, or [].")
    return tuple(values) if values else None
