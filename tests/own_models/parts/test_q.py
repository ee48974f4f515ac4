"""Q at the working size: against F.interpolate, softmax and numbers by hand."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import instance_crf
from instance_crf.own_models.inputs import PartScores
from instance_crf.own_models.parts import q as module
from instance_crf.own_models.parts import to_q
from instance_crf.taxonomies import PartTaxonomy

GENERATOR = torch.Generator().manual_seed(0)


def logits(channels, height, width):
    return 3 * torch.randn(channels, height, width, generator=GENERATOR)


def maps(height, width, num_parts):
    return torch.randint(0, num_parts + 1, (height, width), generator=GENERATOR)


@pytest.fixture(params=[module._NUMBERS_AT_A_TIME, 50], ids=["one_strip", "strips_of_a_row"])
def strips(request, monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS_AT_A_TIME", request.param)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (9, 7), (12, 20)])
def test_logits_are_enlarged_and_then_put_through_the_softmax(size, align_corners, strips):
    values = logits(4, 5, 7)
    q = to_q(PartScores(values, "logits", align_corners=align_corners), size, 3)
    expected = F.interpolate(values[None], size=size, mode="bilinear", align_corners=align_corners)[
        0
    ].softmax(0)
    torch.testing.assert_close(q, expected, atol=1e-6, rtol=1e-5)


def test_large_logits_become_probabilities_before_they_are_averaged(strips):
    values = logits(4, 6, 8)
    q = to_q(PartScores(values, "logits"), (3, 2), 3)
    expected = F.avg_pool2d(values.softmax(0), (2, 4))
    torch.testing.assert_close(q, expected)


def test_one_side_larger_and_one_smaller(strips):
    values = logits(4, 6, 3)
    q = to_q(PartScores(values, "logits"), (2, 6), 3)
    pooled = F.avg_pool2d(values.softmax(0), (3, 1))
    expected = F.interpolate(pooled[None], size=(2, 6), mode="bilinear")[0]
    torch.testing.assert_close(q, expected)


def test_the_area_of_pixels_that_are_no_multiple_of_each_other():
    """Three samples over two pixels: 1 and half of the middle one, each."""
    values = torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0]]])
    q = to_q(PartScores(values, "prob"), (1, 2), 1)
    torch.testing.assert_close(q[0, 0], torch.tensor([(1 + 0.25) / 1.5, 0.25 / 1.5]))


def test_aligned_corners_are_those_of_the_image_not_of_the_working_size():
    """Samples at the centres of pixels 0 and 7 of 8; the working pixels cover two pixels each."""
    values = torch.tensor([[[0.0, 7.0]], [[0.0, 0.0]]])
    scores = PartScores(values, "logits", align_corners=True)
    q = to_q(scores, (1, 4), 1, image_size=(2, 8))
    expected = torch.tensor([[0.5, 2.5, 4.5, 6.5], [0, 0, 0, 0]]).softmax(0)
    torch.testing.assert_close(q[:, 0], expected)


def test_the_area_around_aligned_corners():
    """Five samples at pixel centres 0, 2, ..., 8 of 9; each working pixel covers three pixels."""
    values = torch.zeros(2, 1, 5)
    values[0] = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    values[1] = 1 - values[0]
    q = to_q(PartScores(values, "prob", align_corners=True), (1, 3), 1, image_size=(1, 9))
    # Pixel edges 0, 3, 6, 9 are -0.25, 1.25, 2.75, 4.25 between samples, each of which stands for
    # its half neighbourhoods: the first has 0.75 of sample 0 (its outer half is cut off at the
    # image's edge) and 0.75 of sample 1.
    torch.testing.assert_close(q[0, 0], torch.tensor([0.05, 0.2, 0.35]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_points(dtype):
    values = logits(3, 4, 4).to(dtype)
    q = to_q(PartScores(values, "logits"), (8, 8), 2)
    assert q.dtype == torch.float32
    expected = to_q(PartScores(values.float(), "logits"), (8, 8), 2)
    torch.testing.assert_close(q, expected)


def test_sums_of_probabilities_are_normalised_after_enlarging():
    values = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]]])
    q = to_q(PartScores(values, "prob"), (1, 4), 1)
    enlarged = torch.tensor([[3, 2.25, 0.75, 0], [1, 1, 1, 1]])
    torch.testing.assert_close(q[:, 0], enlarged / enlarged.sum(0))


@pytest.mark.parametrize("kind", ["logits", "prob"])
def test_the_background_first_and_last_are_permutations(kind):
    values = logits(5, 4, 6) if kind == "logits" else logits(5, 4, 6).softmax(0)
    first = to_q(PartScores(values, kind), (9, 3), 4)
    moved = torch.cat([values[1:], values[:1]])
    last = to_q(PartScores(moved, kind, background="last"), (9, 3), 4)
    torch.testing.assert_close(first, last, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 12), (2, 3)])
def test_no_background_channel(size, strips):
    parts, person = logits(3, 4, 6), logits(1, 4, 6)
    q = to_q(PartScores(parts, "logits", "none", person_logit=person), size, 3)
    if size == (8, 12):
        parts, person = (
            F.interpolate(x[None], size=size, mode="bilinear")[0] for x in (parts, person)
        )
    expected = torch.cat([1 - person.sigmoid(), person.sigmoid() * parts.softmax(0)])
    if size == (2, 3):
        expected = F.avg_pool2d(expected, 2)
    torch.testing.assert_close(q, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(q.sum(0), torch.ones(size))


def test_probabilities_of_parts_beside_a_person(strips):
    parts, person = torch.tensor([[[0.25]], [[0.75]]]), torch.tensor([[[math.log(3)]]])
    q = to_q(PartScores(parts, "prob", "none", person_logit=person), (1, 1), 2)
    torch.testing.assert_close(q.flatten(), torch.tensor([0.25, 0.75 * 0.25, 0.75 * 0.75]))


def test_a_map_keeps_nine_tenths(strips):
    ids = torch.tensor([[0, 1], [4, 255]], dtype=torch.uint8)
    q = to_q(PartScores(ids, "map"), (2, 2), 4)
    expected = torch.full((5, 2, 2), 0.025)
    expected[0, 0, 0] = expected[1, 0, 1] = expected[4, 1, 0] = 0.9
    expected[:, 1, 1] = 0.2
    torch.testing.assert_close(q, expected)


def test_a_map_is_averaged_over_the_area(strips):
    ids = maps(6, 8, 3)
    q = to_q(PartScores(ids, "map"), (3, 4), 3, smoothing=0.0)
    one_hot = F.one_hot(ids, 4).permute(2, 0, 1).float()
    torch.testing.assert_close(q, F.avg_pool2d(one_hot, 2))
    enlarged = to_q(PartScores(ids, "map"), (12, 16), 3, smoothing=0.0)
    torch.testing.assert_close(enlarged, F.interpolate(one_hot[None], scale_factor=2)[0])


def test_a_map_with_the_background_last():
    ids = torch.tensor([[0, 1, 2, 255]])
    q = to_q(PartScores(ids, "map", background="last"), (1, 4), 2, smoothing=0.0)
    assert q[:, 0, :3].argmax(0).tolist() == [1, 2, 0]
    torch.testing.assert_close(q[:, 0, 3], torch.full((3,), 1 / 3))


TAXONOMY = PartTaxonomy(("head", "left arm", "right arm", "hat", "bag"), flip_pairs=((2, 3),))


@pytest.mark.parametrize("size", [(8, 9), (2, 3)])
@pytest.mark.parametrize("rest", ["background", "ignore"])
def test_merging_sums_probabilities(size, rest, strips):
    groups = {"arms": ["left arm", "right arm"], "head": ["head", "hat"]}
    _, lut = TAXONOMY.merge(groups, rest=rest)
    values = logits(6, 4, 6)
    q = to_q(PartScores(values, "logits"), size, 5, lut=lut)
    fine = to_q(PartScores(values, "logits"), size, 5)
    expected = torch.stack([fine[0], fine[2] + fine[3], fine[1] + fine[4]])
    if rest == "background":
        expected[0] += fine[5]
    else:
        expected += fine[5] / 3
    torch.testing.assert_close(q, expected)


def test_merging_a_map(strips):
    _, lut = TAXONOMY.merge({"arms": ["left arm", "right arm"], "head": ["head"]}, rest="ignore")
    ids = torch.tensor([[0, 1, 2, 3, 4, 255]])
    q = to_q(PartScores(ids, "map"), (1, 6), 5, lut=lut)
    expected = torch.full((3, 6), 0.05)
    for column, label in enumerate([0, 2, 1, 1]):
        expected[label, column] = 0.9
    expected[:, 4:] = 1 / 3
    torch.testing.assert_close(q[:, 0], expected)


@pytest.mark.parametrize(
    "scores, num_parts, words",
    [
        (
            PartScores(logits(7, 3, 4), "logits"),
            5,
            ["7 channels", "taxonomy has 5 parts", "= 6", "parts="],
        ),
        (PartScores(logits(5, 3, 4), "logits"), 5, ["5 channels", "background='none'"]),
        (PartScores(logits(3, 4, 6), "prob"), 5, ["permute(2, 0, 1)"]),
        (
            PartScores(logits(6, 3, 4), "logits", "none", person_logit=logits(1, 3, 4)),
            5,
            ["6 channels", "'first' or 'last'"],
        ),
        (PartScores(maps(3, 4, 2) * 0 + 6, "map"), 5, ["id 6", "taxonomy has 5 parts", "0..5"]),
        (PartScores(maps(3, 4, 2) * 0 - 1, "map"), 5, ["id -1"]),
    ],
)
def test_what_does_not_fit(scores, num_parts, words):
    with pytest.raises(ValueError) as error:
        to_q(scores, (3, 4), num_parts)
    assert all(word in str(error.value) for word in words), error.value


def test_arguments_that_do_not_fit():
    scores = PartScores(logits(6, 3, 4), "logits")
    _, lut = TAXONOMY.merge({"head": ["head"]}, rest="background")
    with pytest.raises(ValueError, match="before merging"):
        to_q(PartScores(logits(2, 3, 4), "logits"), (3, 4), 1, lut=lut)
    with pytest.raises(ValueError, match="no part"):
        to_q(scores, (3, 4), 5, lut=np.where(np.arange(256) < 6, 0, 255))
    with pytest.raises(ValueError, match="smoothing is 1"):
        to_q(scores, (3, 4), 5, smoothing=1)
    with pytest.raises(ValueError, match="working size"):
        to_q(scores, (0, 4), 5)


def test_rounding_below_zero_is_none():
    values = torch.tensor([[[-1e-7]], [[1.0]]])
    assert to_q(PartScores(values, "prob"), (1, 1), 1).flatten().tolist() == [0, 1]


def test_the_given_array_is_left_alone():
    values = logits(4, 5, 6).softmax(0)
    before = values.clone()
    to_q(PartScores(values, "prob", background="last"), (5, 6), 3)
    assert torch.equal(values, before)


PEAK = """
import resource, sys, torch
from instance_crf.own_models.inputs import PartScores
from instance_crf.own_models.parts import read_part_scores, to_q
torch.set_num_threads(1)
channels, height, width = map(int, sys.argv[1].split("x"))
values = torch.zeros((channels, height, width), dtype=getattr(torch, sys.argv[2]))
values[0] = 1
to_q(PartScores(values[:, :8, :8], "logits"), (16, 16), channels - 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
to_q(read_part_scores(values, "prob"), (768, 1024), channels - 1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ("25x768x1024", "float32"),
        pytest.param("25x3000x4000", "float16", marks=pytest.mark.slow),
    ],
)
def test_memory(shape, dtype):
    """Q is 75 MB of what is needed beside the arrays given."""
    package = str(Path(instance_crf.__file__).parents[1])
    process = subprocess.run(
        [sys.executable, "-c", PEAK, shape, dtype],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": package},
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 250
