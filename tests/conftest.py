"""Shared by all tests: one seed for each test, few threads."""

import random

import numpy as np
import pytest
import torch

# The tests' tensors are small: more threads cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
