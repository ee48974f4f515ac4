"""The baselines of regions in training and in inference, as the tools and evaluators use them."""

import pytest
import torch
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn

PARTS, TOP_DOWN = "baselines/tiny_part_mask_rcnn.yaml", "baselines/tiny_top_down.yaml"
SMALL = (
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("TEST.DETECTIONS_PER_IMAGE", 12),
)
both = pytest.mark.parametrize("config", [PARTS, TOP_DOWN])
KEYS = {"part_instances", "sem_seg", "panoptic_seg", "instances", "detections"}


def train_once(model, inputs):
    with EventStorage():
        return model.train()(inputs)


@both
def test_everything_learns(make_model, masked_people, config):
    model = make_model(config, *SMALL)
    losses = train_once(model, [masked_people(), masked_people(41, 57)])
    names = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert set(losses) == names | {"loss_mask" if config == PARTS else "loss_parts"}
    assert all(loss > 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@both
def test_training_without_people(make_model, masked_people, config):
    model = make_model(config, *SMALL)
    nobody = masked_people()
    nobody["instances"] = nobody["instances"][:0]
    nobody["object_seg"], nobody["part_seg"] = torch.zeros(2, 48, 64, dtype=torch.int64)
    losses = train_once(model, [nobody])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.roi_heads.mask_head.parameters())


@both
def test_what_nobody_knows_teaches_nothing(make_model, masked_people, config):
    """A picture of nothing but ignored pixels, and without a padding."""
    model = make_model(config, *SMALL)
    unknown = masked_people(64, 64)
    unknown["instances"] = unknown["instances"][:0]
    unknown["object_seg"] = torch.full((64, 64), -1)
    unknown["part_seg"] = torch.full((64, 64), 255)
    unknown["ignored"] = torch.ones(64, 64, dtype=torch.bool)
    losses = train_once(model, [unknown])
    assert losses["loss_rpn_cls"] == 0
    assert all(torch.isfinite(loss) for loss in losses.values())


@both
def test_inference(make_model, masked_people, config):
    torch.manual_seed(0)
    model = make_model(config, *SMALL).eval()
    inputs = {**masked_people(48, 64), "height": 60, "width": 50}
    for output, size in zip(
        model([inputs, masked_people(41, 57)]), [(60, 50), (41, 57)], strict=True
    ):
        result, (id_map, segments) = output["part_instances"], output["panoptic_seg"]
        assert set(output) == KEYS and result.image_size == size
        assert output["sem_seg"].shape == (7, *size)
        assert len(segments) == len(result.segment_part) == id_map.unique().ne(0).sum()
        assert output["instances"].pred_masks.shape == (len(result), *size)
        fields = set(output["detections"].get_fields())
        assert fields == {"pred_boxes", "scores", "pred_classes"}
        assert len(result) + len(result.left_out_scores) == len(output["detections"])
        assert not output["detections"].pred_classes.any()


@both
def test_nothing_found(make_model, masked_people, config):
    model = make_model(config, *SMALL).eval()
    model.roi_heads.box_predictor.test_score_thresh = 1.1
    output = model([masked_people()])[0]
    assert len(output["part_instances"]) == len(output["detections"]) == 0
    assert output["sem_seg"][0].eq(1).all() and output["panoptic_seg"][1] == []


class Smaller(nn.Module):
    """ROI heads whose boxes are halved before the other heads see them."""

    def __init__(self, heads):
        super().__init__()
        self.heads = heads

    def forward(self, images, features, proposals, targets):
        found, _ = self.heads(images, features, proposals, None)
        for x in found:
            centre = x.pred_boxes.get_centers().repeat(1, 2)
            x.pred_boxes = Boxes((x.pred_boxes.tensor + centre) / 2)
        return self.heads.forward_with_given_boxes(features, found), {}


@both
def test_given_boxes(make_model, masked_people, config):
    """What is painted stays in them."""
    torch.manual_seed(0)
    model, inputs = make_model(config, *SMALL).eval(), masked_people()
    before = model([inputs])[0]
    model.roi_heads = Smaller(model.roi_heads)
    after = model([inputs])[0]
    boxes, halved = before["detections"].pred_boxes, after["detections"].pred_boxes
    torch.testing.assert_close(halved.get_centers(), boxes.get_centers())
    torch.testing.assert_close(halved.area() * 4, boxes.area())
    if config == TOP_DOWN:
        result = after["part_instances"]
        for mask, (left, top, right, bottom) in zip(
            result.object_masks(), result.boxes.tolist(), strict=True
        ):
            rows, columns = mask.nonzero().unbind(1)
            assert left - 0.5 <= columns.min() and columns.max() <= right - 0.5
            assert top - 0.5 <= rows.min() and rows.max() <= bottom - 0.5


@both
@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.MASK_ON", False),
        ("MODEL.FREEZE", ["backbone"]),
        ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "record"),
    ],
)
def test_keys_that_a_baseline_does_not_know(make_model, config, key, value):
    with pytest.raises(ValueError, match=key):
        make_model(config, *SMALL, key, value)
