"""Category-level part segmentation (Sec. 3.1): features -> logits whose softmax is Q.

Shape letters: N images, P parts, C channels, H, W padded image size, h, w a feature's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import Tensor, nn

from ..losses import check_top_k, hardest_pixels_loss

__all__ = ["PartFPNHead", "PartHead", "PartLoss", "PartPSPHead"]

#: Groups of Detectron2's norm "GN".
_GN_GROUPS = 32


class PartLoss(nn.Module):
    """Cross-entropy of the part segmentation, class-weighted, over each image's hardest pixels."""

    def __init__(
        self,
        *,
        class_weights: Sequence[float] = (),
        top_k: int | float = 0,
        ignore_value: int = 255,
        weight: float = 1.0,
    ):
        """
        Args:
            class_weights: one weight a class, background first; empty = all 1.
            top_k: K hardest pixels of an image, or a fraction of its pixels; 0 = all. See
                :func:`instance_crf.losses.hardest_pixels_loss`.
            ignore_value: target of the pixels to leave out.
            weight: factor of the loss.

        Raises:
            ValueError: a ``top_k`` that is neither.
        """
        super().__init__()
        check_top_k(top_k)
        weights = torch.tensor(list(class_weights)) if len(class_weights) else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.top_k = top_k
        self.ignore_value = ignore_value
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """(N, P+1, H, W) logits and (N, H, W) int64 targets -> ``{"loss_parts": scalar}``."""
        loss = F.cross_entropy(
            logits.float(),
            target,
            weight=self.class_weights,
            ignore_index=self.ignore_value,
            reduction="none",
        )
        valid = target != self.ignore_value
        loss = hardest_pixels_loss(list(-loss), list(valid), top_k=self.top_k)
        return {"loss_parts": loss * self.weight}


class PartHead:
    """What every part head offers; a subclass has ``part_loss``, ``part_features``, ``predict``.

    Its features fit together when H and W are divisible by ``size_divisibility``. Other heads may
    stand on the feature before the predictor: C = ``feature_channels``, ``feature_stride`` pixels
    a cell.
    """

    part_loss: PartLoss
    size_divisibility: int = 1
    feature_channels: int
    feature_stride: int

    def part_features(self, features: dict[str, Tensor]) -> Tensor:
        """The backbone's features -> (N, C, h, w), fused, before the predictor."""
        raise NotImplementedError

    def predict(self, feature: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, P+1, H, W) logits at the (padded) size of the image."""
        raise NotImplementedError

    def part_logits(self, features: dict[str, Tensor]) -> Tensor:
        """The backbone's features -> (N, P+1, H, W) logits."""
        return self.predict(self.part_features(features))

    def losses(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """See :class:`PartLoss`."""
        return self.part_loss(logits, target)

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None):
        """Detectron2's contract: (None, losses) in training, (logits, {}) otherwise."""
        logits = self.part_logits(features)
        if self.training:
            return None, self.losses(logits, targets)
        return logits, {}


@SEM_SEG_HEADS_REGISTRY.register()
class PartFPNHead(PartHead, SemSegFPNHead):
    """Detectron2's semantic-FPN head for parts, with sub-pixel prediction and :class:`PartLoss`."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        part_loss: PartLoss,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        norm: str | None = None,
        subpixel: int = 1,
    ):
        """
        Args:
            input_shape: name -> shape of the input features.
            part_loss: the training loss.
            num_classes: P+1.
            conv_dims: channels of the intermediate layers.
            common_stride: stride that all features are brought to.
            norm: normalisation of the convolutions.
            subpixel: each cell of the common stride predicts subpixel x subpixel logits.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes * subpixel**2,
            conv_dims=conv_dims,
            common_stride=common_stride,
            norm=norm,
            ignore_value=part_loss.ignore_value,
        )
        self.part_loss = part_loss
        self.size_divisibility = max(shape.stride for shape in input_shape.values())
        self.feature_channels = conv_dims
        self.feature_stride = common_stride
        self.subpixel = subpixel
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        args = SemSegFPNHead.from_config(cfg, input_shape)
        for name in ("ignore_value", "loss_weight"):
            args.pop(name)
        return {**args, "part_loss": _part_loss(cfg), "subpixel": cfg.MODEL.SEM_SEG_HEAD.SUBPIXEL}

    def part_features(self, features: dict[str, Tensor]) -> Tensor:
        """See :meth:`PartHead.part_features`."""
        scales = zip(self.in_features, self.scale_heads, strict=True)
        return reduce(add, (scale_head(features[name]) for name, scale_head in scales))

    def predict(self, feature: Tensor) -> Tensor:
        """See :meth:`PartHead.predict`."""
        logits = F.pixel_shuffle(self.predictor(feature), self.subpixel)
        return F.interpolate(
            logits.float(),
            scale_factor=self.common_stride / self.subpixel,
            mode="bilinear",
            align_corners=False,
        )


