"""tools/visualize_dense_crf.py on a small picture."""

import importlib.util
import re
from pathlib import Path

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
