"""Detections of one image in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..resources import existing_file, read_arrays

__all__ = ["load"]


def load(path: str | os.PathLike):
    """What a ``.json``, ``.npz`` (as a dict) or ``.npy`` file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a broken one. Both name it.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".json", ".npy", ".npz"):
        raise ValueError(
            f"Detections cannot be read from {str(path)!r}: a file is .json, .npy or .npz. (A "
            "model such as 'torchvision:NAME' is loaded by load_detector.)"
        )
    path = existing_file(path, "The file of detections")
    if path.suffix.lower() != ".json":
        return read_arrays(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Cannot read the detections {path}: {error}") from error
