"""FactoredInstanceCRF: brute force, probabilities, classes, nobody, gradients, backends."""

import math

import pytest
import torch
from torch.nn.functional import softmax

from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF
from instance_crf.crf.place import region_templates
from instance_crf.crf.potentials import CUES, box_cue, centre_cue, evidence_cue, score_cue, size_cue

TWO_CLASSES = {"object_classes": torch.tensor([1, 0, 1]), "part_owner": torch.tensor([0, 1, 1])}


def build(**options):
    defaults = {"num_iterations": 2, "reference_size": None, "theta_alpha": 5.0, "theta_beta": 40.0}
    return FactoredInstanceCRF(**{**defaults, **options})


def make_evidence(detections=3, height=20, width=26, dtype=torch.float32):
    g = torch.Generator().manual_seed(9)
    return torch.rand(detections, height, width, generator=g).to(dtype)


@pytest.mark.parametrize("detections", [0, 1, 30])
@pytest.mark.parametrize("nobody", [True, False])
def test_shapes_and_probabilities(inputs, detections, nobody):
    crf = build(what_pairwise=True, nobody=nobody, place_templates=region_templates(["head", ""]))
    labelling = crf(*inputs(detections=detections), evidence=make_evidence(detections))
    marginals = labelling.marginals()
    assert marginals.shape == (1 + 2 * detections + 2, 20, 26)
    assert marginals.dtype == torch.float32
    torch.testing.assert_close(marginals.sum(0), torch.ones(20, 26))
    objects, parts = labelling.argmax()
    assert objects.dtype == parts.dtype == torch.int64
    assert objects.max() <= detections and parts.max() <= 2
    assert not bool(((objects > 0) & (parts == 0)).any())
    picked = labelling.label_space.label_index()[objects, parts]
    torch.testing.assert_close(labelling.confidence(), marginals.gather(0, picked[None])[0])


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_against_brute_force(inputs, exact, normalization):
    """Both mean-fields with all pairs of pixels, and the product of their results."""
    part_prob, boxes, scores, image = inputs(12, 12, dtype=torch.float64)
    part_prob = part_prob**3 / (part_prob**3).sum(0)  # sure of the background here and there
    evidence = make_evidence(3, 12, 12, torch.float64)
    crf = build(
        what_pairwise=True, reach=math.inf, normalization=normalization, num_iterations=3,
        backend="torch", evidence_floor=0.05, what_weights=(1.5, 1.1), whose_weights=(4.0, 3.0),
    )  # fmt: skip
    actual = crf(part_prob, boxes, scores, image, evidence=evidence).marginals()

    grid = torch.arange(12.0, dtype=torch.float64)
    position = torch.stack(torch.meshgrid(grid, grid, indexing="ij")[::-1]).flatten(1).t()
    colour = image.flatten(1).t()
    near = torch.cdist(position, position) ** 2
    kernels = [
        torch.exp(-0.5 * near / 25 - 0.5 * torch.cdist(colour, colour) ** 2 / 1600),
        torch.exp(-0.5 * near / 9),
    ]

    def mean_field(unary, weights, support):
        q = softmax(-unary, dim=0)
        for _ in range(3):
            total = -unary
            for weight, kernel in zip(weights, kernels, strict=True):
                norm = kernel @ support
                if normalization == "after":
                    message = (q * support) @ kernel / norm
                else:
                    message = (q * support / norm.sqrt()) @ kernel / norm.sqrt()
                total = total + weight * message
            q = softmax(total, dim=0)
        return q

    what = mean_field(
        -torch.log(part_prob.flatten(1) + 1e-8), (1.5, 1.1), torch.ones(144, dtype=torch.float64)
    )
    y = x = grid + 0.5
    potential = (
        score_cue(scores) + box_cue(boxes, y, x) + centre_cue(boxes, y, x) + size_cue(boxes, 12, 12)
    ) + evidence_cue(evidence, torch.tensor(0.05))
    support = torch.where(what[0] > 0.99, 0.0, 1 - what[0])
    assert 0 < (support == 0).sum() < 144
    whose = mean_field(-potential.flatten(1), (4.0, 3.0), support)
    expected = [what[0], *(whose[i] * what[j] for i in range(3) for j in (1, 2))]
    assert (actual.flatten(1)[:7] - torch.stack(expected)).abs().max() < 1e-6
    assert actual[7:].max() < 1e-12  # nobody's


