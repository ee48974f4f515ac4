import json

import pytest

from instance_crf.taxonomies import (
    BACKGROUNDS,
    TAXONOMY_NAMES,
    PartTaxonomy,
    get_taxonomy,
    is_taxonomy_name,
    known_taxonomy,
    read_taxonomy,
)
from instance_crf.taxonomies.registry import KNOWN


@pytest.mark.parametrize(
    "written, name",
    [
        ("SCHP-ATR", "atr"),
        ("Pascal Person-Part", "pascal_person_part"),
        (" segformer-b2-clothes ", "segformer_clothes"),
        ("fashn-human-parser", "fashn"),
        ("synthetic_people", "pascal_person_part"),
        ("Sapiens2", "sapiens2"),
        ("MHP v2", "mhp_v2"),
    ],
)
def test_names_and_aliases(written, name):
    assert is_taxonomy_name(written)
    assert get_taxonomy(written) is get_taxonomy(name)


def test_no_alias_hides_another_name():
    names = [*KNOWN, *(alias for known in KNOWN.values() for alias in known.aliases)]
    assert len(set(names)) == len(names)
    assert all(is_taxonomy_name(name) and name == name.lower() for name in names)
    assert {known.background for known in KNOWN.values()} <= set(BACKGROUNDS)
    assert known_taxonomy("BodyPix").background == "none"


@pytest.mark.parametrize(
    "written, words",
    [
        ("sapien", "no taxonomy 'sapien'; did you mean 'sapiens'? There are pascal_person_part,"),
        ("Schp-Lap", "did you mean 'schp_lip'"),
        ("zebra", "no taxonomy 'zebra'. There are"),
        (3, "no taxonomy 3"),
        (["head"], "no taxonomy ['head']"),
    ],
)
def test_unknown_names(written, words):
    assert not is_taxonomy_name(written)
    with pytest.raises(ValueError) as error:
        get_taxonomy(written)
    assert words in str(error.value) and ", ".join(TAXONOMY_NAMES) in str(error.value)


def test_merged():
    groups = {
        "person": [*get_taxonomy("fashn").part_names[:-2], "jewelry"],
        "torso": ["torso"],
    }
    merged = get_taxonomy("fashn", merge=groups)
    assert merged.part_names == ("person", "torso")
    assert merged == get_taxonomy("fashn").merge(groups)[0]
    assert get_taxonomy(get_taxonomy("fashn"), merge=groups) == merged
    with pytest.raises(ValueError, match="Parts in no group: hair"):
        get_taxonomy("fashn", merge={"face": ["face"]})


def test_a_taxonomy_is_its_own():
    taxonomy = PartTaxonomy(("wing",))
    assert get_taxonomy(taxonomy) is taxonomy


@pytest.mark.parametrize("name", TAXONOMY_NAMES)
def test_there_and_back(name, tmp_path):
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps(get_taxonomy(name).to_dict()))
    assert read_taxonomy(path) == get_taxonomy(name) == get_taxonomy(str(path))


def test_read_regions(tmp_path):
    path = tmp_path / "taxonomy.json"
    content = {"part_names": ["snout", "left arm"], "part_regions": ["head", ""], "note": 1}
    path.write_text(json.dumps(content))
    assert read_taxonomy(path) == PartTaxonomy(("snout", "left arm"), part_regions=("head", ""))
    path.write_text(json.dumps(content | {"part_regions": ["face", ""]}))
    with pytest.raises(ValueError, match="region of 'snout' is 'face'.*one of upper_arms"):
        read_taxonomy(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a file nor one of.*did you mean 'lip'"):
        read_taxonomy(tmp_path / "lipp")
    with pytest.raises(FileNotFoundError, match="neither a file nor one of"):
        get_taxonomy("mine.json")


def test_background_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "parts.json"
    path.write_text('{"part_names": ["Background", "head"]}')
    with pytest.raises(ValueError, match="parts.json: part_names has 'Background'. Leave it out"):
        read_taxonomy(path)
