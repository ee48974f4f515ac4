"""A narrow ResNet with FPN for small pictures and CPUs.

Detectron2's ResNet builders fix the widths of ResNet-18/34 to 64..512; this one takes any widths
and otherwise uses Detectron2's blocks, ResNet and FPN.
"""

from __future__ import annotations

from collections.abc import Sequence

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, CNNBlockBase
from torch import Tensor

__all__ = ["SlimStem", "build_slim_resnet", "build_slim_resnet_fpn_backbone"]


class SlimStem(CNNBlockBase):
    """Three 3x3 convolutions to stride 4; keeps thin limbs better than 7x7 and pooling."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__(in_channels, out_channels, stride=4)

        def conv(channels: int, stride: int) -> Conv2d:
            layer = Conv2d(
                channels,
                out_channels,
                kernel_size=3,
                stride=stride,
                padding=1,
                bias=not norm,
                norm=get_norm(norm, out_channels),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(layer)
            return layer

        self.conv1 = conv(in_channels, 2)
        self.conv2 = conv(out_channels, 1)
        self.conv3 = conv(out_channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H/4, W/4)."""
        return self.conv3(self.conv2(self.conv1(x)))


def build_slim_resnet(
    in_channels: int,
    *,
    stem_channels: int,
    channels: Sequence[int],
    blocks: Sequence[int],
    norm: str,
    out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
) -> ResNet:
    """A ResNet of basic blocks with free widths.

    Args:
        in_channels: channels of the image.
        stem_channels: channels after the stem, stride 4.
        channels, blocks: width and number of blocks of res2 .. res5, strides 4, 8, 16, 32.
        norm: normalisation, see :func:`detectron2.layers.get_norm`.
        out_features: stages to return.

    Raises:
        ValueError: ``channels`` and ``blocks`` of different length, equal neighbours in
            ``channels``.
    """
    if len(channels) != len(blocks):
        raise ValueError(
            "MODEL.SLIM_RESNET.CHANNELS and BLOCKS need one entry a stage each, got "
            f"{list(channels)} and {list(blocks)}."
        )
    if any(one == other for one, other in zip(channels, channels[1:], strict=False)):
        # Detectron2's BasicBlock has a shortcut that can stride only where the width changes.
        raise ValueError(f"MODEL.SLIM_RESNET.CHANNELS is {list(channels)}: neighbours must differ.")
    stem = SlimStem(in_channels, stem_channels, norm)
    stages, width = [], stem_channels
    for index, (out_channels, num_blocks) in enumerate(zip(channels, blocks, strict=True)):
        strides = [1 if index == 0 else 2] + [1] * (num_blocks - 1)
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks,
                in_channels=width,
                out_channels=out_channels,
                stride_per_block=strides,
                norm=norm,
            )
        )
        width = out_channels
    return ResNet(stem, stages, out_features=list(out_features))


@BACKBONE_REGISTRY.register()
def build_slim_resnet_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """``MODEL.SLIM_RESNET`` below Detectron2's FPN (``MODEL.FPN``), levels p2 .. p5."""
    slim = cfg.MODEL.SLIM_RESNET
    bottom_up = build_slim_resnet(
        input_shape.channels,
        stem_channels=slim.STEM_CHANNELS,
        channels=slim.CHANNELS,
        blocks=slim.BLOCKS,
        norm=slim.NORM,
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
