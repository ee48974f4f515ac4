"""A part model for single people, on every box."""

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.own_models.inputs import PartScores
from instance_crf.own_models.parts import parts_from_crops, to_q
from instance_crf.taxonomies import PartTaxonomy

TAXONOMY = PartTaxonomy(("head", "body"))
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)


def by_colour(crop):
    """Probabilities (3, h, w) of each pixel by its colour, whatever the crop."""
    values = torch.from_numpy(crop.copy()).permute(2, 0, 1).double() + 1
    return values / values.sum(0)


def q_of_image(image=IMAGE):
    return by_colour(image).float()


def test_one_box_with_a_margin():
    """A box of 10 x 20 and a tenth on each side; outside is background."""
    merged = parts_from_crops(by_colour, IMAGE, [[20, 10, 30, 30]], "prob", margin=0.1)
    assert (merged.kind, merged.background) == ("prob", "first")
    expected = torch.zeros(3, 40, 60)
    expected[0] = 1
    window = (slice(None), slice(8, 32), slice(19, 31))
    expected[window] = q_of_image()[window]
    torch.testing.assert_close(merged.values, expected)


def test_what_the_model_is_given():
    crops = []

    def fn(crop):
        crops.append(crop)
        return by_colour(crop)

    parts_from_crops(fn, IMAGE, [[20, 10, 30, 30], [50, -5, 70, 8]], "prob", margin=0)
    assert all(crop.flags.c_contiguous and crop.dtype == np.uint8 for crop in crops)
    np.testing.assert_array_equal(crops[0], IMAGE[10:30, 20:30])
    np.testing.assert_array_equal(crops[1], IMAGE[:8, 50:])  # the image's share of the box


def test_where_boxes_overlap():
    """Two crops of two pixels, which share the middle one, by hand."""
    answers = [
        [[0.1, 0.5], [0.9, 0.3], [0.0, 0.2]],  # pixels 0, 1
        [[0.2, 1.0], [0.2, 0.0], [0.6, 0.0]],  # pixels 1, 2
    ]
    given = iter(answers)
    image = np.zeros((1, 3, 3), np.uint8)
    merged = parts_from_crops(
        lambda crop: np.array(next(given))[:, None],
        image,
        [[0, 0, 2, 1], [1, 0, 3, 1]],
        "prob",
        margin=0,
    )
    # Pixel 1: background 0.5 * 0.2; the parts 0.3 + 0.2 and 0.2 + 0.6 of 0.5 + 0.8.
    expected = [[0.1, 0.1, 1.0], [0.9, 0.9 * 0.5 / 1.3, 0], [0, 0.9 * 0.8 / 1.3, 0]]
    torch.testing.assert_close(merged.values[:, 0], torch.tensor(expected))


def test_a_neighbour_that_is_background_to_a_crop_is_not_lost():
    """Each crop sees its own person only; a maximum of scores would say background."""
    answers = iter([[[0.99], [0.01], [0.0]], [[0.1], [0.0], [0.9]]])
    merged = parts_from_crops(
        lambda crop: np.array(next(answers))[:, None],
        np.zeros((1, 1, 3), np.uint8),
        [[0, 0, 1, 1], [0, 0, 1, 1]],
        "prob",
    )
    assert merged.values[:, 0, 0].argmax() == 2
    assert float(merged.values.sum()) == pytest.approx(1)


def test_the_order_of_boxes_does_not_matter():
    boxes = np.array([[5, 5, 30, 35], [20, 2, 50, 38], [22, 0, 25, 40.0]])
    one, other = (
        parts_from_crops(by_colour, IMAGE, b, "prob").values for b in (boxes, boxes[::-1])
    )
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.sum(0), torch.ones(40, 60))


def test_a_large_image_is_merged_at_a_smaller_size():
    """Of colours that are the same over 4 x 4 pixels, so that a crop's share does not matter."""
    small = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    image = small.repeat(4, 0).repeat(4, 1)
    boxes = np.array([[13.0, 9, 61, 70], [40, 20, 101, 71]])
    merged = parts_from_crops(by_colour, image, boxes, "prob", longer_side=30, margin=0)
    expected = parts_from_crops(by_colour, small, boxes / 4, "prob", margin=0)
    assert merged.values.shape == (3, 20, 30)
    torch.testing.assert_close(merged.values, expected.values)


