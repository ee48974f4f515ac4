"""Results of several seeds as pictures: PNGs with a light background, readable when colour-blind.

Lines and bars are means over the seeds, bands and whiskers ± half their range. Needs matplotlib.

Letters: K points of a line, each (x, mean, spread).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..figures import make_figure, save_figure
from .results import (
    AS_FOUND,
    Column,
    Results,
    Summary,
    differences,
    points_of_curve,
    summarize,
    values,
)

__all__ = ["plot_gains", "plot_thresholds", "plot_training"]

# Okabe and Ito's, without yellow; each with a mark of its own, for print in grey.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_ABOVE, _BELOW, _WITHIN = "#0072B2", "#D55E00", "#B0B0B0"
_GREY = "#707070"
_THRESHOLDS = tuple(range(10, 100, 10))


def plot_thresholds(
    results: Results,
    rows: Sequence[str],
    split: str,
    path: str | Path,
    *,
    reference: str | None = None,
) -> None:
    """APr of parts over the IoU threshold, a line a row; on the right, the differences to
    ``reference``.

    Args:
        results: of all seeds.
        rows: a few, up to seven; those without numbers are left out. The legend has the best on
            average first.
        split: with boxes as found.
        path: of the PNG.
        reference: a row; None: no second picture. Differences are paired by seed.

    Raises:
        ValueError: none of the rows has a number.
    """
    columns = {t: Column("", split, AS_FOUND, "part_apr", f"APr{t}") for t in _THRESHOLDS}
    lines = {row: _line({t: values(results, row, c) for t, c in columns.items()}) for row in rows}
    lines = {row: line for row, line in lines.items() if len(line)}
    _refuse_empty(lines, f"part APr10 … APr90 of {split}", rows)
    figure, axes = make_figure(6.2 if reference is None else 10.2, 4.0, 1 + (reference is not None))
    left, *right = np.atleast_1d(axes)
    drawn = sorted({t for line in lines.values() for t in line[:, 0]})
    styles = {row: _style(number) for number, row in enumerate(lines)}
    for row in sorted(lines, key=lambda row: -lines[row][:, 1].mean()):
        _draw_line(left, lines[row], label=row, **styles[row])
    left.set(ylabel="part APr, %", ylim=(0, None), title=split)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    for axis in right:
        axis.axhline(0, color=_GREY, linewidth=1)
        for row in (row for row in lines if row != reference):
            paired = {t: differences(results, row, reference, c) for t, c in columns.items()}
            _draw_line(axis, _line(paired), **styles[row])
        axis.set(ylabel="difference, points", title=f"over {reference}, paired by seed")
    for axis in (left, *right):
        axis.set_xlabel("IoU threshold")
        axis.set_xticks(drawn, [f"{t / 100:.1f}" for t in drawn])
        _finish(axis)
    save_figure(figure, path)


def plot_gains(
    results: Results, rows: Sequence[str], reference: str, column: Column, path: str | Path
) -> None:
    """By how much each row is above ``reference``: bars, the greatest gain on top.

    Those beyond their spread are coloured; of a single seed, no spread is known, and none is.

    Args:
        results: of all seeds.
        rows: those without a seed in common with ``reference`` are left out.
        reference: a row.
        column: of the differences, paired by seed.
        path: of the PNG.

    Raises:
        ValueError: none of the rows has a difference.
    """
    gains = {
        row: summarize(differences(results, row, reference, column))
        for row in rows
        if row != reference
    }
    gains = {row: gain for row, gain in gains.items() if gain is not None}
    _refuse_empty(gains, f"differences in {column.heading} to {reference!r}", rows)
    gains = dict(sorted(gains.items(), key=lambda item: item[1].mean))
    means = np.array([gain.mean for gain in gains.values()])
    spreads = np.array([gain.spread for gain in gains.values()])
    figure, axes = make_figure(7.0, 1.1 + 0.32 * len(gains))
    axes.barh(
        list(gains),
        means,
        xerr=spreads,
        color=[_gain_color(gain) for gain in gains.values()],
        error_kw={"ecolor": "#404040", "elinewidth": 1.2, "capsize": 2.5},
        height=0.7,
    )
    axes.axvline(0, color="#404040", linewidth=1)
    for number, gain in enumerate(gains.values()):
        end = gain.mean + gain.spread if gain.mean >= 0 else gain.mean - gain.spread
        axes.annotate(
            f"{gain.mean:+.1f}",
            (end, number),
            xytext=(5 if gain.mean >= 0 else -5, 0),
            textcoords="offset points",
            ha="left" if gain.mean >= 0 else "right",
            va="center",
            fontsize=8,
        )
    axes.margins(x=0.14, y=0.03)
    axes.set_title(column.split)
    axes.set_xlabel(f"{column.heading}, points over {reference}; grey: not beyond the spread")
    _finish(axes, "x")
    axes.tick_params(axis="y", length=0)
    save_figure(figure, path)


def plot_training(
    results: Results, systems: Sequence[str], column: Column, path: str | Path
) -> None:
    """Quality over the minutes of training, a line a system, with its name at its end.

    Args:
        results: of all seeds.
        systems: of their ``curve``; those without numbers are left out.
        column: what is drawn, with boxes as found.
        path: of the PNG.

    Raises:
        ValueError: none of the systems has a number.
    """
    lines = {}
    for system in systems:
        points = points_of_curve(results, system, column)
        if points:
            lines[system] = np.array([(m.mean, v.mean, v.spread) for m, v in points])
    _refuse_empty(lines, f"a curve of {column.heading} of {column.split}", systems)
    figure, axes = make_figure(7.0, 4.2)
    for number, line in enumerate(lines.values()):
        _draw_line(axes, line, **_style(number))
    axes.set(xlabel="minutes of training", ylabel=f"{column.heading}, %", title=column.split)
    axes.set_xlim(0, None)
    _finish(axes)
    _name_ends(axes, lines)
    save_figure(figure, path)


def _refuse_empty(found: Mapping, what: str, names: Sequence[str]) -> None:
    if not found:
        raise ValueError(f"Nothing to draw: no seed has {what} for any of {', '.join(names)}.")


def _style(number: int) -> dict:
    return {
        "color": _COLORS[number % len(_COLORS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": "-" if number < len(_COLORS) else "--",
    }


def _gain_color(gain: Summary) -> str:
    return {"yes": _ABOVE, "no, the reverse": _BELOW}.get(gain.verdict, _WITHIN)


def _line(numbers: Mapping[float, Mapping[int, float]]) -> NDArray[np.float64]:
    """(K, 3) of x -> seed -> number."""
    summaries = {x: summarize(of_seeds) for x, of_seeds in numbers.items()}
    points = [(x, s.mean, s.spread) for x, s in summaries.items() if s is not None]
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def _draw_line(axes, line: NDArray, *, color: str, marker: str, linestyle: str, label=None) -> None:
    x, mean, spread = line.T
    axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
    axes.plot(
        x,
        mean,
        color=color,
        marker=marker,
        linestyle=linestyle,
        markersize=4,
        linewidth=1.5,
        label=label,
    )


def _finish(axes, grid: str = "y") -> None:
    axes.grid(axis=grid, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.title.set_size(10)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)


def _name_ends(axes, lines: Mapping[str, NDArray]) -> None:
    """Each line's name right of the last point of all, as high as its own end, or nearly so."""
    low, high = axes.get_ylim()
    ends = np.array([line[-1, 1] for line in lines.values()])
    places = _apart(ends, 0.055 * (high - low))
    last = max(line[-1, 0] for line in lines.values())
    for number, (name, line) in enumerate(lines.items()):
        thread = {"arrowstyle": "-", "relpos": (0, 0.5), "shrinkA": 2, "linewidth": 0.8}
        axes.annotate(
            f"{name}  {line[-1, 1]:.1f}",
            (line[-1, 0], line[-1, 1]),
            xytext=(1.08 * last, places[number]),
            textcoords="data",
            annotation_clip=False,
            va="center",
            fontsize=8,
            arrowprops=thread | {"color": _style(number)["color"]},
        )


def _apart(wanted: NDArray, gap: float) -> NDArray[np.float64]:
    """Places at least ``gap`` apart, in the order of ``wanted`` and near it."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # Without the steps, places only have to rise: those that do not share their mean.
    blocks: list[list[float]] = []
    for value in wanted[order] - steps:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = np.empty(len(wanted))
    places[order] = np.concatenate([[np.mean(b)] * len(b) for b in blocks]) + steps
    return places
