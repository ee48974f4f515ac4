import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from instance_crf.data import label_io
from instance_crf.own_models.parts.read import read_part_scores


def test_palette_png_gives_ids(tmp_path):
    """Neither colours nor the grey levels 38, 75, 113, ... of cv2.imread(path, 0)."""
    ids = np.arange(7, dtype=np.uint8).reshape(1, 7)
    image = Image.fromarray(ids).convert("P")
    image.putpalette([v for i in range(256) for v in ((i * 37) % 256, (i * 91) % 256, i)])
    image.putdata(ids.ravel().tolist())
    image.save(tmp_path / "p.png")
    assert label_io.read_part_map(tmp_path / "p.png").tolist() == ids.tolist()


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_modes(tmp_path, mode):
    array = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    Image.fromarray(array * (255 if mode == "1" else 1)).convert(mode).save(tmp_path / "a.png")
    read = label_io.read_part_map(tmp_path / "a.png")
    assert read.dtype == np.uint8 and np.array_equal(read, array)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path, bits):
    """Optimisers store small ids in few bits; readers of pictures stretch these to 0..255."""
    ids = np.arange(35).reshape(5, 7) % 2**bits
    planes = (ids[:, :, None] >> np.arange(bits)[::-1]) & 1  # most significant bit first
    rows = np.packbits(planes.reshape(5, -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 7, 5, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    content = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    stored = label_io.read_label_png(tmp_path / "a.png")
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, ids)


@pytest.mark.parametrize("largest, dtype", [(254, np.uint8), (255, np.uint16), (60000, np.uint16)])
def test_object_map_round_trip(tmp_path, largest, dtype):
    objects = np.array([[0, 1, -1], [largest, 3, 0]], dtype=np.int32)
    label_io.write_object_map(tmp_path / "o.png", objects)
    assert label_io.read_label_png(tmp_path / "o.png").dtype == dtype
    read = label_io.read_object_map(tmp_path / "o.png")
    assert read.dtype == np.int32 and np.array_equal(read, objects)


def test_255_is_an_object_in_16_bits_and_ignored_in_8(tmp_path):
    Image.fromarray(np.full((2, 2), 255, np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.full((2, 2), 255, np.uint16)).save(tmp_path / "16.png")
    assert (label_io.read_object_map(tmp_path / "8.png") == -1).all()
    assert (label_io.read_object_map(tmp_path / "16.png") == 255).all()


def test_part_map_round_trip_and_permissions(tmp_path):
    parts = np.array([[0, 5], [255, 2]])
    label_io.write_part_map(tmp_path / "p.png", parts)
    assert np.array_equal(label_io.read_part_map(tmp_path / "p.png"), parts)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "p.png").stat().st_mode & 0o777 == 0o666 & ~umask


def test_truncated_png_is_named(tmp_path):
    path = tmp_path / "broken.png"
    label_io.write_part_map(path, np.random.randint(0, 7, (80, 80)))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="broken.png"):
        label_io.read_part_map(path)


def test_not_an_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png"):
        label_io.read_part_map(tmp_path / "text.png")


def test_missing_file_is_named(tmp_path):
    for read in (label_io.read_part_map, label_io.read_object_map):
        with pytest.raises(FileNotFoundError, match="nowhere.png"):
            read(tmp_path / "nowhere.png")


def test_colour_rendering_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match="colour.png.*colour picture"):
        label_io.read_part_map(tmp_path / "colour.png")


@pytest.mark.parametrize("bad", [np.full((2, 2), 256), np.full((2, 2), -1), np.zeros((2, 2, 3))])
def test_bad_part_map_is_not_written(tmp_path, bad):
    with pytest.raises(ValueError, match="out.png"):
        label_io.write_part_map(tmp_path / "out.png", bad)
    assert not list(tmp_path.iterdir())


IDS = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8)


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "JPEG2000"])
def test_lossy_formats_are_refused_whatever_their_name(tmp_path, name):
    path = tmp_path / "a.png"
    Image.fromarray(IDS).save(path, format=name)
    with pytest.raises(ValueError, match=f"a.png is a {name}, whatever its name"):
        label_io.read_label_png(path)
    with Image.open(path) as opened, pytest.raises(ValueError, match=f"{name}|mode RGB"):
        read_part_scores(opened, "map")


def test_lossy_tiff_is_refused_and_other_lossless_files_are_read(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IDS).save(path, format="TIFF", compression="jpeg")
    with pytest.raises(ValueError, match="a.png is a JPEG"):
        label_io.read_label_png(path)
    for name, more in (("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})):
        Image.fromarray(IDS).save(path, format=name, **more)
        np.testing.assert_array_equal(label_io.read_label_png(path), IDS)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_fractions_are_no_ids(tmp_path, scale):
    pixels = (np.random.default_rng(0).random((4, 5)) * scale).astype(np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.png", format="TIFF")
    for read in (label_io.read_part_map, label_io.read_object_map):
        with pytest.raises(ValueError, match="a.png has floating-point numbers"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("place", ["exif", "xmp"])
def test_a_label_map_is_not_turned(tmp_path, place):
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    if place == "exif":
        exif[0x0112] = 6
    else:
        text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(IDS).save(tmp_path / "a.png", exif=exif, pnginfo=text)
    with pytest.raises(ValueError, match="a.png has an EXIF orientation"):
        label_io.read_label_png(tmp_path / "a.png")


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), label_io.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
