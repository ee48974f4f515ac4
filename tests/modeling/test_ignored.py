"""Anchors and proposals on ignored pixels teach a detector nothing."""

import pytest
import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage

from instance_crf.modeling.ignored import IgnoringRPN, ignored_share, without_ignored

ALL = ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10**6, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 10**6)


def share_by_counting(box, ignored):
    """Of the pixels whose centres are in the box of rounded corners."""
    x1, y1, x2, y2 = (int(round(v)) for v in box)
    rows, columns = torch.meshgrid(*map(torch.arange, ignored.shape), indexing="ij")
    inside = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    return float(ignored[inside].float().mean()) if inside.any() else 0.0


def test_the_share_by_hand():
    ignored = torch.zeros(6, 8, dtype=torch.bool)
    ignored[2:4, 2:6] = True
    boxes = [[2, 2, 6, 4], [0, 0, 4, 4], [-9, -9, 4, 4], [6, 4, 8, 6], [9, 0, 12, 3], [3, 3, 3, 3]]
    expected = [1.0, 0.25, 0.25, 0.0, 0.0, 0.0]
    assert ignored_share(torch.tensor(boxes).float(), ignored).tolist() == expected


def test_the_share_by_counting():
    ignored = torch.rand(23, 31) < 0.4
    corner, size = torch.rand(60, 2) * 40 - 8, torch.rand(60, 2) * 30
    boxes = torch.cat([corner, corner + size], dim=1)
    expected = [share_by_counting(box.tolist(), ignored) for box in boxes]
    torch.testing.assert_close(ignored_share(boxes, ignored), torch.tensor(expected))


@pytest.fixture
def both(make_model):
    """Detectron2's RPN and ours, of the same weights."""
    ours = make_model(*ALL)
    theirs = make_model(*ALL)
    theirs.load_state_dict(ours.state_dict())
    assert type(ours.proposal_generator) is IgnoringRPN
    theirs.proposal_generator.__class__ = RPN
    return ours.train(), theirs.train()


def sampled(model, inputs, **more):
    """The label of each anchor, for each image."""
    found = []
    rpn = model.proposal_generator
    sample = rpn.label_and_sample_anchors

    def listen(anchors, objects):
        labels, boxes = sample(anchors, objects)
        found.append((Boxes.cat(anchors).tensor, labels))
        return labels, boxes

    rpn.label_and_sample_anchors = listen
    images = model.preprocess_image(inputs)
    with EventStorage():
        rpn(images, model.backbone(images.tensor), [x["instances"] for x in inputs], **more)
    del rpn.label_and_sample_anchors
    return found[0]


def test_anchors_by_counting(both, people):
    ours, theirs = both
    inputs = [people(), people()]
    ignored = torch.zeros(48, 64, dtype=torch.bool)
    ignored[:, 30:] = True
    anchors, expected = sampled(theirs, inputs)
    _, labels = sampled(ours, inputs, ignored=[ignored, None])
    lies = torch.tensor([share_by_counting(box.tolist(), ignored) > 0.5 for box in anchors])
    assert torch.equal(labels[1], expected[1])
    assert torch.equal(labels[0][~lies], expected[0][~lies])
    negative = expected[0] == 0
    assert (negative & lies).any() and (labels[0][negative & lies] == -1).all()
    # The second of the two people is annotated: what matches is positive, also there.
    assert (expected[0][lies] == 1).any()
    assert (labels[0][lies & (expected[0] == 1)] == 1).all()


def test_proposals_by_hand(make_model):
    objects, proposals = Instances((40, 60)), Instances((40, 60))
    objects.gt_boxes = Boxes(torch.tensor([[0.0, 0, 20, 40]]))
    boxes = [[0, 0, 18, 40], [30, 0, 50, 40], [20, 0, 40, 40], [21, 0, 41, 40], [0, 0, 60, 40]]
    proposals.proposal_boxes = Boxes(torch.tensor(boxes).float())
    ignored = torch.zeros(40, 60, dtype=torch.bool)
    ignored[:, 31:] = True
    matcher = make_model().roi_heads.proposal_matcher
    kept = without_ignored(proposals, objects, ignored, matcher).proposal_boxes.tensor
    assert kept[:, 0].tolist() == [0, 20, 21, 0]  # shares 0, 0.45, 0.5, 0.48; that of 0.95 goes
    ignored[:] = True
    kept = without_ignored(proposals, objects, ignored, matcher).proposal_boxes.tensor
    assert kept[:, 2].tolist() == [18]
    assert without_ignored(proposals, objects, None, matcher) is proposals
    nobody = Instances((40, 60), gt_boxes=Boxes(torch.zeros(0, 4)))
    assert len(without_ignored(proposals, nobody, ignored, matcher)) == 0


def losses(model, inputs):
    torch.manual_seed(3)
    model.zero_grad()
    with EventStorage():
        found = model(inputs)
    sum(found.values()).backward()
    return found


@pytest.mark.parametrize("nowhere", [None, torch.zeros(48, 64, dtype=torch.bool)])
def test_without_ignored_pixels_it_is_detectron2(both, people, nowhere):
    ours, theirs = both
    for model in both:  # so few that it matters which ones are drawn
        model.proposal_generator.batch_size_per_image = 8
        model.roi_heads.batch_size_per_image = 8
    inputs = [people()]
    expected = losses(theirs, inputs)
    found = losses(ours, [x if nowhere is None else x | {"ignored": nowhere} for x in inputs])
    for name, loss in expected.items():
        assert torch.equal(found[name], loss), name
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is None or torch.equal(mine.grad, other.grad)


@pytest.mark.parametrize("masks", [False, True])
def test_an_image_where_everything_is_ignored(make_model, people, masks):
    """Also with nobody annotated: there the heads' own labels would be "background"."""
    model = make_model(*ALL, "MODEL.MASK_ON", masks).train()
    inputs = people()
    inputs["instances"] = inputs["instances"][:0]
    if masks:
        from detectron2.structures import BitMasks

        inputs["instances"].gt_masks = BitMasks(torch.zeros(0, 48, 64, dtype=torch.bool))
    inputs["object_seg"][:], inputs["part_seg"][:] = -1, 255
    inputs["ignored"] = torch.ones(48, 64, dtype=torch.bool)
    found = losses(model, [inputs])
    for name in ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"):
        assert found[name] == 0, name
    del inputs["ignored"]
    assert losses(model, [inputs])["loss_cls"] > 0


def test_iou_of_the_ignored_person_does_not_matter(both):
    """Two people of one size, one of them ignored: its anchors are as if it were not there."""
    ours, _ = both
    scene = Instances((48, 64), gt_boxes=Boxes(torch.tensor([[0.0, 0, 32, 48]])))
    scene.gt_classes = torch.zeros(1, dtype=torch.int64)
    ignored = torch.zeros(48, 64, dtype=torch.bool)
    ignored[:, 32:] = True
    inputs = [{"image": torch.zeros(3, 48, 64, dtype=torch.uint8), "instances": scene}]
    anchors, (labels,) = sampled(ours, inputs, ignored=[ignored])
    on_it = pairwise_iou(Boxes(anchors), Boxes(torch.tensor([[32.0, 0, 64, 48]])))[:, 0] > 0.6
    assert on_it.any() and (labels[on_it] == -1).all()
