"""Whatever a file of weights, arrays or keys holds, reading it gives a result or a named error.

Readers of data sets: tests/data/test_any_content.py; of evaluation's files:
tests/evaluation/toolkit/test_broken_files.py.
"""

import io
import pickle
from datetime import timedelta

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instance_crf.config import load_config
from instance_crf.own_models.resources import read_arrays
from instance_crf.weights_file import read_weights_file

FEW = settings(
    max_examples=80,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def written(write, *arguments, **more):
    file = io.BytesIO()
    write(file, *arguments, **more)
    return file.getvalue()


STATE = {"model": {"weight": torch.ones(3, 4)}, "iteration": 3}
WHOLE = {
    ".pth": [
        written(lambda file: torch.save(STATE, file)),
        written(lambda file: torch.save(STATE, file, _use_new_zipfile_serialization=False)),
    ],
    ".pkl": [pickle.dumps({"model": {"weight": ARRAY}}, protocol) for protocol in (0, 2, 4, 5)],
    ".npy": [written(np.save, ARRAY), written(np.save, ARRAY.T), written(np.save, np.float64(1))],
    ".npz": [written(np.savez, a=ARRAY), written(np.savez_compressed, a=ARRAY, b=ARRAY[0])],
}
READERS = {
    ".pth": read_weights_file,
    ".pkl": read_weights_file,
    ".npy": read_arrays,
    ".npz": read_arrays,
}


@st.composite
def damaged(draw, suffix):
    """A whole file of which some bytes are others, or that ends early."""
    content = bytearray(draw(st.sampled_from(WHOLE[suffix])))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.none(), st.integers(0, len(content))))])


def read_or_named(read, path):
    try:
        return read(path)
    except (ValueError, OSError) as error:
        assert path.name in str(error)
        return None


@pytest.mark.parametrize("suffix", WHOLE)
@given(data=st.data())
@FEW
@pytest.mark.filterwarnings("ignore")
def test_weights_and_arrays(suffix, data, tmp_path):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=200), damaged(suffix))))
    read_or_named(READERS[suffix], path)


SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=4)),
    st.sampled_from(["cuda", "joint", "any.yaml", "synthetic_people_val"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ["_BASE_", "VERSION", "MODEL", "DATASETS", "SOLVER", "INPUT", "OUTPUT_DIR", "SEED", "TEST"]
BELOW = ["INSTANCE_CRF", "DEVICE", "WEIGHTS", "TRAIN", "TEST", "PART_YAML", "MAX_ITER"]
CONFIGS = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(BELOW), VALUES, max_size=3)),
    max_size=4,
)


@given(content=st.one_of(CONFIGS, VALUES))
@FEW
def test_configs(content, tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        load_config(str(path))
    except (ValueError, OSError, ImportError) as error:
        assert str(error)
