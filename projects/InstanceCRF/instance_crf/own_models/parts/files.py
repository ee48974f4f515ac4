"""Part scores in files: .npy and .npz arrays, PNGs of ids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...data.label_io import read_part_map
from ..resources import existing_file, read_arrays
from ..tensors import as_tensor
from .arrays import ARGUMENTS, Given, guess_kind

__all__ = ["read_file"]


def read_file(path: str | os.PathLike, kind: str | None) -> Given:
    """What a file holds.

    Args:
        path: ``.npy``: one array. ``.npz``: one array, or one named as ``parse``'s arguments
            (``part_prob``, ``part_logits``, ``part_map``), or ``person_logit`` and ``part_logits``
            of a model without a background channel, corners aligned. Another ending: a picture of
            ids, 255 unknown.
        kind: what it is said to be; None: what the file says, or the numbers clearly are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable, or of another kind. Both messages name the file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder: load_part_model({str(path)!r}) reads the file of each photo."
        )
    path = existing_file(path, "The file of part scores")
    if path.suffix.lower() not in (".npy", ".npz"):
        if kind not in (None, "map"):
            raise ValueError(
                f"{path} is a picture of ids: pass it as part_map, not {ARGUMENTS[kind]}."
            )
        return Given(read_part_map(path), "map")
    arrays = read_arrays(path)
    if isinstance(arrays, Mapping):
        return _of_archive(path, arrays, kind)
    return Given(arrays, _known_kind(path, arrays, kind))


def _of_archive(path: Path, arrays: Mapping[str, np.ndarray], kind: str | None) -> Given:
    names = ", ".join(arrays) or "nothing"
    kinds = [k for k, argument in ARGUMENTS.items() if argument in arrays]
    if len(kinds) > 1:
        raise ValueError(f"{path} has {names}; one of {', '.join(ARGUMENTS.values())} is enough.")
    if kinds:
        if kind not in (None, kinds[0]):
            raise ValueError(
                f"{path} has {ARGUMENTS[kinds[0]]}, but is passed as {ARGUMENTS[kind]}."
            )
        given = Given(arrays[ARGUMENTS[kinds[0]]], kinds[0])
        if "person_logit" in arrays:
            given.person_logit = arrays["person_logit"]
            given.background, given.align_corners = "none", True
        return given
    if len(arrays) != 1:
        raise ValueError(
            f"{path} has {names}; save one array, or name it {' or '.join(ARGUMENTS.values())}."
        )
    array = next(iter(arrays.values()))
    return Given(array, _known_kind(path, array, kind))


def _known_kind(path: Path, array: np.ndarray, kind: str | None) -> str:
    kind = kind or guess_kind(as_tensor(array, f"numbers of {path}"))
    if kind is None:
        raise ValueError(
            f"{path}, {array.dtype} of {array.shape}, may be logits or probabilities, or neither: "
            "say kind='logits', 'prob' or 'map'."
        )
    return kind
