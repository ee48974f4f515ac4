"""The Triton mean-field against the plain PyTorch reference.

With a GPU the kernels run there; without, under Triton's interpreter (see tests/conftest.py), which
shows that they compute the right numbers, not that they compile. One slow test compiles them.
"""

import math
import os
import subprocess
import sys

import pytest
import torch

from instance_crf.crf import DenseInstanceCRF
from instance_crf.crf import mean_field as reference
from instance_crf.crf.gaussian_filter import (
    PermutohedralFilter,
    bilateral_features,
    spatial_features,
)

pytest.importorskip("triton")

from instance_crf.crf.cuda import mean_field as accelerated  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE = (6, 9)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes milliseconds per program, however wide."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(accelerated, "_VERTEX_TILE", 2**14)


def make_filters(height, width, normalization="after", theta_gamma=1.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    image = 60 * torch.rand(3, height, width, generator=g).to(DEVICE)
    features = [
        bilateral_features(image, 20.0, 30.0),
        spatial_features(height, width, theta_gamma, device=DEVICE),
    ]
    return [PermutohedralFilter(f, normalization=normalization) for f in features]


def make_unary(pixels, labels, seed=0):
    """(N, L), as a view of (L, N)."""
    g = torch.Generator().manual_seed(seed)
    return (3 * torch.rand(labels, pixels, generator=g)).to(DEVICE).t()


def outcome(mean_field, unary, filters, iterations, weights=(2.0, 1.5)):
    """Log-marginals, and the gradients of a loss in which every number counts differently."""
    unary = unary.detach().requires_grad_()
    weights = [torch.tensor(w, device=DEVICE, requires_grad=True) for w in weights[: len(filters)]]
    log_q = mean_field(unary, filters, weights, iterations)
    ramp = torch.linspace(-1, 1, log_q.numel(), device=DEVICE).view(log_q.shape)
    loss = (ramp * log_q).mean() + (ramp * log_q.exp()).sum()
    inputs = (unary, *weights) if iterations else (unary,)
    return (log_q.detach(), *torch.autograd.grad(loss, inputs))


def assert_agrees(unary, filters, iterations, **options):
    actual = outcome(accelerated.mean_field, unary, filters, iterations, **options)
    expected = outcome(reference.mean_field, unary, filters, iterations, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_smoke():
    filters = make_filters(*SIZE)
    log_q = accelerated.mean_field(make_unary(54, 7), filters, [torch.tensor(1.0)] * 2, 2)
    torch.testing.assert_close(log_q.exp().sum(dim=1), torch.ones(54, device=DEVICE))


@pytest.mark.parametrize(
    "iterations, normalization",
    [(0, "after"), (1, "after"), (1, "symmetric"), (2, "symmetric"), (5, "after")],
)
def test_agrees_after_any_number_of_iterations(iterations, normalization):
    assert_agrees(make_unary(54, 7), make_filters(*SIZE, normalization), iterations)


@pytest.mark.parametrize("labels", [1, 2, 31, 65])
def test_agrees_for_any_number_of_labels(labels):
    assert_agrees(make_unary(54, labels), make_filters(*SIZE, "symmetric"), 2)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (5, 1)])
def test_agrees_on_odd_sizes(height, width):
    unary = make_unary(height * width, 3)
    assert_agrees(unary, make_filters(height, width, "symmetric"), 2)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_agrees_for_any_number_of_kernels(number):
    filters = [*make_filters(*SIZE), make_filters(*SIZE, theta_gamma=2.5)[1]][:number]
    unary = make_unary(54, 3)
    if number:
        assert_agrees(unary, filters, 2, weights=(2.0, 1.5, 0.0))
    else:
        assert torch.equal(
            accelerated.mean_field(unary, [], [], 2), accelerated.mean_field(unary, [], [], 0)
        )


def test_agrees_with_many_programs_and_vertices_of_many_pixels(monkeypatch):
    """Tiles that do not fit the image, and vertices whose sums are cut into segments."""
    monkeypatch.setattr(accelerated, "_PIXEL_TILE", 256)
    monkeypatch.setattr(accelerated, "_VERTEX_TILE", 256)
    monkeypatch.setattr(accelerated, "_LABELS_PER_TILE", 4)
    filters = make_filters(10, 12, theta_gamma=40.0)
    counts = filters[1].by_vertex[0].diff()
    assert counts.max() > accelerated._SEGMENT
    assert_agrees(make_unary(120, 7), filters, 1)


@pytest.mark.parametrize("strided", ["rows", "columns", "steps", "expanded"])
def test_strides_do_not_matter(strided):
    plain = make_unary(54, 5).contiguous()
    unary = {
        "rows": plain,
        "columns": plain.t().contiguous().t(),
        "steps": plain.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)[::2, ::3],
        "expanded": plain[:1].expand(54, 5),
    }[strided]
    assert_agrees(unary, make_filters(*SIZE), 1)


