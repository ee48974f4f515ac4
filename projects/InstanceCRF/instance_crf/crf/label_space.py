"""The dynamic label set of one image.

The random variable of a pixel takes the background label (0, 0) or a label (i, j): part j of the
object that detection i found. The factored CRF also knows (nobody, j): part j of an object that no
detection found. How many labels there are changes from image to image, so nothing that is learned
depends on it.

Shape letters: D detections, P parts, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LabelSpace", "build_label_space"]


@dataclass(frozen=True)
class LabelSpace:
    """Which detection and which part each label of an image stands for.

    Label 0 is the background. The labels of detection 0 follow in part order, then those of
    detection 1, and so on. Where every detection owns all P parts, the label of detection i
    (counted from 0) and part j (1..P) is ``i * P + j``. The P labels (nobody, j), if there are any,
    come last.

    Attributes:
        label_instance: (L,) int64; 0 for the background and for nobody, ``i + 1`` for detection i.
        label_part: (L,) int64; 0 for the background, else the part id 1..P.
        num_detections: D; also counts detections that own no part.
        num_parts: P.
    """

    label_instance: Tensor
    label_part: Tensor
    num_detections: int
    num_parts: int

    @property
    def num_labels(self) -> int:
        """L, the background included."""
        return self.label_instance.shape[0]

    @property
    def is_product(self) -> bool:
        """Whether the labels are the background and all of D times P, so that L = 1 + D·P."""
        return self.num_labels == 1 + self.num_detections * self.num_parts

    def label_index(self) -> Tensor:
        """(D + 1, P + 1) int64 table ``[instance, part] -> label``, -1 where there is none.

        Entry (0, 0) is the background, the rest of row 0 nobody's parts; the rest of column 0 are
        no labels.
        """
        table = self.label_instance.new_full((self.num_detections + 1, self.num_parts + 1), -1)
        table[self.label_instance, self.label_part] = torch.arange(
            self.num_labels, device=table.device
        )
        return table


def build_label_space(
    object_classes: Tensor, part_owner: Tensor, *, nobody: bool = False
) -> LabelSpace:
    """The label set {(0, 0)} and every (i, j) with part j owned by the class of detection i.

    Args:
        object_classes: (D,) integer class of each detection, contiguous from 0.
        part_owner: (P,) integer; the object class that owns part j at index j - 1.
        nobody: whether there also are the labels (nobody, j).

    Returns:
        The label space, on the device of ``object_classes``. For a single object class it has
        1 + D·P labels, and P more with nobody's.

    Raises:
        ValueError: if an argument is not an integer vector.
    """
    for name, value in (("object_classes", object_classes), ("part_owner", part_owner)):
        if value.dim() != 1 or value.is_floating_point():
            raise ValueError(
                f"{name} must be a vector of integers, got shape {tuple(value.shape)} "
                f"and dtype {value.dtype}."
            )
    part_owner = part_owner.to(object_classes.device)
    detection, part = (object_classes[:, None] == part_owner[None, :]).nonzero(as_tuple=True)
    background = detection.new_zeros(1)
    nobodys = torch.arange(len(part_owner) if nobody else 0, device=part.device)
    return LabelSpace(
        label_instance=torch.cat([background, detection + 1, torch.zeros_like(nobodys)]),
        label_part=torch.cat([background, part + 1, nobodys + 1]),
        num_detections=object_classes.shape[0],
        num_parts=part_owner.shape[0],
    )
