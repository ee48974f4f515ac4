"""The Triton mean-field against the plain PyTorch reference.

With a GPU the kernels run there; without, under Triton's interpreter (see tests/conftest.py), which
shows that they compute the right numbers, not that they compile. One slow test compiles them.
"""

import gc
import math
import os
import subprocess
import sys

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from instance_crf.crf import engine
from instance_crf.crf import mean_field as reference
from instance_crf.crf.gaussian_filter import (
    GaussianKernel,
    ImageKernels,
    NormalizedFilter,
    bilateral_kernel,
)

pytest.importorskip("triton")

from instance_crf.crf.cuda import lattice as lattices  # noqa: E402
from instance_crf.crf.cuda import mean_field as accelerated  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE = (6, 9)
PIXELS = 54


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes milliseconds per program and step of a loop, however wide."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(lattices, "_TILE", 2**14)
        monkeypatch.setattr(lattices, "_SEGMENT", 8)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def make_kernels(height=SIZE[0], width=SIZE[1], theta_gamma=1.5):
    image = 60 * random(3, height, width)
    bilateral = bilateral_kernel(image, 20.0, 30.0)
    return ImageKernels([bilateral, GaussianKernel((height, width), theta_gamma)])


def kernel_of(num_features):
    """A Gaussian kernel with this many features."""
    theta = 2.0 if num_features > 1 else None
    more = num_features - (2 if theta else 0)
    features = 2 * random(more, *SIZE, seed=num_features) if more else None
    return GaussianKernel(SIZE, theta, features)


def make_unary(labels, pixels=PIXELS):
    """(N, L), as a view of (L, N)."""
    return (3 * random(labels, pixels)).t()


def outcome(solver, unary, kernels, iterations, weights=(2.0, 1.5), **options):
    """Log-marginals, and the gradients of a loss in which every number counts differently."""
    unary = unary.detach().requires_grad_()
    weights = torch.tensor(weights[: len(kernels)], device=DEVICE, requires_grad=True)
    log_q = solver.mean_field(unary, kernels, weights, iterations, **options)
    ramp = torch.linspace(-1, 1, log_q.numel(), device=DEVICE).view(log_q.shape)
    loss = (ramp * log_q).mean() + (ramp * log_q.exp()).sum()
    return (log_q.detach(), *torch.autograd.grad(loss, (unary, weights)))


def assert_agrees(unary, kernels, iterations, **options):
    actual = outcome(accelerated, unary, kernels, iterations, **options)
    expected = outcome(reference, unary, kernels, iterations, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def assert_same(actual, expected):
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


# -- against the reference -------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [1, 4])
def test_agrees_after_any_number_of_iterations(iterations):
    assert_agrees(make_unary(7), make_kernels(), iterations)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
@pytest.mark.parametrize("supported", [False, True])
def test_agrees_for_any_normalization_and_support(normalization, supported):
    support = random(PIXELS, seed=1) if supported else None
    assert_agrees(make_unary(3), make_kernels(), 2, normalization=normalization, support=support)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_agrees_where_no_support_is_in_reach(normalization):
    support = torch.zeros(20, device=DEVICE)
    support[:2] = torch.tensor([1.0, 0.3])
    kernels = ImageKernels([GaussianKernel((1, 20), 0.5)])
    assert_agrees(make_unary(3, 20), kernels, 2, normalization=normalization, support=support)
    nothing = torch.zeros_like(support)
    log_q = accelerated.mean_field(
        make_unary(3, 20), kernels, torch.ones(1, device=DEVICE), 2, support=nothing
    )
    torch.testing.assert_close(log_q, torch.log_softmax(-make_unary(3, 20), dim=1))


@pytest.mark.parametrize("labels", [2, 65])
def test_agrees_for_any_number_of_labels(labels):
    assert_agrees(make_unary(labels), make_kernels(), 2, normalization="symmetric")


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (5, 1)])
def test_agrees_on_odd_sizes(height, width):
    unary = make_unary(3, height * width)
    assert_agrees(unary, make_kernels(height, width), 2, normalization="symmetric")