def test_shapes_and_dtypes():
    filters, unary = make_filters(*SIZE), make_unary(54, 6).requires_grad_()
    weights = [torch.tensor(1.0, requires_grad=True, dtype=torch.float64)] * 2
    log_q = accelerated.mean_field(unary, filters, weights, 1)
    assert log_q.shape == (54, 6) and log_q.stride() == unary.stride()
    assert log_q.dtype == torch.float32 and log_q.device == unary.device
    log_q[:, 0].sum().backward()
    assert unary.grad.dtype == torch.float32 and unary.grad.shape == (54, 6)
    assert weights[0].grad.dtype == torch.float64 and weights[0].grad.shape == ()


def test_exceptions():
    filters, one = make_filters(*SIZE), torch.tensor(1.0)
    with pytest.raises(ValueError, match="float64"):
        accelerated.mean_field(make_unary(54, 3).double(), filters, [one, one], 1)
    with pytest.raises(ValueError, match=r"\(54,\)"):
        accelerated.mean_field(make_unary(54, 1)[:, 0], filters, [one, one], 1)
    with pytest.raises(ValueError, match="54 pixels, unary has 53"):
        accelerated.mean_field(make_unary(53, 3), filters, [one, one], 1)
    with pytest.raises(ValueError, match="2 filters, but 1 weights"):
        accelerated.mean_field(make_unary(54, 3), filters, [one], 1)


def test_too_many_labels_are_left_to_the_reference(monkeypatch):
    monkeypatch.setattr(accelerated, "MAX_LABELS", 6)
    monkeypatch.setattr(accelerated, "_MeanField", None)
    assert_agrees(make_unary(54, 7), make_filters(*SIZE), 1)


def test_recomputed_iterations_give_the_same_gradient(monkeypatch):
    unary, filters, steps = make_unary(54, 3), make_filters(*SIZE), []
    advance = accelerated._Inference.advance

    def counted(self, values):
        steps.append(1)
        return advance(self, values)

    monkeypatch.setattr(accelerated._Inference, "advance", counted)
    monkeypatch.setattr(accelerated, "_MAX_KEPT", math.inf)
    kept = outcome(accelerated.mean_field, unary, filters, 3)
    assert len(steps) == 3
    monkeypatch.setattr(accelerated, "_MAX_KEPT", 0.0)
    recomputed = outcome(accelerated.mean_field, unary, filters, 3)
    assert len(steps) == 3 + 3 + 2  # of the stretches 0-1 and 2 the end of the first was kept
    assert all(torch.equal(a, b) for a, b in zip(recomputed, kept, strict=True))


def test_no_array_of_pixels_and_labels_per_iteration(live_arrays):
    unary, filters = make_unary(54, 5).requires_grad_(), make_filters(*SIZE)
    peaks = []
    for iterations in (3, 5):
        with live_arrays((54, 5), (54, 8)) as live:
            log_q = accelerated.mean_field(unary, filters, [torch.tensor(1.0)] * 2, iterations)
            torch.autograd.grad(log_q, unary, log_q.detach())
        del log_q
        peaks.append(live.peak)
    assert peaks[0] == peaks[1] <= 5  # result, three gradients, marginals that are made again


def test_results_are_the_same_at_every_run_and_backward():
    unary, filters = make_unary(54, 7).requires_grad_(), make_filters(*SIZE)
    weights = [torch.tensor(2.0), torch.tensor(1.0)]
    first = accelerated.mean_field(unary, filters, weights, 1)
    assert torch.equal(accelerated.mean_field(unary, filters, weights, 1), first)
    grads = [torch.autograd.grad(first[:, 0].sum(), unary, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*grads)
    with torch.no_grad():
        alone = accelerated.mean_field(unary, filters, weights, 1)
    assert torch.equal(alone, first) and alone.grad_fn is None


def test_extreme_unaries_stay_finite():
    unary = (1e4 * make_unary(54, 3)).requires_grad_()
    weights = [torch.tensor(4.0), torch.tensor(3.0)]
    log_q = accelerated.mean_field(unary, make_filters(*SIZE), weights, 2)
    log_q[:, 0].sum().backward()
    assert torch.isfinite(log_q).all() and torch.isfinite(unary.grad).all()


# -- the module ----------------------------------------------------------------------------------


def scene(height=10, width=12, detections=2, parts=3):
    g = torch.Generator().manual_seed(0)
    part_prob = torch.softmax(2 * torch.randn(parts + 1, height, width, generator=g), dim=0)
    low = torch.rand(detections, 2, generator=g) * torch.tensor([width, height]) * 0.5
    boxes = torch.cat([low, low + 1 + torch.rand(detections, 2, generator=g) * 5], dim=1)
    image = (100 + 8 * torch.randn(3, height, width, generator=g)).clamp(0, 255)
    inputs = (part_prob, boxes, torch.rand(detections, generator=g), image)
    return [value.to(DEVICE) for value in inputs]


def run_module(backend, inputs, **options):
    """Marginals, log-probabilities, and the gradients of Q and of the four raw weights."""
    crf = DenseInstanceCRF(backend=backend, theta_beta=30.0, num_iterations=2, **options).to(DEVICE)
    part_prob = inputs[0].clone().requires_grad_()
    labelling = crf(part_prob, *inputs[1:])
    marginals = labelling.marginals()
    labels = torch.arange(marginals[0].numel(), device=DEVICE).view(marginals.shape[1:])
    log_prob = labelling.log_prob(labels * 7919 % len(marginals) - 1)
    ramp = torch.linspace(0, 1, len(marginals), device=DEVICE)[:, None, None]
    (3 * log_prob.mean() + 10 * (ramp * marginals).mean()).backward()
    grads = [parameter.grad for parameter in crf.parameters()]
    return [marginals.detach(), log_prob.detach(), part_prob.grad, *grads]


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("detections", [0, 2])
def test_the_module_agrees_with_the_reference(detections, normalization):
    inputs = scene(detections=detections)
    actual = run_module("triton", inputs, normalization=normalization)
    expected = run_module("torch", inputs, normalization=normalization)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_auto_takes_triton_on_cuda(monkeypatch):
    calls, original = [], accelerated.mean_field
    monkeypatch.setattr(accelerated, "mean_field", lambda *a: (calls.append(a), original(*a))[1])
    inputs = scene()
    DenseInstanceCRF(num_iterations=1).to(DEVICE)(*inputs)
    assert any(len(filters) == 2 for _, filters, *_ in calls)


def test_auto_falls_back(monkeypatch):
    monkeypatch.setattr(accelerated, "mean_field", None)  # would fail if it were called
    inputs = [value.cpu() for value in scene()]
    DenseInstanceCRF(num_iterations=1)(*inputs)
    DenseInstanceCRF(num_iterations=1)(*[value.double() for value in inputs])
    DenseInstanceCRF(num_iterations=1, backend="torch")(*scene())


def test_triton_refuses_what_it_cannot_do(monkeypatch):
    crf = DenseInstanceCRF(backend="triton").to(DEVICE)
    with pytest.raises(ValueError, match="float64"):
        crf(*[value.double() for value in scene()])
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="on cpu"):
        DenseInstanceCRF(backend="triton")(*[value.cpu() for value in scene()])


