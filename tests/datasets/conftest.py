"""Data sets in the layouts of their releases, a few small images each."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

ROOT = Path(__file__).parents[2]
SIZE = (48, 64)


@pytest.fixture
def script():
    """A function that imports datasets/<name>.py."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "datasets" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # so that its functions can go to other processes
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def photo():
    """A function that writes a photo of (H, W)."""

    def write(path, size=SIZE):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.randint(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return write


@pytest.fixture
def png():
    """A function that writes an array: grey, palette (``"P"``), or in the red channel (``"R"``)."""

    def write(path, array, mode="L"):
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(array, dtype=np.uint8)
        image = Image.fromarray(array)
        if mode == "P":
            image = image.copy()
            image.putpalette([(37 * i + 11 * c) % 256 for i in range(256) for c in range(3)])
        elif mode == "R":
            image = Image.fromarray(np.dstack([array, np.zeros_like(array), np.zeros_like(array)]))
        image.save(path)

    return write


@pytest.fixture
def mask():
    """A function (top, left, bottom, right) -> (H, W) uint8 mask."""

    def draw(top, left, bottom, right, size=SIZE):
        array = np.zeros(size, np.uint8)
        array[top:bottom, left:right] = 1
        return array

    return draw


@pytest.fixture
def mat():
    """A function that writes objects [(class, mask, [(part, mask), ...]), ...] as PASCAL-Part does.

    The nesting is that of the release: a 1x1 struct ``anno``, 1xN ``objects``, 1xM ``parts``, and a
    0x0 array in place of ``parts`` where there are none.
    """

    def struct_array(rows, fields):
        array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
        for i, row in enumerate(rows):
            for name, value in zip(fields, row, strict=True):
                array[name][0, i] = value
        return array

    def write(path, objects, index=15):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for name, object_mask, parts in objects:
            pieces = struct_array(parts, ("part_name", "mask")) if parts else np.zeros((0, 0))
            rows.append((name, index, object_mask, pieces))
        listed = struct_array(rows, ("class", "class_ind", "mask", "parts"))
        anno = struct_array([(path.stem, listed)], ("imname", "objects"))
        savemat(path, {"anno": anno}, do_compression=True)

    return write
