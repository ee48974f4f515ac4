"""A folder of photographs, with the outputs and the weights of public models, is not in the
repository: INSTANCE_CRF_REAL names it, and without it the tests that need it are skipped."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_folder():
    """The folder of INSTANCE_CRF_REAL."""
    folder = os.environ.get("INSTANCE_CRF_REAL", "")
    if not (Path(folder) / "weights").is_dir():
        pytest.skip("INSTANCE_CRF_REAL names no folder with public models' weights")
    return Path(folder)
