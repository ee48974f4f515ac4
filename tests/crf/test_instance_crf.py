import math

import pytest
import torch

from instance_crf.crf import DenseInstanceCRF


@pytest.mark.parametrize("detections", [0, 1, 30])
def test_shapes_and_probabilities(inputs, detections):
    crf = DenseInstanceCRF(num_iterations=3)
    labelling = crf(*inputs(detections=detections))
    marginals = labelling.marginals()
    assert marginals.shape == (1 + 2 * detections, 20, 26)
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(marginals.sum(0), torch.ones(20, 26))
    objects, parts = labelling.argmax()
    assert objects.dtype == parts.dtype == torch.int64
    assert objects.max() <= detections and parts.max() <= 2
    assert torch.equal(objects == 0, parts == 0)
    best = marginals.argmax(0)
    assert torch.equal(objects, labelling.label_space.label_instance[best])
    assert torch.equal(parts, labelling.label_space.label_part[best])
    torch.testing.assert_close(labelling.confidence(), marginals.amax(0))


def test_zero_iterations_is_the_normalised_unary(inputs):
    part_prob, boxes, scores, image = inputs(detections=1, parts=1)
    boxes = torch.tensor([[3.0, 2.0, 10.0, 9.0]])
    scores = torch.tensor([0.5])
    labelling = DenseInstanceCRF(box_weight=2.0, global_weight=0.5)(
        part_prob, boxes, scores, image, num_iterations=0
    )
    marginals = labelling.marginals()
    inside = (5, 6)
    foreground = (2 * 0.5 + 0.5) * part_prob[1, 5, 6].item()
    background = 0.5 * part_prob[0, 5, 6].item()
    assert marginals[1][inside].item() == pytest.approx(
        foreground / (foreground + background), abs=1e-5
    )
    torch.testing.assert_close(marginals[1, 15, 15], part_prob[1, 15, 15])
    off = DenseInstanceCRF(box_weight=2.0, global_weight=0.5, pairwise_term=False)
    torch.testing.assert_close(off(part_prob, boxes, scores, image).marginals(), marginals)


@pytest.mark.parametrize("box, global_, background", [(1, 0, 1), (0, 1, 0), (1, 1, 1)])
def test_switches_by_hand(inputs, box, global_, background):
    part_prob, boxes, scores, image = inputs(detections=1, parts=1)
    boxes, scores = torch.tensor([[0.0, 0.0, 26.0, 20.0]]), torch.tensor([0.5])
    crf = DenseInstanceCRF(
        box_term=bool(box),
        global_term=bool(global_),
        background_box_term=bool(background),
        score_transform="tvg",
        box_weight=2.0,
        global_weight=3.0,
    )
    marginals = crf(part_prob, boxes, scores, image, num_iterations=0).marginals()
    q = part_prob[:, 7, 7]
    foreground = (2 * box * 0.5 + 3 * global_) * q[1]
    one = 1 / (1 + math.exp(-1))
    back = (2 * box * background * one + 3 * global_) * q[0]
    torch.testing.assert_close(marginals[1, 7, 7], foreground / (foreground + back))


def test_whole_crf_on_12x12_against_brute_force(inputs, exact):
    """The module's own algebra, with the exact Gaussian in the place of the lattice."""
    part_prob, boxes, scores, image = inputs(12, 12, dtype=torch.float64)
    crf = DenseInstanceCRF(num_iterations=3, theta_alpha=5.0, theta_beta=40.0, backend="torch")
    actual = crf(part_prob, boxes, scores, image).marginals()

    label, psi = 0, torch.zeros(7, 144, dtype=torch.float64)
    psi[0] = part_prob[0].flatten()
    for i in range(3):
        for j in (1, 2):
            label += 1
            for k in range(144):
                x, y = k % 12 + 0.5, k // 12 + 0.5
                x1, y1, x2, y2 = boxes[i].tolist()
                inside = x1 <= x < x2 and y1 <= y < y2
                q = part_prob[j].flatten()[k]
                psi[label, k] = (scores[i] * q if inside else 0) + q
    position = torch.stack(
        torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")[::-1]
    ).flatten(1)
    kernels = [
        torch.exp(
            -0.5 * torch.cdist(position.t().double(), position.t().double()) ** 2 / 25
            - 0.5 * torch.cdist(image.flatten(1).t(), image.flatten(1).t()) ** 2 / 1600
        ),
        torch.exp(-0.5 * torch.cdist(position.t().double(), position.t().double()) ** 2 / 9),
    ]
    kernels = [kernel / kernel.sum(1, keepdim=True) for kernel in kernels]
    unary = -torch.log(psi + 1e-8)
    q = torch.softmax(-unary, dim=0)
    for _ in range(3):
        q = torch.softmax(-unary + 4 * q @ kernels[0].t() + 3 * q @ kernels[1].t(), dim=0)
    assert (actual.flatten(1) - q).abs().max() < 1e-6