def test_consistency_is_the_joint_form_given_foreground(inputs):
    """Eq. 2 and 3 as the potential, without iterations: the same distribution over (i, j)."""
    part_prob, boxes, scores, image = inputs(dtype=torch.float64)
    weights = {"box_weight": 2.0, "global_weight": 0.5}
    joint = DenseInstanceCRF(epsilon=1e-300, **weights)
    factored = build(potential="consistency", **weights)
    a, b = (
        crf(part_prob, boxes, scores, image, num_iterations=0).marginals()[1:7]
        for crf in (joint, factored)
    )
    # q(i | j) in the one, q_whose(i) in the other, whatever the part.
    for part in (0, 1):
        one, other = (m[part::2] / m[part::2].sum(0) for m in (a, b))
        torch.testing.assert_close(one, other)
    given = [m.view(3, 2, 20, 26).sum(0) / m.sum(0) for m in (a, b)]
    torch.testing.assert_close(*given)


def test_the_order_of_reading():
    """Someone if background has less than half, also where no single part has more than it."""
    q = torch.tensor([0.4, 0.3, 0.3]).view(3, 1, 1).expand(3, 6, 6)
    box = torch.tensor([[0.0, 0.0, 6.0, 6.0]])
    image = torch.full((3, 6, 6), 9.0)
    factored = build()(q, box, torch.ones(1), image)
    objects, parts = factored.argmax()
    assert bool((objects == 1).all()) and bool((parts == 1).all())
    torch.testing.assert_close(factored.confidence(), torch.full((6, 6), 0.3))
    joint, _ = DenseInstanceCRF(box_weight=1e-6)(q, box, torch.ones(1), image).argmax()
    assert bool((joint == 0).all())


def test_beyond_the_reach_is_nobodys():
    q = torch.tensor([0.1, 0.9]).view(2, 1, 1).expand(2, 10, 30)
    box = torch.tensor([[10.0, 0.0, 20.0, 10.0]])
    image = torch.full((3, 10, 30), 9.0)
    labelling = build(reach=1.5)(q, box, torch.ones(1), image)
    objects, parts = labelling.argmax()
    assert bool((parts == 1).all())
    x = torch.arange(30)
    assert torch.equal(
        objects[5], ((x >= 7) & (x < 22)).long()
    )  # 7.5 to 22.5, the right edge excluded
    marginals = labelling.marginals()
    torch.testing.assert_close(marginals.sum(0), torch.ones(10, 30))
    torch.testing.assert_close(marginals[2, :, :7], torch.full((10, 7), 0.9))


def test_no_detection_leaves_all_to_nobody(inputs):
    part_prob, boxes, scores, image = inputs(detections=0)
    labelling = build()(part_prob, boxes, scores, image)
    objects, parts = labelling.argmax()
    assert bool((objects == 0).all()) and bool((parts > 0).any())
    torch.testing.assert_close(labelling.marginals(), part_prob, rtol=1e-4, atol=1e-6)


def test_nobody_takes_what_fits_no_detection(inputs):
    part_prob, boxes, scores, image = inputs(detections=1)
    boxes = torch.tensor([[0.0, 0.0, 26.0, 20.0]])
    against = torch.ones(1, 20, 26)
    against[:, :, 13:] = 0  # the right half says that it belongs to no box
    crf = build(nobody=True, whose_pairwise=False, evidence_floor=1e-4)
    objects, parts = crf(part_prob, boxes, scores, image, evidence=against).argmax()
    someone = parts > 0
    assert bool((objects[:, 13:][someone[:, 13:]] == 0).all())
    assert bool((objects[8:12, 10:13][someone[8:12, 10:13]] == 1).all())


