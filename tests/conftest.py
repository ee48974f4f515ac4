"""Shared by all tests: one seed for each test, few threads, Triton's interpreter without a GPU."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

# Read when triton is imported, which some test may do long before those that need it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The tests' tensors are small: more threads cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def full_disk():
    """What every writer in this process meets beyond the first 2000 bytes of a file."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="session")
def real_folder():
    """Photographs, with the outputs and the weights of public models. They are not in the
    repository: INSTANCE_CRF_REAL names the folder, and without it the tests are skipped."""
    folder = os.environ.get("INSTANCE_CRF_REAL", "")
    if not (Path(folder) / "weights").is_dir():
        pytest.skip("INSTANCE_CRF_REAL names no folder with public models' weights")
    return Path(folder)
