"""The identity head: evidence and targets against numbers by hand, and its place in the network."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.autograd import gradcheck

from instance_crf.modeling import IdentityHead
from instance_crf.modeling.identity_head import box_iou, object_cells, vote_evidence

IDENTITY = "MODEL.IDENTITY_HEAD"
TRUE_BOXES = ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "ground_truth")
VOTES = pytest.mark.parametrize("vote", ["box", "offset"])


def build(vote="box", **options):
    options = {"input_channels": 6, "stride": 4, "conv_dims": 8, "norm": "BN", **options}
    return IdentityHead(vote=vote, **options)


def objects(boxes, ids, size=(32, 48)):
    found = Instances(size)
    found.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.gt_object_ids = torch.tensor(ids, dtype=torch.int64)
    return found


def detections(boxes, size=(32, 48)):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return found


def two_objects():
    """Object 1 on the left; object 5 cut off by the right border; ids and order as they come."""
    object_seg = torch.zeros(32, 48, dtype=torch.int64)
    object_seg[4:28, 4:20] = 1
    object_seg[8:32, 36:48] = 5
    return object_seg, objects([[36, 8, 48, 32], [4, 4, 20, 28]], [5, 1])


@VOTES
@pytest.mark.parametrize("num_convs", [0, 2])
def test_shapes(vote, num_convs):
    head = build(vote, num_convs=num_convs)
    found = head(torch.randn(2, 6, 8, 12))
    assert found.shape == (2, 4 if vote == "box" else 2, 8, 12) and found.dtype == torch.float32
    given = [detections([[0, 0, 9, 9], [5, 5, 30, 30]]), detections([])]
    evidence = head.evidence(found, given, [(32, 48), (29, 33)])
    assert [tuple(e.shape) for e in evidence] == [(2, 32, 48), (0, 29, 33)]
    assert evidence[0].min() >= 0 and evidence[0].max() <= 1


def test_votes_start_around_their_pixel():
    """A head that knows nothing votes for a box 16 strides wide around the cell's centre."""
    feature = torch.zeros(1, 6, 3, 5)
    centre = torch.tensor([4 * 4 + 2.0, 2 * 4 + 2.0])
    found = build("box").eval()(feature)[0, :, 2, 4]
    torch.testing.assert_close(found, torch.cat([centre - 32, centre + 32]))
    torch.testing.assert_close(build("offset").eval()(feature)[0, :, 2, 4], centre)


@VOTES
def test_huge_outputs_stay_finite(vote):
    head = build(vote, num_convs=0)
    with torch.no_grad():
        head.predictor.bias.fill_(1e4)
    found = head(torch.randn(1, 6, 8, 12))
    (evidence,) = head.evidence(found, [detections([[0, 0, 9, 9]])], [(32, 48)])
    assert torch.isfinite(found).all() and torch.isfinite(evidence).all()


def test_iou_by_hand():
    first = torch.tensor([0.0, 0.0, 4.0, 2.0])
    second = torch.tensor([[0, 0, 4, 2], [2, 0, 6, 2], [4, 0, 8, 2], [9, 9, 9, 9], [1, 0, 3, 1]])
    expected = torch.tensor([1, 4 / 12, 0, 0, 2 / 8])
    torch.testing.assert_close(box_iou(first, second.float()), expected)
    nothing = torch.zeros(4)
    assert box_iou(nothing, nothing) == 0


def test_evidence_of_a_box_by_hand():
    vote = torch.tensor([[0.0, 0.0, 4.0, 2.0], [9.0, 9.0, 12.0, 12.0]]).T[:, None]  # (4, 1, 2)
    boxes = torch.tensor([[2.0, 0.0, 6.0, 2.0], [0.0, 0.0, 4.0, 2.0]])
    expected = torch.tensor([[[1 / 9, 0.0]], [[1.0, 0.0]]])
    torch.testing.assert_close(vote_evidence(vote, boxes, power=2.0), expected)


