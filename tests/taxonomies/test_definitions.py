"""The lists of the models, against what their authors' code says of them."""

import pytest

from instance_crf.taxonomies import TAXONOMY_NAMES, get_taxonomy
from instance_crf.taxonomies.body_regions import BODY_REGIONS
from instance_crf.taxonomies.pascal_person_part import OTHER_ORDER_TO_OURS

# Parts of which no region can be said.
ANYWHERE = {
    *("apparel", "jewelry", "protector", "ball", "bats", "bottle", "carrybag", "cases"),
    *("umbrella", "wallet or purse", "other accessory"),
}


@pytest.mark.parametrize("name", TAXONOMY_NAMES)
def test_every_left_has_its_right(name):
    taxonomy = get_taxonomy(name)
    mirror = taxonomy.flip_lut()
    for part, words in enumerate(map(str.split, taxonomy.part_names), 1):
        assert not {"left", "right"} <= set(words)
        swapped = [{"left": "right", "right": "left"}.get(word, word) for word in words]
        assert taxonomy.part_names[mirror[part] - 1].split() == swapped


@pytest.mark.parametrize("name", TAXONOMY_NAMES)
def test_names_are_of_one_style_and_colours_differ(name):
    taxonomy = get_taxonomy(name)
    for part in taxonomy.part_names:
        assert part == " ".join(part.lower().split()) and part.replace(" ", "").isalnum()
    assert len(set(taxonomy.part_colors)) == taxonomy.num_parts
    assert (0, 0, 0) not in taxonomy.part_colors  # the background's


@pytest.mark.parametrize("name", TAXONOMY_NAMES)
def test_parts_of_people_have_regions(name):
    taxonomy = get_taxonomy(name)
    for _, part, owner, _, _, region in taxonomy.legend():
        if owner != "person":
            assert region == ""
        elif part not in ANYWHERE | {"person"}:  # VOC's whole person
            assert region in BODY_REGIONS, part


def test_mirrored_ids_of_densepose():
    """Detectron2's DensePoseTransformData.POINT_LABEL_SYMMETRIES."""
    symmetries = [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19]
    symmetries += [22, 21, 24, 23]
    assert get_taxonomy("densepose").flip_lut()[:25].tolist() == symmetries


def test_parts_of_densepose():
    """The data format of the DensePose challenge, whose 24 charts are of 14 parts."""
    fine = {
        **{"torso": (1, 2), "right hand": (3,), "left hand": (4,), "left foot": (5,)},
        **{"right foot": (6,), "right upper leg": (7, 9), "left upper leg": (8, 10)},
        **{"right lower leg": (11, 13), "left lower leg": (12, 14), "left upper arm": (15, 17)},
        **{"right upper arm": (16, 18), "left lower arm": (19, 21), "right lower arm": (20, 22)},
        "head": (23, 24),
    }
    names = get_taxonomy("densepose").part_names
    for part, charts in fine.items():
        for chart in charts:
            assert set(part.split()) <= set(names[chart - 1].split())
    assert sorted(sum(fine.values(), ())) == list(range(1, 25))


@pytest.mark.parametrize(
    "name, pairs",
    [
        # Those of Sapiens and LIP are swap_seg_labels of Sapiens' own configs; the others by hand.
        ("sapiens", [(left, left + 9) for left in range(4, 12)]),
        ("sapiens2", [(left, left + 9) for left in range(5, 13)]),
        ("lip", [(14, 15), (16, 17), (18, 19)]),
        ("cihp", [(14, 15), (16, 17), (18, 19)]),
        ("atr", [(9, 10), (12, 13), (14, 15)]),
    ],
)
def test_mirrored_ids(name, pairs):
    assert get_taxonomy(name).flip_pairs == tuple(pairs)


@pytest.mark.parametrize(
    "name, ids",
    [
        ("sapiens", {"apparel": 1, "face neck": 2, "lower clothing": 12, "torso": 21}),
        ("sapiens", {"upper clothing": 22, "lower lip": 23, "upper lip": 24, "tongue": 27}),
        ("sapiens2", {"eyeglass": 2, "face neck": 3, "lower clothing": 13, "torso": 22}),
        ("sapiens2", {"left upper leg": 12, "right upper leg": 21, "tongue": 28}),
        ("lip", {"hat": 1, "upper clothes": 5, "jumpsuits": 10, "face": 13, "right shoe": 19}),
        ("cihp", {"torso skin": 10}),
        ("atr", {"upper clothes": 4, "belt": 8, "face": 11, "left leg": 12, "scarf": 17}),
        ("fashn", {"face": 1, "top": 3, "hat": 9, "arms": 12, "torso": 16, "jewelry": 17}),
        ("bodypix", {"left face": 1, "right upper arm front": 5, "left hand": 11}),
        ("bodypix", {"torso front": 13, "right lower leg back": 22, "right foot": 24}),
    ],
)
def test_ids(name, ids):
    assert {part: get_taxonomy(name).part_id(part) for part in ids} == ids


def test_sapiens2_is_sapiens_with_eyeglasses():
    old, new = get_taxonomy("sapiens"), get_taxonomy("sapiens2")
    assert [name for name in new.part_names if name != "eyeglass"] == list(old.part_names)
    colors = dict(zip(new.part_names, new.part_colors, strict=True))
    assert tuple(colors[name] for name in old.part_names) == old.part_colors


def test_the_other_order_of_pascal_person_part():
    """It begins lower arm, head, upper leg, torso."""
    names = get_taxonomy("pascal_person_part").part_names
    other = [names[OTHER_ORDER_TO_OURS[j] - 1] for j in range(1, 7)]
    assert other[:4] == ["lower arms", "head", "upper legs", "torso"]
    assert sorted(other) == sorted(names)


def test_voc_is_torchvisions():
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    weights = segmentation.DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1
    taxonomy = get_taxonomy("voc")
    assert ["__background__", *taxonomy.part_names] == weights.meta["categories"]
    assert taxonomy.object_names == taxonomy.part_names
    assert taxonomy.part_colors[14] == (192, 128, 128)  # a person in VOC's PNGs
