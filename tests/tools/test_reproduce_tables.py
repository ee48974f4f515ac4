"""tools/reproduce_tables.py: a run that was killed goes on, to the numbers of one that was not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "reproduce_tables.py"


@pytest.fixture
def begin(tiny, tiny_opts, tmp_path):
    """A function: output, options -> the tool at work on the data set `tiny`, one seed."""
    data = tmp_path / "tiny.yaml"
    yaml = tmp_path / "parts.yaml"
    splits = {
        name: {"images": f"{tiny}/{folder}/Images", "parts": f"{tiny}/{folder}/Category_ids",
               "objects": f"{tiny}/{folder}/Human_ids"}
        for name, folder in (("train", "Training"), ("val", "Validation"))
    }  # fmt: skip
    parts = [f"part {number}" for number in range(1, 7)]
    yaml.write_text(json.dumps({"name": "small", "parts": parts, "splits": splits}))
    data.write_text(f"DATASETS:\n  PART_YAML: {yaml}\n")
    pairs = dict(zip(tiny_opts[::2], tiny_opts[1::2], strict=True))
    for key in ("DATASETS.TRAIN", "DATASETS.TEST", "MODEL.WEIGHTS", "SOLVER.MAX_ITER"):
        del pairs[key]

    def begin(output, *options):
        command = [sys.executable, TOOL, "--dataset", data, "--model", "tiny_fpn", "--seeds", 1]
        command += ["--budget", 0.05, "--output", output, "--jobs", 2, *options]
        command += ["--opts", *(x for pair in pairs.items() for x in pair)]
        log = open(tmp_path / f"{output.name}.log", "a")
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)

    return begin


def finish(process, log):
    assert process.wait(timeout=600) == 0, log.read_text()[-3000:]


def kill_when(process, condition, log):
    """Kill it as soon as ``condition`` holds, which it must before its end."""
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def results_of(output):
    content = json.loads((output / "seed_1" / "results.json").read_text())
    return content["rows"], content["curve"], content["minutes"]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_numbers_of_one_that_was_not(begin, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    only = ["--only", "base", "control"]
    finish(begin(whole, *only), tmp_path / "whole.log")
    assert "# " in (whole / "tables.md").read_text()
    killed.mkdir()  # as many iterations: those follow from the time that they take
    (killed / "plan.json").write_text((whole / "plan.json").read_text())

    base, log = killed / "seed_1" / "base", tmp_path / "killed.log"
    kill_when(begin(killed, *only), lambda: list(base.glob("model_0*.pth")), log)
    assert not (base / "model_final.pth").exists()
    rows = killed / "seed_1" / "control" / "rows.json"
    kill_when(begin(killed, *only), rows.exists, log)
    finish(begin(killed, *only), log)
    assert results_of(killed) == results_of(whole)
    assert len(results_of(whole)[0]) == 7  # the CRF, not trained, and six rules

    before = rows.stat().st_mtime_ns
    finish(begin(killed, *only), log)  # nothing is left to do
    assert rows.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "options, said",
    [
        (["bass"], "error: There is no stage 'bass'; there are base,"),
        (["factored"], "error: Stage 'factored' needs 'base', which is not trained for seed 1"),
    ],
)
def test_stages_that_cannot_be(begin, tmp_path, options, said):
    process = begin(tmp_path / "out", "--only", *options)
    assert process.wait() == 1
    assert (tmp_path / "out.log").read_text().splitlines()[-1].startswith(said)


def test_what_is_evaluated_is_looked_at_first(begin, tiny, tmp_path):
    missing = sorted((tiny / "Validation" / "Category_ids").iterdir())[0]
    missing.unlink()
    process = begin(tmp_path / "out")
    assert process.wait() == 1
    log = (tmp_path / "out.log").read_text()
    assert missing.name in log.splitlines()[-1] and not (tmp_path / "out" / "seed_1").exists()