def test_evidence_of_a_centre_by_hand():
    vote = torch.tensor([[10.0], [20.0]])[:, None]  # (2, 1, 1): x 10, y 20
    boxes = torch.tensor([[0.0, 0.0, 8.0, 32.0], [5.0, 15.0, 15.0, 25.0]])  # centres 4 16, 10 20
    # 52 = 6^2 + 4^2; the size is 16, so sigma 8.
    expected = torch.tensor([-52 / (2 * 8**2), 0.0]).exp()[:, None, None]
    torch.testing.assert_close(vote_evidence(vote, boxes, sigma=0.5), expected)


@pytest.mark.parametrize("channels", [4, 2])
def test_gradient_of_the_evidence(channels):
    centre = torch.rand(2, 3, 3, dtype=torch.float64) * 30
    half = torch.rand(2, 3, 3, dtype=torch.float64) * 15 + 5
    vote = torch.cat([centre - half, centre + half])[:channels].requires_grad_()
    boxes = torch.tensor([[1, 2, 21, 33], [8, 3, 25, 28]], dtype=torch.float64)
    assert gradcheck(lambda v: vote_evidence(v, boxes, power=2.0, sigma=0.5), (vote,))
    away = boxes + 1000
    vote_evidence(vote, away).sum().backward()
    assert not vote.grad.any()


def test_evidence_is_read_at_the_pixels_of_the_image():
    """A cell's evidence stands at its centre, padding does not count, bilinear in between."""
    head = build(stride=2, input_channels=1)
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [50, 50, 60, 60], [0, 0, 4, 4]])
    vote = boxes.T.reshape(1, 4, 1, 4)  # evidence 1, 1, 0 for the image's cells; 1 in the padding
    (evidence,) = head.evidence(vote, [detections([[0, 0, 4, 4]])], [(2, 5)])
    expected = torch.tensor([1, 1, 1, 0.75, 0.25])
    torch.testing.assert_close(evidence, expected.expand(1, 2, 5))


def test_targets_are_the_boxes_of_what_is_left():
    object_seg, truth = two_objects()
    rows, columns, boxes = object_cells(object_seg, truth.gt_boxes.tensor, truth.gt_object_ids, 4)
    cells = map(tuple, torch.stack([rows, columns], dim=1).tolist())
    of_cell = dict(zip(cells, boxes.tolist(), strict=True))
    # Cells whose pixel (4 r + 2, 4 c + 2) is an object's.
    left = {(r, c): [4, 4, 20, 28] for r in range(1, 7) for c in range(1, 5)}
    cut = {(r, c): [36, 8, 48, 32] for r in range(2, 8) for c in range(9, 12)}
    assert of_cell == {**left, **cut}


def test_sizes_that_the_stride_does_not_divide():
    object_seg = torch.ones(30, 46, dtype=torch.int64)
    rows, columns, _ = object_cells(object_seg, torch.zeros(1, 4), torch.tensor([1]), 16)
    cells = torch.stack([rows, columns], dim=1).tolist()
    assert cells == [[r, c] for r in range(2) for c in range(3)]


@VOTES
def test_loss_of_the_truth_is_zero(vote):
    object_seg, truth = two_objects()
    rows, columns, boxes = object_cells(object_seg, truth.gt_boxes.tensor, truth.gt_object_ids, 4)
    head, found = build(vote), torch.full((1, 4, 8, 12), 77.0)
    if vote == "offset":
        boxes, found = (boxes[:, :2] + boxes[:, 2:]) / 2, found[:, :2]
    found[0, :, rows, columns] = boxes.T
    assert head.losses(found, [truth], [object_seg])["loss_identity"] == 0


