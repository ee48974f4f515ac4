"""Masks as evidence: pasted values by hand, and their way through the network."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from instance_crf.modeling.detections import keep_best, keep_classes, without_masks
from instance_crf.modeling.evidence import join_evidence, mask_evidence

EVIDENCE = "MODEL.INSTANCE_CRF.IDENTITY.EVIDENCE"
SOURCE = "MODEL.INSTANCE_CRF.DETECTIONS.SOURCE"
GIVEN = (SOURCE, "record", "MODEL.DETECTOR.ENABLED", False)
MASKS = (
    *("MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8),
    *("MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH", 0.0),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
)


def detections(boxes, masks=None, size=(16, 24), scores=None):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.tensor(scores or [0.9] * len(boxes))
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    if masks is not None:
        found.pred_masks = masks
    return found


def train_once(model, inputs):
    with EventStorage():
        return model.train()(inputs)


def test_pasted_by_hand():
    """One mask cell a pixel: the mask as it is. Four pixels a cell: linear between the centres."""
    mask = torch.rand(2, 1, 4, 4)
    mask[1] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = mask_evidence(detections([[3, 5, 7, 9], [4, 4, 20, 8]], mask))
    assert found.shape == (2, 16, 24) and found.dtype == torch.float32
    torch.testing.assert_close(found[0, 5:9, 3:7], mask[0, 0], atol=1 / 255, rtol=0)
    assert found[0].sum() == found[0, 5:9, 3:7].sum()
    # Cells are centred at x = 6, 10, 14, 18, pixels between them at 10.5, 11.5, ...
    torch.testing.assert_close(
        found[1, 5, 4:18],
        torch.tensor([0] * 6 + [0.125, 0.375, 0.625, 0.875] + [1] * 4).float(),
        atol=1 / 255,
        rtol=0,
    )


def test_boxes_beyond_the_image_and_none_at_all():
    found = mask_evidence(detections([[-4, -4, 4, 4]], torch.ones(1, 1, 4, 4)))
    assert found[0, :3, :3].eq(1).all()
    assert 0 < found[0, 4, 0] < 0.5 and found[0, 5:].sum() == 0  # fades within half a cell
    assert mask_evidence(detections([], torch.zeros(0, 1, 4, 4))).shape == (0, 16, 24)
    assert mask_evidence(detections([[0, 0, 4, 4]])) is None


def test_masks_of_the_whole_image_stay():
    mask = torch.rand(1, 16, 24) > 0.5
    assert torch.equal(mask_evidence(detections([[0, 0, 4, 4]], mask)), mask.float())


def test_the_product_of_what_there_is():
    vote, mask = torch.rand(2, 3, 4, 5)
    assert torch.equal(join_evidence(vote, mask), vote * mask)
    assert join_evidence(vote, None) is vote and join_evidence(None, mask) is mask
    assert join_evidence(None, None) is None


def test_masks_stay_with_their_detections():
    masks = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4) / 4
    found = detections([[0, 0, 4, 4], [5, 5, 5, 9], [2, 2, 9, 9]], masks, scores=[0.5, 0.9, 0.7])
    best = keep_best(found, score_thresh=0.1, max_per_image=5)
    assert best.pred_masks[:, 0, 0, 0].tolist() == [0.5, 0.0]
    found.pred_classes = torch.tensor([3, 1, 1])
    kept = keep_classes(found, torch.tensor([1]))
    assert kept.pred_masks[:, 0, 0, 0].tolist() == [0.25, 0.5]
    plain = without_masks(kept)
    assert set(plain.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    assert kept.has("pred_masks")


@pytest.mark.parametrize("agnostic", [True, False])
def test_training(make_model, masked_people, agnostic):
    """The mask head has its own loss; the CRF's loss does not reach it."""
    model = make_model(*MASKS, "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", agnostic)
    losses = train_once(model, [masked_people(), masked_people(41, 57)])
    assert losses["loss_mask"] > 0 and all(torch.isfinite(loss) for loss in losses.values())
    losses["loss_crf"].backward(retain_graph=True)
    assert all(p.grad is None for p in model.roi_heads.parameters())
    losses["loss_mask"].backward()
    assert model.roi_heads.mask_head.predictor.weight.grad.any()


