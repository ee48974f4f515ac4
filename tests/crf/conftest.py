"""Shared by the tests of the CRF."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


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


@pytest.fixture
def live_arrays():
    """The counter, for tests of memory."""
    return LiveArrays
