"""All seeds of a data set: what waits for what, and what is left of each seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detectron2.config import CfgNode

from ..config import load_config
from ..evaluation.evaluators import PartInstanceEvaluator
from ..files import read_json, write_json
from .machine import describe
from .plan import CURVES, Row, Stage, is_file, make_rows, make_stages, recipe_of, rows_of
from .results import AS_FOUND
from .tasks import Command, Task, run_tasks
from .training import Training, detection_commands

__all__ = ["Run"]

#: Minutes that one evaluation of 150 pictures takes, about, and writing a seed's detections.
_EVALUATION, _DETECTIONS = 0.5, 4.0


@dataclass(frozen=True)
class Run:
    """The stages and rows of a data set, in a folder.

    Attributes:
        training: how stages are trained.
        stages: of a seed, in their order.
        dataset: its name, as reports have it.
    """

    training: Training
    stages: tuple[Stage, ...]
    dataset: str

    @classmethod
    def of(
        cls,
        root: Path,
        output: Path,
        *,
        dataset: str,
        model: str = "r101_fpn",
        budget: float = 30.0,
        opts: tuple[str, ...] = (),
        num_gpus: int = 0,
    ) -> Run:
        """See the tool's options.

        Raises:
            ValueError: a model without a detector, whose boxes all rows share.
        """
        own = is_file(dataset)
        file = dataset if own else root / "configs" / "datasets" / f"{dataset}.yaml"
        names = load_config(str(file), ["MODEL.DEVICE", "cpu"]).DATASETS
        recipe = recipe_of(str(file) if own else dataset, model, names.TRAIN, names.TEST)
        training = Training(root, output, recipe, budget, opts, num_gpus)
        first, *rest = (str(training.config_file(name)) for name in recipe.base)
        cfg = load_config(first, [*rest, "MODEL.DEVICE", "cpu", *opts])
        if not cfg.MODEL.DETECTOR.ENABLED:
            raise ValueError(
                f"--model {model} has no detector (MODEL.DETECTOR.ENABLED is False), whose boxes "
                "the tables need: take one that has, e.g. r101_fpn."
            )
        num_gpus = _even(cfg.SOLVER, num_gpus)
        opts += _batch_opts(cfg.SOLVER, num_gpus or 1)
        training = replace(training, opts=opts, num_gpus=num_gpus)
        return cls.of_recipe(training, Path(dataset).stem)

    @classmethod
    def of_recipe(cls, training: Training, dataset: str) -> Run:
        """All stages of a recipe."""
        return cls(training, tuple(make_stages(training.recipe)), dataset)

    @property
    def output(self) -> Path:
        return self.training.output

    def run(self, seeds: Sequence[int], jobs: int, only: Sequence[str] | None = None) -> None:
        """Train and evaluate what is not there yet; see :func:`~.tasks.run_tasks`.

        Args:
            seeds: of the training.
            jobs: programs at once.
            only: stages; None: all.

        Raises:
            ValueError: there is no such stage, or what it needs is neither there nor among
                ``only``; there is nothing to evaluate.
        """
        run = self._with(only)
        run._check(seeds)
        tasks = [task for seed in seeds for task in run._tasks_of(seed, seeds[0])]
        run_tasks(tasks, jobs)

    def _with(self, only: Sequence[str] | None) -> Run:
        names = [stage.name for stage in self.stages]
        for name in only or ():
            if name not in names:
                raise ValueError(f"There is no stage {name!r}; there are {', '.join(names)}.")
        return replace(self, stages=tuple(s for s in self.stages if not only or s.name in only))

    def _check(self, seeds: Sequence[int]) -> None:
        """That all is there from which it begins, before hours are spent on it."""
        splits = self.training.recipe.splits
        if not splits:
            raise ValueError(f"{self.dataset} has nothing to evaluate: DATASETS.TEST is empty.")
        for split in splits:
            PartInstanceEvaluator(split)
        names = {stage.name for stage in self.stages}
        for stage in self.stages:
            needed = {stage.start} if stage.start else set()
            needed |= {"base"} if _needs_boxes(stage) else set()
            for name in sorted(needed - names):
                missing = [s for s in seeds if not self.training.is_trained(s, name)]
                if missing:
                    raise ValueError(
                        f"Stage {stage.name!r} needs {name!r}, which is not trained for seed "
                        f"{missing[0]}: name it, too."
                    )

    def _tasks_of(self, seed: int, first: int) -> Iterator[Task]:
        """The tasks of a seed. A stage is timed once, for the first seed."""
        training = self.training
        detections = f"seed {seed}: detections"
        if any(map(_needs_boxes, self.stages)):
            yield Task(
                name=detections,
                after=(f"seed {seed}: base",),
                minutes=_DETECTIONS,
                commands=lambda: detection_commands(training, seed),
            )
        for stage in self.stages:
            before = [f"seed {seed}: {stage.start}"] if stage.start else []
            before += [detections] if stage.given_boxes else []
            timing = f"timing {stage.name}"
            if seed == first:
                yield Task(timing, (*before,), 0.5, lambda s=stage: training.timing(seed, s))
            minutes = 0.0 if training.is_trained(seed, stage.name) else training.minutes(stage)
            name = f"seed {seed}: {stage.name}"
            yield Task(name, (timing, *before), minutes, lambda s=stage: training.commands(seed, s))
            if _is_evaluated(stage):
                yield Task(
                    name=f"seed {seed}: rows of {stage.name}",
                    after=(name, detections) if _needs_boxes(stage) else (name,),
                    minutes=self._minutes_of(rows_of(stage.name)),
                    commands=lambda s=stage: self._evaluation(seed, s),
                )

    def _minutes_of(self, rows: Sequence[Row]) -> float:
        times = sum(3 if row.disturbed else 1 for row in rows)
        return _EVALUATION * times * len(self.training.recipe.splits) / 2

    def _evaluation(self, seed: int, stage: Stage) -> Iterator[Command]:
        folder = self.training.folder(seed, stage.name)
        recipe = self.training.recipe
        arguments = [f"{__package__}.rows", folder, "--configs", self.training.root / "configs"]
        arguments += ["--protocol", recipe.protocol, "--splits", *recipe.splits]
        yield Command(arguments, folder.with_name(f"{stage.name}_rows.log"))
        self.collect(seed)

    def collect(self, seed: int) -> None:
        """Write what there is of a seed to its results.json."""
        training, known = self.training, {row.name: row for row in make_rows()}
        rows, curve, minutes, clock, hours = {}, {}, {}, {}, 0.0
        before, by_clock = {"": 0.0}, {"": 0.0}
        for stage in make_stages(training.recipe):
            start, taken = before[stage.start], training.hours(seed, stage)
            before[stage.name] = start + training.minutes(stage)
            by_clock[stage.name] = by_clock[stage.start] + 60 * taken
            hours += taken
            file = training.folder(seed, stage.name) / "rows.json"
            if not file.exists():
                continue
            done = read_json(file, dict)
            rows |= {name: numbers for name, numbers in done["rows"].items() if name in known}
            minutes[stage.name] = before[stage.name]
            clock[stage.name] = round(by_clock[stage.name], 1)
            points = [done["curve"][key] for key in sorted(done["curve"], key=int)]
            if points:
                curve[CURVES[stage.name].name] = [
                    {"minutes": start + point.pop("share") * training.minutes(stage), **point}
                    for point in points
                ]
        for name, points in curve.items():  # the same system, trained on
            end = minutes.get(known[name].stage, 0)
            if name in rows and end > points[-1]["minutes"]:
                last = {s: of[AS_FOUND] for s, of in rows[name].items() if s in points[-1]}
                points.append({"minutes": end, **last})
        found = {"rows": _rounded(rows), "curve": _rounded(curve)}
        file = self.output / f"seed_{seed}" / "results.json"
        old = read_json(file, dict) if file.exists() else {}
        made, here = old.get("made", []), describe()
        if here not in made and any(old.get(key) != value for key, value in found.items()):
            made = [*made, here]
        content = {
            "seed": seed,
            "dataset": self.dataset,
            "budget": training.budget,
            "made": made,
            "hours": round(hours, 2),
            "minutes": minutes,
            "minutes_by_clock": clock,
            "iterations": training.iterations(),
            **found,
        }
        write_json(file, content)

    def report(self) -> str:
        """Write tables.md and the plots; returns what tables.md says."""
        from .tables import write_report

        return write_report(self.output, self.dataset, self.training.recipe)


def _is_evaluated(stage: Stage) -> bool:
    return bool(rows_of(stage.name)) or stage.name in CURVES


def _needs_boxes(stage: Stage) -> bool:
    """Whether the base network's boxes are needed, for its training or for a row of it."""
    return stage.given_boxes or any("record" in row.model for row in rows_of(stage.name))


