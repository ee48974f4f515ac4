"""Boxes disturbed on purpose (Fig. 4: what a labelling does with false and with bad detections).

Shape letters: D detections.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

__all__ = ["add_false_boxes", "disturb", "disturb_boxes", "generator_of", "scale_boxes"]


def scale_boxes(boxes: Tensor, factor: float) -> Tensor:
    """(D, 4) x1 y1 x2 y2, each ``factor`` times as wide and as high about its centre."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return torch.cat([centre - size * factor / 2, centre + size * factor / 2], dim=1)


def add_false_boxes(detections: Instances, share: float, generator: torch.Generator) -> Instances:
    """Add boxes that are of nobody: anywhere in the picture, each of the size of a random box, and
    with score and class of a random one, so that no threshold sorts them out.

    Args:
        detections: with ``pred_boxes``, ``scores``, ``pred_classes`` and nothing else.
        share: so many times as many as there are boxes; halves are rounded up.
        generator: of the CPU.

    Returns:
        The detections, and behind them the false ones.
    """
    count = math.floor(share * len(detections) + 0.5)
    if not count:
        return detections
    # In rows, so that further boxes do not change those before them.
    draws = torch.rand(count, 4, generator=generator).to(detections.scores.device)
    last = len(detections) - 1
    of_size, of_score = (draws[:, :2] * len(detections)).long().clamp(max=last).unbind(1)
    boxes = detections.pred_boxes.tensor[of_size]
    size = boxes[:, 2:] - boxes[:, :2]
    height, width = detections.image_size
    corner = draws[:, 2:] * (size.new_tensor([width, height]) - size).clamp(min=0)
    false = Instances(detections.image_size)
    false.pred_boxes = Boxes(torch.cat([corner, corner + size], dim=1))
    false.scores = detections.scores[of_score]
    false.pred_classes = detections.pred_classes[of_score]
    return Instances.cat([detections, false])


def disturb_boxes(
    detections: Instances,
    generator: torch.Generator,
    *,
    scale: float = 1.0,
    false_boxes: float = 0.0,
) -> Instances:
    """The boxes, scores and classes of one picture, scaled and then joined by false ones.

    Args:
        detections: with ``pred_boxes``, ``scores``, ``pred_classes``. What else they have, such as
            masks, belongs to the old boxes and is left out.
        generator: see :func:`generator_of`.
        scale: see :func:`scale_boxes`; the boxes are cut to the picture.
        false_boxes: see :func:`add_false_boxes`.
    """
    boxes = Boxes(scale_boxes(detections.pred_boxes.tensor, scale))
    boxes.clip(detections.image_size)
    scaled = Instances(
        detections.image_size,
        pred_boxes=boxes,
        scores=detections.scores,
        pred_classes=detections.pred_classes,
    )
    scaled = scaled[boxes.nonempty()]
    return add_false_boxes(scaled, false_boxes, generator)


def generator_of(picture: dict[str, Any], seed: int) -> torch.Generator:
    """Random numbers of one picture: the same whatever the model, the folder and the order.

    Args:
        picture: a model's input or a record; its ``file_name``, without folders, else its
            ``image_id`` says which picture it is.
        seed: of the whole run.
    """
    name = picture.get("file_name")
    name = picture.get("image_id", "") if name is None else Path(name).name
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


@contextmanager
def disturb(
    model: nn.Module,
    *,
    scale: float = 1.0,
    false_boxes: float = 0.0,
    seed: int = 0,
) -> Iterator[None]:
    """``with disturb(model, ...):`` the ROI heads give, in evaluation, other boxes than they have
    found; their masks, if they make some, are made anew for these.

    Args:
        model: Detectron2's ``GeneralizedRCNN``, :class:`~.meta_arch.InstanceCRF` or any other that
            is called with a dict a picture and has ``roi_heads``.
        scale, false_boxes: see :func:`disturb_boxes`. Above any score the share of false boxes is
            the same on average.
        seed: see :func:`generator_of`.

    Raises:
        ValueError: the model's boxes are not those of its ROI heads; factors that are none.
    """
    if not scale > 0 or not false_boxes >= 0:
        raise ValueError(
            f"scale is {scale} and false_boxes {false_boxes}: the one must be above 0, the other "
            "not below."
        )
    _check_has_boxes(model)
    generators: list[torch.Generator] = []

    def note_pictures(_: nn.Module, args: tuple) -> None:
        generators[:] = [generator_of(picture, seed) for picture in args[0]]

    def disturb_image(found: Instances, random: torch.Generator) -> Instances:
        is_object = found.pred_classes < getattr(model, "num_objects", math.inf)
        objects = disturb_boxes(found[is_object], random, scale=scale, false_boxes=false_boxes)
        if is_object.all():
            return objects
        return Instances.cat([objects, disturb_boxes(found[~is_object], random)])  # as they are

    def replace_boxes(heads: nn.Module, args: tuple, output: tuple) -> tuple | None:
        if heads.training:
            return None
        found = [
            disturb_image(of_image, random)
            for of_image, random in zip(output[0], generators, strict=True)
        ]
        if hasattr(heads, "forward_with_given_boxes"):
            found = heads.forward_with_given_boxes(args[1], found)
        return found, *output[1:]

    handles = [
        model.register_forward_pre_hook(note_pictures),
        model.roi_heads.register_forward_hook(replace_boxes),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_has_boxes(model: nn.Module) -> None:
    if getattr(model, "roi_heads", None) is None:
        raise ValueError(
            f"{type(model).__name__} has no roi_heads, whose boxes could be disturbed."
        )
    source = getattr(model, "detection_source", "detector")
    if source != "detector":
        raise ValueError(
            f"MODEL.INSTANCE_CRF.DETECTIONS.SOURCE is {source!r}, so the detector's boxes are not "
            "used: disturb those that are given with tools/write_detections.py --from-file."
        )
