"""Which tables and plots are made of the results, and what the paper published beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files import write_text
from .crossing import MIN_IOU
from .plan import BASELINES, CONDITIONS, FALSE, SHRUNK, TABLE_1, THE_PAPERS, Recipe, make_rows
from .plots import plot_gains, plot_thresholds, plot_training
from .report import Table, changed, ordering, provenance, render, wins, won_back
from .results import AS_FOUND, Column, Results, points_of_curve, read_results, values

__all__ = ["write_report"]

BOX_ONLY, *_, BEST = TABLE_1
UNTRAINED, FACTORED, FULL = "factored, not trained", "factored, given boxes", "full system"
SYSTEMS = [*TABLE_1, UNTRAINED, FACTORED, FULL, *BASELINES]
JOINTLY, LOW = "detector trained jointly", "boxes from 0.15"
TRUTHS = ("true identity", "true boxes", "true parts", "true boxes and parts")
_NAMES = [row.name for row in make_rows()]
LEFT_OPEN = _NAMES[_NAMES.index(BEST) + 1 : _NAMES.index(UNTRAINED)]
BEYOND = _NAMES[_NAMES.index(UNTRAINED) : _NAMES.index(BASELINES[0])]

PUBLISHED_1 = {
    "Mask R-CNN over parts": (38.8, 28.1, 19.3, 36.7),
    "box term only": (38.0, 27.4, 16.7, 36.6),
    "+ global term": (38.8, 28.5, 17.6, 37.3),
    "+ end to end": (39.0, 28.6, 17.4, 37.7),
    "box term only, OHEM": (38.7, 28.9, 17.5, 36.7),
    "+ global term, OHEM": (39.7, 29.7, 18.7, 37.4),
    "+ end to end, OHEM": (40.6, 30.4, 19.1, 38.4),
}
"""Table 1 of the paper; the first of these is MNC."""
PUBLISHED_3 = {"+ end to end, OHEM": (65.9, 66.3)}
"""Table 3: Q, and the labelling."""


def _columns(split: str, *wanted: tuple[str, str, str]) -> list[Column]:
    return [Column(heading, split, AS_FOUND, task, metric) for heading, task, metric in wanted]


def _usual(split: str) -> list[Column]:
    return _columns(
        split,
        ("part APr50", "part_apr", "APr50"),
        ("part APr_vol", "part_apr", "APr_vol"),
        ("person APr50", "object_apr", "APr50"),
        ("person APr_vol", "object_apr", "APr_vol"),
        ("APp50", "person_ap", "APp50"),
        ("APp_vol", "person_ap", "APp_vol"),
        ("part mIoU", "part_seg", "mIoU"),
    )


def _thresholds(split: str, task: str, *percents: int) -> list[Column]:
    wanted = [(f"{p / 100:.1f}", task, f"APr{p}") for p in percents]
    return _columns(split, *wanted, ("vol", task, "APr_vol"))


def _published(numbers: dict[str, tuple], columns: Sequence[Column], dataset: str) -> dict:
    if dataset != THE_PAPERS:
        return {}
    headings = [column.heading for column in columns]
    return {row: dict(zip(headings, values, strict=True)) for row, values in numbers.items()}


def _tables(dataset: str, split: str) -> Iterator[Table]:
    """What is shown of one data set."""
    first = _thresholds(split, "part_apr", 50, 60, 70)
    published = _published(PUBLISHED_1, first, dataset)
    yield Table(
        f"Table 1: parts of people, {split}",
        ["Mask R-CNN over parts", *TABLE_1],
        first,
        published=published,
        caption="APr of part segments over the IoU threshold. All but the first row are the joint "
        f"form, on the same given boxes.{' Published in the first row: MNC.' if published else ''}",
    )
    yield Table(
        f"Table 2: whole people, {split}",
        SYSTEMS,
        _thresholds(split, "object_apr", 50, 60, 70, 80, 90),
        caption="APr of whole people.",
    )
    third = _columns(split, ("Q", "q_seg", "mIoU"), ("labelling", "part_seg", "mIoU"))
    yield Table(
        f"Table 3: parts alone, mIoU, {split}",
        [*TABLE_1, FACTORED, FULL],
        third,
        published=_published(PUBLISHED_3, third, dataset),
        caption="Q is what the part head says, the labelling what comes out.",
    )
    yield Table(
        f"What the paper leaves open, {split}",
        [BEST, *LEFT_OPEN],
        _usual(split),
        reference=BEST,
        caption=f"The four rows below *{BEST}* are trained so, the others are *{BEST}* with one "
        "thing changed when it is evaluated, with weights that were learned without the change. "
        "*Not trained*: the paper's weights on parts that learned without a CRF.",
    )
    yield Table(
        f"First what, then whose, {split}",
        [BEST, *BEYOND],
        _usual(split),
        reference=FULL,
        unranked=TRUTHS,
        caption=f"The rows from *boxes from 0.5* down are *{FULL}* with one thing changed when it "
        "is evaluated, its other weights as they were learned. True boxes have no masks for "
        "evidence. The factored form keeps boxes from 0.15 on, the joint one from 0.5 "
        f"(*{LOW}*: above).",
    )
    yield Table(
        f"What one would pick instead, {split}",
        {"the paper": [BOX_ONLY, BEST], "ours": [UNTRAINED, FULL], "instead": list(BASELINES)},
        _usual(split),
        reference=FULL,
        caption="All have trained for the same minutes. The rules read the parts and boxes of a "
        "network that trained on without a CRF, as does *factored, not trained*, which smooths "
        "these parts, too. People of *Mask R-CNN over parts* are their parts.",
    )
    yield Table(
        f"Crossing people, {split}",
        SYSTEMS,
        _usual(f"{split}_crossing"),
        reference=FULL,
        caption=f"The pictures in which boxes of two people have an IoU of {MIN_IOU} or more.",
    )
    disturbed = [
        Column(f"{heading}, {condition}", split, condition, task, "APr_vol")
        for heading, task in (("part APr_vol", "part_apr"), ("person APr_vol", "object_apr"))
        for condition in CONDITIONS
    ]
    yield Table(
        f"Bad boxes, {split}",
        SYSTEMS,
        disturbed,
        caption="All boxes of people shrunk about their centre, limbs outside; or half as many "
        "again, anywhere, with sizes and scores of the picture's others. The parts of "
        "*Mask R-CNN over parts* have boxes of their own, which are left alone.",
    )


def _findings(results: Results, split: str) -> Iterator[str]:
    part, person, whole = (_usual(split)[i] for i in (1, 3, 5))
    yield f"### Is each row of Table 1 better than the one before? {split}"
    for column in (part, person):
        yield f"{column.heading}:"
        rows = list(TABLE_1)
        yield ordering(results, rows[:3], column)
        yield ordering(results, rows[3:], column)
        yield "\n".join(
            ordering(results, pair, column) for pair in zip(rows[:3], rows[3:], strict=True)
        )
    yield f"### The full system over what one would pick instead, {split}"
    yield wins(results, FULL, [BEST, JOINTLY, UNTRAINED, *BASELINES], [part, person, whole])
    yield f"### The factored form over the joint one, on given boxes, {split}"
    yield wins(results, FACTORED, [BEST, LOW], [part, person, whole])
    yield f"### Pixels of people outside their shrunk boxes, {split}"
    recall = Column("recall, %", split, AS_FOUND, "outside", "recall")
    yield (
        "Each true person's, given to the one who has most of that person; what bleeds onto "
        "neighbours costs nothing here. A row that has more than *"
        + BOX_ONLY
        + "* as found wins back more than it loses."
    )
    yield won_back(results, SYSTEMS, BOX_ONLY, recall, SHRUNK)
    yield f"### What {FALSE} cost in part APr_vol, {split}"
    yield changed(results, SYSTEMS, part, FALSE)


def write_report(output: Path, dataset: str, recipe: Recipe) -> str:
    """Write OUTPUT/tables.md and the plots beside it.

    Returns:
        What tables.md says.

    Raises:
        FileNotFoundError: there are no results yet.
        ValueError: they are of another data set.
    """
    results = read_results(output, dataset)
    about = (
        f"Percent, protocol `{recipe.protocol}`, means over the seeds ± half their range, which "
        "says nothing of other pictures. Differences are paired by seed; *yes*: their mean is "
        "above 0 by more than that. Bold: the best of the rows that have all seeds."
    )
    if dataset.startswith("synthetic"):
        about = f"Drawn, not photographed: synthetic pictures. {about}"
    blocks = [f"# {dataset}: {len(results)} seed(s)", about, provenance(results)]
    for split in recipe.splits:
        tables = [table for table in _tables(dataset, split) if _has_numbers(table, results)]
        blocks += [render(table, results) for table in tables]
        blocks += _findings(results, split)
    text = "\n\n".join(block.strip() for block in blocks) + "\n"
    write_text(output / "tables.md", text)
    for split in recipe.splits:
        _plots(results, split, output)
    return text


def _has_numbers(table: Table, results: Results) -> bool:
    return any(values(results, row, column) for row in table.names for column in table.columns)


def _plots(results: Results, split: str, folder: Path) -> None:
    def known(rows: Sequence[str]) -> list[str]:
        return [row for row in rows if any(row in r["rows"] for r in results.values())]

    column = _usual(split)[1]
    if known([FULL]):
        shown = known([BOX_ONLY, BEST, FULL, *BASELINES[4:]])
        path = folder / f"{split}_thresholds.png"
        plot_thresholds(results, shown, split, path, reference=FULL)
    for name, reference, others in (("paper", BEST, LEFT_OPEN), ("gains", FULL, BEYOND)):
        others = known([row for row in others if row not in (FULL, *TRUTHS)])
        if known([reference]) and others:
            plot_gains(results, others, reference, column, folder / f"{split}_{name}.png")
    systems = list(dict.fromkeys(system for r in results.values() for system in r["curve"]))
    if any(points_of_curve(results, system, column) for system in systems):
        plot_training(results, systems, column, folder / f"{split}_training.png")