def test_classes_have_a_whose_each(inputs):
    part_prob, boxes, scores, image = inputs(detections=3, parts=3)
    evidence = make_evidence()
    crf = build(what_pairwise=True)
    labelling = crf(part_prob, boxes, scores, image, evidence=evidence, **TWO_CLASSES)
    marginals = labelling.marginals()
    assert labelling.label_space.label_part.tolist() == [0, 2, 3, 1, 2, 3, 1, 2, 3]
    torch.testing.assert_close(marginals.sum(0), torch.ones(20, 26))
    objects, parts = labelling.argmax()
    for i, owned in enumerate([{2, 3}, {1}, {2, 3}], start=1):
        assert set(parts[objects == i].unique().tolist()) <= owned
    # Without the other class's detection, the distribution of one class is the same.
    alone = crf(
        part_prob, boxes[[0, 2]], scores[[0, 2]], image, evidence=evidence[[0, 2]],
        object_classes=torch.tensor([1, 1]), part_owner=TWO_CLASSES["part_owner"],
    ).marginals()  # fmt: skip
    torch.testing.assert_close(marginals[[1, 2, 4, 5]], alone[1:5])
    torch.testing.assert_close(alone.sum(0), torch.ones(20, 26))


def test_a_detection_that_owns_no_part_owns_nothing(inputs):
    part_prob, boxes, scores, image = inputs(detections=2)
    labelling = build()(
        part_prob, boxes, scores, image,
        object_classes=torch.tensor([0, 3]), part_owner=torch.zeros(2, dtype=torch.int64),
    )  # fmt: skip
    assert labelling.argmax()[0].max() == 1
    torch.testing.assert_close(labelling.marginals().sum(0), torch.ones(20, 26))


def test_permuting_detections_permutes_labels(inputs):
    part_prob, boxes, scores, image = inputs(detections=4)
    evidence, order = make_evidence(4), torch.tensor([2, 0, 3, 1])
    crf = build()
    a = crf(part_prob, boxes, scores, image, evidence=evidence).marginals()
    b = crf(part_prob, boxes[order], scores[order], image, evidence=evidence[order]).marginals()
    for new, old in enumerate(order.tolist()):
        torch.testing.assert_close(b[1 + 2 * new : 3 + 2 * new], a[1 + 2 * old : 3 + 2 * old])


@pytest.mark.parametrize("nobody", [True, False])
@pytest.mark.parametrize("classes", [{}, TWO_CLASSES])
def test_log_prob_is_that_of_the_marginals(inputs, nobody, classes):
    part_prob, boxes, scores, image = inputs(detections=3, parts=3)
    crf = build(what_pairwise=True, nobody=nobody, reach=20.0)
    labelling = crf(part_prob, boxes, scores, image, **classes)
    space = labelling.label_space
    labels = torch.arange(520).view(20, 26) % (space.num_labels + 1) - 1
    expected = labelling.marginals().log().gather(0, labels.clamp(min=0)[None])[0]
    if not nobody:  # judged by what alone
        nobodys = (space.label_instance[labels] == 0) & (space.label_part[labels] > 0)
        what = labelling.log_what.gather(2, space.label_part[labels][..., None])[..., 0]
        expected = torch.where(nobodys, what, expected)
    expected[labels < 0] = 0
    torch.testing.assert_close(labelling.log_prob(labels), expected, rtol=1e-4, atol=1e-5)
    for bad in (labels.int(), labels[1:], labels + 1):
        with pytest.raises(ValueError, match="labels"):
            labelling.log_prob(bad)


