"""Joint bilateral upsampling of a labelling."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instance_crf.crf import DenseInstanceCRF, FactoredInstanceCRF, FactoredLabelling
from instance_crf.crf.guided_upsampling import guided_label_maps, joint_bilateral_weights
from instance_crf.crf.label_space import build_label_space

SIZE = (37, 50)
SMALL = (11, 15)


def smooth_noise(channels, size, cells=4):
    coarse = torch.randn(1, channels, cells, cells)
    return F.interpolate(coarse, size, mode="bilinear", align_corners=True)[0]


@pytest.fixture
def picture():
    noise = smooth_noise(3, SIZE, 6) * 60 + 128 + torch.randn(3, *SIZE) * 8
    return noise.clamp(0, 255).byte()


@pytest.fixture
def small(picture):
    return F.interpolate(picture[None].float(), SMALL, mode="bilinear", antialias=True)[0]


@pytest.fixture(params=["factored", "two classes", "joint"])
def labelling(request, small):
    q = (smooth_noise(5, SMALL) * 3).softmax(0)
    boxes = torch.tensor([[0.0, 0, 8, 11], [5, 1, 15, 10], [2, 2, 12, 9]])
    scores = torch.tensor([0.9, 0.7, 0.4])
    classes = {}
    if request.param == "two classes":
        classes = {
            "object_classes": torch.tensor([0, 1, 0]),
            "part_owner": torch.tensor([0, 1, 1, 0]),
        }
    crf = DenseInstanceCRF() if request.param == "joint" else FactoredInstanceCRF()
    with torch.no_grad():
        return crf(q, boxes, scores, small, **classes)


def by_hand(labelling, small, picture, sigma):
    """(H, W, C) means of distributions, pixel by pixel, in float64."""
    height, width = picture.shape[1:]
    h, w = labelling.size
    table = labelling.distributions().double().numpy().reshape(h, w, -1)
    small, picture = small.double().numpy(), picture.double().numpy()
    means = np.zeros((height, width, table.shape[2]))
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * h / height - 0.5, (x + 0.5) * w / width - 0.5
            total = 0
            for i in range(int(np.floor(v)), int(np.floor(v)) + 2):
                for j in range(int(np.floor(u)), int(np.floor(u)) + 2):
                    a, b = min(max(i, 0), h - 1), min(max(j, 0), w - 1)
                    distance = ((small[:, a, b] - picture[:, y, x]) ** 2).sum()
                    alike = np.exp(-distance / (2 * sigma**2)) + 1e-3
                    weight = (1 - abs(i - v)) * (1 - abs(j - u)) * alike
                    means[y, x] += weight * table[a, b]
                    total += weight
            means[y, x] /= total
    return means


@pytest.mark.parametrize("sigma", [5.0, 20.0])
def test_is_the_mean_by_nearness_and_colour(labelling, small, picture, sigma):
    owner, part, confidence = guided_label_maps(labelling, small, picture, sigma_color=sigma)
    means = torch.from_numpy(by_hand(labelling, small, picture, sigma)).flatten(0, 1)
    expected = labelling.read(means)
    assert (owner.flatten() == expected[0]).float().mean() > 0.998  # float32 may decide ties
    assert (part.flatten() == expected[1]).float().mean() > 0.998
    assert owner.shape == part.shape == confidence.shape == SIZE
    assert owner.dtype == part.dtype == torch.int32
    assert owner.max() > 0 and part.unique().numel() > 2
    # Where all around have one label, that label's probability is that of the nearest.
    assert (confidence.flatten() - expected[2]).abs().mean() < 0.02


def test_rows_are_read_as_maps_are(labelling):
    expected = labelling.label_maps()
    for ours, theirs in zip(labelling.read(labelling.distributions()), expected, strict=True):
        torch.testing.assert_close(ours.view(labelling.size), theirs)


def test_a_picture_of_the_working_size_is_answered_as_it_is(labelling, small):
    for ours, theirs in zip(
        guided_label_maps(labelling, small, small), labelling.label_maps(), strict=True
    ):
        assert torch.equal(ours, theirs.to(ours.dtype))


def test_weights_of_a_plain_picture_are_bilinear():
    rows, columns = torch.tensor([2.25]), torch.tensor([3.0])
    grey = torch.full((6 * 7, 3), 90.0)
    index, weights = joint_bilateral_weights(rows, columns, grey[:1], grey, (6, 7), 20.0)
    assert index.tolist() == [[2 * 7 + 3, 2 * 7 + 4, 3 * 7 + 3, 3 * 7 + 4]]
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.0, 0.25, 0.0]]))


def test_borders_follow_the_picture():
    """A person whose edge runs through the middle of working pixels is cut where the picture is."""
    picture = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    picture[:, :, 21:] = 210  # working pixel 2 of 8 has columns 16..23
    small = F.interpolate(picture[None].float(), (8, 8), mode="bilinear", antialias=True)[0]
    is_person = torch.sigmoid((small[0] - 125) / 20).clamp(0.02, 0.98)
    labelling = FactoredLabelling(
        build_label_space(torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)),
        torch.stack([1 - is_person, is_person], 2).log(),
        (),
        nobody=False,
    )
    _, guided, _ = guided_label_maps(labelling, small, picture)
    _, plain, _ = labelling.label_maps((64, 64))
    truth = picture[0] > 100
    assert ((guided > 0) != truth).sum() == 0
    assert ((plain > 0) != truth).sum() > 60


def test_any_layout_and_type_of_picture(labelling, small, picture):
    expected = guided_label_maps(labelling, small, picture)
    turned = picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for other in (turned, picture.float(), picture.double()):
        for ours, theirs in zip(guided_label_maps(labelling, small, other), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_one_pixel_and_smaller_pictures(labelling, small):
    for size in ((1, 1), (5, 3), (1, 40)):
        picture = torch.zeros(3, *size, dtype=torch.uint8)
        maps = guided_label_maps(labelling, small, picture)
        assert all(each.shape == size for each in maps)


def test_the_working_picture_of_another_size(labelling, picture):
    with pytest.raises(ValueError, match=r"\(37, 50\), the labelling \(11, 15\)"):
        guided_label_maps(labelling, picture, picture)