def test_loss_by_hand():
    object_seg = torch.zeros(8, 8, dtype=torch.int64)
    object_seg[:, :4] = 1
    truth = objects([[0, 0, 4, 8]], [1])
    boxes = build(loss_weight=3.0)
    found = torch.tensor([0.0, 0.0, 4.0, 4.0])[None, :, None, None].repeat(1, 1, 2, 2)
    loss = boxes.losses(found, [truth], [object_seg])["loss_identity"]
    assert loss.item() == pytest.approx(3 * 0.5)
    centre = torch.tensor([2.0, 2.0])[None, :, None, None].repeat(1, 1, 2, 2)
    loss = build("offset").losses(centre, [truth], [object_seg])["loss_identity"]
    # x is right, y is off by 2 / sqrt(32) object sizes, beyond the quadratic 0.1.
    assert loss.item() == pytest.approx((2 / 32**0.5 - 0.05) / 2)


@VOTES
def test_crowds_ignored_pixels_and_nobody_teach_nothing(vote):
    head = build(vote)
    object_seg, truth = two_objects()
    feature = torch.randn(1, 6, 8, 12)
    plain = head(feature)
    others = object_seg.clone()
    others[:2], others[28:, :30] = -1, 9  # ignored; an object without a box
    expected = head.losses(plain, [truth], [object_seg])["loss_identity"]
    assert torch.equal(head.losses(plain, [truth], [others])["loss_identity"], expected)

    for empty in (torch.zeros_like(object_seg), torch.full_like(object_seg, -1)):
        head.zero_grad()
        loss = head.losses(head(feature), [objects([], [])], [empty])["loss_identity"]
        loss.backward()
        assert loss == 0
        assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


