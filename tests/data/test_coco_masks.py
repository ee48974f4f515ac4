"""COCO's masks: sound ones are those of pycocotools, all others are refused before it sees them."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coding

from instance_crf.data import coco_masks
from instance_crf.data.coco_masks import as_image_size, decode_mask, encode_masks

SIZE = (10, 12)
MASK = np.zeros(SIZE, np.uint8)
MASK[2:7, 3:9] = 1
TEXT = coding.encode(np.asfortranarray(MASK))["counts"].decode()


def text(counts, size=SIZE):
    return {"size": list(size), "counts": counts}


def random_masks(rng, count, size):
    return [
        (rng.random(size) < rng.choice([0.02, 0.4, 0.9])).astype(np.uint8) for _ in range(count)
    ]


def runs_of(mask):
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("seed", range(20))
def test_sound_masks_stay_what_they_are(seed):
    rng = np.random.default_rng(seed)
    size = tuple(map(int, rng.integers(3, 70, 2)))
    masks = random_masks(rng, 8, size)
    encoded = [coding.encode(np.asfortranarray(mask)) for mask in masks]
    assert encode_masks(encoded, size, "f") == encoded
    as_text = [text(e["counts"].decode(), size) for e in encoded]
    kept = encode_masks(as_text, size, "f")
    assert [coding.decode(k).tolist() for k in kept] == [mask.tolist() for mask in masks]
    assert encode_masks([text(runs_of(mask), size) for mask in masks], size, "f") == encoded


@pytest.mark.parametrize("seed", range(60))
def test_the_quick_check_agrees_with_the_exact_one(seed):
    """Of good texts, one of which has one character changed, taken out or put in."""
    rng = np.random.default_rng(seed)
    size = (20, 30)
    texts = [coding.encode(np.asfortranarray(m))["counts"] for m in random_masks(rng, 5, size)]
    texts = [t for t in texts if len(t) > 20]
    assert coco_masks._are_sound(texts, 600)
    broken, at = bytearray(texts[0]), int(rng.integers(len(texts[0])))
    if seed % 3 == 0:
        broken[at] = int(rng.integers(30, 130))
    elif seed % 3 == 1:
        del broken[at]
    else:
        broken.insert(at, int(rng.integers(48, 112)))
    try:
        runs = coco_masks._runs_of_text(bytes(broken), "f")
        sound = runs[0] >= 0 and (runs[1:] > 0).all() and runs.sum() == 600
    except ValueError:
        sound = False
    assert coco_masks._are_sound([bytes(broken), *texts[1:]], 600) == sound
    assert coco_masks._are_sound([*texts[1:], bytes(broken)], 600) == sound


def test_empty_runs_inside_do_not_stop_the_comparison():
    """pycocotools gives IoU 1 to these two masks of IoU 0.6, if they come as they are."""
    size = (10, 10)
    runs = [20, 5, 0, 5, 30, 10, 30], [20, 5, 0, 5, 35, 10, 25]
    as_they_are = [coding.frPyObjects(text(r, size), *size) for r in runs]
    assert coding.iou(as_they_are[:1], as_they_are[1:], [0]).item() == 1
    for rows in ([text(r, size) for r in runs], as_they_are):
        first, second = encode_masks(rows, size, "f")
        assert coding.iou([first], [second], [0]).item() == pytest.approx(0.6)


def test_polygons_are_those_of_pycocotools():
    rings = [[1, 1, 8.5, 1, 8.5, 6], [-2.5, 7, 14, 7, 14, 11.5]]  # a little beyond the image
    expected = coding.merge(coding.frPyObjects(rings, *SIZE))
    assert encode_masks([rings], SIZE, "f") == [expected]
    assert decode_mask(rings, SIZE, "f").sum() == coding.area(expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (text([30, 5]), "mask 0: its runs are 35 pixels, but the image has 120"),
        (text([30, 5, 90]), "its runs are 125 pixels"),
        (text([]), "its runs are 0 pixels"),
        (text([-5, 125]), "its runs go down to -5"),
        (text([0.5, 119.5]), "counts must be whole numbers"),
        (text([math.nan, 120]), "counts must be whole numbers"),
        (text(["60", "60"]), "counts must be whole numbers"),
        (text([[60], 60]), "counts must be whole numbers"),
        (text([10**30]), "counts must be whole numbers"),
        (text(TEXT[:-1]), "are cut short"),
        (text(TEXT[:-2]), "its runs are"),
        (text(TEXT + "0"), "its runs are"),
        (text(TEXT + "P"), "are cut short"),
        (text("junk!"), "are no run lengths"),
        (text("ÿ\ud800"), "are no run lengths"),
        (text("o" * 40), "are no run lengths"),
        (text(""), "its runs are 0 pixels"),
        (text(None), "counts must be a list or a text, got None"),
        (text(TEXT, (12, 10)), "is 10x12 pixels, but the image is 12x10"),
        ({"size": None, "counts": TEXT}, r"size must be \[height, width\], got None"),
        ({"size": [10.5, 12], "counts": TEXT}, "height must be a whole number"),
        ({"size": [1e9, 1e9], "counts": TEXT}, "height must be a whole number in 1..65535"),
        ({"size": SIZE}, "has no RLE or polygon"),
        (None, "has no RLE or polygon"),
        ([], "a polygon is not x, y"),
        ([1, 2, 3, 4, 5, 6], "a polygon is not x, y"),
        ([[1, 2, 3, 4]], "a polygon is not x, y"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon is not x, y"),
        ([[1, 2, 3, 4, 5, None]], "coordinates of a polygon must be numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "coordinates of a polygon must be numbers"),
        ([[1, 2, 3, 4, 5, math.nan]], "has the point 5, nan, but the image is 12x10"),
        ([[1, 2, 3, 4, 5, math.inf]], "has the point 5, inf"),
        ([[1, 2, 3, 4, 1e7, 6]], r"has the point 1e\+07, 6"),
        ([[-20, 2, 3, 4, 5, 6]], "has the point -20, 2"),
    ],
)
def test_what_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        encode_masks([segmentation, text(TEXT)], SIZE, "f.json: image 3")
    with pytest.raises(ValueError, match=message.removeprefix("mask 0: ")):
        decode_mask(segmentation, SIZE, "f.json")


def test_an_outline_that_would_take_all_memory():
    zigzag = [0, 0, 1000, 1000] * 10_000
    with pytest.raises(ValueError, match=r"f: the polygons' outline is 2e\+07 pixels long"):
        decode_mask([zigzag], (1000, 1000), "f")
    assert decode_mask([zigzag[:400]], (1000, 1000), "f").shape == (1000, 1000)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (None, 3, "f: height must be a whole number in 1..65535, got None"),
        (3, "4", "f: width must be"),
        (0, 4, "f: height must be"),
        (True, 4, "f: height must be"),
        (60000, 60000, "f is 60000x60000 pixels; more than 268435456"),
    ],
)
def test_sizes_of_images(height, width, message):
    with pytest.raises(ValueError, match=message):
        as_image_size(height, width, "f")
    assert as_image_size(480, 640.0, "f") == (480, 640)


HANG = """
import json, resource, sys
from instance_crf.data.coco_masks import encode_masks
from pycocotools import mask as coding
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
good = {"size": [10, 12], "counts": [40, 30, 50]}
try:
    masks = encode_masks([json.loads(sys.argv[1]), good], (10, 12), "f.json")
    print(coding.iou(masks[:1], masks[1:], [0]))
except ValueError as error:
    print("refused:", error)
"""


def test_a_short_mask_does_not_hang():
    """pycocotools compares these two for ever, or until its memory is used up."""
    short = json.dumps(text([40, 30]))
    done = subprocess.run(
        [sys.executable, "-c", HANG, short], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("refused: f.json, mask 0: its runs are 70"), done.stderr