@pytest.mark.parametrize("features", [[1], [4], [2, 1, 5], [3, 3]])
def test_agrees_for_any_kernels(features):
    kernels = ImageKernels([kernel_of(number) for number in features])
    support = random(PIXELS, seed=1)
    assert_agrees(make_unary(3), kernels, 2, weights=(2.0, 1.5, 0.0), support=support)


def test_agrees_with_many_programs_and_vertices_of_many_pixels(monkeypatch):
    """Tiles that do not fit the image, and vertices whose sums are cut into segments."""
    monkeypatch.setattr(accelerated, "_TILE", 256)
    monkeypatch.setattr(lattices, "_TILE", 256)
    monkeypatch.setattr(lattices, "_LABELS_PER_TILE", 4)
    kernels = make_kernels(10, 12, theta_gamma=40.0)
    joint, _ = lattices.join_lattices(kernels, DEVICE)
    assert joint.vertex.flatten().bincount().max() > lattices._SEGMENT
    assert_agrees(make_unary(7, 120), kernels, 1, support=random(120, seed=1))


@pytest.mark.parametrize("strided", ["rows", "columns", "steps", "expanded"])
def test_strides_do_not_matter(strided):
    plain = make_unary(5).contiguous()
    unary = {
        "rows": plain,
        "columns": plain.t().contiguous().t(),
        "steps": plain.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)[::2, ::3],
        "expanded": plain[:1].expand(PIXELS, 5),
    }[strided]
    assert_agrees(unary, make_kernels(), 1)


def test_extreme_unaries_stay_finite():
    unary = (1e4 * make_unary(3)).requires_grad_()
    log_q = accelerated.mean_field(unary, make_kernels(), torch.tensor([4.0, 3.0]).to(DEVICE), 2)
    log_q[:, 0].sum().backward()
    assert torch.isfinite(log_q).all() and torch.isfinite(unary.grad).all()


# -- behind the engine -----------------------------------------------------------------------------


def test_the_engines_self_check_passes():
    assert engine._difference(accelerated.mean_field, DEVICE) < 1e-5


def test_infer_takes_it_by_name():
    unary, kernels = make_unary(3).requires_grad_(), make_kernels()
    weights = torch.ones(2, dtype=torch.float64, device=DEVICE, requires_grad=True)
    log_q = engine.infer(unary, kernels, weights, 1, backend="triton")
    assert type(log_q.grad_fn).__name__ == "_MeanFieldBackward"
    assert log_q.shape == unary.shape and log_q.stride() == unary.stride()
    assert log_q.dtype == torch.float32 and log_q.device == unary.device
    log_q[:, 0].sum().backward()
    assert unary.grad.dtype == torch.float32 and weights.grad.dtype == torch.float64


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_auto_takes_it_on_cuda():
    unary = make_unary(3).requires_grad_()
    log_q = engine.infer(unary, make_kernels(), torch.ones(2, device=DEVICE), 1)
    assert type(log_q.grad_fn).__name__ == "_MeanFieldBackward"


def test_says_what_it_cannot_do(monkeypatch):
    kernels, weights = make_kernels(), torch.ones(2, device=DEVICE)

    def infer(unary, **options):
        engine.infer(unary, kernels, weights, 1, backend="triton", **options)

    with pytest.raises(engine.BackendError, match='"triton" needs float32 on CUDA.*float64'):
        infer(make_unary(3).double())
    with pytest.raises(engine.BackendError, match="Potts"):
        infer(make_unary(3), compatibility=torch.eye(3, device=DEVICE))
    monkeypatch.setattr(accelerated, "MAX_LABELS", 6)
    with pytest.raises(engine.BackendError, match="at most 6 labels, but unary has 7"):
        infer(make_unary(7))
    monkeypatch.setattr(accelerated, "_MAX_PAIRS", PIXELS * 9)
    with pytest.raises(engine.BackendError, match="54 pixels"):
        infer(make_unary(3))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "on cpu" in accelerated.supports(make_unary(3).cpu(), kernels, None)


# -- memory ----------------------------------------------------------------------------------------


