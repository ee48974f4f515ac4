import pytest
import torch

from instance_crf.crf import mean_field as mean_field_module
from instance_crf.crf.gaussian_filter import (
    GaussianKernel,
    ImageKernels,
    bilateral_kernel,
)
from instance_crf.crf.mean_field import in_reverse, mean_field

SIDE = 12


def problem(labels=4, seed=0, side=SIDE):
    generator = torch.Generator().manual_seed(seed)
    unary = 2 * torch.rand(side * side, labels, dtype=torch.float64, generator=generator)
    image = 255 * torch.rand(3, side, side, dtype=torch.float64, generator=generator)
    return unary, ImageKernels([bilateral_kernel(image, 6.0, 90.0), GaussianKernel((side,) * 2, 2)])


def weights_of(*values):
    return torch.tensor(values, dtype=torch.float64)


def brute_force_mean_field(unary, kernels, weights, iterations, support=None, compatibility=None):
    """The update of every pixel and label as sums over all pixels, straight from the formula."""
    pixels, labels = unary.shape
    features = [kernel.feature_rows("cpu") for kernel in kernels.kernels]
    support = torch.ones(pixels) if support is None else support
    compatibility = torch.eye(labels) if compatibility is None else compatibility
    kernels = []
    for f in features:
        kernel = torch.zeros(pixels, pixels, dtype=torch.float64)
        for k in range(pixels):
            kernel[k] = torch.exp(-0.5 * ((f - f[k]) ** 2).sum(1)) * support
            kernel[k] /= kernel[k].sum()
        kernels.append(kernel)
    q = torch.exp(-unary)
    q = q / q.sum(1, keepdim=True)
    for _ in range(iterations):
        score = torch.zeros_like(q)
        for k in range(pixels):
            for label in range(labels):
                message = 0.0
                for other in range(labels):
                    for w, m in zip(weights, kernels, strict=True):
                        sent = w * (m[k] * q[:, other]).sum()
                        message = message + compatibility[other, label] * sent
                score[k, label] = torch.exp(-unary[k, label] + message)
        q = score / score.sum(1, keepdim=True)
    return q


@pytest.mark.parametrize("iterations", [1, 3])
def test_algebra_against_brute_force(iterations, exact):
    unary, kernels = problem()
    weights = weights_of(4.0, 3.0)
    actual = mean_field(unary, kernels, weights, iterations).exp()
    expected = brute_force_mean_field(unary, kernels, weights, iterations)
    assert (actual - expected).abs().max() < 1e-9


def test_support_and_compatibility_against_brute_force(exact):
    unary, kernels = problem(labels=3, side=6)
    weights, compatibility = weights_of(2.0, 1.0), torch.randn(3, 3, dtype=torch.float64)
    support = torch.rand(36, dtype=torch.float64)
    support[::3] = 0
    options = {"support": support, "compatibility": compatibility}
    actual = mean_field(unary, kernels, weights, 3, **options).exp()
    expected = brute_force_mean_field(unary, kernels, weights, 3, support, compatibility)
    assert (actual - expected).abs().max() < 1e-9


def test_with_the_lattice_stays_close_to_brute_force():
    unary, kernels = problem()
    weights = weights_of(1.0, 1.0)
    actual = mean_field(unary, kernels, weights, 3).exp()
    expected = brute_force_mean_field(unary, kernels, weights, 3)
    assert (actual - expected).abs().max() < 0.05
    assert (actual.argmax(1) == expected.argmax(1)).float().mean() > 0.95


def run_with_gradients(unary, kernels, iterations):
    unary, weights = unary.clone().requires_grad_(), weights_of(2.0, 1.5).requires_grad_()
    log_q = mean_field(unary, kernels, weights, iterations)
    return log_q.detach(), torch.autograd.grad((log_q[:, 0] ** 2).sum(), (unary, weights))


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 10])
def test_recomputation_changes_no_gradient(iterations, monkeypatch):
    unary, kernels = problem()
    recomputed = run_with_gradients(unary, kernels, iterations)
    monkeypatch.setattr(mean_field_module, "_recomputed", lambda function, *args: function(*args))
    kept = run_with_gradients(unary, kernels, iterations)
    torch.testing.assert_close(recomputed, kept, rtol=1e-12, atol=1e-12)


def test_memory_grows_with_the_root_of_the_iterations(live_arrays):
    unary, kernels = problem()
    peaks = {}
    for iterations in (4, 64):
        with live_arrays(unary.shape) as live:
            run_with_gradients(unary, kernels, iterations)
        peaks[iterations] = live.peak
    assert peaks[64] - peaks[4] <= 3 * (8 - 2)


@pytest.mark.parametrize("normalization", ["after", "symmetric"])
def test_gradcheck(normalization):
    unary, kernels = problem(labels=3, side=3)
    support = torch.rand(9, dtype=torch.float64)
    leaves = unary, weights_of(2.0, 1.5), torch.randn(3, 3, dtype=torch.float64)

    def run(unary, weights, compatibility):
        options = {"normalization": normalization, "support": support}
        return mean_field(unary, kernels, weights, 5, compatibility=compatibility, **options)

    assert torch.autograd.gradcheck(run, [leaf.requires_grad_() for leaf in leaves])


def test_extreme_unaries_stay_finite():
    unary, kernels = problem()
    unary = (unary * 1e4).requires_grad_()
    log_q = mean_field(unary, kernels, weights_of(4.0, 3.0), 5)
    log_q[:, 0].sum().backward()
    assert torch.isfinite(log_q).all() and torch.isfinite(unary.grad).all()


@pytest.mark.parametrize("count", [1, 5, 9])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_in_reverse_remakes_what_was_not_kept(count, interval):
    kept = {i: i for i in range(count) if i % interval == interval - 1}
    states = in_reverse(lambda state: 0 if state is None else state + 1, kept, count, interval)
    assert list(states) == [*range(count - 1, -1, -1), None]
