"""Training: as many iterations as fit into the minutes, the same when it goes on."""

import json
from dataclasses import replace

import pytest

from instance_crf.experiments.plan import Recipe, Stage
from instance_crf.experiments.training import TIMED, Training, detection_commands

RECIPE = Recipe(
    pretrain=(), base=("a", "/b/c.yaml"), tune=(), train=("t1", "t2"), splits=("v1", "v2")
)
BASE = Stage("base", RECIPE.base, "", 1.0, ("MODEL.MASK_ON", True))
TUNED = Stage("tuned", ("d",), "base", 0.25, given_boxes=True)


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path / "root", tmp_path / "out", RECIPE, 2.0, ("X.Y", "1"))


def time_it(training, stage, seconds):
    """Let the timing of a stage run; its arguments."""
    steps = training.timing(1, stage)
    command = next(steps)
    folder = training.output / "timing" / stage.name
    folder.mkdir(parents=True)
    lines = [{"time": 99.0}, {"time": seconds}, {"time": 1.5 * seconds}, {"other": 0}]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert next(steps, None) is None and not folder.exists()
    return list(map(str, command.arguments))


def value(arguments, key):
    return arguments[arguments.index(key) + 1]


def test_a_stage_is_timed_once_and_trains_for_its_minutes(training):
    arguments = time_it(training, BASE, 0.5)
    assert value(arguments, "SOLVER.MAX_ITER") == str(TIMED)
    assert next(training.timing(2, BASE), None) is None  # for another seed, too
    (command,) = training.commands(2, BASE)
    arguments = list(map(str, command.arguments))
    assert value(arguments, "SOLVER.MAX_ITER") == "240"  # 2 minutes of half a second
    assert value(arguments, "SOLVER.CHECKPOINT_PERIOD") == "60"
    assert value(arguments, "SEED") == "2" and value(arguments, "OUTPUT_DIR").endswith(
        "seed_2/base"
    )
    assert arguments[1:4] == ["--config-file", f"{training.root}/configs/a.yaml", "/b/c.yaml"]
    assert value(arguments, "MODEL.MASK_ON") == "True" and value(arguments, "X.Y") == "1"
    assert "--resume" not in arguments

    (training.folder(2, "base")).mkdir(parents=True)
    (training.folder(2, "base") / "last_checkpoint").write_text("model_0000059.pth")
    (command,) = training.commands(2, BASE)
    assert "--resume" in command.arguments
    (training.folder(2, "base") / "model_final.pth").touch()
    assert list(training.commands(2, BASE)) == []


def test_what_is_tuned_starts_from_the_base_network_and_its_boxes(training):
    arguments = time_it(training, TUNED, 0.1)
    assert value(arguments, "MODEL.WEIGHTS").endswith("seed_1/base/model_final.pth")
    boxes = training.folder(1, "detections")
    assert (
        value(arguments, "DATASETS.DETECTIONS_TRAIN") == f"('{boxes}/t1.json', '{boxes}/t2.json')"
    )
    assert json.loads((training.output / "plan.json").read_text()) == {
        "budget": 2.0,
        "base": ["a", "/b/c.yaml"],
        "opts": ["X.Y", "1"],
        "iterations": {"tuned": 300},
    }


def test_another_budget_model_or_option_is_refused(training):
    time_it(training, BASE, 0.5)
    changed = {"budget": 3.0, "opts": (), "recipe": replace(RECIPE, base=("b",))}
    for name, value in changed.items():
        other = replace(training, **{name: value})
        with pytest.raises(ValueError, match=r"plan.json has the .*, but this run .*: give the"):
            next(other.commands(1, BASE))


def test_boxes_are_written_of_all_pictures_and_disturbed_of_those_that_are_evaluated(training):
    commands = [list(map(str, c.arguments)) for c in detection_commands(training, 1)]
    said = [
        (value(c, "--dataset"), value(c, "--output").rpartition("/")[2])
        + tuple(c[c.index("--output") + 2 : c.index("MODEL.WEIGHTS")])
        for c in commands
    ]
    assert said == [
        ("t1", "t1.json"),
        ("t2", "t2.json"),
        ("v1", "v1.json"),
        ("v1", "v1_shrunk.json", "--box-scale", "0.75"),
        ("v1", "v1_false.json", "--false-boxes", "0.5"),
        ("v2", "v2.json"),
        ("v2", "v2_shrunk.json", "--box-scale", "0.75"),
        ("v2", "v2_false.json", "--false-boxes", "0.5"),
    ]
    folder = training.folder(1, "detections")
    folder.mkdir(parents=True)
    (folder / "v1.json").touch()
    assert len(list(detection_commands(training, 1))) == len(commands) - 1


def test_hours_are_by_the_clock_and_of_what_was_done_twice(training):
    assert training.hours(1, BASE) == 0
    folder = training.folder(1, "base")
    folder.mkdir(parents=True)
    records = [{"iteration": 19, "time": 9.0}, {"iteration": 39, "time": 3.0}, {"iteration": 39}]
    records.append({"iteration": 39, "time": 6.0})  # after it was killed
    (folder / "metrics.json").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert training.hours(1, BASE) == (9 + 3 + 6) * 20 / 3600