def test_recomputed_iterations_give_the_same_gradient(monkeypatch):
    unary, kernels, steps = make_unary(3), make_kernels(), []
    advance = accelerated._Inference.advance

    def counted(self, values, spare=None):
        steps.append(1)
        return advance(self, values)

    monkeypatch.setattr(accelerated._Inference, "advance", counted)
    monkeypatch.setattr(accelerated, "_MAX_KEPT", math.inf)
    kept = outcome(accelerated, unary, kernels, 4)
    assert len(steps) == 4
    monkeypatch.setattr(accelerated, "_MAX_KEPT", 0.0)
    recomputed = outcome(accelerated, unary, kernels, 4)
    assert len(steps) == 4 + 4 + 2  # of the stretches 0-1 and 2-3 the ends were kept
    assert_same(recomputed, kept)


def test_no_array_of_pixels_and_labels_per_iteration(live_arrays):
    unary, kernels = make_unary(5).requires_grad_(), make_kernels()
    weights = torch.ones(2, device=DEVICE)
    accelerated.mean_field(unary, kernels, weights, 1)  # builds the lattices
    peaks = []
    for iterations in (3, 5):
        with live_arrays((PIXELS, 5), (PIXELS, 8)) as live:
            log_q = accelerated.mean_field(unary, kernels, weights, iterations)
            torch.autograd.grad(log_q, unary, log_q.detach())
        del log_q
        peaks.append(live.peak)
    assert peaks[0] == peaks[1] <= 5  # result, three gradients, marginals that are made again


def test_what_is_kept_is_seen_by_hooks_and_freed_by_the_backward_pass(monkeypatch):
    """Though the result is still there; and so is the lattice, once its ImageKernels are gone."""
    storages, packed = [], []
    advance, join = accelerated._Inference.advance, accelerated.join_lattices

    def watch(tensors):
        storages.extend(StorageWeakRef(tensor.untyped_storage()) for tensor in tensors)

    def advance_watched(self, values, spare=None):
        values = advance(self, values)
        watch([values])
        return values

    def join_watched(*arguments):
        joint, norm = join(*arguments)
        watch([*joint[2:], norm])
        return joint, norm

    def pack(tensor):
        packed.append(StorageWeakRef(tensor.untyped_storage()))
        return tensor

    monkeypatch.setattr(accelerated._Inference, "advance", advance_watched)
    monkeypatch.setattr(accelerated, "join_lattices", join_watched)
    monkeypatch.setattr(accelerated, "_MAX_KEPT", math.inf)
    unary, kernels = make_unary(3).requires_grad_(), make_kernels()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        log_q = accelerated.mean_field(unary, kernels, torch.ones(2, device=DEVICE), 2)
    del kernels
    gc.collect()
    alive = [storage for storage in storages if not storage.expired()]
    assert len(alive) == 2 + 7  # lattice values, and the joint lattice
    assert {storage.cdata for storage in alive} <= {storage.cdata for storage in packed}
    log_q.sum().backward()
    gc.collect()
    assert log_q.grad_fn is not None and all(storage.expired() for storage in storages)


def test_kept_tensors_may_go_elsewhere_and_come_back():
    unary, kernels = make_unary(3), make_kernels()
    expected = outcome(accelerated, unary, kernels, 3)
    with torch.autograd.graph.save_on_cpu():
        actual = outcome(accelerated, unary, kernels, 3)
    assert_same(actual, expected)


# -- determinism -----------------------------------------------------------------------------------


