from instance_crf.crf.place import REGIONS
from instance_crf.taxonomies.body_regions import BODY_REGIONS, body_regions
from instance_crf.taxonomies.lip import CIHP_TAXONOMY


def test_every_region_has_a_template():
    assert set(BODY_REGIONS) == set(REGIONS)
    assert len(set(BODY_REGIONS)) == len(BODY_REGIONS)


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
        # "upper" and "lower" are of arms, legs, clothes or lips.
        "lower clothing": "legs",
        "other lower body clothes": "legs",
        "other upper body clothes": "torso",
        "other full body clothes": "body",
        "upper teeth": "head",
        "lower lip": "head",
        "left upper leg back": "upper_legs",
        "left highheel": "lower_legs",
        "eyeglass": "head",
        "top": "torso",
    }
    assert body_regions(list(expected)) == tuple(expected.values())
    assert "" not in body_regions(CIHP_TAXONOMY.part_names)
