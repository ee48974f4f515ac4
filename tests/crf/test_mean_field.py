import pytest
import torch

from instance_crf.crf import mean_field as mean_field_module
from instance_crf.crf.gaussian_filter import (
    BruteForceFilter,
    PermutohedralFilter,
    bilateral_features,
    spatial_features,
)
from instance_crf.crf.mean_field import mean_field

SIDE = 12


def problem(labels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unary = 2 * torch.rand(SIDE * SIDE, labels, dtype=torch.float64, generator=generator)
    image = 255 * torch.rand(3, SIDE, SIDE, dtype=torch.float64, generator=generator)
    features = [bilateral_features(image, 6.0, 90.0), spatial_features(SIDE, SIDE, 2.0)]
    return unary, features


def brute_force_mean_field(unary, features, weights, iterations):
    """The update of every pixel and label as sums over all pixels, straight from the formula."""
    pixels, labels = unary.shape
    kernels = []
    for f in features:
        kernel = torch.zeros(pixels, pixels, dtype=torch.float64)
        for k in range(pixels):
            kernel[k] = torch.exp(-0.5 * ((f - f[k]) ** 2).sum(1))
            kernel[k] /= kernel[k].sum()
        kernels.append(kernel)
    q = torch.exp(-unary)
    q = q / q.sum(1, keepdim=True)
    for _ in range(iterations):
        score = torch.zeros_like(q)
        for k in range(pixels):
            for label in range(labels):
                message = 0.0
                for w, m in zip(weights, kernels, strict=True):
                    message = message + w * (m[k] * q[:, label]).sum()
                score[k, label] = torch.exp(-unary[k, label] + message)
        q = score / score.sum(1, keepdim=True)
    return q


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_algebra_against_brute_force(iterations):
    unary, features = problem()
    weights = [torch.tensor(4.0), torch.tensor(3.0)]
    filters = [BruteForceFilter(f) for f in features]
    actual = mean_field(unary, filters, weights, iterations).exp()
    expected = brute_force_mean_field(unary, features, weights, iterations)
    assert (actual - expected).abs().max() < 1e-9


def test_with_the_lattice_stays_close_to_brute_force():
    unary, features = problem()
    weights = [torch.tensor(1.0), torch.tensor(1.0)]
    filters = [PermutohedralFilter(f) for f in features]
    actual = mean_field(unary, filters, weights, 3).exp()
    expected = brute_force_mean_field(unary, features, weights, 3)
    assert (actual - expected).abs().max() < 0.05
    assert (actual.argmax(1) == expected.argmax(1)).float().mean() > 0.95


def run_with_gradients(unary, features, iterations):
    filters = [PermutohedralFilter(f) for f in features]
    unary = unary.clone().requires_grad_()
    weights = [torch.tensor(w, requires_grad=True, dtype=torch.float64) for w in (2.0, 1.5)]
    log_q = mean_field(unary, filters, weights, iterations)
    loss = (log_q[:, 0] ** 2).sum()
    return log_q.detach(), torch.autograd.grad(loss, (unary, *weights))


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 10])
def test_recomputation_changes_no_gradient(iterations, monkeypatch):
    unary, features = problem()
    recomputed = run_with_gradients(unary, features, iterations)
    monkeypatch.setattr(mean_field_module, "_recomputed", lambda function, *args: function(*args))
    kept = run_with_gradients(unary, features, iterations)
    torch.testing.assert_close(recomputed, kept, rtol=1e-12, atol=1e-12)


def test_memory_grows_with_the_root_of_the_iterations(live_arrays):
    unary, features = problem()
    peaks = {}
    for iterations in (4, 64):
        with live_arrays(unary.shape) as live:
            run_with_gradients(unary, features, iterations)
        peaks[iterations] = live.peak
    assert peaks[64] - peaks[4] <= 3 * (8 - 2)


def test_gradcheck():
    unary, features = problem()
    unary, features = unary[:8], [f[:8] for f in features]
    filters = [PermutohedralFilter(f) for f in features]
    weights = [torch.tensor(w, requires_grad=True, dtype=torch.float64) for w in (2.0, 1.5)]

    def run(unary, *weights):
        return mean_field(unary, filters, weights, 5)

    assert torch.autograd.gradcheck(run, (unary.clone().requires_grad_(), *weights))


def test_extreme_unaries_stay_finite():
    unary, features = problem()
    unary = unary * 1e4
    filters = [PermutohedralFilter(f) for f in features]
    unary.requires_grad_()
    log_q = mean_field(unary, filters, [torch.tensor(4.0), torch.tensor(3.0)], 5)
    log_q[:, 0].sum().backward()
    assert torch.isfinite(log_q).all() and torch.isfinite(unary.grad).all()
