"""tools/analyze_model.py: its counts against counts by hand."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from instance_crf.config import load_config

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("analyze", ROOT / "tools" / "analyze_model.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

CONFIG = str(ROOT / "configs/SyntheticPeople/instance_crf.yaml")
OPTS = """
    MODEL.DEVICE cpu MODEL.WEIGHTS '' MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.FPN.OUT_CHANNELS 16
""".split()
SIZE = (64, 96)


def run(*arguments, more=()):
    tool.main(["--config-file", CONFIG, *arguments, "--opts", *OPTS, *more])


def counts_of_convolutions():
    """(multiply-adds, output elements) of every convolution in one forward pass, by hooks."""
    model = build_model(load_config(CONFIG, OPTS)).eval()
    flops, elements = [], []

    def count(module, _, output):
        kernel = module.weight[0].numel()  # input channels x kernel height x kernel width
        flops.append(output.numel() * kernel)
        elements.append(output.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.norm = None  # Detectron2's convolutions apply it themselves; sizes stay
            module.register_forward_hook(count)
    model.crf_head = None
    model.keep_evidence = True
    with torch.no_grad():
        model([{"image": torch.zeros(3, *SIZE, dtype=torch.uint8)}])
    return sum(flops), sum(elements)


def test_flops_of_convolutions(capsys):
    run("--tasks", "flop", "--num-inputs", "2", "--image-size", *map(str, SIZE))
    printed = capsys.readouterr().out
    found = float(re.search(r"^conv +([\d.]+)$", printed, re.MULTILINE).group(1))
    expected, _ = counts_of_convolutions()
    assert found == pytest.approx(expected / 1e9, abs=1e-4)
    assert "(2 images)" in printed and "backbone.bottom_up" in printed


def test_activations_of_convolutions(capsys):
    run("--tasks", "activation", "--num-inputs", "1", "--image-size", *map(str, SIZE))
    found = float(re.search(r"^conv +([\d.]+)$", capsys.readouterr().out, re.MULTILINE).group(1))
    _, expected = counts_of_convolutions()
    assert found == pytest.approx(expected / 1e6, abs=1e-4)


def test_parameters_and_structure(capsys):
    run("--tasks", "parameter", "structure")
    printed = capsys.readouterr().out
    model = build_model(load_config(CONFIG, OPTS))
    total = sum(p.numel() for p in model.parameters())
    assert f"Parameters: {total:,}, of which learn {total:,}" in printed
    assert "crf_head" in printed and "(roi_heads): StandardROIHeads(" in printed


def test_frozen_parameters_do_not_learn(capsys):
    run("--tasks", "parameter", more=("MODEL.FREEZE", "['backbone']"))
    counts = re.search(r"Parameters: (\S+), of which learn (\S+)", capsys.readouterr().out)
    total, learned = (int(count.replace(",", "")) for count in counts.groups())
    model = build_model(load_config(CONFIG, OPTS))
    frozen = sum(p.numel() for p in model.backbone.parameters())
    assert total - learned == frozen > 0


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.yaml"):
        tool.main(["--config-file", "absent.yaml", "--tasks", "parameter"])
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        run("--tasks", "parameter", more=("MODEL.WEIGHTS", str(tmp_path / "absent.pth")))
