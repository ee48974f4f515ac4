"""Data sets that a module of one's own registers reach every tool, as docs/DATASETS.md shows."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from instance_crf.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def horses(tmp_path, monkeypatch):
    """The page's module, and its data set: one picture a split, in the folder where tools run."""
    page = (ROOT / "docs/DATASETS.md").read_text()
    (code,) = re.findall(r"```python\n([^`]*horses_\{split\}.*?)```", page, re.S)
    (tmp_path / "my_horses.py").write_text(code)
    for split, name in (("train", "Training"), ("val", "Validation")):
        folder = tmp_path / "datasets/horses" / name
        parts = np.zeros((40, 60), np.uint8)
        parts[5:20, 5:30], parts[20:38, 5:30] = 1, 2
        maps = {"Category_ids": parts, "Human_ids": (parts > 0).astype(np.uint8)}
        for kind, array in {"Images": np.full((40, 60, 3), 90, np.uint8), **maps}.items():
            (folder / kind).mkdir(parents=True)
            Image.fromarray(array).save(folder / kind / "1.png")
        (folder / f"{split}_id.txt").write_text("1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_horses", None)
    for name in ("horses_train", "horses_val"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_verify(horses, capsys):
    verify = load("datasets/verify.py")
    verify.main(["--import", "my_horses", "horses_train", "horses_val", "--workers", "1"])
    assert capsys.readouterr().out.count("OK: 0 errors") == 2


def test_visualize_data(horses, tmp_path):
    tool = load("tools/visualize_data.py")
    tool.main(["--import", "my_horses", "--dataset", "horses_val", "--output", "pictures"])
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["horses_val_1.png"]


def test_a_config_brings_them(horses, tmp_path):
    """And so does the config.yaml of a run, which all other tools read."""
    sets = ["DATASETS.TRAIN", "('horses_train',)", "DATASETS.TEST", "('horses_val',)"]
    config = str(ROOT / "configs/models/small_fpn.yaml")
    cfg = load_config(config, ["DATASETS.MODULES", "['my_horses']", *sets])
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    (tmp_path / "config.yaml").write_text(cfg.dump())
    for name in ("horses_train", "horses_val"):
        DatasetCatalog.remove(name)
    del sys.modules["my_horses"]
    assert load_config("config.yaml").DATASETS.MODULES == ["my_horses"]
    assert "horses_val" in DatasetCatalog


def test_a_module_that_is_not_there_is_named(tmp_path, capsys):
    verify = load("datasets/verify.py")
    with pytest.raises(ImportError, match="'my_absent_sets'.*Is its folder in PYTHONPATH"):
        verify.main(["--import", "my_absent_sets", "horses_train"])
