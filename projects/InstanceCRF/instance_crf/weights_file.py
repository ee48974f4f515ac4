"""Files of weights, read without running what they hold.

A pickle can call any function when it is read. ``.pth`` files are read by PyTorch's restricted
reader, ``.pkl`` files by one that makes numpy arrays and plain containers, as Detectron2's and
torchvision's model zoos need. What either refuses is read only if the environment says
``INSTANCE_CRF_UNSAFE_WEIGHTS=1``.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["is_whole", "read_weights_file"]

logger = logging.getLogger(__name__)

UNSAFE = "INSTANCE_CRF_UNSAFE_WEIGHTS"
"""The environment variable that allows to run what a file of weights holds."""


class _Refused(Exception):
    """The file is sound, but holds more than weights; says what."""


def read_weights_file(path: str | os.PathLike) -> dict[str, Any]:
    """What a ``.pth``, ``.pyth`` or ``.pkl`` file holds, tensors on the CPU.

    Raises:
        FileNotFoundError: no such file.
        PermissionError: it may not be read.
        ValueError: empty, cut off, damaged or no file of weights; or it holds what would have to be
            run. Names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    read = _read_pickle if path.suffix == ".pkl" else _read_torch
    try:
        content = read(path, safe=True)
    except _Refused as refused:
        if os.environ.get(UNSAFE) != "1":
            raise ValueError(
                f"{path} holds more than weights ({refused}), and reading that can run any code. "
                f"If you trust its source, set {UNSAFE}=1 in the environment."
            ) from None
        logger.warning("Reading %s runs what it holds (%s): %s=1.", path, refused, UNSAFE)
        content = read(path, safe=False)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dict of weights.")
    return content


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a checkpoint was written to its end; its content is not looked at."""
    return zipfile.is_zipfile(path)


def _read_torch(path: Path, *, safe: bool) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # PyTorch does not compare the sums
            if damaged:
                raise ValueError(f"the sum of {damaged} is wrong")
        return torch.load(path, map_location="cpu", weights_only=safe)
    except PermissionError:
        raise
    except Exception as error:  # whatever a broken file makes the reader raise
        function = re.search(r"GLOBAL (\S+)", str(error))
        if safe and isinstance(error, pickle.UnpicklingError) and function:
            raise _Refused(function[1]) from None
        raise _broken(path, error) from None


def _read_pickle(path: Path, *, safe: bool) -> Any:
    reader = _ArrayUnpickler if safe else pickle.Unpickler
    try:
        with open(path, "rb") as file:
            return reader(file, encoding="latin1").load()
    except (_Refused, PermissionError):
        raise
    except Exception as error:  # whatever a broken file makes the reader raise
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return ValueError(
        f"{path} is broken, or no file of weights ({path.stat().st_size} bytes): {reason}."
    )


def _encode(text: str, coding: str) -> bytes:
    """As old pickles write bytes: a text in Latin-1."""
    if coding != "latin1":
        raise _Refused(f"_codecs.encode to {coding}")
    return text.encode(coding)


class _ArrayUnpickler(pickle.Unpickler):
    """Makes numpy arrays and numbers, and containers of them, and nothing else."""

    _NUMPY = {
        "_reconstruct": np.zeros(1).__reduce__()[0],
        "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
        "scalar": np.float64(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }
    _OTHERS = {("collections", "OrderedDict"): OrderedDict, ("_codecs", "encode"): _encode}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._NUMPY:
            return self._NUMPY[name]
        if (module, name) in self._OTHERS:
            return self._OTHERS[module, name]
        raise _Refused(f"{module}.{name}")
