"""Arrays of all kinds as tensors."""

import numpy as np
import pytest
import torch

from instance_crf.own_models.tensors import as_tensor

VALUES = np.arange(12).reshape(3, 4)


@pytest.mark.parametrize("name", ["uint8", "int16", "uint16", "uint32", "uint64", "int64"])
def test_integers(name):
    tensor = as_tensor(VALUES.astype(name), "values")
    assert tensor.tolist() == VALUES.tolist() and not tensor.is_floating_point()
    assert int(tensor.max()) == 11  # which torch does not do for all of NumPy's types
    assert int(as_tensor(torch.from_numpy(VALUES.astype(name)), "values").max()) == 11


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "longdouble", ">f4", ">f8"])
def test_floats(name):
    tensor = as_tensor(VALUES.astype(name), "values")
    assert tensor.tolist() == VALUES.tolist() and tensor.is_floating_point()


def test_flipped_arrays_and_those_that_cannot_be_written(recwarn):
    assert as_tensor(VALUES[::-1, ::2], "values").tolist() == VALUES[::-1, ::2].tolist()
    fixed = VALUES.copy()
    fixed.flags.writeable = False
    assert as_tensor(fixed, "values").data_ptr() == fixed.ctypes.data
    assert not recwarn.list


def test_tensors_and_lists():
    tensor = torch.ones(3, requires_grad=True)
    assert as_tensor(tensor, "values").data_ptr() == tensor.data_ptr()
    assert not as_tensor(tensor, "values").requires_grad
    rows = [torch.ones(2, requires_grad=True), np.zeros(2), [2, 3]]
    assert as_tensor(rows, "values").tolist() == [[1, 1], [0, 0], [2, 3]]
    assert as_tensor([], "values").shape == (0,)


@pytest.mark.parametrize(
    "value", ["text", None, {}, [1, None], ["1", "2"], np.ones(2, complex), [[1, 2], [3]]]
)
def test_what_is_no_numbers(value):
    with pytest.raises(ValueError, match="The boxes cannot be read as numbers"):
        as_tensor(value, "boxes")
