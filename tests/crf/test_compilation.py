"""What the user reads of the CPU kernels' compilation."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_the_first_call_says_that_it_compiles_and_how_long_it_took(tmp_path, backend):
    code = (
        "import torch; from instance_crf.crf import DenseInstanceCRF\n"
        f"crf = DenseInstanceCRF(backend={backend!r})\n"
        "q = torch.full((3, 9, 12), 1 / 3)\n"
        "with torch.no_grad():\n"
        "    crf(q, torch.tensor([[1.0, 1, 8, 8]]), torch.ones(1), torch.zeros(3, 9, 12))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = []
    for _ in range(2):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    first = r"Compiling the CRF's numba kernels, once on this machine ...\n... compiled in \d+ s.\n"
    assert re.fullmatch(first, said[0]) and said[1] == ""
