import pytest

from instance_crf.taxonomies import (
    TAXONOMY_NAMES,
    PartTaxonomy,
    format_taxonomies,
    format_taxonomy,
    get_taxonomy,
)

HEADS = PartTaxonomy(
    ("head", "left fin", "right fin"),
    ("person", "fish"),
    (0, 1, 1),
    ((2, 3),),
    ((255, 0, 0), (0, 16, 0), (0, 0, 1)),
)


def test_all_names():
    lines = format_taxonomies().splitlines()
    assert [line.split()[0] for line in lines] == ["name", *TAXONOMY_NAMES]
    row = next(line for line in lines if line.startswith("sapiens2 "))
    assert row.split() == ["sapiens2", "28", "8", "Sapiens2"]
    assert not [line for line in lines if line != line.rstrip() or len(line) > 100]


def test_one():
    assert format_taxonomy(HEADS).splitlines() == [
        "id  part        of      region    mirrored   colour",
        "0   background",
        "1   head        person  head                 #ff0000",
        "2   left fin    fish    anywhere  right fin  #001000",
        "3   right fin   fish    anywhere  left fin   #000001",
    ]


@pytest.mark.parametrize("background, of_background", [("last", ["3"]), ("none", [])])
def test_channels_that_are_not_ids(background, of_background):
    rows = [line.split() for line in format_taxonomy(HEADS, background).splitlines()]
    assert rows[0][:3] == ["id", "channel", "part"]
    assert rows[1] == ["0", *of_background, "background"]
    assert [row[:2] for row in rows[2:]] == [["1", "0"], ["2", "1"], ["3", "2"]]


def test_a_row_for_each_part():
    for name in TAXONOMY_NAMES:
        taxonomy = get_taxonomy(name)
        assert len(format_taxonomy(taxonomy).splitlines()) == taxonomy.num_parts + 2


def test_unknown_place_of_background():
    with pytest.raises(ValueError, match="'middle'; it must be one of first, last, none"):
        format_taxonomy(HEADS, "middle")
