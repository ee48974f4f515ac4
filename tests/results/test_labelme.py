"""labelme's JSON: drawn again, polygons give the regions that they were made of."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from instance_crf.results.labelme import polygons_of

MASKS = {
    "pixel": ["#"],
    "two pixels": ["##"],
    "line": ["#", "#", "#", "#"],
    "diagonal": ["#...", ".#..", "..#.", "...#"],
    "thin": ["#....#", "##..##", ".#..#.", ".####."],
    "ring": ["###", "#.#", "###"],
    "thick ring": ["#####", "#...#", "#...#", "#####"],
    "two holes": ["#####", "#.#.#", "#####", "#.#.#", "#####"],
    "nested": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "corners": ["##..", "##..", "..##", "..##"],
    "hole at a corner": ["###.", "#.##", "####"],
    "apart": ["##..#", "##..#", ".....", "###.."],
}


def mask_of(rows):
    return np.pad(np.array([[c == "#" for c in row] for row in rows]), 2)


def as_labelme_draws(polygons, shape):
    """labelme's own conversion: Pillow fills and outlines each polygon."""
    picture = Image.new("1", shape[::-1])
    for polygon in polygons:
        ImageDraw.Draw(picture).polygon([tuple(point) for point in polygon], fill=1, outline=1)
    return np.array(picture)


def as_areas(polygons, shape):
    """The pixels whose centre lies in a polygon, or on its border."""
    drawn = np.zeros(shape, bool)
    for polygon in polygons:
        for y, x in np.ndindex(shape):
            contour = np.asarray(polygon, np.float32)[:, None]
            drawn[y, x] |= cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), False) >= 0
    return drawn


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
@pytest.mark.parametrize("name", MASKS)
def test_small_shapes_exactly(name, tolerance):
    mask = mask_of(MASKS[name])
    polygons = polygons_of(mask, tolerance)
    assert all(len(polygon) >= 3 for polygon in polygons)
    assert np.array_equal(as_labelme_draws(polygons, mask.shape), mask)


@pytest.mark.parametrize("name", MASKS)
def test_small_shapes_as_areas(name):
    mask = mask_of(MASKS[name])
    assert np.array_equal(as_areas(polygons_of(mask), mask.shape), mask)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_noise_exactly(share):
    """Regions with many holes, also at the border of the picture."""
    mask = np.random.default_rng(0).random((40, 50)) < share
    assert np.array_equal(as_labelme_draws(polygons_of(mask), mask.shape), mask)


@pytest.mark.parametrize("tolerance, least", [(0.0, 1.0), (0.3, 1.0), (0.5, 0.9), (2.0, 0.4)])
def test_parts_of_people(photo, people, tolerance, least):
    content = people.to_labelme(tolerance=tolerance)
    names = people.taxonomy.part_names
    for k in range(3):
        for part in range(1, 7):
            region = (photo.object_map == k + 1) & (photo.part_map == part)
            polygons = [
                shape["points"]
                for shape in content["shapes"]
                if shape["group_id"] == k + 1 and shape["label"] == names[part - 1]
            ]
            assert bool(polygons) == region.any()
            if polygons:
                assert iou(as_labelme_draws(polygons, region.shape), region) >= least


def test_a_higher_tolerance_has_fewer_vertices(people):
    counts = [
        sum(len(shape["points"]) for shape in people.to_labelme(tolerance=t)["shapes"])
        for t in (0.0, 0.3, 1.0)
    ]
    assert counts[0] > 1.3 * counts[1] > 1.3 * 2 * counts[2]


def test_the_document_by_hand(small):
    content = json.loads(json.dumps(small.to_labelme("photos/a.jpg", tolerance=0)))
    assert content["version"].split(".")[0] == "5" and content["flags"] == {}
    assert content["imagePath"] == "photos/a.jpg" and content["imageData"] is None
    assert (content["imageHeight"], content["imageWidth"]) == (3, 5)
    shapes = content["shapes"]
    assert {shape["shape_type"] for shape in shapes} == {"polygon"}
    assert [(shape["label"], shape["group_id"]) for shape in shapes] == [
        ("head", None),
        ("head", 1),
        ("legs", 1),
        ("wheel", 2),
    ]
    wheel = {tuple(point) for point in shapes[3]["points"]}
    assert wheel == {(1.25, 1.25), (1.25, 2.75), (2.75, 2.75), (2.75, 1.25)}


def test_without_a_path_a_taxonomy_or_anybody(small, nobody):
    content = replace(small, taxonomy=None).to_labelme()
    assert content["imagePath"] == ""
    assert [shape["label"] for shape in content["shapes"]] == [
        "part 1",
        "part 1",
        "part 2",
        "part 3",
    ]
    assert {shape["group_id"] for shape in nobody.to_labelme()["shapes"]} <= {None}


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_bad_tolerances(small, tolerance):
    with pytest.raises(ValueError, match=f"tolerance is {tolerance}"):
        small.to_labelme(tolerance=tolerance)