def test_a_target_out_of_reach_is_judged_by_what_or_nobody():
    q = torch.tensor([0.1, 0.9]).view(2, 1, 1).expand(2, 10, 30)
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    image = torch.full((3, 10, 30), 9.0)
    labels = torch.ones(10, 30, dtype=torch.int64)
    off = build()(q, box, torch.ones(1), image).log_prob(labels)
    assert off[5, 25].item() == pytest.approx(math.log(0.9), abs=1e-4)
    on = build(nobody=True, nobody_potential=0.0)(q, box, torch.ones(1), image).log_prob(labels)
    assert on[5, 25].item() == pytest.approx(math.log(0.9), abs=1e-4)
    assert on[5, 5].item() < off[5, 5].item()


@pytest.mark.parametrize("classes", [{}, TWO_CLASSES])
def test_another_size_is_read_from_resized_probabilities(inputs, classes):
    part_prob, boxes, scores, image = inputs(detections=3, parts=3)
    labelling = build()(part_prob, boxes, scores, image, **classes)
    objects, parts, confidence = labelling.label_maps((33, 41))

    def resize(maps):
        return torch.nn.functional.interpolate(
            maps[None], size=(33, 41), mode="bilinear", align_corners=False
        )[0]

    what = resize(labelling.log_what.permute(2, 0, 1).exp())
    best, part = what[1:].max(0)
    someone = what[0] < 0.5
    assert torch.equal(parts, torch.where(someone, part + 1, 0))
    space = labelling.label_space
    mass = resize(labelling.marginals())  # f q_whose of a part, where q_what is one of f's terms
    for whose in labelling.whose:
        mine = torch.isin(parts, whose.parts)
        instances = torch.cat([torch.tensor([0]), whose.detections + 1])
        total = torch.stack(
            [
                mass[(space.label_instance == i) & torch.isin(space.label_part, whose.parts)].sum(0)
                for i in instances.tolist()
            ]
        )
        assert torch.equal(objects[mine], instances[total.argmax(0)][mine])
        share = (total / total.sum(0)).amax(0)
        torch.testing.assert_close(confidence[mine], (best * share)[mine])


@pytest.mark.parametrize("detections", [0, 2])
@pytest.mark.parametrize("nobody", [True, False])
def test_gradcheck_of_the_whole_crf(inputs, detections, nobody):
    part_prob, boxes, scores, image = inputs(5, 6, detections, dtype=torch.float64)
    crf = build(what_pairwise=True, nobody=nobody, theta_alpha=3.0).double()
    labels = torch.arange(30).view(5, 6) % (2 * detections + 2) - 1
    evidence = 0.1 + make_evidence(detections, 5, 6, torch.float64)

    def run(evidence, *parameters):
        named = dict(zip([name for name, _ in crf.named_parameters()], parameters, strict=True))
        # Q only through what: the support and the place cue are constant for the gradient.
        labelling = torch.func.functional_call(
            crf, named, (part_prob, boxes, scores, image), {"evidence": evidence.clamp(max=1)}
        )
        return labelling.log_prob(labels), labelling.marginals()

    # The weights of what change the support, too, which is no part of the gradient.
    for name, parameter in crf.named_parameters():
        parameter.requires_grad_("what" not in name)
    assert torch.autograd.gradcheck(run, (evidence.requires_grad_(), *crf.parameters()))


def test_gradient_of_q_is_that_of_what(inputs):
    part_prob, boxes, scores, image = inputs(dtype=torch.float64)
    q = part_prob.clone().requires_grad_()
    labelling = build(place_templates=region_templates(["head", "torso"]))(q, boxes, scores, image)
    labels = torch.full((20, 26), 2)
    (actual,) = torch.autograd.grad(labelling.log_prob(labels).sum(), q)
    expected = torch.zeros_like(q)
    expected[2] = 1 / (part_prob[2] + 1e-8)
    torch.testing.assert_close(actual, expected - 1 / (part_prob + 1e-8).sum(0))


