"""Pictures of results: files that can be looked at, and what is drawn in them."""

import gc
import weakref

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from instance_crf.experiments import plots
from instance_crf.experiments.results import Column, differences, summarize, values

SPLIT = "synthetic_people_val"
ROWS = ("box only", "+ global", "joint", "factored", "masks", "never run")
SYSTEMS = ("end to end", "Mask R-CNN over parts", "top-down", "piecewise")
COLUMN = Column("part APr50", SPLIT, "as found", "part_apr", "APr50")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, while they are alive."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    return figures


PLOTS = {
    "thresholds": lambda r, p: plots.plot_thresholds(r, ROWS, SPLIT, p),
    "differences": lambda r, p: plots.plot_thresholds(r, ROWS, SPLIT, p, reference="joint"),
    "gains": lambda r, p: plots.plot_gains(r, ROWS, "joint", COLUMN, p),
    "training": lambda r, p: plots.plot_training(r, SYSTEMS, COLUMN, p),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_pictures(plot, results, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "__init__", _remembering(Figure.__init__, figures))
    plot(results, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.format == "PNG"
        assert 600 < picture.width < 1600 and 200 < picture.height < 700
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[[0, -1]] > 240).all()  # light
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert (tmp_path / "new" / "plot.png").stat().st_size < 100_000
    gc.collect()
    assert figures and all(figure() is None for figure in figures)


def _remembering(init, figures):
    def remember(figure, *arguments, **more):
        figures.append(weakref.ref(figure))
        init(figure, *arguments, **more)

    return remember


def test_lines_are_the_means_of_seeds(drawn, results):
    plots.plot_thresholds(results, ROWS, SPLIT, "unused", reference="joint")
    left, right = drawn[0].axes
    assert [text.get_text() for text in drawn[0].legends[0].texts] == [
        *("factored", "masks", "joint", "+ global", "box only")
    ]
    lines = {line.get_label(): line.get_xydata() for line in left.lines}
    assert lines["masks"][4].tolist() == [50, summarize(values(results, "masks", COLUMN)).mean]
    assert len(right.lines) == 1 + 4  # the zero, and all rows but the reference
    gain = summarize(differences(results, "masks", "joint", COLUMN))
    assert right.lines[-1].get_xydata()[4].tolist() == [50, gain.mean]


def test_bars_are_paired_differences(drawn, results):
    plots.plot_gains(results, ROWS, "joint", COLUMN, "unused")
    (axes,) = drawn[0].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches]
    assert set(names) == {"box only", "+ global", "factored", "masks"}
    assert widths == sorted(widths)
    for name, width in zip(names, widths, strict=True):
        assert width == summarize(differences(results, name, "joint", COLUMN)).mean


def test_names_at_the_ends_of_lines_keep_apart(drawn, results):
    plots.plot_training(results, SYSTEMS, COLUMN, "unused")
    (axes,) = drawn[0].axes
    low, high = axes.get_ylim()
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert len(heights) == 4 and np.diff(heights).min() >= 0.054 * (high - low)


def test_places_apart():
    assert plots._apart(np.array([3.0, 1.0, 2.0]), 0.5).tolist() == [3, 1, 2]
    assert plots._apart(np.array([1.0, 1.0, 9.0]), 2.0).tolist() == [0, 2, 9]
    assert plots._apart(np.array([1.0, 2.0, 1.0, 9.0]), 3.0) == pytest.approx(
        [-5 / 3, 13 / 3, 4 / 3, 9]
    )


@pytest.mark.parametrize(
    "plot",
    [
        lambda r: plots.plot_thresholds(r, ["no", "none"], SPLIT, "unused"),
        lambda r: plots.plot_gains(r, ["no", "none"], "joint", COLUMN, "unused"),
        lambda r: plots.plot_training(r, ["no", "none"], COLUMN, "unused"),
    ],
)
def test_nothing_to_draw(plot, results):
    with pytest.raises(ValueError, match="Nothing to draw: no seed has .* for any of no, none"):
        plot(results)
