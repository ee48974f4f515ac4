"""Arrays of any library as tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor"]

_WIDER = {
    np.dtype(np.uint16): np.int32,
    np.dtype(np.uint32): np.int64,
    np.dtype(np.uint64): np.int64,
    np.dtype(np.longdouble): np.float64,
}
"""Types that torch does not have, or can do little with."""
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(value: Any, name: str) -> Tensor:
    """A tensor of a tensor, an array or nested lists, without a copy where that can be: nobody may
    write into it.

    Raises:
        ValueError: not numbers; the message has ``name``.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        return value.long() if value.dtype in _UNSIGNED else value
    try:
        if isinstance(value, (list, tuple)):
            value = [each.detach().cpu() if isinstance(each, Tensor) else each for each in value]
        array = np.asarray(value)
        if array.dtype.kind == "V":  # bfloat16 of another package
            array = array.astype(np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"The {name} cannot be read as numbers: {error}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"The {name} cannot be read as numbers: of type {array.dtype}, as in {value!r:.60}."
        )
    native = array.dtype.newbyteorder("=")
    array = array.astype(_WIDER.get(native, native), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)
