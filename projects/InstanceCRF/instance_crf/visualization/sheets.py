"""Legends, and pictures side by side under titles.

NumPy in, NumPy out: every picture is (h, w, 3) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..taxonomies.schema import PartTaxonomy
from .canvas import INK, load_font

__all__ = ["draw_legend", "make_sheet"]


def draw_legend(taxonomy: PartTaxonomy, width: int, *, size: int = 16) -> np.ndarray:
    """A strip with a swatch and the name of every part, in as many lines as ``width`` asks for.

    Args:
        taxonomy: names and colours. With several object classes a part's name is preceded by
            its owner's.
        width: pixels.
        size: height of the letters in pixels.

    Returns:
        (h, width, 3) uint8 RGB on white.
    """
    font = load_font(size)
    entries = [
        (f"{owner}: {name}" if taxonomy.num_objects > 1 else name, color)
        for _, name, owner, color, *_ in taxonomy.legend()
    ]
    line_height, swatch, gap = round(size * 1.7), round(size * 1.3), round(size * 0.5)
    placed, x, y = [], gap, gap
    for text, color in entries:
        length = swatch + gap + round(font.getlength(text))
        if x > gap and x + length + gap > width:
            x, y = gap, y + line_height
        placed.append((x, y, text, color))
        x += length + 2 * gap
    strip = Image.new("RGB", (width, y + line_height + gap), "white")
    draw = ImageDraw.Draw(strip)
    for x, y, text, color in placed:
        draw.rounded_rectangle((x, y, x + swatch, y + swatch), size // 5, fill=color, outline=INK)
        draw.text((x + swatch + gap, y + swatch / 2), text, INK, font, anchor="lm")
    return np.asarray(strip)


def make_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    *,
    legend: PartTaxonomy | np.ndarray | None = None,
    row_titles: Sequence[str] = (),
    padding: int = 8,
    size: int = 18,
) -> np.ndarray:
    """Pictures in a table, titles above the columns, a legend below.

    Args:
        rows: pictures (h, w, 3) uint8 RGB of any size; rows may be of different lengths.
        titles: one a column.
        legend: a taxonomy, whose legend is drawn, or a picture.
        row_titles: one a row, written above the row (e.g. file names).
        padding: pixels between the pictures.
        size: height of the titles' letters in pixels.

    Returns:
        (h, w, 3) uint8 RGB on white.

    Raises:
        ValueError: no picture at all, or more titles than columns or rows.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("make_sheet needs at least one picture; rows is empty.")
    if len(titles) > columns or len(row_titles) > len(rows):
        raise ValueError(
            f"{len(titles)} titles for {columns} columns and {len(row_titles)} row titles for "
            f"{len(rows)} rows; there may not be more titles than columns or rows."
        )
    font, small = load_font(size), load_font(max(10, round(size * 0.75)))
    grid = [list(row) + [np.zeros((0, 0, 3), np.uint8)] * (columns - len(row)) for row in rows]
    widths = [max(row[c].shape[1] for row in grid) for c in range(columns)]
    heights = [max(cell.shape[0] for cell in row) for row in grid]
    title_height = round(size * 1.8) if titles else 0
    row_title_height = round(size * 1.4) if row_titles else 0
    total_width = sum(widths) + padding * (columns + 1)
    total_height = title_height + sum(heights) + (padding + row_title_height) * len(rows) + padding
    if isinstance(legend, PartTaxonomy):
        legend = draw_legend(legend, total_width, size=max(10, round(size * 0.9)))

    legend_height = 0 if legend is None else len(legend)
    sheet = Image.new("RGB", (total_width, total_height + legend_height), "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [padding + sum(widths[:c]) + padding * c for c in range(columns)]
    for left, width, title in zip(lefts, widths, titles, strict=False):
        draw.text((left + width / 2, padding + title_height / 2), title, INK, font, anchor="mm")
    y = padding + title_height
    for r, row in enumerate(rows):
        if r < len(row_titles):
            draw.text((padding, y + row_title_height / 2), row_titles[r], INK, small, anchor="lm")
        y += row_title_height
        for left, cell in zip(lefts, row, strict=False):
            sheet.paste(Image.fromarray(np.ascontiguousarray(cell)), (left, y))
        y += heights[r] + padding
    if legend is not None:
        sheet.paste(Image.fromarray(np.ascontiguousarray(legend)), (0, total_height))
    return np.asarray(sheet)