def _even(solver: CfgNode, num_gpus: int) -> int:
    """So many of the GPUs that they share a batch evenly, which is not made to fit them."""
    if solver.REFERENCE_WORLD_SIZE:
        return num_gpus
    return max((n for n in range(1, num_gpus + 1) if solver.IMS_PER_BATCH % n == 0), default=0)


def _batch_opts(solver: CfgNode, num_processes: int) -> tuple[str, ...]:
    """Batch and rate for so many processes, where they are meant for another number: Detectron2,
    which would do the same, would also change the number of iterations, and so the minutes."""
    meant = solver.REFERENCE_WORLD_SIZE
    if meant in (0, num_processes):
        return ()
    opts = {
        "SOLVER.REFERENCE_WORLD_SIZE": 0,
        "SOLVER.IMS_PER_BATCH": max(round(solver.IMS_PER_BATCH * num_processes / meant), 1),
        "SOLVER.BASE_LR": solver.BASE_LR * num_processes / meant,
    }
    return tuple(str(x) for pair in opts.items() for x in pair)


#: Numbers of an evaluation that no table shows.
_NOT_SHOWN = ("PCP", "APh", "pixel_accuracy", "mIoU_parts")


def _rounded(results: object) -> object:
    """Numbers as deep as they are, to two decimals, without those that no table shows."""
    if isinstance(results, dict):
        shown = {key: value for key, value in results.items() if not key.startswith(_NOT_SHOWN)}
        return {key: _rounded(value) for key, value in shown.items() if "oracle" not in key}
    if isinstance(results, list):
        return [_rounded(value) for value in results]
    return round(results, 2) if isinstance(results, float) else results
