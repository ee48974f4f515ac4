"""Whose a pixel is, read from the picture: every pixel of an object votes for its object's box.

How well a vote fits a detection is that detection's evidence at the pixel, for the Instance CRF.
There are no regions of interest, and a vote knows no class.

Shape letters: N images, D detections, G true objects, K cells that learn, H, W size of an image,
h, w size of the feature. A cell is ``stride`` pixels wide; the cell in row r and column c votes
from its centre, x = (c + 0.5) stride, y = (r + 0.5) stride. All coordinates are pixels of the
network's input; padding is on the right and below, so it moves nothing. Boxes are x1 y1 x2 y2.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d
from detectron2.structures import Instances
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from .part_head import conv

__all__ = [
    "IDENTITY_HEADS_REGISTRY",
    "IdentityHead",
    "box_iou",
    "build_identity_head",
    "object_cells",
    "vote_evidence",
]

IDENTITY_HEADS_REGISTRY = Registry("IDENTITY_HEADS")
IDENTITY_HEADS_REGISTRY.__doc__ = """
Registry for heads that say from the part head's feature how much a pixel looks like a detection's.
The registered object is called with ``obj(cfg, input_channels=..., stride=...)``; called with the
feature it returns a vote, and it has the methods ``losses`` and ``evidence`` of
:class:`IdentityHead`.
"""

#: Channels of each kind of vote: a box's corners, or its centre x, y.
VOTES = {"box": 4, "offset": 2}
#: Distances start at so many strides: at stride 4, boxes of 64 pixels.
_START = 8.0
#: The largest logarithm of a distance over where it starts: keeps exp finite.
_MAX_LOG = 6.0
#: Where the loss of an offset turns from quadratic to linear, in object sizes.
_BETA = 0.1


def build_identity_head(cfg, *, input_channels: int, stride: int) -> nn.Module:
    """The head that ``cfg.MODEL.IDENTITY_HEAD.NAME`` names, on a feature of so many channels."""
    head = IDENTITY_HEADS_REGISTRY.get(cfg.MODEL.IDENTITY_HEAD.NAME)
    return head(cfg, input_channels=input_channels, stride=stride)


@IDENTITY_HEADS_REGISTRY.register()
class IdentityHead(nn.Module):
    """A few convolutions on the part head's feature, then a vote in every cell.

    * ``vote="box"``: the box of the object, from four positive distances of the cell's centre to
      its sides, each exp(output) * 8 strides: a box starts 16 strides wide (64 pixels at stride
      4), and the loss and its gradient do not depend on the scale. Loss: 1 - IoU. A generalised
      IoU would add nothing: both boxes hold the cell's centre, so they always overlap.
    * ``vote="offset"``: the centre of the object's box, the cell's centre + output * 8 strides.
      Loss: smooth L1 of the distance in x and y over the object's size, the root of its box's
      area.
    """

    @configurable
    def __init__(
        self,
        *,
        input_channels: int,
        stride: int,
        vote: str = "box",
        num_convs: int = 2,
        conv_dims: int = 128,
        norm: str | None = "GN",
        loss_weight: float = 1.0,
        power: float = 2.0,
        sigma: float = 0.25,
    ):
        """
        Args:
            input_channels, stride: of the feature, channels and pixels a cell.
            vote: "box" or "offset".
            num_convs, conv_dims, norm: 3x3 convolutions before the predictor, their channels and
                normalisation.
            loss_weight: factor of the loss.
            power, sigma: see :func:`vote_evidence`.

        Raises:
            ValueError: an unknown vote, a power below 1 (whose gradient is infinite where boxes
                part), a sigma that is not positive.
        """
        super().__init__()
        if vote not in VOTES:
            raise ValueError(
                f"MODEL.IDENTITY_HEAD.VOTE has {vote!r}; it is one of {', '.join(VOTES)}."
            )
        if power < 1 or sigma <= 0:
            raise ValueError(
                f"MODEL.IDENTITY_HEAD.POWER is {power} and SIGMA {sigma}: take a power of at least "
                "1 and a sigma above 0."
            )
        self.stride = stride
        self.vote = vote
        self.loss_weight = loss_weight
        self.power = power
        self.sigma = sigma
        channels = [input_channels, *[conv_dims] * num_convs]
        self.convs = nn.Sequential(
            *(conv(before, after, 3, norm) for before, after in pairwise(channels))
        )
        self.predictor = Conv2d(channels[-1], VOTES[vote], kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg, *, input_channels: int, stride: int) -> dict:
        head = cfg.MODEL.IDENTITY_HEAD
        return {
            "input_channels": input_channels,
            "stride": stride,
            "vote": head.VOTE,
            "num_convs": head.NUM_CONVS,
            "conv_dims": head.CONVS_DIM,
            "norm": head.NORM,
            "loss_weight": head.LOSS_WEIGHT,
            "power": head.POWER,
            "sigma": head.SIGMA,
        }

    def forward(self, feature: Tensor) -> Tensor:
        """The part head's feature (N, C, h, w) -> the vote, float32.

        Returns:
            (N, 4, h, w) boxes or (N, 2, h, w) centres x, y, as ``vote`` says.
        """
        output = self.predictor(self.convs(feature)).float()
        centres = _cell_centres(output, self.stride)
        scale = _START * self.stride
        if self.vote == "offset":
            return centres + output * scale
        distances = output.clamp(max=_MAX_LOG).exp() * scale
        return torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], dim=1)

    def losses(
        self, vote: Tensor, instances: Sequence[Instances], object_segs: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The mean loss of the mini-batch's cells that belong to an object with a box.

        Args:
            vote: of :meth:`forward`.
            instances: ``gt_boxes``, of what the picture shows of an object, and ``gt_object_ids``.
            object_segs: (H, W) int64, 0 none, ids >= 1, -1 ignored. Ids that the instances lack
                (crowds) teach nothing, either.

        Returns:
            ``{"loss_identity": scalar}``, 0 where there is no such cell.
        """
        votes, boxes = [], []
        for i, (objects, object_seg) in enumerate(zip(instances, object_segs, strict=True)):
            rows, columns, found = object_cells(
                object_seg, objects.gt_boxes.tensor, objects.gt_object_ids, self.stride
            )
            votes.append(vote[i, :, rows, columns].T)
            boxes.append(found)
        votes, boxes = torch.cat(votes), torch.cat(boxes)
        if not len(votes):
            loss = vote.sum() * 0.0
        elif self.vote == "box":
            loss = 1 - box_iou(votes, boxes).mean()
        else:
            centre, size = _centre_and_size(boxes)
            loss = F.smooth_l1_loss(votes / size, centre / size, beta=_BETA)
        return {"loss_identity": loss * self.loss_weight}

    def evidence(
        self,
        vote: Tensor,
        detections: Sequence[Instances],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """How well each pixel's vote fits each detection; gradients reach the vote.

        Args:
            vote: of :meth:`forward`.
            detections: with ``pred_boxes``.
            image_sizes: (H, W) of each image, without padding.

        Returns:
            (D, H, W) in [0, 1] of each image: :func:`vote_evidence`, bilinearly enlarged.
        """
        results = []
        for own, boxes, (height, width) in zip(vote, detections, image_sizes, strict=True):
            # Cells of the padding alone must not show at the image's edge.
            own = own[:, : ceil(height / self.stride), : ceil(width / self.stride)]
            evidence = vote_evidence(
                own, boxes.pred_boxes.tensor, power=self.power, sigma=self.sigma
            )
            if len(evidence):
                evidence = F.interpolate(
                    evidence[None],
                    scale_factor=self.stride,
                    mode="bilinear",
                    align_corners=False,
                )[0, :, :height, :width]
            else:
                evidence = evidence.new_zeros(0, height, width)
            results.append(evidence)
        return results


def vote_evidence(
    vote: Tensor, boxes: Tensor, *, power: float = 2.0, sigma: float = 0.25
) -> Tensor:
    """How well each vote fits each box.

    Args:
        vote: (4, h, w) boxes, or (2, h, w) centres c_k.
        boxes: (D, 4), B_i with the centre b_i and the size sqrt(area).
        power: of a box's evidence, IoU(voted box, B_i) ** power.
        sigma: of a centre's evidence, exp(-|c_k - b_i|^2 / (2 (sigma * size_i)^2)).

    Returns:
        (D, h, w) in [0, 1].
    """
    if len(vote) == VOTES["box"]:
        return box_iou(vote.permute(1, 2, 0), boxes[:, None, None]) ** power
    centre, size = _centre_and_size(boxes)
    offset = (vote - centre[:, :, None, None]) / (sigma * size[:, :, None, None])
    return (-offset.square().sum(1) / 2).exp()


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """(..., 4) and (..., 4) boxes, broadcast -> (...) intersection over union of each pair."""
    left, top, right, bottom = first.unbind(-1)
    left2, top2, right2, bottom2 = second.unbind(-1)
    width = (torch.minimum(right, right2) - torch.maximum(left, left2)).clamp(min=0)
    height = (torch.minimum(bottom, bottom2) - torch.maximum(top, top2)).clamp(min=0)
    intersection = width * height
    union = _area(first) + _area(second) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def object_cells(
    object_seg: Tensor, boxes: Tensor, object_ids: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The cells whose centre is a pixel of an object that has a box.

    Args:
        object_seg: (H, W) object ids; the pixel that holds a cell's centre is the cell's.
        boxes: (G, 4).
        object_ids: (G,) the id of each box's object.
        stride: pixels a cell.

    Returns:
        (K,) rows and (K,) columns of the cells, (K, 4) their objects' boxes.
    """
    cells = object_seg[stride // 2 :: stride, stride // 2 :: stride]
    index, rows, columns = (cells == object_ids[:, None, None]).nonzero(as_tuple=True)
    return rows, columns, boxes[index]


def _cell_centres(feature: Tensor, stride: int) -> Tensor:
    """(..., h, w) -> (2, h, w): x, y of the cells' centres."""
    y, x = (
        (torch.arange(count, device=feature.device, dtype=feature.dtype) + 0.5) * stride
        for count in feature.shape[-2:]
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(K, 4) -> (K, 2) centres, (K, 1) roots of the areas, of a pixel at least."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, _area(boxes).clamp(min=1).sqrt()[:, None]


def _area(boxes: Tensor) -> Tensor:
    left, top, right, bottom = boxes.unbind(-1)
    return (right - left) * (bottom - top)