def test_permuting_detections_permutes_labels(inputs):
    part_prob, boxes, scores, image = inputs(detections=4)
    crf = DenseInstanceCRF(num_iterations=3)
    order = torch.tensor([2, 0, 3, 1])
    a = crf(part_prob, boxes, scores, image).marginals()
    b = crf(part_prob, boxes[order], scores[order], image).marginals()
    torch.testing.assert_close(b[0], a[0])
    for new, old in enumerate(order.tolist()):
        torch.testing.assert_close(b[1 + 2 * new : 3 + 2 * new], a[1 + 2 * old : 3 + 2 * old])


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("detections", [0, 2])
def test_gradcheck_of_the_whole_crf(inputs, detections, normalization):
    part_prob, boxes, scores, image = inputs(5, 6, detections, dtype=torch.float64)
    crf = DenseInstanceCRF(
        num_iterations=2, theta_alpha=3.0, theta_beta=40.0, normalization=normalization
    ).double()
    labels = torch.arange(30).view(5, 6) % (2 * detections + 2) - 1

    def run(q, *parameters):
        named = dict(zip([name for name, _ in crf.named_parameters()], parameters, strict=True))
        labelling = torch.func.functional_call(crf, named, (q, boxes, scores, image))
        return labelling.log_prob(labels), labelling.marginals()

    q = part_prob.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (q, *crf.parameters()))


def test_gradients_of_the_weights_through_all_iterations(inputs):
    part_prob, boxes, scores, image = inputs()
    crf = DenseInstanceCRF(num_iterations=4)
    labelling = crf(part_prob, boxes, scores, image)
    labelling.log_prob(torch.ones(20, 26, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None and p.grad.abs() > 1e-4 for p in crf.parameters())


@pytest.mark.parametrize("detections", [0, 2])
@pytest.mark.parametrize("pairwise", [True, False])
def test_every_parameter_is_in_the_graph(inputs, detections, pairwise):
    crf = DenseInstanceCRF(box_term=False, pairwise_term=pairwise)
    part_prob, *rest = inputs(detections=detections)
    part_prob.requires_grad_()
    crf(part_prob, *rest).log_prob(torch.zeros(20, 26, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad) for p in crf.parameters())
    assert part_prob.grad is not None


def test_state_depends_on_nothing(inputs):
    a = DenseInstanceCRF()
    b = DenseInstanceCRF(box_term=False, num_iterations=1, normalization="symmetric")
    a(*inputs(detections=5))
    assert a.state_dict().keys() == b.state_dict().keys()
    assert len(a.state_dict()) == 4
    b.load_state_dict(a.state_dict())


def test_initial_weights_are_as_given():
    crf = DenseInstanceCRF(box_weight=0.01, global_weight=20, bilateral_weight=4, spatial_weight=3)
    values = [crf.box_weight, crf.global_weight, crf.bilateral_weight, crf.spatial_weight]
    assert [v.item() for v in values] == pytest.approx([0.01, 20, 4, 3], rel=1e-5)
    assert "bilateral_weight=4" in repr(crf)


def test_log_prob_ignores_negative_labels(inputs):
    labelling = DenseInstanceCRF(num_iterations=2)(*inputs())
    labels = torch.randint(-1, 7, (20, 26), generator=torch.Generator().manual_seed(3))
    log_prob = labelling.log_prob(labels)
    expected = labelling.marginals().log().gather(0, labels.clamp(min=0)[None])[0]
    expected[labels < 0] = 0
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-5)
    for bad in (labels.int(), labels[1:], labels + 1):
        with pytest.raises(ValueError, match="labels"):
            labelling.log_prob(bad)


def test_images_of_odd_sizes_in_one_batch(inputs):
    crf = DenseInstanceCRF(num_iterations=2)
    images = [inputs(20, 26, 3), inputs(7, 31, 0, seed=1), inputs(33, 5, 8, seed=2)]
    batch = crf(*map(list, zip(*images, strict=True)))
    for labelling, image in zip(batch, images, strict=True):
        torch.testing.assert_close(labelling.marginals(), crf(*image).marginals())
    with pytest.raises(ValueError, match="length"):
        crf([images[0][0]], [images[0][1]] * 2, [images[0][2]], [images[0][3]])


def test_two_object_classes(inputs):
    part_prob, boxes, scores, image = inputs(detections=3, parts=3)
    labelling = DenseInstanceCRF(num_iterations=2)(
        part_prob,
        boxes,
        scores,
        image,
        object_classes=torch.tensor([1, 0, 1]),
        part_owner=torch.tensor([0, 1, 1]),
    )
    assert labelling.label_space.label_part.tolist() == [0, 2, 3, 1, 2, 3]
    torch.testing.assert_close(labelling.marginals().sum(0), torch.ones(20, 26))
    objects, parts = labelling.argmax()
    for i, owned in enumerate([{2, 3}, {1}, {2, 3}], start=1):
        assert set(parts[objects == i].unique().tolist()) <= owned


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1)])
def test_tiny_images(height, width):
    part_prob = torch.softmax(torch.randn(2, height, width), 0)
    crf = DenseInstanceCRF(num_iterations=2)
    box = torch.tensor([[0.0, 0.0, width, height]])
    labelling = crf(part_prob, box, torch.ones(1), torch.rand(3, height, width) * 255)
    torch.testing.assert_close(labelling.marginals().sum(0), torch.ones(height, width))


