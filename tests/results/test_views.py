"""One object alone, cut out, drawn: against the maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instance_crf.visualization import draw_legend, draw_part_instances

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


@pytest.mark.parametrize("device", DEVICES)
def test_a_person_is_its_parts_and_nobody_elses(photo, people, device):
    for k in range(3):
        alone = people.to(device).person(k)
        assert alone.dtype == np.uint8
        assert np.array_equal(alone, np.where(photo.object_map == k + 1, photo.part_map, 0))
    together = sum(people.person(k).astype(int) for k in range(3))
    assert np.array_equal(together, photo.part_map)


def test_people_by_hand(small):
    assert small.person(0).tolist() == [[1, 1, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert small.person(1).tolist() == [[0, 0, 0, 0, 0], [0, 3, 3, 0, 0], [0, 3, 3, 0, 0]]
    assert small.person(np.int64(1)).any()


@pytest.mark.parametrize("k", [2, -1])
def test_an_object_that_is_not_there(small, k):
    with pytest.raises(ValueError, match=f"no object {k}: it has 2, from 0 to 1"):
        small.person(k)


def test_nobody_is_there(nobody):
    for call in (nobody.person, nobody.crop):
        with pytest.raises(ValueError, match="no object 0: it has none"):
            call(0)


def test_what_is_no_number(small):
    with pytest.raises(TypeError):
        small.person(0.5)


def test_parts_beyond_8_bits(make):
    with pytest.raises(ValueError, match=r"part 300; 8 bits hold parts 1\.\.254"):
        make([[1]], [[300]]).person(0)


def test_a_crop_by_hand(small):
    image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    cut, parts, box = small.crop(1, image=image)
    assert box == (1, 1, 3, 3) and parts.tolist() == [[3, 3], [3, 3]]
    assert np.array_equal(cut, image[1:3, 1:3])
    # Half a box of 2 x 2 is one pixel; below the picture ends.
    cut, parts, box = small.crop(1, image=image, margin=0.5)
    assert box == (0, 0, 4, 3) and np.array_equal(cut, image[:3, :4])
    assert parts.tolist() == [[0, 0, 0, 0], [0, 3, 3, 0], [0, 3, 3, 0]]


def test_crops_put_back_give_the_picture_and_the_parts(photo, people):
    for k in range(3):
        image, parts, (x1, y1, x2, y2) = people.crop(k)
        assert np.array_equal(image, photo.image[y1:y2, x1:x2])
        back = np.zeros_like(photo.part_map)
        back[y1:y2, x1:x2] = parts
        assert np.array_equal(back, people.person(k))
        assert all(edge.any() for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]))


def test_a_crop_is_a_copy(people):
    before = people.image.copy()
    people.crop(0).image[:] = 0
    assert np.array_equal(people.image, before)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_bad_margins(people, margin):
    with pytest.raises(ValueError, match=f"margin is {margin}"):
        people.crop(0, margin=margin)


@pytest.mark.parametrize(
    "image, message",
    [
        (None, "does not know its picture: give image="),
        (np.zeros((3, 4, 3), np.uint8), r"image is \(3, 4, 3\).*maps are \(3, 5\)"),
        (np.zeros((3, 5, 4), np.uint8), r"image is \(3, 5, 4\)"),
        (np.zeros((3, 5), np.uint8), r"uint8 RGB array, got \(3, 5\) uint8"),
        (np.zeros((3, 5, 3)), r"got \(3, 5, 3\) float64"),
        (torch.zeros(3, 5, 3, dtype=torch.uint8), r"got \(3, 5, 3\) torch.uint8"),
        ([[0]], "got .* <class 'list'>"),
    ],
)
def test_pictures_that_do_not_fit(small, image, message):
    for call in (lambda: small.crop(0, image=image), lambda: small.draw(image)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("device", DEVICES)
def test_the_drawing_is_the_one_of_the_maps(photo, people, device):
    expected = draw_part_instances(
        photo.image,
        photo.part_map.astype(int),
        photo.object_map.astype(int),
        people.taxonomy,
        scores={1: 1 / 2, 2: 1 / 3, 3: 1 / 4},
        scale=1,
    )
    drawn = people.to(device).draw()
    assert drawn.dtype == np.uint8 and drawn.shape == photo.image.shape
    assert np.array_equal(drawn, expected)
    assert not np.array_equal(people.draw(labels=False), expected)
    assert people.draw(scale=2).shape == (240, 320, 3)
    assert np.array_equal(people.draw(photo.image[::-1].copy()), drawn) is False


def test_large_pictures_are_drawn_smaller_where_that_is_asked(people):
    assert people.draw(max_size=80).shape == (60, 80, 3)
    assert np.array_equal(people.draw(max_size=160), people.draw())


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 2},
        {"alpha": -0.1},
        {"scale": 0},
        {"scale": 1.5},
        {"max_size": 0},
        {"max_size": -5},
    ],
)
def test_numbers_that_are_none(people, wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it "):
        people.draw(**wrong)


def test_the_legend_stands_below(people):
    plain, legend = people.draw(), draw_legend(people.taxonomy, 160)
    assert np.array_equal(people.draw(legend=True), np.concatenate([plain, legend]))


def test_drawing_without_a_taxonomy_and_without_anybody(people, nobody):
    assert replace(people, taxonomy=None).draw(legend=True).shape[1] == 160
    assert nobody.draw().shape == (6, 8, 3)