def test_runs_on_warns_once_where_kernels_cannot_be_compiled(monkeypatch):
    accelerated.runs_on.cache_clear()
    assert accelerated.runs_on(DEVICE)
    accelerated.runs_on.cache_clear()

    def no_compiler(*args, **kwargs):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(accelerated._Inference, "_launch", no_compiler)
    with pytest.warns(UserWarning, match="C compiler"):
        assert not accelerated.runs_on(DEVICE)
    assert not accelerated.runs_on(DEVICE)
    accelerated.runs_on.cache_clear()


# -- pieces --------------------------------------------------------------------------------------


def test_joined_lattices_splat_as_the_filters_do():
    filters = make_filters(*SIZE, "symmetric")
    lattices = accelerated.join_lattices(filters)
    values = torch.rand(54, 4, device=DEVICE)
    inference = accelerated._Inference(values, torch.ones(2, device=DEVICE), lattices)
    parts = inference.splat(values).split(lattices.sizes)
    for part, filter_ in zip(parts, filters, strict=True):
        splat, _ = filter_._splat_and_slice(torch.float32)
        torch.testing.assert_close(part, splat @ filter_.normalization.before(values))


def test_segments():
    counts = torch.tensor([1, 64, 65, 200])
    first_pair, first_segment = accelerated._segments(counts)
    assert first_pair.tolist() == [0, 1, 65, 129, 130, 194, 258, 322, 330]
    assert first_segment.tolist() == [0, 1, 2, 4, 8]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from instance_crf.crf.cuda import kernels

INDICES = {"vertex", "source_vertex", "start", "index", "neighbours"}
NUMBERS = {"out", "unary", "grad_unary", "values", "weight", "source", "source_weight", "rows"}

def compile_kernel(kernel, **constants):
    types = {}
    for name in kernel.arg_names:
        pointer = "*i32" if name in INDICES else "*fp32" if name in NUMBERS else "i32"
        types[name] = "constexpr" if name in constants else pointer
    source = ASTSource(kernel, types, constants)
    assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]

tile = dict(BLOCK_N=8, BLOCK_L=64)
none = dict.fromkeys(["values", "vertex", "weight"])
compile_kernel(kernels.update, LOG=True, CORNERS=0, **none, **tile)
compile_kernel(kernels.update, LOG=False, CORNERS=2, **tile)
seed = dict.fromkeys(["source_vertex", "source_weight"])
compile_kernel(kernels.pullback, SEED=True, CORNERS=2, SOURCE_CORNERS=0, **seed, **tile)
compile_kernel(kernels.pullback, SEED=False, CORNERS=0, SOURCE_CORNERS=2, **none, **tile)
tile = dict(BLOCK_M=8, BLOCK_L=64)
compile_kernel(kernels.sum_rows, INDEXED=True, **tile)
compile_kernel(kernels.sum_rows, INDEXED=False, index=None, weight=None, **tile)
compile_kernel(kernels.blur, **tile)
print("all compiled")
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path):
    """Down to machine code, which needs no GPU; in a process of its own, without interpreter."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.strip() == "all compiled", done.stderr