@pytest.mark.parametrize("colour", [0.0, 128.0, 255.0])
def test_certain_parts_and_a_constant_image_stay_finite(colour):
    target = torch.zeros(16, 16, dtype=torch.int64)
    target[4:12, 5:11] = 1
    target[6:9, 6:9] = 2
    part_prob = torch.nn.functional.one_hot(target, 3).permute(2, 0, 1).float().requires_grad_()
    boxes = torch.tensor([[5.0, 4.0, 11.0, 12.0]])
    crf = DenseInstanceCRF(theta_gamma=0.3, spatial_weight=1.0, bilateral_weight=0.1)
    labelling = crf(part_prob, boxes, torch.ones(1), torch.full((3, 16, 16), colour))
    objects, parts = labelling.argmax()
    assert torch.equal(parts, target)
    assert torch.equal(objects, (target > 0).long())
    labelling.log_prob(target).sum().backward()
    assert torch.isfinite(part_prob.grad).all()


def test_float32_inside_autocast(inputs):
    part_prob, boxes, scores, image = inputs()
    crf = DenseInstanceCRF(num_iterations=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        marginals = crf(part_prob.bfloat16(), boxes, scores, image).marginals()
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(
        marginals, crf(part_prob.bfloat16().float(), boxes, scores, image).marginals()
    )


def test_non_contiguous_inputs_and_integer_images(inputs):
    part_prob, boxes, scores, image = inputs()
    image = image.round()
    crf = DenseInstanceCRF(num_iterations=2)
    expected = crf(part_prob, boxes, scores, image).marginals()
    strided = [t.movedim(0, -1).contiguous().movedim(-1, 0) for t in (part_prob, boxes, image)]
    actual = crf(strided[0], strided[1], scores, strided[2].byte()).marginals()
    torch.testing.assert_close(actual, expected)


def test_bad_options():
    for options, name in [
        ({"score_transform": "x"}, "score_transform"),
        ({"normalization": "none"}, "normalization"),
        ({"backend": "cpp"}, "backend"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"theta_beta": -1.0}, "theta_beta"),
        ({"box_weight": 0.0}, "box_weight"),
        ({"num_iterations": -1}, "num_iterations"),
        ({"box_term": False, "global_term": False}, "box_term"),
    ]:
        with pytest.raises(ValueError, match=name):
            DenseInstanceCRF(**options)


def _bad(which, **change):
    return pytest.param(change, which, id=which + "-" + "-".join(change))


@pytest.mark.parametrize(
    "change, which",
    [
        _bad("part_prob", part_prob=lambda good: good.masked_fill(good > 0.9, math.nan)),
        _bad("part_prob", part_prob=lambda good: good * 3),
        _bad("part_prob", part_prob=lambda good: -good),
        _bad("part_prob", part_prob=lambda good: good[:1]),
        _bad("part_prob", part_prob=lambda good: good[None]),
        _bad("part_prob", part_prob=lambda good: good[:, :0]),
        _bad("image", part_prob=lambda good: good[:, 1:]),
        _bad("image", image=lambda good: good[:1]),
        _bad("image", image=lambda good: good / 255),
        _bad("image", image=lambda good: good - 128),
        _bad("image", image=lambda good: good * math.nan),
        _bad("boxes", boxes=lambda good: good[:, :3]),
        _bad("boxes", boxes=lambda good: good + 100),
        _bad(r"boxes\[0\]", boxes=lambda good: good[:, [2, 3, 0, 1]]),
        _bad("boxes", boxes=lambda good: good * math.nan),
        _bad("scores", scores=lambda good: good[:2]),
        _bad("scores", scores=lambda good: good + 1),
        _bad("scores", scores=lambda good: good * math.nan),
        _bad("part_owner", object_classes=torch.zeros(3, dtype=torch.int64)),
        _bad(
            "object_classes",
            object_classes=torch.zeros(2, dtype=torch.int64),
            part_owner=torch.zeros(2, dtype=torch.int64),
        ),
        _bad(
            "part_owner",
            object_classes=torch.zeros(3, dtype=torch.int64),
            part_owner=torch.zeros(5, dtype=torch.int64),
        ),
    ],
)
def test_bad_input_is_named(inputs, change, which):
    values = dict(zip(("part_prob", "boxes", "scores", "image"), inputs(), strict=True))
    for name, value in change.items():
        values[name] = value(values[name]) if callable(value) else value
    with pytest.raises(ValueError, match=which):
        DenseInstanceCRF()(**values)
