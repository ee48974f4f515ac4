import numpy as np
import pytest

from instance_crf.data.datasets.cihp import CIHP_TAXONOMY, LIP_TAXONOMY
from instance_crf.data.datasets.mhp import MHP_V1_TAXONOMY, MHP_V2_TAXONOMY
from instance_crf.data.datasets.pascal_part import (
    COARSE_LUT,
    COARSE_TAXONOMY,
    FINE_TAXONOMY,
    PERSON_24_TAXONOMY,
    fine_part_name,
)
from instance_crf.data.datasets.pascal_person_part import PERSON_PART_GROUPS, PERSON_PART_TAXONOMY
from instance_crf.data.datasets.voc import VOC_TAXONOMY
from instance_crf.taxonomies.schema import PartTaxonomy

ALL = {
    "cihp": CIHP_TAXONOMY,
    "lip": LIP_TAXONOMY,
    "mhp_v1": MHP_V1_TAXONOMY,
    "mhp_v2": MHP_V2_TAXONOMY,
    "person_part": PERSON_PART_TAXONOMY,
    "person_24": PERSON_24_TAXONOMY,
    "pascal_part": COARSE_TAXONOMY,
    "pascal_part_fine": FINE_TAXONOMY,
    "voc": VOC_TAXONOMY,
}


@pytest.mark.parametrize("name", ALL)
def test_flip_swaps_left_and_right_by_name(name):
    """Independent of the pairs' numbers: the names must say the same."""
    taxonomy = ALL[name]
    lut = taxonomy.flip_lut()
    assert lut.dtype == np.uint8 and lut[0] == 0 and lut[255] == 255
    assert np.array_equal(lut[lut], np.arange(256))
    for part_id, part in enumerate(taxonomy.part_names, 1):
        words = [{"left": "right", "right": "left"}.get(w, w) for w in part.split()]
        mirrored = " ".join(words)
        expected = taxonomy.part_id(mirrored) if mirrored in taxonomy.part_names else part_id
        assert lut[part_id] == expected, part


@pytest.mark.parametrize("name", ALL)
def test_names_are_fit_for_metric_keys(name):
    """Detectron2 hides every metric with a hyphen in its name; a slash separates the levels."""
    assert not [p for p in ALL[name].part_names if "-" in p or "/" in p]
    assert len(set(ALL[name].part_colors)) == ALL[name].num_parts


@pytest.mark.parametrize("field", ["part_names", "object_names", "part_regions"])
def test_a_text_is_no_list_of_names(field):
    with pytest.raises(ValueError, match=f"{field} is 'head'; it must be a list"):
        PartTaxonomy(**{"part_names": ["hand"], field: "head"})


@pytest.mark.parametrize(
    "name, parts",
    [("cihp", 19), ("lip", 19), ("mhp_v1", 18), ("mhp_v2", 58), ("person_24", 24), ("voc", 20)],
)
def test_number_of_parts(name, parts):
    assert ALL[name].num_parts == parts


def test_lip_and_cihp_differ_in_part_10_only():
    different = [
        i
        for i, (a, b) in enumerate(
            zip(CIHP_TAXONOMY.part_names, LIP_TAXONOMY.part_names, strict=True), 1
        )
        if a != b
    ]
    assert different == [10]


@pytest.mark.parametrize(
    "annotated, six",
    [
        *[(p, 1) for p in "head leye reye lear rear lebrow rebrow nose mouth hair".split()],
        *[("torso", 2), ("neck", 2), ("luarm", 3), ("ruarm", 3)],
        *[(p, 4) for p in "llarm rlarm lhand rhand".split()],
        *[("luleg", 5), ("ruleg", 5)],
        *[(p, 6) for p in "llleg rlleg lfoot rfoot".split()],
    ],
)
def test_24_person_parts_become_six(annotated, six):
    merged, lut = PERSON_24_TAXONOMY.merge(PERSON_PART_GROUPS)
    assert merged.part_names == PERSON_PART_TAXONOMY.part_names
    assert lut[PERSON_24_TAXONOMY.part_id(fine_part_name("person", annotated))] == six


def test_person_24_ids_are_those_of_the_annotation():
    """part2ind of PASCAL-Part: head 1 ... hair 10, torso 11 ... rhand 18, llleg 19 ... rfoot 24."""
    for annotated, number in {"head": 1, "hair": 10, "torso": 11, "rhand": 18, "rfoot": 24}.items():
        assert PERSON_24_TAXONOMY.part_id(fine_part_name("person", annotated)) == number


def test_coarse_pascal_part_keeps_the_owner():
    for fine_id, owner in enumerate(FINE_TAXONOMY.part_owner, 1):
        assert COARSE_TAXONOMY.part_owner[COARSE_LUT[fine_id] - 1] == owner
    assert COARSE_LUT[0] == 0 and COARSE_LUT[255] == 255
    dog = COARSE_TAXONOMY.object_names.index("dog")
    names = [COARSE_TAXONOMY.part_names[j - 1] for j in COARSE_TAXONOMY.parts_of(dog)]
    assert names == ["dog head", "dog torso", "dog legs", "dog tail"]


def test_numbered_parts_count_as_one():
    assert fine_part_name("bus", "wheel_12") == fine_part_name("bus", "wheel_1") == "bus wheel"


@pytest.mark.parametrize("name, part", [("dog", "wing"), ("yeti", "head"), ("boat", "mast")])
def test_unknown_pascal_part(name, part):
    with pytest.raises(ValueError, match=name):
        fine_part_name(name, part)


SIDES = PartTaxonomy(
    ("head", "left arm", "right arm", "left leg", "right leg"), flip_pairs=((2, 3), (4, 5))
)


