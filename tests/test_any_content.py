"""Whatever a file holds, its reader gives a result, or an error that names the file.

The readers of evaluation's files: tests/evaluation/toolkit/test_broken_files.py.
"""

import io
import json
import pickle
import warnings
from datetime import timedelta

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from instance_crf.config import load_config
from instance_crf.data.datasets.canonical import check_taxonomy_file, read_id_list
from instance_crf.data.datasets.index import read_classes
from instance_crf.data.datasets.own import OwnDataset, read_part_yaml
from instance_crf.data.image_io import image_size, read_image
from instance_crf.data.label_io import palette_of, read_object_map, read_part_map, read_rgb_png
from instance_crf.own_models.resources import read_arrays
from instance_crf.taxonomies.registry import read_taxonomy
from instance_crf.taxonomies.schema import PartTaxonomy
from instance_crf.weights_file import read_weights_file

FEW = settings(
    max_examples=80,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PIXELS = np.random.default_rng(0).integers(0, 4, (12, 17)).astype(np.uint8)


def written(write, *arguments, **more):
    file = io.BytesIO()
    write(file, *arguments, **more)
    return file.getvalue()


def picture(name, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"exif": exif} if name in ("PNG", "JPEG", "WEBP") else {}
    return written(Image.fromarray(PIXELS).convert(mode).save, format=name, **more)


PICTURES = [
    *(picture("PNG", mode) for mode in ("L", "P", "RGB", "1", "I;16")),
    *(picture(name, "RGB") for name in ("JPEG", "WEBP", "BMP", "PPM")),
    *(picture(name, "L") for name in ("TIFF", "GIF")),
]


@st.composite
def damaged(draw, files):
    """One of the files, of which some bytes are others, or that ends early."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.none(), st.integers(0, len(content))))])


def result_or_named(read, path):
    """What it gives; None after an error of ours, whose message is one line with the name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except (ValueError, OSError) as error:
        assert path.name in str(error) and "\n" not in str(error)
        return None


def rgb(path):
    return read_rgb_png(path, "red, green, blue")


@pytest.mark.parametrize(
    "read", [read_image, image_size, read_part_map, read_object_map, palette_of, rgb]
)
@given(content=st.one_of(st.binary(max_size=200), damaged(PICTURES)))
@FEW
def test_pictures(read, content, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    result_or_named(read, path)


ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)
STATE = {"model": {"weight": torch.ones(3, 4)}, "iteration": 3}


WHOLE = {
    ".pth": [
        written(lambda file: torch.save(STATE, file)),
        written(lambda file: torch.save(STATE, file, _use_new_zipfile_serialization=False)),
    ],
    ".pkl": [pickle.dumps({"model": {"weight": ARRAY}}, protocol) for protocol in (0, 2, 4, 5)],
    ".npy": [written(np.save, ARRAY), written(np.save, ARRAY.T), written(np.save, np.float64(1))],
    ".npz": [written(np.savez, a=ARRAY), written(np.savez_compressed, a=ARRAY, b=ARRAY[0])],
}


@pytest.mark.parametrize("suffix", WHOLE)
@given(data=st.data())
@FEW
def test_weights_and_arrays(suffix, data, tmp_path):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=200), damaged(WHOLE[suffix]))))
    result_or_named(read_arrays if suffix in (".npy", ".npz") else read_weights_file, path)


SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=4)),
    st.sampled_from(["head", "left arm", "right arm", "background", "person", "train"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(0, 4)), inner, max_size=4),
    ),
    max_leaves=8,
)
NAMES = st.lists(st.sampled_from(["head", "left arm", "right arm", "l", "bg"]), max_size=4)
SPLIT = {"images": "photos", "parts": "parts", "objects": "people"}
NEARLY_OWN = st.fixed_dictionaries(
    {
        "name": st.one_of(st.just("mine"), ANYTHING),
        "parts": st.one_of(NAMES, ANYTHING),
        "splits": st.one_of(st.just({"train": SPLIT}), st.fixed_dictionaries({"val": ANYTHING})),
    },
    optional={
        "objects": st.one_of(st.just(["person"]), ANYTHING),
        "owners": ANYTHING,
        "flip_pairs": st.one_of(st.just([["left arm", "right arm"]]), ANYTHING),
        "colors": ANYTHING,
    },
)


@given(content=st.one_of(NEARLY_OWN, ANYTHING))
@FEW
def test_part_yaml(content, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    own = result_or_named(read_part_yaml, path)
    if own is not None:
        check_own(own, content)


def check_own(own, content):
    """The ids are those of the list, or those that the table says."""
    assert isinstance(own, OwnDataset)
    for number, name in enumerate(own.taxonomy.part_names, 1):
        parts = content["parts"]
        assert parts[number - 1] == name if isinstance(parts, list) else True
        if isinstance(parts, dict):
            assert parts.get(number) == name or parts.get(name) == number


@pytest.mark.parametrize("read", [read_part_yaml, read_id_list, read_taxonomy])
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
@FEW
def test_bytes_that_should_be_text(read, content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    result_or_named(read, path)


NEARLY_TAXONOMY = st.fixed_dictionaries(
    {"part_names": st.one_of(NAMES, ANYTHING)},
    optional={
        key: ANYTHING
        for key in ("object_names", "part_owner", "flip_pairs", "part_colors", "part_regions")
    },
)
TWO = PartTaxonomy(("head", "wheel"), ("person", "car"), (0, 1))


def stored_taxonomy(path):
    return check_taxonomy_file(path, TWO)


def classes(path):
    return read_classes(path, TWO)


@pytest.mark.parametrize("read", [read_taxonomy, stored_taxonomy, classes])
@given(content=st.one_of(NEARLY_TAXONOMY, ANYTHING))
@FEW
def test_json(read, content, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    result_or_named(read, path)


KEYS = ["_BASE_", "VERSION", "MODEL", "DATASETS", "SOLVER", "INPUT", "OUTPUT_DIR", "SEED", "TEST"]
BELOW = ["INSTANCE_CRF", "DEVICE", "WEIGHTS", "TRAIN", "TEST", "PART_YAML", "MAX_ITER"]
VALUES = st.one_of(ANYTHING, st.sampled_from(["cuda", "joint", "any.yaml", "synthetic_people_val"]))
CONFIGS = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(BELOW), VALUES, max_size=3)),
    max_size=4,
)


@given(content=st.one_of(CONFIGS, VALUES))
@FEW
def test_configs(content, tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        load_config(str(path))
    except (ValueError, OSError, ImportError) as error:
        assert str(error)
