"""Groups of parts as they are written on the command line, and what `load_inputs` makes of all."""

import argparse
import json

import numpy as np
import pytest

from instance_crf.own_models.arguments import add_input_arguments, load_inputs, read_groups
from instance_crf.taxonomies import get_taxonomy

GROUPS = {"head": ["face", "hair"], "body": ["upper clothes"]}


def test_groups(tmp_path):
    assert read_groups("head=face, hair; body =upper clothes;") == GROUPS
    (tmp_path / "groups.JSON").write_text(json.dumps(GROUPS))
    assert read_groups(str(tmp_path / "groups.JSON")) == GROUPS


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must be groups"),
        ("head", "'head' must be made of names of parts"),
        ("head=face,,hair", "'head' must be made of names of parts"),
        ("=face", "'' must be made of names of parts"),
        ("head=face;head=hair", "each named once"),
        ("nowhere.json", "nowhere.json does not exist"),
    ],
)
def test_wrong_groups(text, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_groups(text)


@pytest.mark.parametrize(
    "content, message",
    [("[]", "must hold"), ("{", "is not JSON"), ('{"a": "face"}', "'a' must"), ("{}", "groups")],
)
def test_wrong_files(tmp_path, content, message):
    (tmp_path / "groups.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_groups(str(tmp_path / "groups.json"))


def load(*more):
    parser = argparse.ArgumentParser()
    add_input_arguments(parser)
    return load_inputs(parser.parse_args([str(each) for each in more]))


def test_inputs(tmp_path):
    (tmp_path / "q").mkdir()
    np.save(tmp_path / "q/photo.npy", np.full((20, 2, 2), 0.05, np.float32))
    (tmp_path / "boxes.json").write_text('{"photo": {"boxes": [[0, 0, 9, 9]], "scores": [0.5]}}')
    given = ("--parts", tmp_path / "q", "--detector", f"coco:{tmp_path / 'boxes.json'}")
    pixels = np.zeros((10, 10, 3), np.uint8)
    more = ("--taxonomy", "cihp", "--merge", "head=face,hair", "--option", "align_corners=true")
    parts, detector, taxonomy, merge = load(*given, *more)
    assert taxonomy == get_taxonomy("cihp") and merge == {"head": ["face", "hair"]}
    assert parts(pixels, tmp_path / "photo.jpg").align_corners
    assert detector(pixels, tmp_path / "photo.jpg").boxes.tolist() == [[0, 0, 9, 9]]
    assert load(*given)[2:] == (None, None)
    with pytest.raises(ValueError, match="Unknown part 'nose'"):
        load(*given, "--taxonomy", "cihp", "--merge", "head=nose")
    with pytest.raises(FileNotFoundError):
        load(*given, "--taxonomy", "nobody's")
    with pytest.raises(SystemExit):
        load(*given, "--option", "align_corners")