@VOTES
def test_overfits_a_small_batch(vote):
    head = build(vote, input_channels=16, conv_dims=16)
    object_seg, truth = two_objects()
    feature = torch.randn(1, 16, 8, 12)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss = head.losses(head(feature), [truth], [object_seg])["loss_identity"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    # What was learned tells the two apart.
    given = [detections([[4, 4, 20, 28], [36, 8, 48, 32]])]
    (evidence,) = head.evidence(head(feature), given, [(32, 48)])
    best = evidence.argmax(0)
    assert (best[6:26, 6:18] == 0).all() and (best[10:30, 38:46] == 1).all()


@VOTES
def test_gradient_of_the_evidence_reaches_the_head(vote):
    head = build(vote)
    feature = torch.randn(1, 6, 8, 12, requires_grad=True)
    given = [detections([[0, 0, 30, 30], [10, 0, 48, 32]])]
    head.evidence(head(feature), given, [(32, 48)])[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.predictor.parameters())
    assert feature.grad.any()


@VOTES
def test_float32_under_autocast(vote):
    head = build(vote)
    object_seg, truth = two_objects()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(torch.randn(1, 6, 8, 12))
        (evidence,) = head.evidence(found, [detections([[0, 0, 30, 30]])], [(32, 48)])
        loss = head.losses(found, [truth], [object_seg])["loss_identity"]
    assert found.dtype == evidence.dtype == loss.dtype == torch.float32


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vote": "mask"}, "VOTE has 'mask'"),
        ({"power": 0.5}, "POWER is 0.5"),
        ({"sigma": 0}, "SIGMA 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


class SpyOnEvidence(torch.nn.Module):
    """A CRF head that keeps the evidence it is given, and passes everything on."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def losses(self, *args, evidence):
        self.evidence = evidence
        return self.head.losses(*args, evidence=evidence)

    def inference(self, *args, evidence):
        self.evidence = evidence
        return self.head.inference(*args, evidence=evidence)


def train_once(model, inputs):
    with EventStorage():
        return model.train()(inputs)


@VOTES
def test_the_network_passes_evidence_to_the_crf(make_model, people, vote):
    model = make_model(*TRUE_BOXES, f"{IDENTITY}.VOTE", vote)
    model.crf_head = SpyOnEvidence(model.crf_head)
    inputs = [people(48, 64), people(41, 57)]
    losses = train_once(model, inputs)
    assert "loss_identity" in losses
    assert [tuple(e.shape) for e in model.crf_head.evidence] == [(2, 48, 64), (2, 41, 57)]
    sum(e.sum() for e in model.crf_head.evidence).backward()
    assert model.identity_head.predictor.weight.grad.any()
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.roi_heads.parameters())

    outputs = model.eval()(inputs)
    assert [tuple(e.shape) for e in model.crf_head.evidence] == [(2, 48, 64), (2, 41, 57)]
    assert not any("vote" in output or "evidence" in output for output in outputs)
    model.keep_evidence = True
    output = model([{**inputs[0], "height": 60, "width": 50}])[0]
    assert output["vote"].shape == (4 if vote == "box" else 2, 16, 16)  # of the padded input
    assert torch.equal(output["evidence"], model.crf_head.evidence[0])


def test_the_network_without_an_identity_head(make_model, people):
    model = make_model(*TRUE_BOXES, f"{IDENTITY}.ENABLED", False)
    model.crf_head = SpyOnEvidence(model.crf_head)
    model.keep_evidence = True
    assert "loss_identity" not in train_once(model, [people()])
    assert model.crf_head.evidence == [None]
    output = model.eval()([people()])[0]
    assert not {"vote", "evidence"} & set(output) and model.crf_head.evidence == [None]


def test_it_learns_before_there_is_a_crf_and_without_people(make_model, people):
    model = make_model("MODEL.INSTANCE_CRF.ENABLED", False, "MODEL.DETECTOR.ENABLED", False)
    losses = train_once(model, [people()])
    assert set(losses) == {"loss_parts", "loss_identity"} and losses["loss_identity"] > 0
    nobody = people()
    nobody["instances"] = nobody["instances"][:0]
    nobody["object_seg"], nobody["part_seg"] = torch.zeros(2, 48, 64, dtype=torch.int64)
    losses = train_once(model, [nobody])
    assert losses["loss_identity"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.identity_head.parameters())
    model.keep_evidence = True
    assert model.eval()([nobody])[0]["evidence"].shape == (0, 48, 64)


def test_two_object_classes_vote_alike(make_model, people):
    """A vote knows no class: a detection's class changes nothing in its evidence."""
    classes = ("MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.INSTANCE_CRF.PART_OWNER", [0] * 3 + [1] * 3)
    model = make_model(*TRUE_BOXES, *classes).eval()
    model.keep_evidence = True
    inputs = people()
    first = model([inputs])[0]["evidence"]
    inputs["instances"].gt_classes = torch.tensor([0, 1])
    assert torch.equal(model([inputs])[0]["evidence"], first)
    assert train_once(model, [inputs])["loss_identity"] > 0


def test_frozen(make_model, people):
    """A frozen head still gives evidence, and the CRF's loss goes through it to what learns."""
    model = make_model(*TRUE_BOXES, "MODEL.FREEZE", ["identity_head"])
    model.crf_head = SpyOnEvidence(model.crf_head)
    before = {k: v.clone() for k, v in model.identity_head.state_dict().items()}
    assert "loss_identity" not in train_once(model, [people()])
    model.crf_head.evidence[0].sum().backward()
    assert all(p.grad is None for p in model.identity_head.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.part_head.parameters())
    after = model.identity_head.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not model.identity_head.training


def test_the_network_says_whose_pixels_are_before_and_after_mean_field(make_model, people):
    """In pixels of its input, whatever size is wanted."""
    model = make_model(*TRUE_BOXES).eval()
    inputs = [people(48, 64), people(41, 57)]
    plain = model(inputs)
    model.keep_whose = True
    outputs = model(inputs)
    for output, before, size in zip(outputs, plain, [(48, 64), (41, 57)], strict=True):
        assert set(output) - set(before) == {"whose_before", "object_prob"}
        assert output["whose_before"].shape == output["object_prob"].shape == (2, *size)
        assert torch.equal(output["part_instances"].object_map, before["part_instances"].object_map)
    resized = model([{**x, "height": 150, "width": 180} for x in inputs])
    for output, other in zip(outputs, resized, strict=True):
        for name in ("whose_before", "object_prob"):
            torch.testing.assert_close(output[name], other[name])
