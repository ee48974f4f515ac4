"""tools/visualize_dense_crf.py on a small picture."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("dense", ROOT / "tools" / "visualize_dense_crf.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_the_picture_is_written_and_the_crf_improves(tmp_path, capsys):
    path = tmp_path / "pictures" / "crf.png"
    assert tool.main(["--output", str(path), "--scenes", "8", "9", "--size", "96", "128"]) == 0
    with Image.open(path) as picture:
        assert picture.width > 4 * 128 and picture.height > 2 * 96
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        before, _, after, _ = map(float, re.findall(r"([\d.]+) %", line))
        assert 50 < before < after < 100


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "file/crf.png"):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="cannot be written") as raised:
            tool.main(["--output", str(path)])
        assert raised.value.filename == str(path)
    assert capsys.readouterr().out == ""
