"""Photos, against Detectron2's reader."""

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image

from instance_crf.data.image_io import image_size, read_image, reduced_size


@pytest.fixture
def photo():
    """Smooth enough for JPEG to keep it near what it is."""
    rows, columns = np.mgrid[:30, :50]
    return np.stack([rows * 8, columns * 5, rows + columns], axis=2).astype(np.uint8)


@pytest.mark.parametrize("format", ["RGB", "BGR"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_rotation(photo, orientation, format, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif)
    expected = detectron2_read_image(str(tmp_path / "a.jpg"), format)
    read = read_image(tmp_path / "a.jpg", format)
    assert read.dtype == np.uint8 and np.array_equal(read, expected)
    assert image_size(tmp_path / "a.jpg") == expected.shape[:2]


def test_a_quarter_turn_by_hand(tmp_path):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = (250, 120, 5)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter to the left
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == upright).all()
    assert (read_image(tmp_path / "turned.png", "BGR") == upright[..., ::-1]).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_modes_that_are_not_rgb(photo, mode, tmp_path):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(photo).convert(mode).save(path)
    assert np.array_equal(read_image(path, "BGR"), detectron2_read_image(str(path), "BGR"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_cut_off_is_refused(photo, suffix, tmp_path):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(photo).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"Cannot read the image .*cut\{suffix}"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_files_that_are_no_photos_are_named(read, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png"):
        read(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        read(tmp_path / "nowhere.png")


def test_an_unknown_order_of_channels(tmp_path):
    with pytest.raises(ValueError, match="'HSV'.*'RGB' or 'BGR'"):
        read_image(tmp_path / "a.png", "HSV")


def test_more_than_8_bits_are_not_cut(tmp_path):
    Image.fromarray(np.full((4, 5), 4096, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png has more than 8 bits \(mode I;16\)"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize(
    "size, longest, reduced",
    [((300, 400), 200, (150, 200)), ((300, 400), 500, (300, 400)), ((1, 20000), 512, (1, 512))],
)
def test_reduced_size(size, longest, reduced):
    assert reduced_size(size, longest) == reduced


@pytest.mark.parametrize("read", [read_image, image_size])
def test_more_pixels_than_are_decoded_are_refused_by_name(read, tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match=r"huge\.png has more than 178,956,970 pixels"):
        read(tmp_path / "huge.png")
