"""The accelerated CPU inference against the plain PyTorch reference."""

import gc
import os
import shutil
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from instance_crf.crf import DenseInstanceCRF
from instance_crf.crf import mean_field as reference
from instance_crf.crf.cpu import jit, lattice
from instance_crf.crf.cpu import lanes as lanes_module
from instance_crf.crf.cpu import mean_field as accelerated
from instance_crf.crf.cpu.jit import kernel
from instance_crf.crf.cpu.lattice import tile_order
from instance_crf.crf.cpu.plan import Plan
from instance_crf.crf.cpu.threads import run_tasks, split_range
from instance_crf.crf.engine import BackendError
from instance_crf.crf.gaussian_filter import (
    GaussianKernel,
    ImageKernels,
    NormalizedFilter,
    bilateral_kernel,
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
    options = {"num_iterations": 2, "call": call}
    assert_same(outcome("numba", inputs, **options), outcome("torch", inputs, **options))


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (9, 1), (17, 33)])
def test_agrees_on_odd_sizes(height, width):
    inputs = scene(height, width, detections=2)
    options = {"num_iterations": 2}
    assert_same(outcome("numba", inputs, **options), outcome("torch", inputs, **options))


@pytest.mark.parametrize("detections", [6, 30])
def test_threads_change_nothing_but_rounding(detections):
    inputs = scene(96, 130, detections, parts=5, sharpness=12.0, background=30.0)
    options = {"num_iterations": 3}
    one = outcome("numba", inputs, threads=1, **options)
    three = outcome("numba", inputs, threads=3, **options)
    scale = one["grad_part_prob"].abs().max().item()
    assert_same(three, one, atol=max(2e-5, 2e-5 * scale))
    again = outcome("numba", inputs, threads=3, **options)
    assert all(torch.equal(three[name], again[name]) for name in three)


def test_recomputed_iterations_give_the_same_gradient(monkeypatch):
    inputs = scene()
    expected = outcome("numba", inputs, num_iterations=7)
    monkeypatch.setattr(accelerated, "_MAX_KEPT", 0.0)
    monkeypatch.setattr(accelerated, "_ALWAYS_KEPT", 0)
    for iterations in (1, 2, 7):
        few = outcome("numba", inputs, num_iterations=iterations)
        assert_same(few, outcome("torch", inputs, num_iterations=iterations))
    assert_same(outcome("numba", inputs, num_iterations=7), expected)


def test_certain_and_impossible_parts_stay_finite():
    part_prob, boxes, scores, image = scene(sharpness=500.0)
    assert (part_prob == 0).any() and (part_prob == 1).any()
    result = outcome("numba", (part_prob, boxes, scores * 0, image * 0), num_iterations=3)
    assert all(torch.isfinite(value.float()).all() for value in result.values())


# -- the backend on its own ----------------------------------------------------------------------


SIZE = (23, 31)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def kernels_of(*features):
    """An image's kernels with so many features each: position, if it fits, and others.

    With theta = 2.3 no pixel lies on a face of the lattice, where rounding decides which vertices
    exist.
    """
    kernels = []
    for count in features:
        others = count - 2 if count > 1 else count
        given = 3 * random(others, *SIZE, seed=count) if others else None
        kernels.append(GaussianKernel(SIZE, 2.3 if count > 1 else None, given))
    return ImageKernels(kernels)


