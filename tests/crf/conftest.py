"""Shared by the tests of the CRF."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instance_crf.crf.gaussian_filter import GaussianKernel


class LiveArrays(TorchDispatchMode):
    """While entered: how many arrays of some shapes are made and alive at a time, views aside.

    Args:
        shapes: which ones to count.
    """

    def __init__(self, *shapes):
        super().__init__()
        self.shapes = shapes
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = isinstance(out, torch.Tensor) and not out._is_view() and out is not args[0]
        if made and out.shape in self.shapes:
            self.now += 1
            self.peak = max(self.peak, self.now)
            weakref.finalize(out, self.free)
        return out

    def free(self):
        self.now -= 1


class BruteForceKernel:
    """The Gaussian sum over all pairs of pixels, O(N^2): the truth that lattices approximate."""

    def __init__(self, features):
        self.matrix = torch.exp(-0.5 * torch.cdist(features, features).square())

    def __call__(self, values):
        return self.matrix.to(values.dtype) @ values


@pytest.fixture
def brute_force_kernel():
    """The kind of kernel, to be made from (N, F) features."""
    return BruteForceKernel


@pytest.fixture
def exact(monkeypatch):
    """The exact Gaussian in the place of the reference's lattice."""
    monkeypatch.setattr(
        GaussianKernel, "lattice", lambda self, device: BruteForceKernel(self.feature_rows(device))
    )


@pytest.fixture
def live_arrays():
    """The counter, for tests of memory."""
    return LiveArrays


def make_inputs(height=20, width=26, detections=3, parts=2, seed=0, dtype=torch.float32):
    """A soft Q, boxes that stick out here and there, scores and a smooth noisy image."""
    g = torch.Generator().manual_seed(seed)

    def blobs(channels):
        coarse = torch.randn(1, channels, 4, 4, generator=g)
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]

    part_prob = torch.softmax(3 * blobs(parts + 1), dim=0)
    size = torch.tensor([width, height], dtype=torch.float32)
    low = torch.rand(detections, 2, generator=g) * size * 0.6 - 0.5
    high = low + 1 + torch.rand(detections, 2, generator=g) * size * 0.7
    image = (127 + 60 * blobs(3) + 3 * torch.randn(3, height, width, generator=g)).clamp(0, 255)
    scores = torch.rand(detections, generator=g)
    boxes = torch.cat([low, high], dim=1)
    return tuple(t.to(dtype) for t in (part_prob, boxes, scores, image))


@pytest.fixture
def inputs():
    """The function that makes (part_prob, boxes, scores, image) of an image."""
    return make_inputs
