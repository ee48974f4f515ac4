"""Given detections in a COCO results file: each entry is checked, by its number and key."""

import json
import math

import pytest

from instance_crf.data.detections import check_masks, decode_mask, read_detections
from instance_crf.taxonomies.schema import PartTaxonomy

PERSON = PartTaxonomy(part_names=("head", "torso"))
GOOD = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 5, 4], "score": 0.5}


def read(tmp_path, *entries):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    return read_detections(path, PERSON)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": math.nan}, "score must be finite, got nan"),
        ({"score": "0.5"}, "score must be a number, got '0.5'"),
        ({"bbox": [1, 2, math.nan, 4]}, "bbox must be finite, got nan"),
        ({"bbox": [1, 2, math.inf, 4]}, "bbox must be finite, got inf"),
        ({"bbox": [1, 2, 3]}, r"bbox must be \[x, y, width, height\], got \[1, 2, 3\]"),
        ({"bbox": None}, r"bbox must be \[x, y, width, height\], got None"),
        (
            {"category_id": 1.5},
            "category_id must be a whole number in 0.., got|category_id must be",
        ),
        ({"image_id": None}, "image_id must be a text or a whole number, got None"),
        ({"segmentation": {"size": [1e9, 5], "counts": "x"}}, "height must be a whole number"),
        ({"segmentation": {"size": [None, 5], "counts": "x"}}, "height must be a whole number"),
    ],
)
def test_wrong_entries(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"results\.json: entry 1: .*(?:{message})"):
        read(tmp_path, GOOD, GOOD | changes)


@pytest.mark.parametrize("segmentation", [None, []])
def test_a_box_without_a_mask(tmp_path, segmentation):
    found = read(tmp_path, GOOD | {"segmentation": segmentation})["7"]
    assert len(found) == 1 and "segmentation" not in found[0]


def test_masks_that_do_not_fill_their_image(tmp_path):
    for counts, message in (([30], "its runs are 30 pixels"), ("junk", "its runs|are no run|cut")):
        segmentation = {"size": [5, 8], "counts": counts}
        found = read(tmp_path, GOOD | {"segmentation": segmentation})["7"]
        check_masks(found, (5, 8), "7.jpg")
        with pytest.raises(ValueError, match=f"7.jpg: a detection's mask: .*({message})"):
            decode_mask(found[0]["segmentation"], "7.jpg")
