"""Disturbed boxes: by hand, and what a network does with them."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from instance_crf.modeling.detector import BoxDetector
from instance_crf.modeling.disturbance import (
    add_false_boxes,
    disturb,
    disturb_boxes,
    generator_of,
    scale_boxes,
)

ALL_BOXES = (
    *("MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH", 0.0, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE", 50, "TEST.DETECTIONS_PER_IMAGE", 4),
)
MASKS = ("MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8)


def detections(count, size=(100, 200)):
    """Boxes of 10 x 20, 11 x 21, ... pixels, scores 0.9, 0.8, ..., classes 0, 1, ..."""
    found = Instances(size)
    sizes = torch.arange(count)[:, None] + torch.tensor([[10.0, 20.0]])
    found.pred_boxes = Boxes(torch.cat([torch.full((count, 2), 50.0), sizes + 50], dim=1))
    found.scores = 0.9 - 0.1 * torch.arange(count)
    found.pred_classes = torch.arange(count)
    return found


def random(name="a.jpg", seed=0):
    return generator_of({"file_name": name}, seed)


def assert_same(found, expected):
    assert found.get_fields().keys() == expected.get_fields().keys()
    for key, value in expected.get_fields().items():
        value, other = (getattr(x, "tensor", x) for x in (value, found.get(key)))
        torch.testing.assert_close(other, value)


def test_scaled_about_the_centre():
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 8, 4]])
    assert scale_boxes(boxes, 0.75).tolist() == [[12.5, 25, 27.5, 55], [1, 0.5, 7, 3.5]]
    found = detections(1)
    found.pred_masks = torch.ones(1, 1, 4, 4)
    found.pred_boxes.tensor[:] = torch.tensor([0.0, 10, 40, 30])
    doubled = disturb_boxes(found, random(), scale=2.0)
    assert doubled.pred_boxes.tensor.tolist() == [[0, 0, 60, 40]] and not doubled.has("pred_masks")
    assert found.pred_boxes.tensor.tolist() == [[0, 10, 40, 30]]


def test_how_many_false_boxes():
    for share, counts in ((0.5, [0, 1, 1, 2, 2, 3]), (1.0, [0, 1, 2, 3, 4, 5]), (0.0, [0] * 6)):
        found = [len(add_false_boxes(detections(n), share, random())) - n for n in range(6)]
        assert found == counts


def test_false_boxes_are_like_the_others_and_anywhere():
    real = detections(3)
    real.pred_classes = torch.tensor([4, 2, 7])
    found = add_false_boxes(real, 1000.0, random())
    assert_same(found[:3], real)
    x1, y1, x2, y2 = found.pred_boxes.tensor[3:].unbind(1)
    assert x1.min() >= 0 and y1.min() >= 0 and x2.max() <= 200 and y2.max() <= 100
    sizes = torch.stack([x2 - x1, y2 - y1], 1).round().long()
    for values, expected in (
        (sizes.tolist(), [[10, 20], [11, 21], [12, 22]]),
        (found.pred_classes[3:].tolist(), [4, 2, 7]),
    ):
        for value in expected:
            assert values.count(value) == pytest.approx(1000, abs=120)
    of_class = {4: 0.9, 2: 0.8, 7: 0.7}
    expected = torch.tensor([of_class[c] for c in found.pred_classes.tolist()])
    torch.testing.assert_close(found.scores, expected)
    # Uniform: a quarter of the corners in each quarter of where they may be.
    for corner, room in ((x1, 190), (y1, 80)):
        quarters = torch.histc(corner, 4, 0, room) / 3000
        assert (quarters - 0.25).abs().max() < 0.04


def test_a_box_as_large_as_the_picture():
    found = detections(1, size=(20, 10))
    found.pred_boxes.tensor[:] = torch.tensor([0.0, 0, 10, 20])
    assert add_false_boxes(found, 1.0, random()).pred_boxes.tensor[1].tolist() == [0, 0, 10, 20]


def test_the_same_picture_gets_the_same_boxes():
    def boxes(count=4, **picture):
        seed = picture.pop("seed", 0)
        found = add_false_boxes(detections(count), 0.5, generator_of(picture, seed))
        return found.pred_boxes.tensor[count:].tolist()

    expected = boxes(file_name="here/a.jpg")
    assert expected == boxes(file_name="there/a.jpg", image_id=3)
    assert expected != boxes(file_name="b.jpg") and expected != boxes(file_name="a.jpg", seed=1)
    assert boxes(image_id=3) == boxes(image_id="3") != boxes(image_id=4)
    # Places stay where another model finds more boxes; so do all that are drawn from like ones.
    equal = detections(9)
    equal.pred_boxes.tensor[:, 2:] = torch.tensor([60.0, 70.0])
    few, many = (add_false_boxes(equal[:n], 1.0, random())[n:] for n in (4, 9))
    assert many.pred_boxes.tensor[:4].tolist() == few.pred_boxes.tensor.tolist()


def test_in_detectron2s_own_network(make_cfg, people):
    """Masks are those that Detectron2 gives for the disturbed boxes."""
    from detectron2.modeling import build_model

    cfg = make_cfg(*ALL_BOXES, *MASKS, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    model = build_model(cfg).eval()
    inputs = [people(), {**people(41, 57), "file_name": "others.png"}]
    with torch.no_grad():
        before = model.inference(inputs, do_postprocess=False)
        assert [len(x) for x in before] == [4, 4]
        with disturb(model, scale=0.75, false_boxes=0.5, seed=3):
            outputs = model(inputs)
        given = [
            disturb_boxes(x, generator_of(y, 3), scale=0.75, false_boxes=0.5)
            for x, y in zip(before, inputs, strict=True)
        ]
        expected = model.inference(inputs, [Instances(x.image_size, **x.get_fields())
                                            for x in given])  # fmt: skip
        for output, other in zip(outputs, expected, strict=True):
            assert len(output["instances"]) == 6
            assert output["instances"].pred_masks.shape[0] == 6
            assert_same(output["instances"], other["instances"])
        for after, other in zip(model.inference(inputs, do_postprocess=False), before, strict=True):
            assert_same(after, other)
    assert torch.equal(
        given[0].pred_boxes.tensor[:4], scale_boxes(before[0].pred_boxes.tensor, 0.75)
    )
    assert given[0].pred_boxes.tensor[4:].tolist() != given[1].pred_boxes.tensor[4:].tolist()


@pytest.mark.parametrize("masks", [True, False])
def test_in_the_whole_network(make_model, people, masks):
    model = make_model(*ALL_BOXES, *MASKS[:1], masks, *MASKS[2:]).eval()
    inputs = [people()]
    plain = model(inputs)[0]
    with disturb(model, scale=0.75):
        scaled = model(inputs)[0]
    with disturb(model, false_boxes=0.5):
        more = model(inputs)[0]
    boxes = plain["detections"].pred_boxes.tensor
    torch.testing.assert_close(scaled["detections"].pred_boxes.tensor, scale_boxes(boxes, 0.75))
    assert len(more["detections"]) == 6
    kept = more["detections"].pred_boxes.tensor[:, None].isclose(boxes, atol=1e-3).all(2)
    assert kept.any(1).sum() == 4 and kept.any(0).all()
    after = model(inputs)[0]
    assert_same(after["detections"], plain["detections"])
    assert torch.equal(after["part_instances"].object_map, plain["part_instances"].object_map)


def test_no_box_at_all(make_model, people):
    model = make_model(*ALL_BOXES, *MASKS, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0).eval()
    with disturb(model, scale=0.75, false_boxes=0.5):
        assert len(model([people()])[0]["detections"]) == 0


def test_in_training_the_heads_learn_as_ever(make_model, people):
    model = make_model("MODEL.INSTANCE_CRF.DETECTIONS.WARMUP_ITERS", 5).train()

    def losses():
        torch.manual_seed(1)
        with EventStorage():
            return {name: loss.item() for name, loss in model([people()]).items()}

    expected = losses()
    with disturb(model, scale=0.1, false_boxes=3.0):
        assert losses() == pytest.approx(expected)


def test_the_detector_alone(make_model, people):
    model = make_model(*ALL_BOXES).eval()
    inputs = [{**people(), "height": 96, "width": 128}]
    detector = BoxDetector(model)
    (found,) = detector(inputs)
    assert_same(found, model(inputs)[0]["detections"])
    with disturb(detector, scale=0.5):
        (scaled,) = detector(inputs)
    expected = scale_boxes(found.pred_boxes.tensor, 0.5)
    torch.testing.assert_close(scaled.pred_boxes.tensor, expected)


def test_boxes_of_parts_are_left_alone(make_model, people):
    """As of every other system, whose parts have no boxes."""
    parts = ("baselines/tiny_part_mask_rcnn.yaml", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    model = make_model(*parts, *MASKS, "TEST.DETECTIONS_PER_IMAGE", 20).eval()
    seen = []

    def parse(found, parse=model.parse):
        seen.append(found)
        return parse(found)

    model.parse = parse
    inputs = [people()]
    model(inputs)
    with disturb(model, scale=0.5, false_boxes=1.0):
        model(inputs)
    plain, bad = ({c: x[x.pred_classes == c] for c in range(7)} for x in seen)
    assert any(len(x) for x in plain.values())
    for c in range(7):
        if c:
            assert_same(bad[c], plain[c])
        else:  # people
            assert len(bad[c]) == 2 * len(plain[c]) > 0
            boxes = bad[c][: len(plain[c])].pred_boxes.tensor
            torch.testing.assert_close(boxes, scale_boxes(plain[c].pred_boxes.tensor, 0.5))


def test_what_cannot_be_disturbed(make_model):
    model = make_model()
    for wrong in ({"scale": 0.0}, {"scale": float("nan")}, {"false_boxes": -0.5}):
        with (
            pytest.raises(ValueError, match="scale is .* and false_boxes"),
            disturb(model, **wrong),
        ):
            pass
    given = ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "record", "MODEL.DETECTOR.ENABLED")
    with pytest.raises(ValueError, match="SOURCE is 'record'.*write_detections"):
        with disturb(make_model(*given, True)):
            pass
    alone = make_model(*given, False)
    with pytest.raises(ValueError, match="InstanceCRF has no roi_heads"), disturb(alone):
        pass
    with pytest.raises(ValueError, match="InstanceCRF has no detector of its own"):
        BoxDetector(alone)
