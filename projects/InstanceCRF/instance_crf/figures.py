"""Figures of matplotlib, made without its global state and without a display."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from .extras import require
from .files import atomic_path

__all__ = ["make_figure", "save_figure"]


def make_figure(width: float, height: float, columns: int = 1):
    """A figure, and its axes: one, or an array of ``columns`` beside one another.

    Args:
        width, height: in inches of 120 pixels.
        columns: of axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", "eval").Figure(
        figsize=(width, height), dpi=120, layout="constrained", facecolor="white"
    )
    require("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def save_figure(figure, path: str | Path) -> None:
    """Write a PNG of 256 colours, a third as large as one of all, cut to what is drawn."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
