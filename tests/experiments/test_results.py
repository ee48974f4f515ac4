"""Numbers of seeds: by hand."""

import json
import math

import pytest

from instance_crf.experiments.results import (
    Column,
    Summary,
    differences,
    points_of_curve,
    read_results,
    row_seeds,
    shares_won_back,
    summarize,
    values,
)

AP = Column("AP", "val", "as found", "part_apr", "APr50")


def content(rows, **more):
    """A seed's results with one number a row."""
    return more | {
        "rows": {
            row: {"val": {"as found": {"part_apr": {"APr50": number}}}}
            for row, number in rows.items()
        }
    }


RESULTS = {
    1: content({"a": 10.0, "b": 11.0}),
    2: content({"a": 20.0, "b": 23.0}),
    4: content({"a": 60.0, "c": math.nan, "d": None}),
}


def test_every_seed_is_read_in_order(folder):
    assert list(read_results(folder)) == [1, 2, 3]
    (folder / "seed_3").rename(folder / "seed_12")
    with pytest.raises(ValueError, match=r"results.json is of seed 3, but its folder is seed_12"):
        read_results(folder)
    path = folder / "seed_12/results.json"
    path.write_text(json.dumps({"seed": 12}))
    results = read_results(folder)
    assert list(results) == [1, 2, 12] and not values(results, "joint", AP).get(12)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no seed_N/results.json"):
        read_results(tmp_path)


def test_mean_and_half_the_range():
    assert values(RESULTS, "a", AP) == {1: 10, 2: 20, 4: 60}
    assert summarize({1: 10.0, 2: 20.0, 4: 60.0}) == Summary(30, 25, 3)
    assert summarize({4: 60.0}) == Summary(60, 0, 1)
    assert summarize({}) is None


def test_what_is_no_number_is_left_out():
    assert row_seeds(RESULTS, "c") == row_seeds(RESULTS, "d") == [4]
    assert values(RESULTS, "c", AP) == values(RESULTS, "d", AP) == {}
    assert values(RESULTS, "a", AP._replace(metric="APr90")) == {}
    assert values(RESULTS, "a", AP._replace(split="elsewhere")) == {}


def test_differences_are_paired_by_seed():
    assert differences(RESULTS, "b", "a", AP) == {1: 1, 2: 3}
    assert summarize(differences(RESULTS, "b", "a", AP)) == Summary(2, 1, 2)
    assert differences(RESULTS, "c", "a", AP) == differences(RESULTS, "a", "nothing", AP) == {}


@pytest.mark.parametrize(
    "summary, verdict",
    [
        (Summary(1.2, 0.3, 3), "yes"),
        (Summary(0.3, 0.3, 3), "no"),
        (Summary(-0.2, 0.3, 3), "no"),
        (Summary(-1.2, 0.3, 3), "no, the reverse"),
        (Summary(1.2, 0.0, 1), "one seed only"),
    ],
)
def test_verdict(summary, verdict):
    assert summary.verdict == verdict


def test_what_is_won_back_of_what_boxes_lose():
    def seed(box, box_shrunk, row_shrunk):
        def at(condition, number):
            return {condition: {"outside": {"recall": number}}}

        return {
            "rows": {
                "box": {"val": at("as found", box) | at("shrunk", box_shrunk)},
                "row": {"val": at("shrunk", row_shrunk)},
            }
        }

    results = {1: seed(80, 40, 70), 2: seed(80, 60, 50), 3: seed(70, 70, 90), 4: {"rows": {}}}
    column = Column("recall", "val", "as found", "outside", "recall")
    assert shares_won_back(results, "row", "box", column, "shrunk") == {1: 75, 2: -50}


def test_the_points_of_seeds_that_got_that_far():
    def point(minutes, number):
        return {"minutes": minutes, "val": {"part_apr": {"APr50": number}}}

    results = {
        1: {"curve": {"net": [point(7.0, 10.0), point(15.0, 20.0), {"minutes": 30.0}]}},
        2: {"curve": {"net": [point(8.0, 14.0)]}},
        3: {},
    }
    assert points_of_curve(results, "net", AP) == [
        (Summary(7.5, 0.5, 2), Summary(12, 2, 2)),
        (Summary(15, 0, 1), Summary(20, 0, 1)),
    ]
    assert points_of_curve(results, "other", AP) == []
