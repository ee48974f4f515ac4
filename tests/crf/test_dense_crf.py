"""The CRF layer for any logits, against sums written out, and on all backends."""

import pytest
import torch

from instance_crf.crf import DenseCRF, Gaussian

KERNELS = [
    Gaussian(position=6.0, colour=40.0, weight=2.0),
    Gaussian(position=2.0, weight=0.5),
    Gaussian(position=8.0, features=1.3),
    Gaussian(colour=30.0, weight=0.3),
]


def scene(batch=2, labels=3, height=8, width=9, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = {"logits": labels, "image": 3, "features": 2}
    made = {
        name: torch.rand(batch, channels, height, width, generator=g, dtype=dtype)
        for name, channels in shapes.items()
    }
    made["logits"] = 4 * made["logits"]
    made["image"] = 255 * made["image"]
    return made


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("learned", [True, False])
def test_against_sums_over_all_pairs_of_pixels(exact, normalization, learned):
    inputs = scene(dtype=torch.float64)
    support = torch.rand(2, 8, 9, dtype=torch.float64)
    options = {"normalization": normalization, "num_labels": 3 if learned else None}
    crf = DenseCRF(KERNELS, num_iterations=3, backend="torch", **options).double()
    compatibility = torch.eye(3, dtype=torch.float64)
    if learned:
        compatibility = torch.randn(3, 3, dtype=torch.float64)
        crf.compatibility.data.copy_(compatibility)
    actual = crf(**inputs, support=support)

    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    place = torch.stack([x.flatten(), y.flatten()], 1).double()
    for b in range(2):
        colour, extra = inputs["image"][b].flatten(1).t(), inputs["features"][b].flatten(1).t()
        squares = [
            (torch.cdist(place, place) / 6) ** 2 + (torch.cdist(colour, colour) / 40) ** 2,
            (torch.cdist(place, place) / 2) ** 2,
            (torch.cdist(place, place) / 8) ** 2 + (torch.cdist(extra, extra) / 1.3) ** 2,
            (torch.cdist(colour, colour) / 30) ** 2,
        ]
        f = support[b].flatten()
        matrices = []
        for square in squares:
            kernel = torch.exp(-square / 2)
            norm = kernel @ f
            if normalization == "after":
                matrices.append(kernel * f / norm[:, None])
            else:
                matrices.append(kernel * f / torch.outer(norm, norm).sqrt())
        logits = inputs["logits"][b].flatten(1).t()
        q = torch.softmax(logits, 1)
        for _ in range(3):
            sums = zip((2.0, 0.5, 1.0, 0.3), matrices, strict=True)
            messages = sum(weight * matrix @ q for weight, matrix in sums)
            q = torch.softmax(logits + messages @ compatibility, 1)
        assert (actual[b].flatten(1).t().exp() - q).abs().max() < 1e-6


@pytest.mark.parametrize("labels", [1, 2, 21])
@pytest.mark.parametrize("backend", ["torch", "numba", "auto"])
def test_shapes_and_probabilities(backend, labels):
    inputs = scene(labels=labels)
    result = DenseCRF(KERNELS, backend=backend)(**inputs)
    assert result.shape == (2, labels, 8, 9) and result.dtype == torch.float32
    torch.testing.assert_close(result.exp().sum(1), torch.ones(2, 8, 9))


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_backends_agree(normalization):
    inputs = scene(height=20, width=31, labels=6)
    support = torch.rand(2, 20, 31)
    results = []
    for backend in ("torch", "numba"):
        crf = DenseCRF(KERNELS, normalization=normalization, backend=backend)
        logits = inputs["logits"].clone().requires_grad_()
        result = crf(logits, inputs["image"], features=inputs["features"], support=support)
        (result.exp() * torch.arange(6.0)[:, None, None]).sum().backward()
        results.append((result.detach(), logits.grad, crf.raw_weights.grad))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_labels", [None, 3])
def test_gradcheck(num_labels):
    inputs = scene(batch=1, height=3, width=4, dtype=torch.float64)
    crf = DenseCRF(KERNELS, num_iterations=2, num_labels=num_labels).double()
    names = [name for name, _ in crf.named_parameters()]
    assert len(names) == (1 if num_labels is None else 2)

    def call(logits, *parameters):
        named = dict(zip(names, parameters, strict=True))
        arguments = {"image": inputs["image"], "features": inputs["features"]}
        return torch.func.functional_call(crf, named, (logits,), arguments)

    leaves = (inputs["logits"].requires_grad_(), *crf.parameters())
    assert torch.autograd.gradcheck(call, leaves)


def test_images_of_a_batch_do_not_touch():
    inputs = scene(batch=3)
    crf = DenseCRF(KERNELS)
    together = crf(**inputs)
    for b in range(3):
        alone = crf(**{name: value[b : b + 1] for name, value in inputs.items()})
        torch.testing.assert_close(together[b : b + 1], alone)


def test_smooths_noise_and_learns():
    """A half plane with noise: the layer cleans it, and training raises the likelihood."""
    torch.manual_seed(0)
    truth = (torch.arange(30) > 14).long().expand(1, 24, 30)
    image = (60 + 120 * truth).float()[:, None].expand(1, 3, 24, 30)
    logits = torch.stack([1.0 - 2 * truth, 2.0 * truth - 1], 1) * 0.7 + torch.randn(1, 2, 24, 30)
    crf = DenseCRF([Gaussian(position=10.0, colour=20.0, weight=2.0)], num_iterations=5)
    before = (logits.argmax(1) == truth).float().mean()
    after = (crf(logits, image).argmax(1) == truth).float().mean()
    assert before < 0.9 < 0.97 < after
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.2)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.nll_loss(crf(logits, image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_half_precision_strides_and_autocast():
    inputs = scene()
    crf = DenseCRF(KERNELS)
    expected = crf(**inputs)
    strided = {n: v.movedim(1, -1).contiguous().movedim(-1, 1) for n, v in inputs.items()}
    torch.testing.assert_close(crf(**strided), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = crf(**{**inputs, "logits": inputs["logits"].bfloat16()})
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7, -1e9, -3e38])
def test_what_all_labels_share_leaves_probabilities(offset):
    """Also where all labels were masked away."""
    inputs = scene()
    inputs["logits"][..., :4] += offset
    actual, expected = (DenseCRF(KERNELS, backend=name)(**inputs) for name in ("numba", "torch"))
    torch.testing.assert_close(actual.exp().sum(1), torch.ones(2, 8, 9), atol=1e-5, rtol=0)
    if abs(offset) < 1e4:  # beyond it, rounding of logits + messages decides
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_gradient_that_is_no_number_stays_visible(backend):
    inputs = scene()
    crf = DenseCRF(KERNELS, backend=backend)
    logits = inputs["logits"].clone().requires_grad_()
    result = crf(**{**inputs, "logits": logits})
    (result * torch.where(torch.arange(9) == 4, torch.nan, 1.0)).sum().backward()
    assert torch.isnan(logits.grad).any() and torch.isnan(crf.raw_weights.grad).any()


@pytest.mark.parametrize("logits", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", [torch.float32, torch.float64])
def test_mixed_precision_of_module_and_logits(logits, module):
    inputs = scene()
    crf = DenseCRF(iter(KERNELS), num_labels=3).to(module)
    assert crf(**{**inputs, "logits": inputs["logits"].to(logits)}).dtype == logits


def test_state_depends_on_kernels_alone():
    one, other = DenseCRF(KERNELS), DenseCRF(KERNELS, normalization="symmetric", num_iterations=1)
    one(**scene(labels=7))
    other.load_state_dict(one.state_dict())
    assert list(one.state_dict()) == ["raw_weights"]
    assert one.weights.tolist() == pytest.approx([2.0, 0.5, 1.0, 0.3], rel=1e-5)
    assert "weights=[2, 0.5, 1, 0.3]" in repr(one)


@pytest.mark.parametrize("num_iterations", [0, 2])
def test_every_parameter_is_in_the_graph(num_iterations):
    crf = DenseCRF(KERNELS, num_labels=3)
    crf(**scene(), num_iterations=num_iterations).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in crf.parameters())


def test_bad_options_are_named():
    for options, message in [
        ({"kernels": []}, "at least one"),
        ({"normalization": "none"}, "normalization"),
        ({"backend": "cpp"}, "backend"),
        ({"num_iterations": -1}, "num_iterations"),
        ({"num_labels": 0}, "num_labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            DenseCRF(**options)
    for options, message in [
        ({}, "bandwidth"),
        ({"position": 0.0}, "position"),
        ({"colour": -1.0}, "colour"),
        ({"position": 1.0, "weight": 0.0}, "weight"),
        ({"position": 1.0, "weight": torch.inf}, "weight"),
    ]:
        with pytest.raises(ValueError, match=message):
            Gaussian(**options)


GOOD = scene()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"logits": GOOD["logits"][0]}, "logits"),
        ({"logits": GOOD["logits"].long()}, "logits"),
        ({"logits": GOOD["logits"] * torch.nan}, "logits must be finite"),
        ({"logits": GOOD["logits"] * torch.inf}, "logits must be finite"),
        ({"logits": GOOD["logits"][:, :2]}, "2 labels.*num_labels=3"),
        ({"image": None}, "image"),
        ({"image": GOOD["image"][:1]}, "image has shape"),
        ({"image": GOOD["image"][0]}, "image has shape"),
        ({"image": GOOD["image"][..., :5]}, "image"),
        ({"image": GOOD["image"] / 255}, "0-255"),
        ({"features": None}, "features"),
        ({"features": GOOD["features"][:, :, 1:]}, "features"),
        ({"features": GOOD["features"] * torch.nan}, "features must be finite"),
        ({"support": torch.ones(2, 8, 8)}, "support"),
        ({"support": -torch.ones(2, 8, 9)}, "support"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(KERNELS, num_labels=3)(**{**GOOD, **change})


def test_a_nearly_black_image_is_not_one_in_0_1():
    crf = DenseCRF(KERNELS, num_labels=3)
    dark = (GOOD["image"] > 128).float()
    assert dark.max() == 1
    crf(**{**GOOD, "image": dark})
    with pytest.raises(ValueError, match="seems to be scaled to 0-1.*round one that is nearly"):
        crf(**{**GOOD, "image": 0.5 * dark})
