"""How the stages are trained: iterations by the minutes they may take, the detections between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import read_json, read_text, write_json
from .plan import CONDITIONS, DETECTION_FILES, Recipe, Stage, is_file
from .results import AS_FOUND
from .tasks import Command

__all__ = ["Training", "detection_commands"]

TIMED = 60
"""Iterations by which a stage is timed: the fastest twenty of them, when least else ran."""
_PERIOD = 20
"""Iterations between two records of Detectron2's metrics.json."""
CHECKPOINTS = 4
"""Of a stage: so much of it at most is lost when it is killed."""


@dataclass(frozen=True)
class Training:
    """The stages of a data set in a folder.

    Attributes:
        root: of the repository.
        output: its folders ``seed_N/STAGE``.
        recipe: what the networks are put together of.
        budget: minutes of a base network.
        opts: config overrides of all stages.
        num_gpus: of each program.
    """

    root: Path
    output: Path
    recipe: Recipe
    budget: float
    opts: tuple[str, ...] = ()
    num_gpus: int = 0

    def folder(self, seed: int, stage: str) -> Path:
        return self.output / f"seed_{seed}" / stage

    def is_trained(self, seed: int, stage: str) -> bool:
        return (self.folder(seed, stage) / "model_final.pth").is_file()

    def timing(self, seed: int, stage: Stage) -> Iterator[Command]:
        """The program that finds out how many iterations fit into the stage's minutes."""
        if stage.name in self.iterations():
            return
        folder = self.output / "timing" / stage.name
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        yield self.command(seed, stage, TIMED, folder)
        number = max(round(60 * self.minutes(stage) / min(_seconds(folder))), 1)
        plan = {**self._settings(), "iterations": self.iterations() | {stage.name: number}}
        write_json(self.output / "plan.json", plan, indent=1)
        shutil.rmtree(folder)

    def commands(self, seed: int, stage: Stage) -> Iterator[Command]:
        """The program that trains it, or goes on where it was left; its number of iterations is
        known."""
        if not self.is_trained(seed, stage.name):
            iterations = self.iterations()[stage.name]
            yield self.command(seed, stage, iterations, self.folder(seed, stage.name))

    def hours(self, seed: int, stage: Stage) -> float:
        """That its training has taken so far, by the clock."""
        folder = self.folder(seed, stage.name)
        if not (folder / "metrics.json").exists():
            return 0.0
        return sum(_seconds(folder)) * _PERIOD / 3600

    def config_file(self, name: str) -> Path:
        """Of a name below `configs/`, without ``.yaml``; another file's path is left alone."""
        return self.root / "configs" / (name if is_file(name) else f"{name}.yaml")

    def minutes(self, stage: Stage) -> float:
        return self.budget * stage.share

    def command(self, seed: int, stage: Stage, iterations: int, folder: Path) -> Command:
        """The program that trains it for so many iterations, or goes on in ``folder``."""
        opts: list[object] = ["SEED", seed, *stage.opts]
        if stage.start:
            opts += ["MODEL.WEIGHTS", self.folder(seed, stage.start) / "model_final.pth"]
        if stage.given_boxes:
            folder_of_boxes = self.folder(seed, "detections")
            files = tuple(str(folder_of_boxes / f"{name}.json") for name in self.recipe.train)
            opts += ["DATASETS.DETECTIONS_TRAIN", str(files)]
        opts += ["SOLVER.MAX_ITER", iterations, "SOLVER.WARMUP_ITERS", iterations // 20]
        opts += ["SOLVER.CHECKPOINT_PERIOD", -(-iterations // CHECKPOINTS)]
        # Nothing is evaluated here.
        opts += ["DATASETS.TEST", "()", "TEST.PICTURES", 0, *self.opts, "OUTPUT_DIR", folder]
        layers = [self.config_file(name) for name in stage.files]
        flags = ["--resume"] if (folder / "last_checkpoint").exists() else []
        flags += ["--num-gpus", self.num_gpus] if self.num_gpus else []
        log = folder.with_name(f"{folder.name}.log")
        program = self.root / "tools" / "train_net.py"
        return Command([program, *flags, "--config-file", *layers, *opts], log)

    def iterations(self) -> dict[str, int]:
        """Stage -> how many, of those that were timed: the same for all seeds.

        Raises:
            ValueError: they were timed for another budget, model or data set, or with other opts.
        """
        file = self.output / "plan.json"
        if not file.exists():
            return {}
        plan = read_json(file, dict)
        for key, value in self._settings().items():
            if plan.get(key, value) != value:
                raise ValueError(
                    f"{file} has the {key} {plan[key]!r}, but this run {value!r}: give the same, "
                    "or another --output."
                )
        return plan["iterations"]

    def _settings(self) -> dict[str, object]:
        """What all that lies in the folder has in common."""
        return {"budget": self.budget, "base": list(self.recipe.base), "opts": list(self.opts)}


def detection_commands(training: Training, seed: int) -> Iterator[Command]:
    """The programs that write the boxes of the base network's detections as files: of the training
    pictures, and under all conditions of those that are evaluated."""
    base, folder = training.folder(seed, "base"), training.folder(seed, "detections")
    wanted = [(split, AS_FOUND) for split in training.recipe.train]
    wanted += [(split, condition) for split in training.recipe.splits for condition in CONDITIONS]
    for split, condition in wanted:
        file = folder / DETECTION_FILES[condition].format(split=split)
        if file.exists() and not _is_older(file, base / "model_final.pth"):
            continue
        flags = [
            part
            for name, value in CONDITIONS[condition].items()
            for part in ({"scale": "--box-scale", "false_boxes": "--false-boxes"}[name], value)
        ]
        arguments = [training.root / "tools" / "write_detections.py"]
        arguments += ["--config-file", base / "config.yaml", "--dataset", split, "--output", file]
        arguments += [*flags, "MODEL.WEIGHTS", base / "model_final.pth"]
        yield Command(arguments, folder.with_name("detections.log"))


def _seconds(folder: Path) -> list[float]:
    """Of an iteration, the median of every :data:`_PERIOD`."""
    records = map(json.loads, read_text(folder / "metrics.json").splitlines())
    return [record["time"] for record in records if "time" in record]


def _is_older(file: Path, other: Path) -> bool:
    return other.exists() and file.stat().st_mtime < other.stat().st_mtime
