"""What a result says of itself: shares counted by hand."""

from dataclasses import replace

import torch


def test_by_hand(small):
    # 15 pixels: the person's head 2 and legs 1, the bicycle's wheel 4, a head of nobody's 1.
    assert repr(small).split("\n") == [
        "PartInstances(3 x 5 pixels (H x W), 2 objects, 1 detection left out, "
        "parts of nobody 6.7 %)",
        "  person(0): person, score 0.50, 20 % of the picture: head 13 %, legs 6.7 %",
        "  person(1): bicycle, score 0.25, 27 % of the picture: wheel 27 %",
    ]
    assert str(small) == repr(small)


def test_without_a_taxonomy_and_with_notes(small):
    lines = repr(replace(small, taxonomy=None, notes=("boxes were sorted",))).split("\n")
    assert lines[1].endswith(
        "person(0): score 0.50, 20 % of the picture: part 1 13 %, part 2 6.7 %"
    )
    assert lines[-1] == "  note: boxes were sorted"


def test_people_are_people(people):
    assert "3 people)" in repr(people)
    lines = repr(people).split("\n")
    assert [line.split(":")[0] for line in lines[1:]] == [f"  person({k})" for k in range(3)]
    assert "torso" in lines[1]


def test_one_person_many_parts_none_too_small_to_count(make, people):
    parts = torch.arange(1, 12).repeat(100, 1)
    parts[:, 0] = 0
    parts[0, 0] = 1
    result = make((parts > 0).long(), parts)
    line = repr(result).split("\n")[1]
    assert line.count("part ") == 8 and line.endswith("...") and "1 object" in repr(result)
    tiny = torch.zeros(100, 100, dtype=torch.int64)
    tiny[0, 0] = 1
    assert "< 0.1 % of the picture: head < 0.1 %" in repr(
        replace(make(tiny, tiny), taxonomy=people.taxonomy)
    )
    assert "1 person)" in repr(replace(make(tiny, tiny), taxonomy=people.taxonomy))


def test_a_crowd_is_cut_short(crowd):
    lines = repr(crowd).split("\n")
    assert len(lines) == 14 and lines[-1] == "  and 288 more" and "300 objects" in lines[0]


def test_nothing_there(nobody, make):
    assert "0 objects" in repr(nobody) and "\n" not in repr(nobody)
    empty = torch.zeros(0, 7, dtype=torch.int64)
    assert repr(make(empty, empty, classes=torch.zeros(0, dtype=torch.int64))) == (
        "PartInstances(0 x 7 pixels (H x W), 0 objects)"
    )


def test_more_parts_than_a_taxonomy_may_have(make):
    assert "part 300 100 %" in repr(make([[1]], [[300]]))
