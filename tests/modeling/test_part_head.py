import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec

from instance_crf.modeling import PartFPNHead, PartLoss, PartPSPHead

SHAPES = {"p2": ShapeSpec(channels=8, stride=4), "p3": ShapeSpec(channels=8, stride=8)}


def features(batch=2, height=32, width=64):
    return {
        name: torch.randn(batch, s.channels, height // s.stride, width // s.stride)
        for name, s in SHAPES.items()
    }


def build_fpn(subpixel=1):
    return PartFPNHead(
        SHAPES,
        part_loss=PartLoss(),
        num_classes=3,
        conv_dims=8,
        common_stride=4,
        norm="BN",
        subpixel=subpixel,
    )


def build_psp():
    return PartPSPHead(
        SHAPES, part_loss=PartLoss(), num_classes=3, conv_dims=8, pool_sizes=[1, 2, 4], norm="BN"
    )


HEADS = [build_fpn, lambda: build_fpn(subpixel=2), build_psp]


@pytest.mark.parametrize("build", HEADS)
def test_logits_have_the_size_of_the_image(build):
    assert build().part_logits(features()).shape == (2, 3, 32, 64)


@pytest.mark.parametrize("build", HEADS)
def test_feature_before_the_predictor(build):
    head, inputs = build().eval(), features()
    feature = head.part_features(inputs)
    stride = head.feature_stride
    assert feature.shape == (2, head.feature_channels, 32 // stride, 64 // stride)
    assert torch.equal(head.predict(feature), head.part_logits(inputs))


@pytest.mark.parametrize("build", HEADS)
def test_detectron2_contract(build):
    head, inputs = build(), features()
    target = torch.randint(0, 3, (2, 32, 64))
    nothing, losses = head(inputs, target)
    assert nothing is None and set(losses) == {"loss_parts"}
    losses["loss_parts"].backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
    logits, losses = head.eval()(inputs)
    assert logits.shape == (2, 3, 32, 64) and losses == {}


@pytest.mark.parametrize("build", HEADS)
def test_one_image_of_a_batch_is_independent_of_the_others(build):
    head, inputs = build().eval(), features()
    alone = head.part_logits({k: v[:1] for k, v in inputs.items()})
    torch.testing.assert_close(head.part_logits(inputs)[:1], alone)


def test_one_image_trains_with_the_1x1_grid():
    head, inputs = build_psp(), features(batch=1)
    head(inputs, torch.zeros(1, 32, 64, dtype=torch.int64))[1]["loss_parts"].backward()


@pytest.mark.parametrize("channels", [256, 2048])
def test_five_resolutions_with_group_norm(channels):
    shape = ShapeSpec(channels=channels, stride=16)
    head = PartPSPHead(
        {"res5": shape},
        part_loss=PartLoss(),
        num_classes=3,
        conv_dims=32,
        pool_sizes=[1, 2, 3, 6, 9],
        norm="GN",
    )
    assert head.part_logits({"res5": torch.randn(1, channels, 4, 5)}).shape == (1, 3, 64, 80)


def test_subpixel_predicts_finer_than_the_common_stride():
    head = build_fpn(subpixel=2)
    feature = head.part_features(features())
    assert head.predictor(feature).shape == (2, 3 * 4, 8, 16)


def test_fpn_head_computes_as_detectron2_does():
    head, inputs = build_fpn().eval(), features()
    logits = F.interpolate(head.layers(inputs), scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(head.part_logits(inputs), logits)


def test_loss_is_pytorchs_cross_entropy():
    logits = torch.randn(2, 3, 4, 5)
    target = torch.randint(0, 3, (2, 4, 5))
    target[0, :2] = 255
    ours = PartLoss(weight=2.0)(logits, target)["loss_parts"]
    torch.testing.assert_close(ours, 2 * F.cross_entropy(logits, target, ignore_index=255))


def test_class_weights_and_hardest_pixels_by_hand():
    logits = torch.zeros(1, 2, 1, 3)  # every pixel costs ln 2
    target = torch.tensor([[[0, 1, 1]]])
    loss = PartLoss(class_weights=[1.0, 3.0], top_k=2)(logits, target)["loss_parts"]
    assert loss.item() == pytest.approx(3 * 0.6931472)


@pytest.mark.parametrize("top_k", [1, 0.5])
def test_hardest_pixels_are_those_of_each_image(top_k):
    # Class 0 costs ln(1 + e^x): 2 pixels an image; padding is ignored, however hard.
    logits = torch.zeros(2, 2, 1, 3)
    logits[:, 1] = torch.tensor([[[1.0, 2.0, 50.0]], [[8.0, 9.0, 50.0]]])
    target = torch.tensor([[[0, 0, 255]]] * 2)
    loss = PartLoss(top_k=top_k)(logits, target)["loss_parts"]
    hardest = F.softplus(torch.tensor([2.0, 9.0]))
    assert loss.item() == pytest.approx(hardest.mean().item())


def test_a_wrong_number_of_hardest_pixels_is_refused_at_once():
    with pytest.raises(ValueError, match="OHEM_TOP_K"):
        PartLoss(top_k=1.5)
