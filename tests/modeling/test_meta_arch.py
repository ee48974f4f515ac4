"""The whole network: outputs in every case, where gradients go, training modes by config."""

import pytest
import torch
from detectron2.utils.events import EventStorage

GIVEN = ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "record", "MODEL.DETECTOR.ENABLED", False)
ALL_GIVEN = (
    *GIVEN,
    "MODEL.INSTANCE_CRF.DETECTIONS.SCORE_THRESH",
    0.0,
    "MODEL.INSTANCE_CRF.DETECTIONS.MAX_PER_IMAGE",
    100,
)
TRUE_BOXES = ("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "ground_truth")
OUTPUTS = {"part_instances", "sem_seg", "panoptic_seg", "instances", "detections"}


def learning(model, name):
    """Whether any weight below ``name`` got a gradient that is not zero."""
    gradients = [p.grad for n, p in model.named_parameters() if n.startswith(name)]
    return any(g is not None and bool(g.abs().sum() > 0) for g in gradients)


def step(model, inputs):
    with EventStorage():
        losses = model.train()(inputs)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("count", [0, 1, 30])
def test_outputs_for_any_number_of_detections(make_model, people, with_detections, count):
    model = make_model(*ALL_GIVEN).eval()
    inputs = {**with_detections(people(), count), "height": 60, "width": 50}
    (output,) = model([inputs])
    assert set(output) == OUTPUTS
    assert output["sem_seg"].shape == (7, 60, 50)
    id_map, segments = output["panoptic_seg"]
    assert id_map.shape == (60, 50) and id_map.dtype == torch.int32
    assert set(id_map.unique().tolist()) - {0} == {s["id"] for s in segments}
    instances = output["instances"]
    assert instances.pred_masks.shape == (len(instances), 60, 50)
    assert instances.has("pred_boxes") and instances.has("scores") and instances.has("pred_classes")
    assert not count or instances.pred_masks.sum(0).max() <= 1
    assert output["part_instances"].image_size == (60, 50)
    assert count or (len(instances) == 0 and segments == [])


def test_odd_sizes_in_one_batch_are_as_alone(make_model, people):
    model = make_model(*TRUE_BOXES).eval()
    batch = [people(48, 64), people(41, 57), people(63, 40)]
    together = model(batch)
    for inputs, output in zip(batch, together, strict=True):
        assert output["sem_seg"].shape[1:] == inputs["image"].shape[1:]
    # Alone there is no padding to the largest image; compare the largest, which has none.
    alone = model([people(64, 64)])[0]
    assert alone["sem_seg"].shape == (7, 64, 64)


def test_sizes_that_the_stride_does_not_divide(make_model, people):
    """Features without an FPN, whose own divisor is 1: the part head's stride is what counts."""
    psp = ("MODEL.SEM_SEG_HEAD.NAME", "PartPSPHead", "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res5"])
    plain = ("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", ["res5"])
    narrow = ("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8)
    given = ("MODEL.DETECTOR.ENABLED", False, *TRUE_BOXES)
    model = make_model(*psp, *plain, *narrow, *given)
    assert model.backbone.size_divisibility == 0 and model.size_divisibility == 32
    assert set(step(model, [people(41, 57)])) == {"loss_parts", "loss_identity", "loss_crf"}
    (output,) = model.eval()([people(41, 57)])
    assert output["sem_seg"].shape == (7, 41, 57)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_training_for_any_number_of_detections(make_model, people, with_detections, count):
    model = make_model(*ALL_GIVEN)
    losses = step(
        model, [with_detections(people(48, 64), count), with_detections(people(41, 57), 2)]
    )
    assert set(losses) == {"loss_parts", "loss_identity", "loss_crf"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    # Data-parallel training waits for every weight of the CRF, also when no one was detected.
    assert all(p.grad is not None for p in model.crf_head.parameters())


def test_one_batch_has_every_loss(make_model, people):
    losses = step(make_model(), [people(), people(41, 57)])
    assert set(losses) == {
        "loss_parts",
        "loss_identity",
        "loss_crf",
        "loss_rpn_cls",
        "loss_rpn_loc",
        "loss_cls",
        "loss_box_reg",
    }


def test_loss_of_the_crf_teaches_crf_parts_and_backbone_but_not_the_detector(make_model, people):
    model = make_model(*TRUE_BOXES)
    with EventStorage():
        model.train()([people()])["loss_crf"].backward()
    assert learning(model, "crf_head") and learning(model, "part_head")
    assert learning(model, "backbone")
    assert not learning(model, "proposal_generator") and not learning(model, "roi_heads")


def test_stop_gradient_to_parts(make_model, people):
    model = make_model(*TRUE_BOXES, "MODEL.INSTANCE_CRF.STOP_GRADIENT_TO_PARTS", True)
    with EventStorage():
        model.train()([people()])["loss_crf"].backward()
    assert learning(model, "crf_head") and not learning(model, "part_head")


def test_parts_only(make_model, people):
    model = make_model("MODEL.INSTANCE_CRF.ENABLED", False)
    assert "loss_crf" not in step(model, [people()])
    (output,) = model.eval()([people()])
    assert set(output) == OUTPUTS and len(output["instances"]) == 0


def test_piecewise_changes_nothing_but_the_crf(make_model, people):
    frozen = ["backbone", "part_head", "identity_head", "detector"]
    model = make_model(*TRUE_BOXES, "MODEL.FREEZE", frozen)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = step(model, [people()])
    assert set(losses) == {"loss_crf"}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(name.startswith("crf_head.") for name in changed)


def test_crf_teaches_the_backbone_through_frozen_parts(make_model, people):
    frozen = ["part_head", "identity_head", "detector"]
    model = make_model(*TRUE_BOXES, "MODEL.FREEZE", frozen)
    assert set(step(model, [people()])) == {"loss_crf"}
    assert learning(model, "backbone") and not learning(model, "part_head")


def test_warm_up_takes_ground_truth_boxes(make_model, people):
    model = make_model(
        "MODEL.INSTANCE_CRF.DETECTIONS.WARMUP_ITERS", 5, "MODEL.INSTANCE_CRF.DETECTIONS.JITTER", 0.0
    ).train()
    inputs = [people()]
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    with EventStorage(4):
        warm = model.detect(inputs, images, features)[0]
    assert torch.equal(warm.pred_boxes.tensor, inputs[0]["instances"].gt_boxes.tensor)
    with EventStorage(5):
        model.detect(inputs, images, features)
    assert model.roi_heads.training and model.proposal_generator.training


def test_truth_in_truth_out(make_model, people):
    """True boxes and a one-hot Q of the truth give the truth back, identities included."""
    oracle = ("MODEL.INSTANCE_CRF.PARTS.SOURCE", "ground_truth")
    model = make_model(*TRUE_BOXES, *oracle).eval()
    batch = [people(), people(41, 57)]
    for inputs, output in zip(batch, model(batch), strict=True):
        result = output["part_instances"]
        assert torch.equal(result.part_map.long(), inputs["part_seg"])
        assert torch.equal(result.object_map.long(), inputs["object_seg"])


def test_two_object_classes_in_one_picture(make_model, people, with_detections):
    """Parts 1-3 belong to class 0, parts 4-6 to class 1; nobody gets parts of another class."""
    classes = ("MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.INSTANCE_CRF.PART_OWNER", [0] * 3 + [1] * 3)
    model = make_model(*ALL_GIVEN, *classes).eval()
    inputs = with_detections(people(), 6)
    inputs["detections"].pred_classes = torch.tensor([0, 1, 0, 1, 0, 1])
    result = model([inputs])[0]["part_instances"]
    assert len(result) > 0
    owner = (result.segment_part > 3).long()
    assert torch.equal(owner, result.classes[result.segment_object - 1])


def test_channels_last_gives_the_same(make_model, people):
    first = make_model("MODEL.CHANNELS_LAST", False).eval()
    second = make_model("MODEL.CHANNELS_LAST", True).eval()
    second.load_state_dict(first.state_dict())
    inputs = [people()]
    torch.testing.assert_close(first(inputs)[0]["sem_seg"], second(inputs)[0]["sem_seg"])


@pytest.mark.parametrize(
    "opts, message",
    [
        (("MODEL.INSTANCE_CRF.DETECTIONS.SOURCE", "file"), "SOURCE has 'file'"),
        (("MODEL.INSTANCE_CRF.PARTS.SOURCE", "file"), "PARTS.SOURCE has 'file'"),
        (("MODEL.FREEZE", ["neck"]), "FREEZE has 'neck'"),
        (("MODEL.DETECTOR.ENABLED", False), "DETECTOR.ENABLED is False"),
        (("MODEL.INSTANCE_CRF.PART_OWNER", [0, 0]), "2 entries.*is 6"),
        (("MODEL.INSTANCE_CRF.PART_OWNER", [0] * 5 + [1]), "NUM_CLASSES is 1"),
        (("MODEL.INSTANCE_CRF.SCORE", "iou"), "SCORE is 'iou'"),
        (("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", [1.0]), "1 entries.*NUM_CLASSES is 7"),
    ],
)
def test_bad_configs(make_model, opts, message):
    with pytest.raises(ValueError, match=message):
        make_model(*opts)


def test_missing_inputs_are_named(make_model, people):
    model = make_model(*GIVEN).eval()
    with pytest.raises(KeyError, match="'record' needs 'detections'.*people.png"):
        model([people()])
