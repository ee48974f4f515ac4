"""Detections of one image in a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

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
    if not path.is_file():
        raise FileNotFoundError(f"The file of detections {path} does not exist.")
    try:
        if path.suffix.lower() == ".json":
            return json.loads(path.read_text())
        content = np.load(path, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Cannot read the detections {path}: {error}") from error
