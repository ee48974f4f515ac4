"""Pictures of votes, evidence and whose: right colours at the right places."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from instance_crf.visualization import draw_evidence, draw_heat_map, draw_votes, position_colors
from instance_crf.visualization.canvas import LUMA
from instance_crf.visualization.evidence import _voted_centres

H, W = 60, 80


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def test_heat_is_dark_at_zero_and_yellow_at_one(image):
    picture = draw_heat_map(image, np.repeat([[0.0, 1.0]], 2, axis=0), scale=2)
    assert picture.shape == (2 * H, 2 * W, 3) and picture.dtype == np.uint8
    dark, bright = picture[:, : W // 2], picture[:, -W // 2 :]
    assert dark.max() <= 0.2 * 255 + 5  # what is seen of the photo
    assert bright[..., :2].min() > 200 and bright[..., 2].max() < bright[..., 1].min()


def test_votes_have_their_places_colour_where_there_is_somebody(image):
    centres = np.zeros((2, H, W))
    centres[0], centres[1] = 20, 30
    someone = np.zeros((H, W))
    someone[:, : W // 2] = 1
    picture = draw_votes(image, centres, someone, scale=1)
    expected = position_colors(np.array(20 / W), np.array(30 / H))
    assert np.abs(picture[:, : W // 2 - 1] - expected).max() <= 1
    grey = image[:, W // 2 + 1 :] @ np.array(LUMA)
    assert np.abs(picture[:, W // 2 + 1 :] - grey[..., None]).max() <= 1


def test_colours_of_places_differ_and_their_lightness_falls():
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 3))
    colors = position_colors(x, y)
    assert colors.shape == (3, 9, 3) and colors.min() >= 0 and colors.max() <= 255
    flat = colors.reshape(-1, 3)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert apart[~np.eye(len(flat), dtype=bool)].min() > 25
    assert (np.diff(colors @ np.array(LUMA), axis=0) < 0).all()
    assert np.array_equal(position_colors(x - 5, y), position_colors(0 * x, y))


@pytest.mark.parametrize("channels", [2, 4])
def test_votes_are_read_in_pixels_of_the_image(channels):
    """A network's input of 24 x 40, padded to 32 x 64, from an image of twice the size."""
    vote = np.zeros((channels, 8, 16))
    vote[0], vote[1] = 10, 6
    if channels == 4:
        vote[2], vote[3] = 30, 16  # boxes around (20, 11)
    centres = _voted_centres(vote, (24, 40), (48, 80), stride=4)
    assert centres.shape == (2, 24, 40)
    expected = (20, 12) if channels == 2 else (40, 22)
    assert (centres == np.array(expected)[:, None, None]).all()


@pytest.fixture
def output():
    """Of an image whose network's input is half as large."""
    detections = Instances((H, W))
    detections.pred_boxes = Boxes(torch.tensor([[10.0, 5, 40, 55], [35, 5, 70, 55]]))
    detections.scores = torch.tensor([0.9, 0.8])
    maps = torch.zeros(2, H // 2, W // 2)
    maps[1] = 1
    return {
        "detections": detections,
        "sem_seg": torch.full((3, H, W), 1 / 3),
        "vote": torch.rand(4, 8, 16) * 30,
        "evidence": maps,
        "whose_before": maps,
        "object_prob": maps,
    }


def test_a_sheet_of_five_pictures_of_the_detection_asked_for(image, output):
    first, second = (draw_evidence(image, output, k, stride=4, scale=2) for k in (1, 2))
    assert first.shape == second.shape and first.shape[1] == 5 * 2 * W + 6 * 8
    yellow = cv2.applyColorMap(np.uint8([[255]]), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    for sheet, hot in ((first, False), (second, True)):
        heat = sheet[100, 8 + 2 * (2 * W + 8) + 10]  # in the third picture, outside of both boxes
        assert (np.abs(heat - 0.8 * yellow) <= 52).all() == hot


@pytest.mark.parametrize("person", [0, 3])
def test_a_detection_that_there_is_not(image, output, person):
    with pytest.raises(ValueError, match=f"no detection {person}, only 2"):
        draw_evidence(image, output, person, stride=4)