def test_merge_keeps_pairs_between_groups():
    merged, lut = SIDES.merge(
        {
            "left limbs": ["left arm", "left leg"],
            "right limbs": ["right leg", "right arm"],
            "h": ["head"],
        }
    )
    assert merged.flip_pairs == ((1, 2),)
    assert lut[:6].tolist() == [0, 3, 1, 2, 1, 2] and set(lut[6:]) == {255}


def test_merge_rest():
    groups = {"arms": ["left arm", "right arm"]}
    assert SIDES.merge(groups, rest="background")[1][:6].tolist() == [0, 0, 1, 1, 0, 0]
    assert SIDES.merge(groups, rest="ignore")[1][:6].tolist() == [0, 255, 1, 1, 255, 255]


@pytest.mark.parametrize(
    "groups, words",
    [
        ({"arm": ["left arm"]}, "head, right arm"),
        ({"a": ["nose"]}, "nose"),
        ({"a": ["head"], "b": ["head"]}, "two groups"),
        ({"a": []}, "no part"),
        ({"a": "head"}, "a mapping from each new part to a list"),
        ([["head"]], "a mapping from each new part"),
        ({}, "a mapping from each new part"),
    ],
)
def test_merge_refuses(groups, words):
    with pytest.raises(ValueError, match=words):
        SIDES.merge(groups)


def test_merge_refuses_groups_without_mirror_image():
    with pytest.raises(ValueError, match="mirror"):
        SIDES.merge({"a": ["head", "left arm"]}, rest="ignore")


def test_merge_refuses_groups_across_objects():
    two = PartTaxonomy(("a", "b"), ("cat", "dog"), (0, 1))
    with pytest.raises(ValueError, match="cat, dog"):
        two.merge({"ab": ["a", "b"]})


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(part_names=()), "empty"),
        (dict(part_names=("a", "a")), "'a' more than once"),
        (dict(part_names=tuple(f"p{i}" for i in range(255))), "254"),
        (dict(part_names=("a", "b"), object_names=("x", "y")), "0 entries for 2 parts"),
        (dict(part_names=("a",), part_owner=(1,)), "owned by object class 1"),
        (dict(part_names=("a", "b"), flip_pairs=((1, 3),)), "part id 3"),
        (dict(part_names=("a", "b"), flip_pairs=((1, 1),)), "two different"),
        (dict(part_names=("a", "b", "c"), flip_pairs=((1, 2), (2, 3))), "two flip_pairs"),
        (
            dict(
                part_names=("a", "b"),
                object_names=("x", "y"),
                part_owner=(0, 1),
                flip_pairs=((1, 2),),
            ),
            "belongs to",
        ),
        (dict(part_names=("a",), part_colors=((1, 2, 300),)), "300"),
        (dict(part_names=("a", "b"), part_colors=((1, 2, 3),)), "1 part_colors for 2"),
        (dict(part_names=("a", "b"), part_regions=("head",)), "1 part_regions for 2"),
        (
            dict(part_names=("a", "b"), part_regions=("", "knee")),
            "'b' is 'knee'.*upper_arms, lower_arms, upper_legs",
        ),
    ],
)
def test_contradictions_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        PartTaxonomy(**arguments)


def test_owner_lut_and_round_trip():
    two = PartTaxonomy(("a", "b", "c"), ("cat", "dog"), (0, 1, 1))
    assert two.owner_lut()[[0, 1, 2, 3, 4, 255]].tolist() == [-1, 0, 1, 1, -1, -1]
    assert PartTaxonomy(**two.to_dict()) == two
    assert two.parts_of(1) == (2, 3)


def test_regions_follow_the_names_of_a_person():
    taxonomy = PartTaxonomy(("left arm", "snout", "dog head"), ("person", "dog"), (0, 0, 1))
    assert taxonomy.part_regions == ("arms", "", "")
    given = PartTaxonomy(("left arm", "snout"), part_regions=["", "head"])
    assert given.part_regions == ("", "head")
    assert PartTaxonomy(**given.to_dict()) == given != PartTaxonomy(given.part_names)
    assert [row[-1] for row in given.legend()] == ["", "head"]


@pytest.mark.parametrize(
    "name, members, region",
    [
        ("dangling", ["snout", "horn"], "head"),  # all members agree
        ("arms", ["snout", "horn"], "head"),  # though the name says something else
        ("torso", ["snout", "paw"], "torso"),  # they do not, the name says it
        ("stuff", ["snout", "paw"], ""),
        ("legs", ["tail", "fur"], "legs"),  # that nothing is known of both is no agreement
        ("stuff", ["tail", "fur"], ""),
    ],
)
def test_region_of_a_merged_part(name, members, region):
    fine = PartTaxonomy(
        ("snout", "horn", "paw", "tail", "fur"), part_regions=("head", "head", "lower_legs", "", "")
    )
    merged, _ = fine.merge({name: members}, rest="ignore")
    assert merged.part_regions == (region,)


def test_merging_keeps_regions_to_people():
    two = PartTaxonomy(("dog head", "dog hair", "hair"), ("dog", "person"), (0, 0, 1))
    merged, _ = two.merge({"head": ["dog head", "dog hair"], "h": ["hair"]})
    assert merged.part_regions == ("", "head")


def test_six_of_24_have_their_own_regions():
    merged, _ = PERSON_24_TAXONOMY.merge(PERSON_PART_GROUPS)
    assert merged.part_regions == PERSON_PART_TAXONOMY.part_regions
    assert merged.part_regions == (
        *("head", "torso", "upper_arms", "lower_arms", "upper_legs", "lower_legs"),
    )