@pytest.mark.parametrize("detections", [0, 2])
@pytest.mark.parametrize("options", [{}, {"what_pairwise": True}, {"potential": "consistency"}])
def test_every_parameter_is_in_the_graph(inputs, detections, options):
    crf = build(cues=["score"], **options)
    part_prob, *rest = inputs(detections=detections)
    crf(part_prob, *rest).log_prob(torch.zeros(20, 26, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in crf.parameters())


def test_what_learns_reaches_each_number_in_use(inputs):
    part_prob, boxes, scores, image = inputs()
    crf = build(
        what_pairwise=True, nobody=True, place_templates=region_templates(["head", "torso"])
    )
    labelling = crf(part_prob, boxes, scores, image, evidence=make_evidence())
    labelling.log_prob(torch.full((20, 26), 3)).sum().backward()
    unused = "raw_consistency_weights"
    assert all(bool((p.grad.abs() > 1e-5).all()) for n, p in crf.named_parameters() if n != unused)


@pytest.mark.parametrize("cue", CUES)
def test_every_cue_can_be_left_out(inputs, cue):
    part_prob, boxes, scores, image = inputs()
    options = {"place_templates": region_templates(["head", "torso"])}
    arguments = (part_prob, boxes, scores, image)
    with_it = build(**options)(*arguments, evidence=make_evidence()).marginals()
    rest = [c for c in CUES if c != cue]
    without = build(cues=rest, **options)(*arguments, evidence=make_evidence()).marginals()
    assert (with_it - without).abs().max() > 1e-3


def test_state_depends_on_neither_people_nor_options(inputs):
    a, b = build(), build(cues=["box"], potential="consistency", nobody=True, what_pairwise=True)
    a(*inputs(detections=5))
    assert a.state_dict().keys() == b.state_dict().keys()
    b.load_state_dict(a.state_dict())
    names = set(a.learned_numbers())
    assert {"score_weight", "evidence_floor", "whose_spatial_weight"} <= names
    assert "what_spatial_weight" not in names and "score_weight=1" in repr(a)


def test_the_weights_of_another_form_are_refused():
    joint, factored = DenseInstanceCRF(), FactoredInstanceCRF()
    with pytest.raises(ValueError, match=r"DenseInstanceCRF.*FactoredInstanceCRF.*FORM"):
        factored.load_state_dict(joint.state_dict(), strict=False)
    with pytest.raises(ValueError, match=r"FactoredInstanceCRF.*DenseInstanceCRF.*FORM"):
        joint.load_state_dict(factored.state_dict(), strict=False)


def test_bandwidths_follow_the_size_of_the_picture(inputs):
    part_prob, boxes, scores, image = inputs(20, 26)
    a = build(reference_size=52.0, theta_alpha=10.0, theta_gamma=4.0)
    b = build(theta_alpha=5.0, theta_gamma=2.0)
    torch.testing.assert_close(
        a(part_prob, boxes, scores, image).marginals(),
        b(part_prob, boxes, scores, image).marginals(),
    )


def test_both_factors_share_the_lattices(inputs, monkeypatch):
    from instance_crf.crf.gaussian_filter import ImageKernels

    built = []
    original = ImageKernels.built

    def count(self, key, build):
        return original(self, key, lambda: built.append(key) or build())

    monkeypatch.setattr(ImageKernels, "built", count)
    build(what_pairwise=True, backend="torch")(*inputs())
    assert len(built) == len(set(built)) > 0


@pytest.mark.parametrize("what_pairwise", [True, False])
def test_numba_gives_the_numbers_of_the_reference(inputs, what_pairwise):
    part_prob, boxes, scores, image = inputs(30, 41, detections=5, parts=4)
    labels = torch.arange(30 * 41).view(30, 41) % 21
    results = []
    for backend in ("torch", "numba"):
        crf = build(what_pairwise=what_pairwise, nobody=True, backend=backend)
        q = part_prob.clone().requires_grad_()
        evidence = make_evidence(5, 30, 41).requires_grad_()
        labelling = crf(q, boxes, scores, image, evidence=evidence)
        wanted = [q, evidence, *crf.parameters()]
        gradients = torch.autograd.grad(labelling.log_prob(labels).mean(), wanted)
        results.append([labelling.marginals(), *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_certain_parts_stay_finite():
    target = torch.zeros(16, 16, dtype=torch.int64)
    target[4:12, 5:11], target[6:9, 6:9] = 1, 2
    q = torch.nn.functional.one_hot(target, 3).permute(2, 0, 1).float().requires_grad_()
    box = torch.tensor([[5.0, 4.0, 11.0, 12.0]])
    crf = build(what_pairwise=True, place_templates=region_templates(["torso", "head"]))
    labelling = crf(
        q, box, torch.zeros(1), torch.full((3, 16, 16), 7.0), evidence=torch.zeros(1, 16, 16)
    )
    objects, parts = labelling.argmax()
    assert torch.equal(parts, target) and torch.equal(objects, (target > 0).long())
    labelling.log_prob(target).sum().backward()
    assert torch.isfinite(q.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in crf.parameters())


def test_images_of_odd_sizes_in_one_batch(inputs):
    crf = build()
    images = [inputs(20, 26, 3), inputs(7, 31, 0, seed=1), inputs(33, 5, 8, seed=2)]
    evidence = [make_evidence(), None, make_evidence(8, 33, 5)]
    batch = crf(*map(list, zip(*images, strict=True)), evidence=evidence)
    for labelling, image, a in zip(batch, images, evidence, strict=True):
        alone = crf(*image, evidence=a)
        torch.testing.assert_close(labelling.marginals(), alone.marginals())
    with pytest.raises(ValueError, match="length"):
        crf(*map(list, zip(*images, strict=True)), evidence=evidence[:2])


def test_non_contiguous_inputs_and_autocast(inputs):
    part_prob, boxes, scores, image = inputs()
    evidence = make_evidence()
    crf = build(what_pairwise=True)
    expected = crf(part_prob, boxes, scores, image, evidence=evidence).marginals()
    q, b, c, e = (
        t.movedim(0, -1).contiguous().movedim(-1, 0) for t in (part_prob, boxes, image, evidence)
    )
    torch.testing.assert_close(crf(q, b, scores, c, evidence=e).marginals(), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crf(part_prob, boxes, scores, image, evidence=evidence).marginals()
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, expected)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1)])
def test_tiny_images(height, width):
    q = torch.softmax(torch.randn(2, height, width), 0)
    box = torch.tensor([[0.0, 0.0, width, height]])
    labelling = build(what_pairwise=True)(q, box, torch.ones(1), torch.rand(3, height, width) * 255)
    torch.testing.assert_close(labelling.marginals().sum(0), torch.ones(height, width))


def test_bad_options_and_evidence(inputs):
    for options, name in [
        ({"cues": ["colour"]}, "cues"),
        ({"cues": []}, "cue"),
        ({"potential": "x"}, "potential"),
        ({"reach": 0.0}, "reach"),
        ({"cue_weights": {"box": -1.0}}, "cue_weights"),
        ({"cue_weights": {"colour": 1.0}}, "cues"),
        ({"evidence_floor": 0.0}, "evidence_floor"),
        ({"whose_weights": (0.0, 1.0)}, "whose_weights"),
        ({"reference_size": -1.0}, "reference_size"),
    ]:
        with pytest.raises(ValueError, match=name):
            FactoredInstanceCRF(**options)
    for bad in (make_evidence(2), make_evidence() * 3, make_evidence() * math.nan):
        with pytest.raises(ValueError, match="evidence"):
            build()(*inputs(), evidence=bad)


def test_place_templates_of_other_parts_are_refused(inputs):
    """With more of them, those of the first parts would be taken."""
    for regions in (["head"], ["head", "torso", "legs"]):
        crf = build(place_templates=region_templates(regions))
        with pytest.raises(ValueError, match=f"2 parts .* place_templates are of {len(regions)}"):
            crf(*inputs())
