"""The head of simple rules: by hand, against every pixel asking every detection, in the network."""

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from instance_crf.checkpoint import load_weights
from instance_crf.config_check import CHOICES
from instance_crf.modeling.rule_head import RULES, RuleHead
from instance_crf.solver import build_optimizer

CRF = "MODEL.INSTANCE_CRF"
HEAD = (f"{CRF}.NAME", "RuleHead", f"{CRF}.RULE")
MASKS = ("MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8)
ALL_BOXES = (f"{CRF}.DETECTIONS.SCORE_THRESH", 0.0, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)


def detections(boxes, scores, classes=None, masks=None, size=(1, 6)):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.as_tensor(boxes).reshape(-1, 4))
    found.scores = torch.as_tensor(scores)
    found.pred_classes = torch.as_tensor(classes or [0] * len(scores))
    if masks is not None:
        found.pred_masks = masks
    return found


def infer(rule, q, found, size=None, part_owner=(0, 0), **options):
    head = RuleHead(rule=rule, part_owner=part_owner, **options)
    image = torch.zeros(3, *q.shape[1:])
    return head.inference([q], [found], [image], [size or tuple(q.shape[1:])])[0]


def whose(result):
    """The object map, numbered by the detections."""
    return torch.cat([torch.zeros(1).long(), result.detection_index + 1])[result.object_map.long()]


@pytest.fixture
def row():
    """Six pixels: background, then parts 1 1 2 2 2, of probability 0.6; three detections."""
    q = torch.full((3, 1, 6), 0.2)
    q[[0, 1, 1, 2, 2, 2], 0, range(6)] = 0.6
    boxes = [[0.0, 0, 5, 1], [1, 0, 5, 1], [2, 0, 6, 1]]
    return q, boxes, [0.5, 0.9, 0.7]


# Centres 2.5, 3, 4; half widths 2.5, 2, 2. The last pixel, at 5.5, is in the third box alone.
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("best_box", [0, 2, 2, 2, 2, 3]),
        # |x - centre| / half: at 1.5 0.4, 0.75; at 2.5 0, 0.25, 0.75; at 3.5 0.4, 0.25, 0.25; ...
        ("nearest_centre", [0, 1, 1, 2, 3, 3]),
        ("smallest_box", [0, 2, 2, 2, 2, 3]),
        ("masks", [0, 1, 2, 2, 3, 0]),
        ("masks_then_centre", [0, 1, 2, 2, 3, 3]),
    ],
)
def test_by_hand(row, rule, expected):
    q, boxes, scores = row
    masks = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0]]).bool()
    result = infer(rule, q, detections(boxes, scores, masks=masks[:, None]))
    assert whose(result).tolist() == [expected]
    # What is nobody's keeps its part; marginals are 1.
    assert result.part_map.tolist() == [[0, 1, 1, 2, 2, 2]]
    for i, score in enumerate(result.segment_scores["product"].tolist()):
        found = result.detection_index[result.segment_object[i] - 1]
        assert score == pytest.approx(0.6 * scores[found])


def test_whole_masks_have_parts_where_q_is_background(row):
    q, boxes, scores = row
    q[:, 0, 0] = torch.tensor([0.6, 0.1, 0.3])
    masks = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    result = infer("whole_masks", q, detections(boxes, scores, masks=masks[:, None]))
    assert whose(result).tolist() == [[1, 1, 2, 2, 0, 0]]
    assert result.part_map.tolist() == [[2, 1, 1, 2, 0, 0]]
    # The scores of their parts: the mean of Q times the detection's, the first's 0.5 and 0.9.
    scores = result.segment_scores["product"].tolist()
    assert sorted(scores) == pytest.approx(sorted([0.3 * 0.5, 0.6 * 0.5, 0.6 * 0.9, 0.6 * 0.9]))


