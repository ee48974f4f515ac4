"""What the loaders share."""

from __future__ import annotations

from pathlib import Path

import torch

from ...inputs import Detections

__all__ = ["choose_device", "existing_file", "one_line", "scored_above"]


def scored_above(detections: Detections, least_score: float) -> Detections:
    """The detections with at least this score; ``index`` counts what the model gave."""
    return detections.take(detections.scores >= least_score)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device that was asked for, or else the GPU if there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def existing_file(name: str, what: str) -> Path:
    """The path, if it is a file; FileNotFoundError says ``what`` is missing."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist.")
    return path


def one_line(error: Exception) -> str:
    """The first line of an error's message, after the error's type."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
