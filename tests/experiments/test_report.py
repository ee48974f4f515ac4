"""Tables of a few numbers, against the Markdown written by hand."""

from copy import deepcopy

import pytest

from instance_crf.experiments.report import (
    Table,
    changed,
    ordering,
    provenance,
    render,
    wins,
    won_back,
)
from instance_crf.experiments.results import Column

AP = Column("APr50", "val", "as found", "part_apr", "APr50")
IOU = Column("mIoU", "val", "as found", "part_seg", "mIoU")


def row(ap, iou):
    return {"val": {"as found": {"part_apr": {"APr50": ap}, "part_seg": {"mIoU": iou}}}}


RESULTS = {
    1: {"rows": {"box only": row(36.0, 50.0), "global": row(37.0, 50.5), "truth": row(90, 91)}},
    2: {"rows": {"box only": row(37.0, 51.0), "global": row(38.6, 51.5), "truth": row(92, 91)}},
    3: {"rows": {"box only": row(35.0, 52.0), "late": row(50.0, None), "truth": row(91, None)}},
}
RESULTS[3]["rows"]["global"] = row(36.4, 51.7)


def test_a_table():
    table = Table("Parts", ["box only", "global", "late", "truth"], [AP, IOU], unranked=["truth"])
    assert render(table, RESULTS) == (
        "### Parts\n\n"
        "|  | APr50 | mIoU |\n"
        "|---|---|---|\n"
        "| box only | 36.0 ± 1.0 | 51.0 ± 1.0 |\n"
        "| global | **37.3 ± 1.1** | **51.2 ± 0.6** |\n"
        "| late (1 of 3 seeds) | 50.0 | – |\n"
        "| truth | 91.0 ± 1.0 | 91.0 ± 0.0 (2 of 3) |\n"
    )


def test_groups_published_numbers_and_differences():
    table = Table(
        title="Table 1",
        rows={"the paper's": ["box only", "global", "MNC"], "others": ["late", "never"]},
        columns=[AP, IOU],
        published={"box only": {"APr50": 38.0}, "MNC": {"APr50": 38.8}},
        reference="box only",
        caption="Percent.",
    )
    assert render(table, RESULTS) == (
        "### Table 1\n\n"
        "Percent.\n\n"
        "|  | APr50 | published | mIoU |\n"
        "|---|---|---|---|\n"
        "| *the paper's* |  |  |  |\n"
        "| box only | 36.0 ± 1.0 | 38.0 | 51.0 ± 1.0 |\n"
        "| global | **37.3 ± 1.1** | – | **51.2 ± 0.6** |\n"
        "| MNC | – | 38.8 | – |\n"
        "| *others* |  |  |  |\n"
        "| late (1 of 3 seeds) | 50.0 | – | – |\n"
        "| never (0 of 3 seeds) | – | – | – |\n\n"
        "| over box only | APr50 | mIoU |\n"
        "|---|---|---|\n"
        "| *the paper's* |  |  |\n"
        "| global | +1.3 ± 0.3 | +0.2 ± 0.4 |\n"
        "| *others* |  |  |\n"
        "| late (1 of 3 seeds) | +15.0 | – |\n"
    )


def test_equal_ones_are_both_best_and_one_alone_is_not():
    results = {1: {"rows": {"a": row(10.04, 1.0), "b": row(9.96, None), "c": row(3.0, None)}}}
    text = render(Table("T", ["a", "b", "c"], [AP, IOU]), results)
    assert "| a | **10.0** | 1.0 |" in text and "| b | **10.0** | – |" in text


def test_names_do_not_break_a_table():
    results = {1: {"rows": {"p|q": row(10.0, 1.0)}}}
    assert "| p\\|q | 10.0 | 1.0 |" in render(Table("T", ["p|q"], [AP, IOU]), results)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": ["a", "a"]}, "Table 'T' has the row 'a' twice"),
        ({"columns": [AP, AP]}, "Table 'T' has the column 'APr50' twice"),
        ({"published": {"b": {}}}, "published number of the row 'b', but only the rows a"),
        ({"published": {"a": {"AP": 1}}}, "of the column 'AP', but only the columns APr50"),
    ],
)
def test_a_plan_that_contradicts_itself(change, message):
    with pytest.raises(ValueError, match=message):
        Table(**{"title": "T", "rows": ["a"], "columns": [AP], **change})


def test_ordering():
    assert ordering(RESULTS, ["box only", "global", "late", "never"], AP).splitlines() == [
        "* box only < global: +1.3 ± 0.3, yes",
        "* global < late: +13.6 (1 of 3), one seed only",
        "* late < never: –",
    ]
    assert ordering(RESULTS, ["global", "box only"], AP).endswith("-1.3 ± 0.3, no, the reverse")
    assert ordering(RESULTS, ["box only", "global"], IOU).endswith("+0.2 ± 0.4, no")


def test_wins():
    assert wins(RESULTS, "global", ["box only", "late"], [AP, IOU]).splitlines() == [
        "| global over | APr50 | mIoU |",
        "|---|---|---|",
        "| box only | +1.3 ± 0.3, yes | +0.2 ± 0.4, no |",
        "| late | -13.6 (1 of 3), one seed only | – |",
    ]


def recall(found, shrunk):
    return {"val": {"as found": {"r": {"r": found}}, "small": {"r": {"r": shrunk}}}}


SHRUNK = {
    1: {"rows": {"box": recall(80.0, 40.0), "crf": recall(85.0, 70.0)}},  # 30 of 40
    2: {"rows": {"box": recall(80.0, 60.0), "crf": recall(85.0, 70.0)}},  # 10 of 20
}
RECALL = Column("recall", "val", "as found", "r", "r")


def test_changed():
    results = {**SHRUNK, 3: {"rows": {"crf": recall(90.0, None)}}}
    assert changed(results, ["box", "crf", "never"], RECALL, "small").splitlines() == [
        "* box: -30.0 ± 10.0 (2 of 3)",
        "* crf: -15.0 ± 0.0 (2 of 3)",
    ]


def test_won_back():
    assert won_back(SHRUNK, ["crf"], "box", RECALL, "small").splitlines() == [
        "| recall | as found | small | of what box loses, % |",
        "|---|---|---|---|",
        "| box | 80.0 ± 0.0 | 50.0 ± 10.0 | – |",
        "| crf | 85.0 ± 0.0 | 70.0 ± 0.0 | 62.5 ± 12.5 |",
    ]


def test_seeds_that_were_made_differently_are_told_apart(results):
    assert provenance(results).splitlines() == [
        "* Seeds 1 (2026-11-26), 2 (2026-11-26), 3 (2026-11-26): 30.0 minutes, 2 x AMD EPYC, "
        "1 thread(s); torch 2.14.1, instance_crf 0123456789",
        "* 7.5 hours of training in all",
        "",
        "| stage | iterations | minutes by plan, from the first stage | by the clock |",
        "|---|---|---|---|",
        "| base | 6500 | 30.0 | 30.1 to 30.3 |",
    ]
    again = deepcopy(results[2]["made"][0])
    again["versions"]["torch"] = "2.13.0"
    results[2]["made"].append(again)
    text = provenance(results)
    assert "* Seeds 1 (2026-11-26), 3 (2026-11-26): " in text and "* Seeds 2 (2026-11-26): " in text
    assert "; torch 2.14.1 and 2.13.0, instance_crf 0123456789\n" in text
