"""The accelerated CPU inference against the plain PyTorch reference."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from instance_crf.crf import DenseInstanceCRF
from instance_crf.crf.cpu import lanes as lanes_module
from instance_crf.crf.cpu.inference import CpuInference
from instance_crf.crf.cpu.jit import kernel
from instance_crf.crf.cpu.lattice import (
    LatticeRangeError,
    blur_scalar,
    build_lattice,
    slice_scalar,
    splat_scalar,
    tile_order,
)
from instance_crf.crf.cpu.threads import run_tasks, split_range
from instance_crf.crf.gaussian_filter import (
    PermutohedralFilter,
    bilateral_features,
    spatial_features,
)


def scene(height=40, width=53, detections=4, parts=3, seed=0, sharpness=3.0, background=0.0):
    """Q of smooth blobs, boxes, scores and a smooth image with a little noise."""
    g = torch.Generator().manual_seed(seed)

    def blobs(channels):
        coarse = torch.randn(1, channels, 6, 6, generator=g)
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]

    logits = sharpness * blobs(parts + 1)
    logits[0] += background
    part_prob = torch.softmax(logits, dim=0)
    size = torch.tensor([width, height], dtype=torch.float32)
    low = torch.rand(detections, 2, generator=g) * size * 0.6
    boxes = torch.cat([low, low + 1 + torch.rand(detections, 2, generator=g) * size * 0.6], dim=1)
    image = (127 + 60 * blobs(3) + 3 * torch.randn(3, height, width, generator=g)).clamp(0, 255)
    return part_prob, boxes, torch.rand(detections, generator=g), image


def outcome(backend, inputs, labels=None, threads=1, call=None, **options):
    """Everything that a labelling answers, and all gradients of a loss that uses both kinds."""
    crf = DenseInstanceCRF(backend=backend, theta_beta=20.0, **options)
    part_prob = inputs[0].clone().requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        labelling = crf(part_prob, *inputs[1:], **(call or {}))
        marginals = labelling.marginals()
        if labels is None:
            count = marginals[0].numel()
            labels = torch.arange(count).view(marginals.shape[1:]) * 7919 % len(marginals) - 1
        log_prob = labelling.log_prob(labels)
        ramp = torch.linspace(0, 1, len(marginals))[:, None, None]
        (3 * log_prob.mean() + 10 * (ramp * marginals).mean()).backward()
        objects, parts = labelling.argmax()
    finally:
        torch.set_num_threads(before)
    return {
        "marginals": marginals.detach(),
        "log_prob": log_prob.detach(),
        "confidence": labelling.confidence(),
        "objects": objects,
        "parts": parts,
        "grad_part_prob": part_prob.grad,
        "grad_weights": torch.stack([p.grad for p in crf.parameters()]),
    }


def assert_same(actual, expected, atol=2e-5, rtol=1e-4):
    top = expected["marginals"].topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-4  # elsewhere rounding may decide between labels
    for name in expected:
        if name in ("objects", "parts"):
            assert torch.equal(actual[name][clear], expected[name][clear]), name
            continue
        torch.testing.assert_close(
            actual[name],
            expected[name],
            atol=atol,
            rtol=rtol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize(
    "options",
    [
        {"num_iterations": 3},
        {"num_iterations": 0},
        {"num_iterations": 1},
        {"num_iterations": 4, "normalization": "symmetric"},
        {"num_iterations": 2, "box_term": False},
        {"num_iterations": 2, "global_term": False, "background_box_term": True},
        {"num_iterations": 2, "background_box_term": True, "score_transform": "tvg"},
        {"pairwise_term": False},
    ],
    ids=str,
)
def test_agrees_with_the_reference(options):
    inputs = scene()
    expected = outcome("torch", inputs, **options)
    # Q at box borders without the global term has gradients of 1 / epsilon.
    scale = expected["grad_part_prob"].abs().max().item()
    actual = outcome("numba", inputs, **options)
    assert_same(actual, expected, atol=max(2e-5, 2e-5 * scale))
    assert (actual["grad_weights"] == 0).equal(expected["grad_weights"] == 0)


@pytest.mark.parametrize("detections, parts", [(1, 1), (2, 1), (30, 2), (9, 7)])
def test_agrees_for_any_number_of_labels(detections, parts):
    inputs = scene(detections=detections, parts=parts, seed=detections)
    options = {"num_iterations": 2}
    assert_same(outcome("numba", inputs, **options), outcome("torch", inputs, **options))


def test_agrees_with_two_object_classes():
    inputs = scene(detections=4, parts=3)
    call = {
        "object_classes": torch.tensor([1, 0, 2, 1]),
        "part_owner": torch.tensor([0, 1, 1]),
    }
    for threshold in (0.0, 1e-6):
        options = {"num_iterations": 2, "call": call, "drop_threshold": threshold}
        assert_same(outcome("numba", inputs, **options), outcome("torch", inputs, **options))


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (9, 1), (17, 33)])
def test_agrees_on_odd_sizes(height, width):
    inputs = scene(height, width, detections=2)
    options = {"num_iterations": 2}
    assert_same(outcome("numba", inputs, **options), outcome("torch", inputs, **options))


@pytest.mark.parametrize("detections", [6, 30])
@pytest.mark.parametrize("threshold", [0.0, 1e-2])
def test_threads_change_nothing_but_rounding(threshold, detections):
    inputs = scene(96, 130, detections, parts=5, sharpness=12.0, background=30.0)
    options = {"num_iterations": 3, "drop_threshold": threshold}
    one = outcome("numba", inputs, threads=1, **options)
    three = outcome("numba", inputs, threads=3, **options)
    scale = one["grad_part_prob"].abs().max().item()
    assert_same(three, one, atol=max(2e-5, 2e-5 * scale))
    again = outcome("numba", inputs, threads=3, **options)
    assert all(torch.equal(three[name], again[name]) for name in three)


def test_recomputed_iterations_give_the_same_gradient(monkeypatch):
    from instance_crf.crf.cpu import inference

    inputs = scene()
    expected = outcome("numba", inputs, num_iterations=7)
    monkeypatch.setattr(inference, "_MAX_KEPT", 0.0)
    monkeypatch.setattr(inference, "_ALWAYS_KEPT", 0)
    for iterations in (1, 2, 7):
        few = outcome("numba", inputs, num_iterations=iterations)
        assert_same(few, outcome("torch", inputs, num_iterations=iterations))
    assert_same(outcome("numba", inputs, num_iterations=7), expected)


def test_certain_and_impossible_parts_stay_finite():
    part_prob, boxes, scores, image = scene(sharpness=500.0)
    assert (part_prob == 0).any() and (part_prob == 1).any()
    result = outcome("numba", (part_prob, boxes, scores * 0, image * 0), num_iterations=3)
    assert all(torch.isfinite(value.float()).all() for value in result.values())


def test_keys_too_wide_fall_back_to_the_reference():
    inputs = scene(6, 7)
    options = {"theta_alpha": 1e-6, "num_iterations": 1}
    crf = DenseInstanceCRF(backend="auto", theta_beta=1e-6, theta_alpha=1e-6, num_iterations=1)
    expected = DenseInstanceCRF(
        backend="torch", theta_beta=1e-6, theta_alpha=1e-6, num_iterations=1
    )
    torch.testing.assert_close(crf(*inputs).marginals(), expected(*inputs).marginals())
    with pytest.raises(LatticeRangeError):
        DenseInstanceCRF(backend="numba", theta_beta=1e-6, **options)(*inputs)


def test_numba_refuses_double_precision():
    inputs = [value.double() for value in scene(5, 6)]
    with pytest.raises(ValueError, match="float64"):
        DenseInstanceCRF(backend="numba")(*inputs)


# -- dropped labels ------------------------------------------------------------------------------


@pytest.fixture(params=[0, 1000], ids=["parts", "pixels"])
def few_labels(request, monkeypatch):
    """Below this number of labels all of them, and not single parts, are dropped at a pixel."""
    from instance_crf.crf.cpu import inference

    monkeypatch.setattr(inference, "_FEW_LABELS", request.param)


def peaked_scene():
    """Mostly background."""
    return scene(64, 80, detections=7, parts=4, seed=3, sharpness=12.0, background=30.0)


def dropping(threshold, inputs, **options):
    crf = DenseInstanceCRF(
        backend="numba", drop_threshold=threshold, theta_beta=20.0, num_iterations=5, **options
    )
    return crf(*inputs)


@pytest.mark.usefixtures("few_labels")
@pytest.mark.parametrize("threshold", [1e-4, 1e-3, 1e-2])
def test_dropping_stays_within_the_threshold(threshold):
    inputs = peaked_scene()
    exact, approximate = dropping(0.0, inputs), dropping(threshold, inputs)
    assert approximate.active_fraction < 0.6
    difference = (exact.marginals() - approximate.marginals()).abs()
    assert difference.max() < 2 * threshold
    same = (exact.argmax()[0] == approximate.argmax()[0]) & (
        exact.argmax()[1] == approximate.argmax()[1]
    )
    assert same.float().mean() > 0.999
    torch.testing.assert_close(approximate.marginals().sum(0), torch.ones(64, 80))


@pytest.mark.usefixtures("few_labels")
def test_what_is_dropped_was_below_the_threshold_at_every_iteration():
    inputs = peaked_scene()
    threshold = 1e-2
    dropped = dropping(threshold, inputs).marginals() == 0
    assert dropped.any()
    for iterations in range(6):
        crf = DenseInstanceCRF(backend="torch", theta_beta=20.0, num_iterations=iterations)
        exact = crf(*inputs)
        per_part = torch.zeros(5, 64, 80)
        per_part.index_add_(0, exact.label_space.label_part, exact.marginals())
        total = per_part[exact.label_space.label_part]
        assert total[dropped].max() <= threshold * (1 + 1e-4)


@pytest.mark.usefixtures("few_labels")
def test_gradient_of_what_remains_agrees_with_the_exact_one():
    inputs = peaked_scene()
    exact = dropping(0.0, inputs)
    objects, parts = exact.argmax()
    labels = exact.label_space.label_index()[objects, parts]
    options = {"num_iterations": 5, "labels": labels}
    expected = outcome("torch", inputs, **options)
    actual = outcome("numba", inputs, drop_threshold=1e-3, **options)
    for result in (actual, expected):
        # With respect to log Q: that with respect to Q of a hopeless part is large and idle.
        result["grad_part_prob"] *= inputs[0]
    assert_same(actual, expected, atol=2e-3, rtol=2e-2)


@pytest.mark.usefixtures("few_labels")
def test_target_parts_are_never_dropped():
    inputs = peaked_scene()
    target = torch.randint(0, 5, (64, 80), generator=torch.Generator().manual_seed(1))
    target[:3] = 255
    crf = DenseInstanceCRF(backend="numba", drop_threshold=0.05, num_iterations=3)
    marginals = crf(*inputs, target_part=target).marginals()
    label_part = torch.arange(29).sub(1).remainder(4).add(1)
    label_part[0] = 0
    for part in range(1, 5):
        where = target == part
        assert (marginals[label_part == part][:, where] > 0).all()


@pytest.mark.usefixtures("few_labels")
def test_dropped_labels_have_a_finite_log_prob_with_gradient():
    part_prob, *rest = peaked_scene()
    part_prob.requires_grad_()
    crf = DenseInstanceCRF(backend="numba", drop_threshold=0.05, num_iterations=3)
    labelling = crf(part_prob, *rest)
    labels = torch.full((64, 80), 3)
    dropped = labelling.marginals()[3] == 0
    assert dropped.float().mean() > 0.5
    log_prob = labelling.log_prob(labels)
    assert torch.isfinite(log_prob).all() and (log_prob <= 1e-5).all()
    log_prob.sum().backward()
    assert torch.isfinite(part_prob.grad).all()
    assert (part_prob.grad[3][dropped] > 0).all()
    assert all(torch.isfinite(p.grad) for p in crf.parameters())


@pytest.mark.usefixtures("few_labels")
def test_gradcheck_by_differences_with_dropped_labels():
    """Finite differences in float32 of a direction in Q, with labels dropped and not."""
    part_prob, *rest = peaked_scene()
    crf = DenseInstanceCRF(backend="numba", drop_threshold=0.02, num_iterations=2)
    labels = torch.arange(64 * 80).view(64, 80) % 29
    target = crf(part_prob, *rest).label_space.label_part[labels]

    def loss(q):
        return crf(q, *rest, target_part=target).log_prob(labels).clamp(min=-8).double().mean()

    q = (part_prob * 0.98 + 0.004).requires_grad_()
    value = loss(q)
    value.backward()
    direction = torch.sign(q.grad) * 1e-4
    change = (loss(q.detach() + direction) - loss(q.detach() - direction)) / 2
    assert change.item() == pytest.approx((q.grad * direction).sum().item(), rel=0.02)


@pytest.mark.usefixtures("few_labels")
@pytest.mark.parametrize("threads", [1, 3])
def test_background_alone_is_left(threads, monkeypatch):
    _, *rest = peaked_scene()
    part_prob = torch.full((5, 64, 80), 1e-7)
    part_prob[0] = 1 - 4e-7
    part_prob.requires_grad_()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    labelling = dropping(1e-2, (part_prob, *rest))
    assert labelling.active_fraction == pytest.approx(1 / 29)
    assert not labelling.argmax()[0].any()
    assert (labelling.marginals()[0] == 1).all()
    log_prob = labelling.log_prob(torch.full((64, 80), 5))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(part_prob.grad).all()


def test_messages_may_lift_what_rounds_to_nothing():
    """The background has Q = 1 and, in float32, a share of 1; strong kernels still win."""
    part_prob = torch.zeros(9, 40, 60)
    part_prob[1, :, :30] = 1
    part_prob[0, :, 30:] = 1
    part_prob[1, 20, 15], part_prob[0, 20, 15] = 0, 1
    image = torch.full((3, 40, 60), 100.0)
    image[:, :, 30:] = 200
    inputs = (part_prob, torch.tensor([[0.0, 0, 30, 40]]), torch.tensor([0.9]), image)
    options = {"bilateral_weight": 12.0, "spatial_weight": 12.0}
    exact, approximate = dropping(0.0, inputs, **options), dropping(5e-3, inputs, **options)
    assert approximate.active_fraction < 1
    assert exact.argmax()[1][20, 15] == approximate.argmax()[1][20, 15] == 1


def test_without_gradients_answers_have_none():
    part_prob, *rest = scene()
    part_prob.requires_grad_()
    with torch.no_grad():
        labelling = DenseInstanceCRF(backend="numba")(part_prob, *rest)
    assert not labelling.log_prob(torch.zeros(40, 53, dtype=torch.long)).requires_grad
    assert not labelling.marginals().requires_grad


def test_flat_distributions_are_not_bounded_in_vain(monkeypatch):
    from instance_crf.crf.cpu import inference

    part_prob, *rest = peaked_scene()
    flat = torch.full_like(part_prob, 1 / len(part_prob))
    monkeypatch.setattr(inference, "foreground_bound", None)  # would fail if it were reached
    labelling = dropping(1e-2, (flat, *rest))
    assert labelling.active_fraction == 1.0


# -- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("bilateral", [True, False])
def test_lattice_is_that_of_the_reference(normalization, bilateral):
    _, _, _, image = scene(31, 37)
    features = bilateral_features(image, 20.0, 15.0) if bilateral else spatial_features(31, 37, 2.5)
    reference = PermutohedralFilter(features, normalization=normalization)
    planes = image.reshape(3, -1).numpy() if bilateral else None
    lattice = build_lattice(
        31, 37, 20.0 if bilateral else 2.5, planes, 15.0, normalization=normalization, num_threads=2
    )
    assert abs(lattice.num_vertices - reference.num_vertices) <= 3
    order = tile_order(31, 37).copy()
    values = np.random.default_rng(0).random(31 * 37).astype(np.float32)
    expected = reference(torch.from_numpy(values).double()[:, None])[order, 0].numpy()
    on_lattice = np.zeros(lattice.num_vertices, np.float32)
    splat_scalar(lattice.vertex, lattice.weight, values[order] * lattice.weight_in, on_lattice)
    blur_scalar(on_lattice, lattice.chains, lattice.chain_ptr)
    actual = np.empty_like(values)
    slice_scalar(0, len(actual), lattice.vertex, lattice.weight, on_lattice, actual)
    np.testing.assert_allclose(actual * lattice.weight_out, expected, atol=1e-4)


def test_tile_order_is_a_permutation():
    order = tile_order(37, 50)
    assert sorted(order.tolist()) == list(range(37 * 50))
    assert order[:16].tolist() == list(range(16))


def test_lanes():
    """Arithmetic and exp of eight numbers at a time against NumPy."""

    @kernel
    def evaluate(x, y, out):
        lanes = lanes_module.repeat(np.float32(0))
        for c in range(np.uint64(0), np.uint64(len(x)), np.uint64(8)):
            one, other = lanes_module.load(x, c), lanes_module.load(y, c)
            value = (one - np.float32(2) * other) / (other + np.float32(1)) * one
            lanes_module.store(out, c, lanes_module.maximum(value, other))
            lanes += value
        return lanes_module.lane_sum(lanes)

    rng = np.random.default_rng(0)
    x, y = rng.random((2, 64), np.float32)
    out = np.empty_like(x)
    expected = (x - 2 * y) / (y + 1) * x
    assert evaluate(x, y, out) == pytest.approx(expected.sum(), abs=1e-4)
    np.testing.assert_allclose(out, np.maximum(expected, y), rtol=1e-5)


def test_exp_of_lanes():
    @kernel
    def evaluate(x, out):
        for c in range(np.uint64(0), np.uint64(len(x)), np.uint64(8)):
            lanes_module.store(out, c, lanes_module.exp(lanes_module.load(x, c)))

    x = np.concatenate([np.linspace(-86, 0, 10000), [-88, -1e3, -1e30] + [0.0] * 5])
    x = x.astype(np.float32)
    out = np.empty_like(x)
    evaluate(x, out)
    np.testing.assert_allclose(out[:10000], np.exp(x[:10000].astype(np.float64)), rtol=1e-5)
    assert (out[10000:10003] == 0).all()
    assert (out[10003:] == 1).all()


def test_split_range_and_tasks():
    assert split_range(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert split_range(2, 5) == [(0, 1), (1, 2)]
    for threads in (None, 1, 2, 9):
        assert run_tasks([(pow, (2, k)) for k in range(6)], threads) == [2**k for k in range(6)]
    with pytest.raises(ZeroDivisionError):
        run_tasks([(divmod, (1, 1)), (divmod, (1, 0))])


def test_inference_is_reached_through_the_module(monkeypatch):
    calls = []
    original = CpuInference.__init__
    monkeypatch.setattr(
        CpuInference,
        "__init__",
        lambda self, *a, **k: (calls.append(1), original(self, *a, **k))[1],
    )
    DenseInstanceCRF(num_iterations=1)(*scene())
    assert calls


@pytest.mark.slow
def test_no_directory_for_compiled_code(tmp_path):
    """Without a place for its cache numba still compiles."""
    code = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = []\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "from instance_crf.crf.cpu.threads import split_range\n"
        "from instance_crf.crf.cpu.lattice import tile_order, slice_scalar\n"
        "import numpy as np\n"
        "out = np.zeros(1, np.float32)\n"
        "slice_scalar(0, 1, np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32),"
        " np.full(1, 2, np.float32), out)\n"
        "print(out[0])\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "2.0", done.stderr
