"""Signs of a wrong input: on Q made by hand, and on a real model given a wrong one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.own_models.parts import load_part_model, suspicious, to_q

BOXES = torch.tensor([[10.0, 10, 30, 50], [50, 10, 70, 50]])


def people(num_parts=7, confidence=0.9):
    """Two people of bands of parts, which fill their boxes but for a margin."""
    labels = torch.zeros(60, 80, dtype=torch.long)
    for left in (12, 52):
        rows = torch.arange(36)
        labels[12:48, left : left + 16] = (1 + rows * num_parts // 36)[:, None]
    return q_of(labels, num_parts, confidence)


def q_of(labels, num_parts, confidence=0.9):
    q = torch.full((num_parts + 1, *labels.shape), (1 - confidence) / num_parts)
    return q.scatter_(0, labels[None], confidence)


def only(sentences, *words):
    assert len(sentences) == 1, sentences
    missing = [word for word in words if word not in sentences[0]]
    assert not missing, (missing, sentences[0])


@pytest.mark.parametrize("num_parts", [1, 3, 7, 24])
def test_nothing_is_wrong(num_parts):
    assert suspicious(people(num_parts), BOXES) == []
    assert suspicious(people(num_parts), torch.zeros(0, 4)) == []


def test_nobody_where_no_box_is():
    nobody = q_of(torch.zeros(60, 80, dtype=torch.long), 7)
    assert suspicious(nobody, torch.zeros(0, 4)) == []
    only(suspicious(nobody, BOXES), "everywhere", "2 boxes", "0..1 for -1..1", "background='last'")


def test_no_background():
    labels = torch.randint(1, 8, (60, 80), generator=torch.Generator().manual_seed(0))
    only(suspicious(q_of(labels, 7), BOXES), "nowhere", "'last'", "background='none'")


def test_few_pixels_of_the_boxes_have_parts():
    q = people(3)
    q[:, 16:] = q[:, :1, :1]  # four rows of 16 remain of boxes of 40 by 20
    only(suspicious(q, BOXES), "Parts cover 8.0% of the boxes", "same photo", "RGB for BGR")


def test_few_pixels_with_parts_lie_in_a_box():
    labels = torch.randint(1, 8, (60, 80), generator=torch.Generator().manual_seed(0))
    labels[:, 40:] = 0
    tiny = torch.tensor([[0.0, 0, 10, 10]])
    only(suspicious(q_of(labels, 7), tiny), "4.2% lie in a box", "x1 y1 x2 y2", "background=")


def test_boxes_of_another_photo():
    shifted = BOXES + torch.tensor([0.0, 38, 0, 38])
    covered, inside = suspicious(people(), shifted)
    assert covered.startswith("Parts cover 0.0% of the boxes")
    assert inside.startswith("Of the pixels with parts, 0.0% lie in a box")


def test_nearly_uniform():
    generator = torch.Generator().manual_seed(0)
    q = (0.1 * torch.randn(8, 60, 80, generator=generator)).softmax(0)
    q[:, :2] = people()[:, :2]  # a few pixels are sure
    only(suspicious(q, torch.zeros(0, 4)), "of the 8 probabilities", "a guess (0.125)")


def test_a_softmax_twice():
    twice = people(confidence=0.999).softmax(0)
    sentences = suspicious(twice, torch.zeros(0, 4))
    only(sentences, "No probability exceeds 0.28", "applied twice", "0.28 at most", "part_prob")


def test_one_part_only():
    labels = people().argmax(0)
    only(suspicious(q_of(labels.clamp(max=1) * 3, 7), BOXES), "100.0% are part 3 of 7")
    # With few parts that is usual, e.g. of heads.
    assert suspicious(q_of(labels.clamp(max=1), 5), BOXES) == []


def test_a_background_taken_for_the_last_channel():
    moved = suspicious(people().roll(1, 0), BOXES)
    only(moved, "of the boxes and 100.0% of what is outside", "background=")


def test_a_real_model_with_a_wrong_input(real_folder):
    options = {
        "kind": "logits",
        "stride": 8,
        "plus_one": True,
        "size": 385,
        "output": "part_heatmaps",
        "person_output": "segments",
    }
    file = f"onnx:{real_folder / 'weights/bodypix_mobilenet050_stride8.onnx'}"
    detections = json.loads((real_folder / "boxes/yolox_nano.json").read_text())
    for name in ("cihp_12008", "coco128_110", "coco128_257"):
        pixels = np.asarray(Image.open(real_folder / f"photos/{name}.jpg").convert("RGB"))
        height, width = (n // 4 for n in pixels.shape[:2])
        boxes, scores = (np.array(detections[name][key]) for key in ("boxes", "scores"))
        boxes = torch.from_numpy(boxes[scores > 0.3] / 4)
        assert len(boxes)
        for wanted, wrong in (("-1-1", False), ("0-255", True)):
            scores = load_part_model(file, range=wanted, **options)(pixels)
            sentences = suspicious(to_q(scores, (height, width), 24), boxes)
            assert bool(sentences) == wrong, (name, sentences)