def test_training_without_people(make_model, masked_people):
    model = make_model(*MASKS)
    nobody = masked_people()
    nobody["instances"] = nobody["instances"][:0]
    nobody["object_seg"], nobody["part_seg"] = torch.zeros(2, 48, 64, dtype=torch.int64)
    losses = train_once(model, [nobody])
    assert losses["loss_mask"] == 0 and all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_inference(make_model, masked_people):
    """What the CRF is given is the masks of the boxes that it is given."""
    model = make_model(*MASKS, EVIDENCE, ["masks"]).eval()
    model.keep_evidence = True
    inputs = {**masked_people(48, 64), "height": 60, "width": 50}
    output, other = model([inputs, masked_people(41, 57)])
    count = len(output["detections"])
    assert count == 3 and output["evidence"].shape == (3, 48, 64)
    assert other["evidence"].shape == (len(other["detections"]), 41, 57)
    assert set(output["detections"].get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    boxes = output["detections"].pred_boxes.tensor / torch.tensor([50 / 64, 60 / 48] * 2)
    for evidence, (left, top, right, bottom) in zip(output["evidence"], boxes, strict=True):
        rows, columns = evidence.nonzero().unbind(1)
        assert left - 1 <= columns.min() and columns.max() < right + 1
        assert top - 1 <= rows.min() and rows.max() < bottom + 1


def test_vote_and_masks(make_model, masked_people):
    torch.manual_seed(0)
    model = make_model(*MASKS).eval()
    model.keep_evidence = True
    inputs, found = masked_people(), {}
    for sources in (("vote",), ("masks",), ("vote", "masks"), ()):
        model.evidence = sources
        output = model([inputs])[0]
        found[sources] = output.get("evidence")
        assert "vote" in output
    assert found[()] is None
    assert found["masks",].any() and not torch.equal(found["masks",], found["vote",])
    torch.testing.assert_close(found["vote", "masks"], found["vote",] * found["masks",])


def test_nothing_found(make_model, masked_people):
    model = make_model(*MASKS)
    model.score_thresh = 1.1
    losses = train_once(model, [masked_people()])
    assert all(torch.isfinite(loss) for loss in losses.values())
    model.keep_evidence = True
    assert model.eval()([masked_people()])[0]["evidence"].shape == (0, 48, 64)
    model.roi_heads.box_predictor.test_score_thresh = 1.1  # the mask head is given no box
    assert model([masked_people()])[0]["evidence"].shape == (0, 48, 64)


def test_given_masks_decide(make_model, masked_people):
    """Two detections of the same box and score: each pixel is whose mask it is in."""
    model = make_model(
        *GIVEN, EVIDENCE, ["masks"], "MODEL.INSTANCE_CRF.PARTS.SOURCE", "ground_truth"
    )
    inputs = masked_people()
    masks = inputs["instances"].gt_masks.tensor
    given = detections([[2, 2, 62, 46]] * 2, masks, size=(48, 64))
    output = model.eval()([{**inputs, "detections": given}])[0]
    found = output["part_instances"].object_masks()
    assert torch.equal(found, masks)
    assert given.has("pred_masks") and not output["detections"].has("pred_masks")
    plain = masked_people()
    batch = [{**inputs, "detections": given}, {**plain, "detections": without_masks(given)}]
    model.keep_evidence = True
    assert ["evidence" in output for output in model(batch)] == [True, False]
    assert torch.isfinite(train_once(model, batch)["loss_crf"])


def test_only_the_mask_head_learns(make_model, masked_people):
    frozen = ["backbone", "part_head", "identity_head", "boxes"]
    options = ("MODEL.FREEZE", frozen, "MODEL.INSTANCE_CRF.ENABLED", False)
    model = make_model(*MASKS, *options)
    losses = train_once(model, [masked_people()])
    assert set(losses) == {"loss_mask"}
    losses["loss_mask"].backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned and all(name.startswith("roi_heads.mask_head") for name in learned)
    assert learned == {name for name, p in model.named_parameters() if p.requires_grad}


def test_frozen_boxes_stay_in_evaluation_mode(make_model, masked_people):
    """Also after the detections for the CRF, which need the whole detector in that mode."""
    model = make_model(*MASKS, "MODEL.FREEZE", ["boxes"])
    losses = train_once(model, [masked_people()])
    assert not {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"} & set(losses)
    heads = model.roi_heads
    assert heads.training and heads.mask_head.training
    assert not heads.box_head.training and not model.proposal_generator.training


def test_unknown_evidence(make_model):
    with pytest.raises(ValueError, match=r"IDENTITY.EVIDENCE has 'mask'; it is one of vote, masks"):
        make_model(EVIDENCE, ["mask"])
