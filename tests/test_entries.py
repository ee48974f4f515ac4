"""Values out of files."""

import math

import pytest

from instance_crf.entries import (
    MAX_ID,
    as_finite,
    as_kind,
    as_name,
    as_whole,
    is_crowd,
    refuse_repeated,
    require_keys,
)


def test_good_values():
    assert as_whole(3, "f") == 3 and as_whole(MAX_ID, "f") == MAX_ID
    assert isinstance(as_whole(3.0, "f"), int) and as_whole(0, "f", 0) == 0
    assert as_finite(-2, "f") == -2.0 and isinstance(as_finite(1, "f"), float)
    assert is_crowd({"iscrowd": True}, "f") and is_crowd({"iscrowd": 1}, "f")
    assert not is_crowd({"iscrowd": 0}, "f") and not is_crowd({}, "f")
    assert as_name("a", "f") == "a" and as_name(7, "f") == "7"
    assert as_kind([1], list, "f") == [1]
    require_keys({"id": None, "x": 1}, ("id",), "f")
    refuse_repeated([1, "1", 2], "f has")


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, MAX_ID + 1, 2**32 + 1, math.nan, math.inf, True, None, "1", [1], 10**400]
)
def test_no_ids(value):
    with pytest.raises(ValueError, match=r"^f\.json: id must be a whole number in 1\.\.2147483647"):
        as_whole(value, "f.json: id")


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (as_finite, [math.nan, math.inf, 10**400, None, "0.5", True, [0.5]]),
        (as_name, [None, 1.5, True, [], {}, ""]),
    ],
)
def test_other_values(check, values):
    for value in values:
        with pytest.raises(ValueError, match=r"^f\.json: key must be .*got "):
            check(value, "f.json: key")


@pytest.mark.parametrize("value", [2, -1, None, "0", [], math.nan])
def test_no_crowds(value):
    with pytest.raises(ValueError, match=r"^f\.json: iscrowd must be 0 or 1, got "):
        is_crowd({"iscrowd": value}, "f.json")


def test_other_kinds():
    with pytest.raises(ValueError, match=r"^f: images must be a list \[\.\.\.\], got None"):
        as_kind(None, list, "f: images")
    with pytest.raises(ValueError, match="^f: row 3 must be an object with id, name; got 3"):
        require_keys(3, ("id", "name"), "f: row 3")
    with pytest.raises(ValueError, match="^f: row 3 has no 'name'"):
        require_keys({"id": 1}, ("id", "name"), "f: row 3")
    with pytest.raises(ValueError, match="^f has image 'a' twice"):
        refuse_repeated(["a", "b", "a"], "f has image")
