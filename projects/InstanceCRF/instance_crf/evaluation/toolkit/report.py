"""Pictures of an evaluation: precision-recall curves and the confusion of parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...extras import require
from ...figures import make_figure, save_figure
from ..average_precision import APResult
from ..semantic import MeanIoU
from .part_parsing import PartParsingMetrics

__all__ = ["plot_confusion", "plot_precision_recall", "write_report"]


def write_report(metrics: PartParsingMetrics, folder: str | Path) -> list[Path]:
    """Write ``pr_<task>.png`` for every AP and ``confusion.png``; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for task, metric in (*metrics.parts.items(), *metrics.objects.items()):
        if metric.available:
            path = folder / f"pr_{task}.png"
            plot_precision_recall(metric.ap.compute(), metric.names, path, title=task)
            written.append(path)
    if metrics.part_seg and metrics.part_seg.confusion.any():
        plot_confusion(metrics.part_seg, folder / "confusion.png")
        written.append(folder / "confusion.png")
    return written


def plot_precision_recall(
    result: APResult, names: tuple[str, ...], path: Path, *, title: str, threshold: float = 0.5
) -> None:
    """One curve a class at one IoU threshold, with its AP in the legend.

    Args:
        result: of an AP.
        names: of the classes.
        path: of the PNG.
        title: of the picture; the protocol's name is added.
        threshold: of the protocol's.
    """
    column = result.protocol.thresholds.index(threshold)
    figure, axes = make_figure(7.5, 5.0)
    present = [index for index in range(len(names)) if result.num_truths[index]]
    for index, color in zip(present, _colors(len(present)), strict=True):
        precision, recall = result.precision_recall(index, threshold)
        label = f"{names[index]}  {100 * result.ap[index, column]:.1f}"
        axes.step(
            np.append(0.0, recall),
            np.append(precision[:1], precision),
            where="post",
            color=color,
            label=label,
            linewidth=1.4,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title(
        f"{title} at IoU {threshold}, protocol {result.protocol.name}: "
        f"mean AP {100 * result.at(threshold):.1f}, {result.num_images} images",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend(
        title="AP",
        fontsize=7,
        title_fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        ncols=1 + len(present) // 25,
        frameon=False,
    )
    save_figure(figure, path)


def plot_confusion(metric: MeanIoU, path: Path) -> None:
    """The share of each true part's pixels that each predicted part has, in percent."""
    names, confusion = metric.names, metric.confusion
    totals = confusion.sum(axis=1, keepdims=True)
    share = np.where(totals > 0, confusion / np.maximum(totals, 1), np.nan)
    size = min(4.0 + 0.45 * len(names), 30.0)
    figure, axes = make_figure(size + 1.0, size)
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="ground truth")
    axes.set_title("Pixels of each part, % of the ground truth's", fontsize=10)
    if len(names) <= 24:
        for row, column in np.argwhere(share >= 0.005):
            value = share[row, column]
            color = "white" if value > 0.55 else "black"
            axes.text(
                column, row, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize=7
            )
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
    save_figure(figure, path)


def _colors(count: int) -> np.ndarray:
    return require("matplotlib", "eval").colormaps["turbo"](np.linspace(0.05, 0.95, count))