def solve(solver, kernels, labels=5, iterations=3, threads=1, **options):
    """Log-marginals and the gradients of a loss in which every number counts differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        unary = 4 * random(SIZE[0] * SIZE[1], labels, seed=1).requires_grad_()
        weights = torch.linspace(2, 1, len(kernels)).requires_grad_()
        result = solver.mean_field(unary, kernels, weights, iterations, **options)
        ramp = torch.linspace(-1, 1, result.numel()).view_as(result)
        loss = (ramp * result).mean() + (ramp * result.exp()).mean()
        return (result.detach(), *torch.autograd.grad(loss, (unary, weights)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("features", [(1,), (2,), (3,), (5, 2), (7, 1, 4)], ids=str)
@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_any_kernels_agree_with_the_reference(features, normalization):
    kernels = kernels_of(*features)
    options = {"normalization": normalization}
    torch.testing.assert_close(
        solve(accelerated, kernels, **options),
        solve(reference, kernels, **options),
        atol=2e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("hard", [True, False])
def test_support_agrees_with_the_reference(hard, normalization, threads, monkeypatch):
    monkeypatch.setattr(accelerated, "_SMALL", 0)
    kernels = kernels_of(5, 2)
    support = random(SIZE[0] * SIZE[1], seed=9)
    if hard:
        support = (support > 0.8).float()
        support[: len(support) // 2] = 0
    options = {"normalization": normalization, "support": support}
    torch.testing.assert_close(
        solve(accelerated, kernels, threads=threads, **options),
        solve(reference, kernels, **options),
        atol=2e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("labels", [2, 7, 8, 9, 33])
def test_strided_unaries_of_any_width(labels):
    kernels = kernels_of(5, 2)
    unary = random(labels, SIZE[0] * SIZE[1]).t()
    weights = torch.tensor([2.0, 1.0])
    actual = accelerated.mean_field(unary, kernels, weights, 2)
    torch.testing.assert_close(
        actual, reference.mean_field(unary, kernels, weights, 2), atol=1e-5, rtol=1e-5
    )


def test_results_may_overwrite_the_unary():
    kernels = kernels_of(5, 2)
    unary, weights = random(SIZE[0] * SIZE[1], 11), torch.tensor([2.0, 1.0])
    expected = accelerated.mean_field(unary, kernels, weights, 2)
    strided = unary.t().contiguous().t()
    for given in (unary, strided):
        result = accelerated.mean_field(given, kernels, weights, 2, out=given)
        assert result is given
        assert torch.equal(result, expected)


def test_what_is_kept_for_the_backward_pass_is_seen_and_freed():
    kernels, packed = kernels_of(5, 2), []
    unary = random(SIZE[0] * SIZE[1], 5).requires_grad_()
    arguments = unary, kernels, torch.tensor([2.0, 1.0]), 4
    with torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x, lambda x: x):
        result = accelerated.mean_field(*arguments)
    assert len(packed) >= 2 + 4  # unary, weights, lattice values of four iterations
    given = {id(each) for each in arguments}
    kept = [weakref.ref(each) for each in packed if id(each) not in given]
    packed.clear()
    result.sum().backward()
    gc.collect()
    assert all(ref() is None for ref in kept)


def test_what_it_cannot_is_said():
    kernels = kernels_of(5, 2)
    unary = random(SIZE[0] * SIZE[1], 3)
    assert accelerated.supports(unary, kernels, None) is None
    assert "float64" in accelerated.supports(unary.double(), kernels, None)
    assert "compatibility" in accelerated.supports(unary, kernels, torch.eye(3))
    assert "8" in accelerated.supports(unary, kernels_of(8), None)
    fine = ImageKernels([GaussianKernel(SIZE, features=random(5, *SIZE) * 2000)])
    assert "62" in accelerated.supports(unary, fine, None)
    for theta in (1e-3, 1e-6, 1e-30):
        fine = ImageKernels([GaussianKernel(SIZE, theta)])
        assert "float32" in accelerated.supports(unary, fine, None)
    broken = ImageKernels([GaussianKernel(SIZE, features=random(1, *SIZE) * torch.nan)])
    assert "not finite" in accelerated.supports(unary, broken, None)


def test_the_finest_lattice_that_is_taken_is_right():
    """Just within the range of float32, barycentric weights are still good to a thousandth."""
    theta = 1.05 * SIZE[1] * 0.5774 * 2 / lattice._MAX_STEPS
    kernels = ImageKernels([GaussianKernel(SIZE, theta)])
    layout = lattice.key_layout(kernels.kernels[0])
    order = tile_order(*SIZE)
    vertex, weight = np.zeros((len(order), 3), np.int32), np.zeros((len(order), 3), np.float32)
    lattice.build_lattice(kernels.kernels[0], layout, order, vertex, weight, 0, 0, 1)
    expected = kernels.kernels[0].lattice(torch.device("cpu")).weight.numpy()[order]
    assert abs(weight - expected).max() < 3e-3


def test_keys_too_wide_fall_back_to_the_reference():
    inputs = scene(6, 7)
    options = {"theta_alpha": 1e-6, "theta_beta": 1e-6, "num_iterations": 1}
    crf, expected = (DenseInstanceCRF(backend=name, **options) for name in ("auto", "torch"))
    torch.testing.assert_close(crf(*inputs).marginals(), expected(*inputs).marginals())
    with pytest.raises(BackendError, match='"numba".*float32'):
        DenseInstanceCRF(backend="numba", **options)(*inputs)


def test_numba_refuses_double_precision():
    inputs = [value.double() for value in scene(5, 6)]
    with pytest.raises(ValueError, match="float64"):
        DenseInstanceCRF(backend="numba")(*inputs)


def test_without_gradients_answers_have_none():
    part_prob, *rest = scene()
    part_prob.requires_grad_()
    with torch.no_grad():
        labelling = DenseInstanceCRF(backend="numba")(part_prob, *rest)
    assert not labelling.log_prob(torch.zeros(40, 53, dtype=torch.long)).requires_grad
    assert not labelling.marginals().requires_grad


# -- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_normalisation_is_that_of_the_reference(normalization):
    image = scene(31, 37)[3]
    kernels = ImageKernels([bilateral_kernel(image, 20.0, 15.0), GaussianKernel((31, 37), 2.5)])
    plan = Plan(kernels, 2)
    support = random(31 * 37, seed=4)
    actual = plan.factors(normalization, support)
    ones = torch.ones(31 * 37, 1, dtype=torch.float64)
    for k, each in enumerate(kernels.kernels):
        reference_lattice = each.lattice(torch.device("cpu"))
        rows = plan.row_ptr[k + 1] - plan.row_ptr[k]
        assert abs(rows - reference_lattice.num_vertices) <= 3
        options = {"normalization": normalization, "support": support}
        expected = NormalizedFilter(reference_lattice, ones, **options)
        for mine, theirs in zip(actual, (expected.weight_in, expected.weight_out), strict=True):
            wanted = theirs[plan.corners.order, 0].numpy()
            np.testing.assert_allclose(mine[:, k], wanted, rtol=1e-3, atol=1e-6)


def test_threads_have_rows_of_their_own_where_they_meet():
    kernels = ImageKernels([GaussianKernel((40, 50), 3.0)])
    plan = Plan(kernels, 3)
    corners = plan.corners
    written = [set(corners.target[a:b].ravel()) for a, b in plan.ranges]
    assert len(written) == 3
    assert not (written[0] & written[1] or written[0] & written[2] or written[1] & written[2])
    assert plan.num_rows > plan.row_ptr[-1]
    assert (corners.target < plan.num_rows).all() and (corners.vertex < plan.row_ptr[-1]).all()


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
            lanes_module.store(out, c, value)
            lanes += value
        return lanes_module.lane_sum(lanes)

    rng = np.random.default_rng(0)
    x, y = rng.random((2, 64), np.float32)
    out = np.empty_like(x)
    expected = (x - 2 * y) / (y + 1) * x
    assert evaluate(x, y, out) == pytest.approx(expected.sum(), abs=1e-4)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)


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


@pytest.mark.slow
def test_compiled_code_is_kept_and_follows_its_sources(tmp_path):
    """A second process compiles nothing; a changed source, of whichever module, has its own code.

    In a copy of the package, since one of its files changes.
    """
    package = tmp_path / "copy" / "instance_crf"
    source = Path(accelerated.__file__).parents[1]
    shutil.copytree(source, package / "crf", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text("")
    code = (
        "import numpy as np\n"
        "from instance_crf.crf.cpu import blur, jit\n"
        "print(jit.is_compiled())\n"
        "values = np.ones(16, np.float32)\n"
        "blur.merge_rows(0, 1, values, 8, 1, np.zeros(1, np.int32))\n"
        "print(values[0], sum(blur.merge_rows.stats.cache_hits.values()), jit.cache_folder())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run():
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        compiled, value, hits, folder = done.stdout.split()
        assert value == "2.0" and str(package) in folder
        return compiled == "True", int(hits), folder

    first, second = run(), run()
    assert first[:2] == (False, 0)
    assert second == (True, 1, first[2])
    lanes = package / "crf" / "cpu" / "lanes.py"
    lanes.write_text(lanes.read_text() + "\n# changed\n")
    third = run()
    assert third[:2] == (False, 0) and third[2] != first[2]


def test_no_directory_for_compiled_code(monkeypatch, tmp_path):
    """Without a place for its cache numba still compiles; the user is told once."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked))
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(jit, "__file__", str(blocked / "jit.py"))
    jit.cache_folder.cache_clear()
    try:
        with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
            double = kernel(lambda x: 2 * x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            triple = kernel(lambda x: 3 * x)
        assert (double(4), triple(4)) == (8, 12)
        assert not jit.is_compiled()
    finally:
        jit.cache_folder.cache_clear()
