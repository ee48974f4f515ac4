"""Tables of classes as models bring them, some through transformers' own configurations."""

import json

import pytest

from instance_crf.taxonomies import get_taxonomy, named_background, taxonomy_from_id2label

CLOTHES = (
    "Background Hat Hair Sunglasses Upper-clothes Skirt Pants Dress Belt Left-shoe Right-shoe "
    "Face Left-leg Right-leg Left-arm Right-arm Bag Scarf"
).split()


def test_a_saved_configuration(tmp_path):
    """Its keys are strings in the file and integers in Python; both are read."""
    transformers = pytest.importorskip("transformers")
    transformers.SegformerConfig(id2label=dict(enumerate(CLOTHES))).save_pretrained(tmp_path)
    in_file = json.loads((tmp_path / "config.json").read_text())["id2label"]
    in_python = transformers.AutoConfig.from_pretrained(tmp_path).id2label
    assert set(map(type, in_file)) == {str} and set(map(type, in_python)) == {int}
    for table in (in_file, in_python, CLOTHES):
        taxonomy, background = taxonomy_from_id2label(table)
        assert taxonomy is get_taxonomy("atr") and background == "first"


def test_a_model_without_names():
    transformers = pytest.importorskip("transformers", minversion="5")
    table = transformers.Sapiens2Config(num_labels=29).id2label
    with pytest.raises(ValueError, match=r"LABEL_0 .. LABEL_28.*Known with 29 channels: sapiens2"):
        taxonomy_from_id2label(table)
    taxonomy, background = taxonomy_from_id2label(table, background="first")
    assert taxonomy.part_names[0] == "label 1" and background == "first"


@pytest.mark.parametrize(
    "labels, name",
    [
        ("Background;Apparel;Face_Neck;Hair", None),  # not all of Sapiens
        ("background;head;torso;Upper Arms;lower_arms;upper-legs;LowerLegs", "pascal_person_part"),
        ("head;background;torso", ValueError),
    ],
)
def test_known_only_with_all_names_in_order(labels, name):
    if name is ValueError:
        with pytest.raises(ValueError, match="background at id 1 .background. of 0..2"):
            taxonomy_from_id2label(labels.split(";"))
        return
    taxonomy, _ = taxonomy_from_id2label(labels.split(";"))
    assert taxonomy.num_parts == labels.count(";")
    assert (taxonomy is get_taxonomy("pascal_person_part")) == (name is not None)


def test_background_last_and_in_other_words():
    parts = get_taxonomy("cihp").part_names
    for word in ("BG", "unlabeled", "__background__", "Everything Else"):
        assert taxonomy_from_id2label([*parts, word]) == (get_taxonomy("cihp"), "last")
        assert taxonomy_from_id2label([word, *parts]) == (get_taxonomy("cihp"), "first")
    assert taxonomy_from_id2label(parts) == (get_taxonomy("cihp"), "none")


def test_names_of_ones_own():
    table = {"2": "leftArm", "0": "Bg", "3": "Right_Arm", "1": "t-shirt, blouse", "4": "T-shirt"}
    table |= {"5": "t_shirt", "6": "l_eye", "7": "r eye", "8": "l_lip", "9": "hat"}
    taxonomy, background = taxonomy_from_id2label(table)
    assert background == "first"
    assert taxonomy.part_names == (
        *("t shirt blouse", "left arm", "right arm", "t shirt", "t shirt 2"),
        *("l eye", "r eye", "l lip", "hat"),
    )
    assert taxonomy.flip_pairs == ((2, 3), (6, 7))
    assert taxonomy.part_regions == (
        *("torso", "arms", "arms", "torso", "torso", "head", "head", "head", "head"),
    )
    assert taxonomy.object_names == ("person",)


def test_numbers_avoid_names_that_have_one():
    taxonomy, _ = taxonomy_from_id2label(["bg", "part", "part-2", "Part"])
    assert taxonomy.part_names == ("part", "part 2", "part 3")


def test_background_by_place():
    assert taxonomy_from_id2label(["other", "a", "b"], background="first")[0].num_parts == 2
    assert taxonomy_from_id2label(["a", "b", "other"], background="last")[0].num_parts == 2
    taxonomy, background = taxonomy_from_id2label(["void", "a", "background"], background="last")
    assert (taxonomy.part_names, background) == (("void", "a"), "last")


@pytest.mark.parametrize(
    "table, options, words",
    [
        ({0: "bg", 1: "a", 4: "b"}, {}, "3 classes up to id 4, but none for id 2, 3:"),
        ({"1": "a", "2": "b"}, {}, "none for id 0"),
        ({0: "bg", 10**12: "a"}, {}, "none for id 1, 2, 3"),
        ({}, {}, "none for id 0"),
        ({"one": "a"}, {}, "the id 'one'"),
        ({-1: "bg", 0: "a"}, {}, "the id -1"),
        ({1: "a", "1": "b"}, {}, "the id '1'.*each once"),
        (["bg", "--"], {}, "calls id 1 '--', which is no name"),
        (["bg", None], {}, "calls id 1 None"),
        ("bg", {}, "must be a table or a list"),
        (["bg"], {}, "no part beside the background"),
        (["bg", "a", "void"], {}, r"id 0 \(bg\), 2 \(void\) of 0..2"),
        (["bg", "a"], {"background": "last"}, "background is 'last', but.*id 0 of 0..1 'bg'"),
        (["bg", "a"], {"background": "none"}, "background is 'none', but"),
        (["bg", "a"], {"background": "middle"}, "'middle'; it must be one of first, last, none"),
    ],
)
def test_refused(table, options, words):
    with pytest.raises(ValueError, match=words):
        taxonomy_from_id2label(table, **options)


def test_where_the_background_is():
    assert named_background(["BG", "a"]) == "first"
    assert named_background(["a", "b", "__background__"]) == "last"
    assert named_background(["a", "b"]) is None and named_background(["LABEL_0", "LABEL_1"]) is None
    for labels in (["a", "void", "b"], ["void", "a", "background"]):
        with pytest.raises(ValueError, match="it must be one, the first or the last"):
            named_background(labels)
