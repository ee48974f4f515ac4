import pytest
import torch

from instance_crf.modeling.backbone import build_slim_resnet


def build(**changes):
    arguments = {"stem_channels": 8, "channels": [8, 12, 16], "blocks": [1, 2, 1], "norm": "BN"}
    return build_slim_resnet(
        3, **{**arguments, "out_features": ["res2", "res3", "res4"], **changes}
    )


def test_widths_and_strides():
    features = build()(torch.randn(2, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in features.items()} == {
        "res2": (2, 8, 16, 24),
        "res3": (2, 12, 8, 12),
        "res4": (2, 16, 4, 6),
    }


def test_bad_widths():
    with pytest.raises(ValueError, match="CHANNELS and BLOCKS"):
        build(blocks=[1, 2])
    with pytest.raises(ValueError, match=r"\[8, 8, 16\]: neighbours"):
        build(channels=[8, 8, 16])
