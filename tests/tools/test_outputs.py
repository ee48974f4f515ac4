"""Tools that work long say before what they cannot write in the end."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("benchmark_crf.py", ["--json", "file/out.json"]),
        ("benchmark_parse.py", ["--json", "file/out.json"]),
        ("benchmark_evaluation.py", ["--folder", "data", "--json", "file/out.json"]),
        ("evaluate_photographs.py", ["nowhere", "--output", "file"]),
        ("write_detections.py", ["--from-truth", "--dataset=nothing", "--output=file/out.json"]),
    ],
)
def test_the_output_is_looked_at_first(tmp_path, tool, arguments):
    (tmp_path / "file").write_text("")
    command = [sys.executable, str(ROOT / "tools" / tool), *arguments]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("error: file")
    assert "cannot be written: Not a directory" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