def test_logits_maps_and_part_scores():
    box = [[10, 10, 30, 30]]
    logits = parts_from_crops(lambda crop: by_colour(crop).log(), IMAGE, box, "logits")
    prob = parts_from_crops(by_colour, IMAGE, box, "prob")
    torch.testing.assert_close(logits.values, prob.values)
    assert logits.taxonomy is None

    def smaller(crop):
        return by_colour(crop[::2, ::2]).roll(-1, 0).log()

    moved = parts_from_crops(smaller, IMAGE, box, "logits", background="last", margin=0)
    scores = PartScores(smaller(IMAGE[10:30, 10:30]), "logits", "last")
    torch.testing.assert_close(moved.values[:, 10:30, 10:30], to_q(scores, (20, 20), 2))

    ids = parts_from_crops(
        lambda crop: by_colour(crop).argmax(0), IMAGE, box, "map", taxonomy=TAXONOMY, margin=0
    )
    assert ids.taxonomy is TAXONOMY
    inside = ids.values[:, 10:30, 10:30]
    assert torch.equal(inside.argmax(0), q_of_image().argmax(0)[10:30, 10:30])
    torch.testing.assert_close(inside.amax(0), torch.full((20, 20), 0.9))

    def person(crop):
        parts = by_colour(crop)
        return PartScores(parts[1:], "logits", "none", person_logit=parts[:1])

    none = parts_from_crops(person, IMAGE, box, "logits", margin=0)
    q = to_q(person(IMAGE[10:30, 10:30]), (20, 20), 2)
    torch.testing.assert_close(none.values[:, 10:30, 10:30], q)


@pytest.mark.parametrize("boxes", [[], [[70, 0, 80, 10]], [[10, 10, 10, 20]], np.zeros((0, 4))])
def test_no_box_in_the_image(boxes):
    merged = parts_from_crops(by_colour, IMAGE, boxes, "prob", taxonomy=TAXONOMY)
    assert torch.equal(merged.values[0], torch.ones(40, 60))
    assert merged.values.shape == (3, 40, 60) and not merged.values[1:].any()
    with pytest.raises(ValueError, match="no box.*taxonomy="):
        parts_from_crops(by_colour, IMAGE, boxes, "prob")


def test_what_does_not_fit():
    box = [[10, 10, 30, 30]]
    with pytest.raises(ValueError, match="array of float64"):
        parts_from_crops(by_colour, IMAGE / 255, box, "prob")
    for boxes, words in (
        ([[1, 2, 3]], r"boxes have shape \(1, 3\)"),
        ([[20, 20, 10, 30]], "wrong way round"),
        ([[0.1, 0.2, 0.5, 0.9]], "relative"),
        ([[0, 0, np.nan, 9]], "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            parts_from_crops(by_colour, IMAGE, boxes, "prob")
    with pytest.raises(ValueError, match="how many parts"):
        parts_from_crops(lambda crop: by_colour(crop).argmax(0), IMAGE, box, "map")
    with pytest.raises(ValueError, match="look like logits"):
        parts_from_crops(lambda crop: by_colour(crop).log(), IMAGE, box, "prob")
    with pytest.raises(ValueError, match="3 channels.*3 parts"):
        parts_from_crops(by_colour, IMAGE, box, "prob", taxonomy=PartTaxonomy(("a", "b", "c")))
    channels = iter([3, 4])
    with pytest.raises(ValueError, match="4 channels.*2 parts"):
        parts_from_crops(
            lambda crop: np.full((next(channels), 4, 4), 0.5) * RNG.normal(size=(4, 4)),
            IMAGE,
            box * 2,
            "logits",
        )
    for options, words in (
        ({"margin": -1}, "margin is -1"),
        ({"longer_side": 0}, "longer_side is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            parts_from_crops(by_colour, IMAGE, box, "prob", **options)


def test_all_kinds_of_pictures_and_taxonomies(tmp_path):
    box = torch.tensor([[10.0, 10, 30, 30]])
    expected = parts_from_crops(by_colour, IMAGE, box, "prob")
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    for image in (tmp_path / "photo.png", Image.fromarray(IMAGE)):
        found = parts_from_crops(by_colour, image, box, "prob")
        assert torch.equal(found.values, expected.values)
    with pytest.raises(ValueError, match="3 channels.*19 parts"):
        parts_from_crops(by_colour, IMAGE, box, "prob", taxonomy="cihp")