def bilinear(grid, y, x, *, zeros):
    """The value at (y, x), cells having their centres at halves; beyond them 0, or the nearest."""
    value, (height, width) = 0.0, grid.shape
    for row in (int(np.floor(y - 0.5)), int(np.floor(y - 0.5)) + 1):
        for column in (int(np.floor(x - 0.5)), int(np.floor(x - 0.5)) + 1):
            weight = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
            inside = 0 <= row < height and 0 <= column < width
            if inside or not zeros:
                value += weight * grid[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return value


def covers(mask, box, y, x, stretch):
    """Whether a mask, (1, M, M) of the box or (H, W) of the image, has a half at a pixel."""
    if len(mask) > 1:
        return bilinear(mask, y * stretch[0], x * stretch[1], zeros=False) >= 0.5
    x1, y1, x2, y2 = box
    rows, columns = mask[0].shape
    inside = (y - y1) / (y2 - y1) * rows, (x - x1) / (x2 - x1) * columns
    return bilinear(mask[0], *inside, zeros=True) >= 0.5


def wish(rule, box, score, mask, y, x, stretch):
    """How much a detection wants a pixel, more than any number if by its mask; None: not at all.
    The pixel and the box in pixels of the output; ``stretch``: (y, x) the input's over those."""
    if "masks" in rule and covers(mask, box, y, x, stretch):
        return (1, score)
    x1, y1, x2, y2 = box
    if rule in ("masks", "whole_masks") or not (x1 <= x < x2 and y1 <= y < y2):
        return None
    across, down = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
    wishes = {"best_box": score, "smallest_box": -(x2 - x1) * (y2 - y1)}
    return (0, wishes.get(rule, -(across**2) - down**2))


@pytest.mark.parametrize("size", [(9, 14), (13, 11)])
@pytest.mark.parametrize("rule", [*RULES, "masks of the image"], ids=lambda x: x)
def test_against_every_pixel_asking_every_detection(rule, size):
    """In double precision; two classes, of which each owns some parts."""
    generator = torch.Generator().manual_seed(3)
    q = torch.rand(5, 9, 14, generator=generator, dtype=torch.float64).softmax(0)
    boxes = [[1.3, 1, 7.1, 8], [4, 2.2, 12, 8.9], [5, 3, 9.4, 6.6], [0, 0, 4, 3.6], [3, 0, 14, 9]]
    boxes = torch.tensor(boxes, dtype=torch.float64)
    scores = torch.tensor([0.6, 0.9, 0.5, 0.3, 0.7], dtype=torch.float64)
    classes, part_owner = [0, 1, 0, 0, 1], [0, 1, 1, 0]
    masks = torch.rand(5, 1, 4, 4, generator=generator)
    if rule == "masks of the image":
        rule, masks = "masks", torch.rand(5, 9, 14, generator=generator) < 0.5
    found = detections(boxes, scores, classes, masks, size=(9, 14))
    result = infer(rule, q, found, size, part_owner)

    stretch = 9 / size[0], 14 / size[1]
    boxes = boxes.numpy() / np.tile(stretch[::-1], 2)
    parts, owners = np.zeros(size, int), np.zeros(size, int)
    for y, x in np.ndindex(size):
        centre = y + 0.5, x + 0.5
        at = centre[0] * stretch[0], centre[1] * stretch[1]
        of_parts = [bilinear(c, *at, zeros=False) for c in q.numpy()]
        part = int(np.argmax(of_parts))
        if rule == "whole_masks":
            part = 1 + int(np.argmax(of_parts[1:]))
        wishes = {
            i: wish(rule, box, float(scores[i]), masks[i].double().numpy(), *centre, stretch)
            for i, box in enumerate(boxes)
            if part and classes[i] == part_owner[part - 1]
        }
        wishes = {i: value for i, value in wishes.items() if value is not None}
        owners[y, x] = max(wishes, key=wishes.get) + 1 if wishes else 0
        parts[y, x] = part if wishes or rule != "whole_masks" else 0
    assert result.part_map.tolist() == parts.tolist()
    assert whose(result).tolist() == owners.tolist()
    assert len(np.unique(owners)) >= 4 and (owners == 0).any()
    assert ((owners == 0) & (parts > 0)).any() == (rule != "whole_masks")


@pytest.mark.parametrize("rule", RULES)
def test_nobody_is_detected(row, rule):
    result = infer(rule, row[0], detections([], []), (2, 12))
    assert len(result) == 0 and not result.object_map.any()
    parts = 0 if rule == "whole_masks" else 2  # else they are nobody's
    assert result.part_map.shape == (2, 12) and result.part_map.max() == parts


def test_small_shares_become_nobodys(row):
    q, boxes, scores = row
    result = infer("best_box", q, detections(boxes, scores), min_share=0.3)  # the third has 1 of 4
    assert result.detection_index.tolist() == [1] and len(result.left_out_boxes) == 2
    assert result.object_map.tolist() == [[0, 1, 1, 1, 1, 0]] and result.part_map[0, 5] == 2


def test_what_is_wrong_is_named(row, make_model):
    q, boxes, scores = row
    with pytest.raises(ValueError, match="RULE asks the detections' masks, but they have none"):
        infer("masks", q, detections(boxes, scores))
    with pytest.raises(ValueError, match="RULE is 'best'; it is one of best_box, nearest_centre"):
        RuleHead(rule="best", part_owner=[0])
    with pytest.raises(ValueError, match="Unknown score 'sum'"):
        RuleHead(rule="masks", part_owner=[0], score_name="sum")
    with pytest.raises(ValueError, match="RULE is 'masks', but MODEL.MASK_ON is False"):
        make_model(*HEAD, "masks")
    assert CHOICES[f"{CRF}.RULE"] == RULES


def test_masks_of_the_network_are_detectron2s(make_model, people):
    """At a size of its own, the objects are the masks of Detectron2's output, painted in order."""
    torch.manual_seed(0)
    model = make_model(*HEAD, "masks", *MASKS, *ALL_BOXES, f"{CRF}.MIN_SHARE", 0.0).eval()
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=3.0)
    inputs = {**people(48, 64), "height": 70, "width": 50}
    output = model([inputs])[0]["part_instances"]
    with torch.no_grad():
        images = model.preprocess_image([inputs])
        (found,) = model.detect([inputs], images, model.backbone(images.tensor))
    expected = torch.zeros(70, 50, dtype=torch.int64)
    for index, mask in reversed([*enumerate(detector_postprocess(found, 70, 50).pred_masks)]):
        expected[mask] = index + 1
    expected[output.part_map == 0] = 0
    assert len(found) == 3 and torch.equal(whose(output), expected)
    assert len(output) >= 2 and (output.part_map[expected == 0] > 0).any()


def test_a_network_trained_with_a_crf_or_without_loads(make_model, people, tmp_path):
    rule = make_model(*HEAD, "best_box").eval()
    for enabled in (True, False):
        trained = make_model(f"{CRF}.ENABLED", enabled)
        torch.save(trained.state_dict(), tmp_path / "weights.pth")
        load_weights(rule, str(tmp_path / "weights.pth"))
        assert all(torch.equal(v, trained.state_dict()[k]) for k, v in rule.state_dict().items())
    assert rule([people()])[0]["part_instances"].image_size == (48, 64)


def test_what_is_below_it_may_learn_and_nothing_may_not(make_cfg, make_model, people):
    options = [*HEAD, "nearest_centre"]
    model = make_model(*options)
    with EventStorage():
        losses = model.train()([people()])
    assert {"loss_parts", "loss_cls"} <= set(losses) and "loss_crf" not in losses
    options += ["MODEL.FREEZE", "['backbone', 'part_head', 'identity_head', 'detector']"]
    with pytest.raises(ValueError, match="nothing to train: MODEL.FREEZE is .*RuleHead"):
        build_optimizer(make_cfg(*options), make_model(*options))