@SEM_SEG_HEADS_REGISTRY.register()
class PartPSPHead(PartHead, nn.Module):
    """Pyramid pooling of the deepest feature, as in the paper: pooled at five resolutions, brought
    back to its own, concatenated, classified."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        part_loss: PartLoss,
        num_classes: int,
        conv_dims: int,
        pool_sizes: Sequence[int],
        norm: str | None = None,
    ):
        """
        Args:
            input_shape: name -> shape; the feature with the largest stride is used.
            part_loss: the training loss.
            num_classes: P+1.
            conv_dims: channels of the layer before the classifier.
            pool_sizes: side lengths of the grids that the feature is pooled to.
            norm: normalisation of the convolutions. BN fails on a batch of one image in the 1x1
                grid, so that grid never has one.
        """
        super().__init__()
        if not input_shape:
            raise ValueError("PartPSPHead has no feature: MODEL.SEM_SEG_HEAD.IN_FEATURES is empty.")
        self.in_feature, shape = max(input_shape.items(), key=lambda item: item[1].stride)
        self.size_divisibility = shape.stride
        self.feature_channels = conv_dims
        self.feature_stride = shape.stride
        self.part_loss = part_loss
        self.num_classes = num_classes
        self.pool_sizes = tuple(pool_sizes)

        branch_dims = max(1, shape.channels // len(self.pool_sizes))
        if norm == "GN":  # whose groups must divide the channels
            branch_dims -= branch_dims % _GN_GROUPS
        if branch_dims == 0:
            raise ValueError(
                f'MODEL.SEM_SEG_HEAD.NORM is "GN", which needs {_GN_GROUPS} channels a branch, but '
                f"{shape.channels} channels of {self.in_feature!r} in {len(self.pool_sizes)} "
                'branches (POOL_SIZES) have fewer: take "BN", or fewer branches.'
            )
        self.branches = nn.ModuleList(
            conv(shape.channels, branch_dims, 1, norm if size > 1 else "")
            for size in self.pool_sizes
        )
        width = shape.channels + branch_dims * len(self.pool_sizes)
        self.fuse = conv(width, conv_dims, 3, norm)
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {k: v for k, v in input_shape.items() if k in head.IN_FEATURES},
            "part_loss": _part_loss(cfg),
            "num_classes": head.NUM_CLASSES,
            "conv_dims": head.CONVS_DIM,
            "pool_sizes": head.POOL_SIZES,
            "norm": head.NORM,
        }

    def part_features(self, features: dict[str, Tensor]) -> Tensor:
        """See :meth:`PartHead.part_features`."""
        feature = features[self.in_feature]
        size = feature.shape[-2:]
        pyramid = [feature]
        for grid, branch in zip(self.pool_sizes, self.branches, strict=True):
            pooled = branch(F.adaptive_avg_pool2d(feature, grid))
            pyramid.append(F.interpolate(pooled, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(pyramid, dim=1))

    def predict(self, feature: Tensor) -> Tensor:
        """See :meth:`PartHead.predict`."""
        return F.interpolate(
            self.predictor(feature).float(),
            scale_factor=self.feature_stride,
            mode="bilinear",
            align_corners=False,
        )


def _part_loss(cfg) -> PartLoss:
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.CLASS_WEIGHTS and len(head.CLASS_WEIGHTS) != head.NUM_CLASSES:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(head.CLASS_WEIGHTS)} entries, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {head.NUM_CLASSES} (background and parts)."
        )
    return PartLoss(
        class_weights=head.CLASS_WEIGHTS,
        top_k=head.OHEM_TOP_K,
        ignore_value=head.IGNORE_VALUE,
        weight=head.LOSS_WEIGHT,
    )


def conv(in_channels: int, out_channels: int, kernel_size: int, norm: str | None) -> Conv2d:
    """A convolution of the same size, its normalisation, ReLU."""
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
    )
    weight_init.c2_msra_fill(layer)
    return layer
