"""tools/train_public_models.py: models of public libraries, trained, saved, loaded, and joined by
the commands that it prints."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from instance_crf.cli import main
from instance_crf.own_models.methods import FACTORED

ROOT = Path(__file__).resolve().parents[2]
SIZE = 96


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools/train_public_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_trained_saved_loaded_and_joined(tool, tmp_path):
    """On the few people that they were trained on: what is better than what needs more of them."""
    people = tool.draw_people(8, SIZE, 0, "moderate")
    tool.write_photos(people, tmp_path)
    tool.save_parts(*tool.train_parts(people, 120, 0), tmp_path / "segformer")
    tool.save_detector(tool.train_detector(people, 120, 0), tmp_path / "detector.pth")
    for command in tool.commands(tmp_path, SIZE):
        program, *arguments = shlex.split(command)
        assert program == "instance-crf" and main(arguments) == 0
    results = json.loads((tmp_path / "comparison/results.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert {FACTORED, "joint CRF", "nearest box centre"} < set(rows)
    assert rows[FACTORED]["parts"]["part mIoU"] > 30  # of seven labels; guessing has about 7
    assert rows[FACTORED]["people"]["AP50"] > 10
    assert len(list((tmp_path / "parsed").glob("*_picture.jpg"))) == 8
