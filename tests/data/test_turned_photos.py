"""Photos that are turned by an EXIF tag when they are read: which label maps fit, which may not."""

import logging

import numpy as np
import pytest
from PIL import Image

from instance_crf.data.datasets import index
from instance_crf.data.datasets.index import ImageFiles, load_index
from instance_crf.data.image_io import read_image
from instance_crf.data.preparation.verification import verify_files
from instance_crf.taxonomies.schema import PartTaxonomy

PARTS = PartTaxonomy(("head",))
KIND = f"photos {index.TURNED}"


@pytest.fixture
def files(tmp_path):
    """A function: orientations -> a photo each, stored (30, width), and maps of its labels."""

    def make(*orientations, width=40, drawn_on="upright"):
        found = []
        for number, orientation in enumerate(orientations):
            names = [str(tmp_path / f"{number}{end}") for end in (".jpg", "_p.png", "_o.png")]
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.new("RGB", (width, 30)).save(names[0], exif=exif)
            size = read_image(names[0]).shape[:2] if drawn_on == "upright" else (30, width)
            for name in names[1:]:
                Image.fromarray(np.ones(size, np.uint8)).save(name)
            found.append(ImageFiles(str(number), *names))
        return found

    return make


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_maps_of_the_stored_pixels_are_refused_where_the_size_tells(files, orientation):
    found = files(1, orientation, drawn_on="stored pixels")
    words = rf"1_p.png is 40x30 .*1.jpg is 30x40 after .* EXIF orientation {orientation}\."
    with pytest.raises(ValueError, match=words):
        load_index(found, PARTS, cache=None)
    (error,) = verify_files("x", found, PARTS).errors["files that cannot be used"]
    assert f"EXIF orientation {orientation}" in error
    upright = files(1, orientation)
    assert load_index(upright, PARTS, cache=None)[1]["height"] == 40
    assert not verify_files("x", upright, PARTS).warnings.get(KIND)


@pytest.mark.parametrize("orientations, width", [((2, 3, 4), 40), (range(2, 9), 30)])
def test_what_no_size_tells_is_told_once(files, orientations, width, caplog, tmp_path):
    found = files(1, *orientations, width=width)
    for _ in range(2):
        load_index(found, PARTS, cache=tmp_path / "index.json")
    (record,) = caplog.records
    count = len(orientations)
    assert record.levelno == logging.WARNING
    assert f"{count} of {count + 1} photos" in record.message
    assert str(tmp_path / "1.jpg") in record.message and "upright" in record.message
    assert len(verify_files("x", found, PARTS).warnings[KIND]) == count


def test_the_index_remembers(files, caplog, tmp_path, monkeypatch):
    found = files(3)
    load_index(found, PARTS, cache=tmp_path / "index.json")
    monkeypatch.setattr(index, "_warned", set())  # as in the next process
    load_index(found, PARTS, cache=tmp_path / "index.json")
    assert len(caplog.records) == 2


def test_nothing_is_said_of_upright_or_unlabelled_photos(files, caplog):
    load_index(files(1, 1), PARTS, cache=None)
    load_index([ImageFiles("0", files(3)[0].photo, None, None)], PARTS, cache=None)
    assert not caplog.records
