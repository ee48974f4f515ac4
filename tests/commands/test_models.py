"""What the commands ask for about models, and what `load_models` makes of it."""

import argparse

import numpy as np
import pytest

from instance_crf.commands.models import add_model_arguments, load_models, read_groups
from instance_crf.taxonomies import get_taxonomy


def test_options_are_plain_values():
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    texts = ("a=1", "b=0.5", "c=true", "d=False", "e=none", "f=[1, 2]", "g=x=y", "h=cuda:0", "i=")
    argv = ["--parts", "p", "--detector", "d"]
    argv += [part for text in texts for part in ("--option", text)]
    assert dict(parser.parse_args(argv).option) == {
        **{"a": 1, "b": 0.5, "c": True, "d": False, "e": None},
        **{"f": [1, 2], "g": "x=y", "h": "cuda:0", "i": ""},
    }


def test_groups(tmp_path):
    assert read_groups("a = b, c d;e=f;") == {"a": ["b", "c d"], "e": ["f"]}
    for wrong, message in (
        ("a", "not like"),
        ("a=", "not like"),
        ("=b", "not like"),
        ("a=b,,c", "not like"),
        ("a=b;a=c", "'a' twice"),
        (" ; ", "no group"),
    ):
        with pytest.raises(ValueError, match=message):
            read_groups(wrong)
    path = tmp_path / "groups.json"
    with pytest.raises(FileNotFoundError, match=r"groups\.json"):
        read_groups(str(path))
    for text, message in (
        ("{", "not JSON"),
        ("[]", "must hold"),
        ("{}", "must hold"),
        ('{"a": "b"}', "'a' must be a list"),
        ('{"a": [1]}', "'a' must be a list"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_groups(str(path))


def load(*more):
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    return load_models(parser.parse_args([str(each) for each in more]))


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
    with pytest.raises(ValueError, match="add --taxonomy"):
        load(*given)
    assert load(*given, "--taxonomy", "cihp")[3] is None
    with pytest.raises(ValueError, match="Unknown part 'nose'"):
        load(*given, "--taxonomy", "cihp", "--merge", "head=nose")
    with pytest.raises(ValueError, match="no taxonomy"):
        load(*given, "--taxonomy", "nobody's")
    with pytest.raises(SystemExit):
        load(*given, "--option", "align_corners")