def test_results_are_the_same_at_every_run_and_backward():
    unary, kernels = make_unary(7).requires_grad_(), make_kernels()
    weights = torch.tensor([2.0, 1.0], device=DEVICE)
    first = accelerated.mean_field(unary, kernels, weights, 1)
    assert torch.equal(accelerated.mean_field(unary, kernels, weights, 1), first)
    grads = [torch.autograd.grad(first[:, 0].sum(), unary, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*grads)
    with torch.no_grad():
        alone = accelerated.mean_field(unary, kernels, weights, 1)
    assert torch.equal(alone, first) and alone.grad_fn is None


def test_builds_are_the_same_and_one_serves_all_calls(monkeypatch):
    builds, join = [], accelerated.join_lattices

    def counted(*arguments):
        builds.append(join(*arguments))
        return builds[-1]

    monkeypatch.setattr(accelerated, "join_lattices", counted)
    kernels, results = make_kernels(), []
    weights, support = torch.ones(2, device=DEVICE), random(PIXELS, seed=1)
    with torch.inference_mode():
        accelerated.mean_field(make_unary(5), kernels, weights, 1, support=support)
    for each in (kernels, make_kernels()):
        results.append(outcome(accelerated, make_unary(3), each, 1, support=support))
    assert_same(*results)
    assert len(builds) == 2
    (joint, norm), (other, other_norm) = builds
    assert_same([*joint[2:], norm], [*other[2:], other_norm])


# -- pieces ----------------------------------------------------------------------------------------


def test_joint_lattices_filter_as_the_single_ones_do():
    kernels, values = make_kernels(), random(PIXELS, 4)
    joint, _ = lattices.join_lattices(kernels, DEVICE)
    factor = 1 + random(2, PIXELS, seed=1)
    parts = joint.splat(values, factor).split(joint.sizes)
    for part, kernel, of_kernel in zip(parts, kernels.kernels, factor, strict=True):
        expected = kernel.lattice(DEVICE)._splat(values * of_kernel[:, None])
        torch.testing.assert_close(part, expected)
    filtered = joint.filter_number(values[:, 0].contiguous())
    for row, kernel in zip(filtered, kernels.kernels, strict=True):
        torch.testing.assert_close(row, kernel.lattice(DEVICE)(values[:, :1])[:, 0])


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_normalization_factors_are_those_of_the_reference(normalization):
    kernels, support = make_kernels(), random(PIXELS, seed=1)
    joint, norm = lattices.join_lattices(kernels, DEVICE)
    factors = joint.factors(norm, normalization, support)
    ones = torch.ones(PIXELS, 1, device=DEVICE, dtype=torch.float64)
    options = {"normalization": normalization, "support": support}
    for before, after, kernel in zip(*factors, kernels.kernels, strict=True):
        expected = NormalizedFilter(kernel.lattice(DEVICE), ones, **options)
        torch.testing.assert_close(before, expected.weight_in[:, 0].float())
        torch.testing.assert_close(after, expected.weight_out[:, 0].float())


def test_segments(monkeypatch):
    monkeypatch.setattr(lattices, "_SEGMENT", 64)
    counts = torch.tensor([1, 64, 65, 200])
    first_pair, first_segment = lattices._segments(counts)
    assert first_pair.tolist() == [0, 1, 65, 129, 130, 194, 258, 322, 330]
    assert first_segment.tolist() == [0, 1, 2, 4, 8]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from instance_crf.crf.cuda import kernels

INDICES = {"vertex", "kernel_of", "start", "pair", "neighbours"}
NUMBERS = {"out", "unary", "grad_unary", "values", "weight", "source", "rows"}
NUMBERS |= {"factor", "factor_in", "factor_out"}

def compile_kernel(kernel, **constants):
    types = {}
    for name in kernel.arg_names:
        pointer = "*i32" if name in INDICES else "*fp32" if name in NUMBERS else "i32"
        types[name] = "constexpr" if name in constants else pointer
    source = ASTSource(kernel, types, constants)
    assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]

tile = dict(BLOCK_N=8, BLOCK_L=64)
compile_kernel(kernels.update, LOG=True, CORNERS=2, **tile)
compile_kernel(kernels.update, LOG=False, CORNERS=0, values=None, **tile)
compile_kernel(kernels.pullback, SEED=True, CORNERS=2, SOURCE_CORNERS=0, factor_in=None, **tile)
compile_kernel(kernels.pullback, SEED=False, CORNERS=0, SOURCE_CORNERS=2, values=None, **tile)
tile = dict(BLOCK_M=8, BLOCK_L=64)
compile_kernel(kernels.sum_rows, SPLAT=True, **tile)
none = dict.fromkeys(["pair", "weight", "kernel_of", "factor"])
compile_kernel(kernels.sum_rows, SPLAT=False, **none, **tile)
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
