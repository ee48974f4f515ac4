"""Pictures, whatever they come as."""

import numpy as np
import pytest
import torch
from PIL import Image

from instance_crf.own_models.images import has_shape_of, is_image, read_picture


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def test_all_kinds_give_the_same_pixels(pixels, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for value in (
        pixels,
        pixels[:, ::-1].copy()[:, ::-1],
        path,
        str(path),
        Image.fromarray(pixels),
        tensor,
        tensor.float() / 255,
        (tensor.double() / 255).requires_grad_(),
    ):
        assert is_image(value)
        picture, name = read_picture(value)
        assert np.array_equal(picture, pixels) and picture.dtype == np.uint8
        assert name == (path if isinstance(value, (str, type(path))) else None)


def test_floats_are_rounded():
    tensor = torch.tensor([0.999, 0.5 / 255 + 1e-4, 0.5 / 255 - 1e-4]).view(3, 1, 1)
    assert read_picture(tensor)[0].tolist() == [[[255, 1, 0]]]


def test_grey_and_transparent(pixels):
    grey = read_picture(pixels[..., 0])[0]
    assert (grey == pixels[..., :1]).all() and grey.shape == (7, 9, 3)
    assert read_picture(Image.fromarray(pixels).convert("RGBA"))[0].shape == (7, 9, 3)


def test_a_file_is_rotated_as_its_tag_says(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", exif=exif)
    assert read_picture(tmp_path / "photo.jpg")[0].shape == (9, 7, 3)


@pytest.mark.parametrize(
    "value, message",
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; it must be uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"an array \(4, 4, 4\).* image\[:, :, :3\]"),
        (np.zeros((3, 4, 5), np.uint8), r"an array \(3, 4, 5\).*transpose"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), r"more than 8 bits \(mode I;16\)"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), r"more than 8 bits \(mode F\)"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"a tensor \(4, 4, 3\)"),
        (torch.zeros(2, 3, 4, 4), "given as a list"),
        (torch.full((3, 4, 4), 200.0), "from 200 to 200"),
        (torch.tensor([-1.0, 0, 1]).view(3, 1, 1), "before any normalisation"),
        (torch.full((3, 1, 1), torch.nan), "from nan to nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "torch.int64"),
        (7, "is a int"),
    ],
)
def test_what_is_no_picture(value, message):
    with pytest.raises(ValueError, match=message):
        read_picture(value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.jpg"):
        read_picture(tmp_path / "nothing.jpg")


@pytest.mark.parametrize(
    "size, same",
    [
        ((480, 640), True),
        ((20, 27), True),  # rounded up
        ((500, 640), True),
        ((510, 640), False),
        ((640, 480), False),
        ((480, 700), False),
    ],
)
def test_the_shape_of_a_picture(size, same):
    assert has_shape_of(size, (960, 1280)) == same
