"""Photos, against Detectron2's reader."""

import struct
import zlib

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image, PngImagePlugin

from instance_crf.data.image_io import image_size, read_image, reduced_size, upright_size
from instance_crf.data.label_io import palette_of, read_label_png
from instance_crf.own_models.images import read_picture


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


@pytest.mark.parametrize("read", [read_image, image_size, read_picture])
@pytest.mark.parametrize(
    "pixels, mode", [(np.full((4, 5), 4096, np.uint16), "I;16"), (np.ones((4, 5), np.float32), "F")]
)
def test_more_than_8_bits_are_not_cut(tmp_path, read, pixels, mode):
    Image.fromarray(pixels).save(tmp_path / "deep.png", format="PNG" if mode != "F" else "TIFF")
    with pytest.raises(ValueError, match=rf"deep.png has more than 8 bits \(mode {mode}\)"):
        read(tmp_path / "deep.png")


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_rotation_that_only_xmp_tells(photo, orientation, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    Image.fromarray(photo).save(tmp_path / "a.png", pnginfo=text)
    size = read_image(tmp_path / "a.png").shape[:2]
    assert upright_size(tmp_path / "a.png") == (size, orientation)
    assert size == {3: (30, 50), 6: (50, 30)}[orientation]


def test_a_picture_that_claims_to_be_huge(tmp_path):
    """Refused by its header: nothing is decoded."""
    Image.new("L", (5, 4)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    for read in (read_image, image_size, read_picture, read_label_png, palette_of):
        with pytest.raises(ValueError, match=r"bomb.png has more than 178,956,970 pixels"):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "size, longest, reduced",
    [((300, 400), 200, (150, 200)), ((300, 400), 500, (300, 400)), ((1, 20000), 512, (1, 512))],
)
def test_reduced_size(size, longest, reduced):
    assert reduced_size(size, longest) == reduced
