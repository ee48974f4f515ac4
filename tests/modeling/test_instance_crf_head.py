"""The CRF head: output at another size, positive weights that learn, the ablations."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF
from instance_crf.modeling import InstanceCRFHead


def head(**changes):
    crf = DenseInstanceCRF(theta_alpha=10.0, theta_beta=20.0)
    return InstanceCRFHead(**{"crf": crf, "part_owner": [0, 0], **changes})


def detections(*boxes, size=(20, 24)):
    result = Instances(size)
    result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    result.scores = torch.full((len(boxes),), 0.8)
    result.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return result


@pytest.fixture
def scene():
    """Q with a first person (parts 1, 2) in the left half; (q, detections, image)."""
    parts = torch.zeros(20, 24, dtype=torch.int64)
    parts[2:10, 2:10], parts[10:18, 2:10] = 1, 2
    q = torch.nn.functional.one_hot(parts, 3).permute(2, 0, 1) * 0.9 + 0.1 / 3
    return q, detections([2, 2, 10, 18]), torch.full((3, 20, 24), 120.0)


def test_output_at_another_size(scene):
    q, boxes, image = scene
    (small,) = head().inference([q], [boxes], [image], [(20, 24)])
    (large,) = head().inference([q], [boxes], [image], [(40, 72)])
    assert large.image_size == (40, 72)
    assert large.boxes.tolist() == [[6, 4, 30, 36]]
    assert large.segment_area.sum() == pytest.approx(6 * int(small.segment_area.sum()), rel=0.1)
    assert large.segment_scores["mean_q"].tolist() == pytest.approx(
        small.segment_scores["mean_q"].tolist(), abs=0.05
    )


def test_resizing_the_marginals_is_the_argmax_of_the_whole_tensor():
    """Labels go through a few at a time; the result is that of all at once."""
    crf = DenseInstanceCRF(num_iterations=1)
    boxes = torch.rand(9, 2) * 8
    labelling = crf(
        torch.rand(7, 12, 10).softmax(0),
        torch.cat([boxes, boxes + 4], dim=1).clamp(max=10),
        torch.rand(9),
        torch.rand(3, 12, 10) * 255,
    )
    object_map, part_map, confidence = labelling.label_maps((30, 17))
    whole = torch.nn.functional.interpolate(
        labelling.marginals()[None], size=(30, 17), mode="bilinear", align_corners=False
    )[0].max(0)
    assert torch.equal(object_map, labelling.label_space.label_instance[whole.indices])
    assert torch.equal(part_map, labelling.label_space.label_part[whole.indices])
    torch.testing.assert_close(confidence, whole.values)


def test_loss_falls_when_its_gradient_is_followed(scene):
    q, boxes, image = scene
    model = head()
    parts = q.argmax(0)
    truth = (parts > 0).long()
    parameters = list(model.parameters())
    values = []
    for _ in range(5):
        loss = model.losses([q], [boxes], [image], [parts], [truth])["loss_crf"]
        values.append(loss.item())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.data -= 0.5 * gradient
    assert values[-1] < values[0]
    assert all(
        getattr(model.crf, f"{name}_weight") > 0
        for name in ("box", "global", "bilateral", "spatial")
    )


def test_weights_depend_on_neither_people_nor_parts():
    two, six = head(), head(part_owner=[0] * 6)
    six.load_state_dict(two.state_dict())
    assert all(value.numel() == 1 for value in two.state_dict().values())


def test_loss_of_an_image_where_nobody_is_detected(scene):
    q, _, image = scene
    truth = torch.ones(20, 24, dtype=torch.int64)
    loss = head().losses([q], [detections()], [image], [truth], [truth])["loss_crf"]
    assert loss.item() == 0.0
    learned = head(unmatched="background").losses([q], [detections()], [image], [truth], [truth])
    assert torch.isfinite(learned["loss_crf"])


def factored(nobody=False, **changes):
    return head(crf=FactoredInstanceCRF(reference_size=None, nobody=nobody), **changes)


@pytest.mark.parametrize("nobody", [False, True])
def test_a_person_without_a_detection_teaches_what_and_nobody(scene, nobody):
    """Never the background, which would teach *what* to erase people."""
    q, _, image = scene
    q = q.clone().requires_grad_()
    parts = q.argmax(0)
    for unmatched in ("ignore", "background"):
        loss = factored(nobody, unmatched=unmatched).losses(
            [q], [detections()], [image], [parts], [(parts > 0).long()]
        )["loss_crf"]
        assert loss.item() == pytest.approx(-q.gather(0, parts[None]).log().mean().item(), abs=1e-5)


def test_the_factored_loss_is_what_plus_whose(scene):
    q, boxes, image = scene
    model = factored(ohem_top_k=0)
    parts = q.argmax(0)
    truth = (parts > 0).long() * 5
    loss = model.losses([q], [boxes], [image], [parts], [truth])["loss_crf"]
    labelling = model.crf(q, boxes.pred_boxes.tensor, boxes.scores, image)
    what = labelling.log_what.gather(2, parts[..., None])[..., 0]
    whose = labelling.whose[0].log_prob[..., 1]
    expected = -(what + torch.where(parts > 0, whose, 0.0)).mean()
    torch.testing.assert_close(loss, expected)


def test_evidence_reaches_the_loss_and_the_answer(scene):
    q, _, image = scene
    two = detections([2, 2, 10, 18], [2, 2, 10, 18])
    evidence = torch.stack([torch.zeros(20, 24), torch.ones(20, 24)]).requires_grad_()
    model = factored()
    parts = q.argmax(0)
    arguments = [q], [two], [image]
    (result,) = model.inference(*arguments, [(20, 24)], evidence=[evidence.detach()])
    assert len(result) == 1 and result.object_map.max() == 1
    loss = model.losses(*arguments, [parts], [(parts > 0).long()], evidence=[evidence])
    (gradient,) = torch.autograd.grad(loss["loss_crf"], evidence)
    assert bool((gradient[1, 4:16, 4:8] < 0).all()) and bool((gradient[0, 4:16, 4:8] > 0).all())
    assert head().inference(*arguments, [(20, 24)], evidence=[evidence])  # the paper's ignores it


def test_whose_before_and_after_mean_field(scene):
    q, _, image = scene
    two = detections([2, 2, 10, 18], [2, 2, 10, 18])
    evidence = torch.stack([torch.zeros(20, 24), torch.ones(20, 24)])
    model = factored(num_iterations_test=3)
    (maps,) = model.whose([q], [two], [image], evidence=[evidence])
    for name, iterations in (("whose_before", 0), ("object_prob", 3)):
        boxes = two.pred_boxes.tensor
        labelling = model.crf(
            q, boxes, two.scores, image, evidence=evidence, num_iterations=iterations
        )
        expected = labelling.whose_prob() if iterations == 0 else labelling.object_prob()
        assert torch.equal(maps[name], expected)
    inside = maps["whose_before"][:, 2:18, 2:10]
    torch.testing.assert_close(inside[1] / inside[0], torch.full((16, 8), 101.0))  # 1.01 to 0.01
    with pytest.raises(ValueError, match="FORM is 'joint'.*needs 'factored'"):
        head().whose([q], [two], [image])
