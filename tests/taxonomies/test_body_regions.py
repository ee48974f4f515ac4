from instance_crf.crf.place import REGIONS
from instance_crf.data.datasets.cihp import CIHP_TAXONOMY
from instance_crf.taxonomies.body_regions import _WORDS, body_regions


def test_every_region_has_a_template():
    assert {region for region, _ in _WORDS} == set(REGIONS)


def test_names_of_several_data_sets():
    expected = {
        "upper arms": "upper_arms",
        "left lower-leg": "lower_legs",
        "Right Hand": "lower_arms",
        "pants": "legs",
        "hair": "head",
        "torso skin": "torso",
        "upper clothes": "torso",
        "dress": "body",
        "charm": "",
        "wheel": "",
    }
    assert body_regions(list(expected)) == tuple(expected.values())
    assert "" not in body_regions(CIHP_TAXONOMY.part_names)
