"""Programs that wait for one another, some at once, with the time left; a killed run goes on."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..data.parallel import end_with_parent

__all__ = ["Command", "Task", "run_tasks"]


@dataclass(frozen=True)
class Command:
    """A Python program.

    Attributes:
        arguments: its file, or its module's name, then its arguments.
        log: where its output goes.
    """

    arguments: Sequence[object]
    log: Path


@dataclass(frozen=True)
class Task:
    """Commands one after the other.

    Attributes:
        name: unique.
        after: names of the tasks that come before.
        minutes: that it will take, about.
        commands: makes them; runs on to the next when one has succeeded.
    """

    name: str
    after: tuple[str, ...]
    minutes: float
    commands: Callable[[], Iterator[Command]]


def run_tasks(tasks: Sequence[Task], jobs: int) -> None:
    """Run them in their order, ``jobs`` at once, each after those that it waits for.

    Programs end with this one. After one has failed none is begun.

    Args:
        tasks: one that waits for a name that is not among them, waits for nothing.
        jobs: how many at once.

    Raises:
        ValueError: tasks that wait for one another.
        ChildProcessError: a program failed; names its log.
    """
    waiting = list(tasks)
    running: dict[str, _Running] = {}
    failed: list[str] = []
    total = sum(task.minutes for task in tasks)
    done = 0.0
    with _bar(total) as bar:
        try:
            while waiting or running:
                for task in () if failed else _ready(waiting, running, jobs):
                    waiting.remove(task)
                    running[task.name] = _Running(task)
                time.sleep(0.2)
                for name in list(running):
                    if running[name].step():
                        task = running.pop(name).task
                        done += task.minutes
                    elif running[name].failed:
                        failed.append(running.pop(name).failed)
                if failed and not running:
                    raise ChildProcessError(f"{failed[0]} says what went wrong.")
                if waiting and not running and not list(_ready(waiting, running, jobs)):
                    names = ", ".join(task.name for task in waiting)
                    raise ValueError(f"Tasks that wait for one another: {names}.")
                bar.set_description_str(", ".join(running) or "done", refresh=False)
                bar.update(done + sum(one.minutes for one in running.values()) - bar.n)
        finally:
            for one in running.values():
                one.end()


def _bar(total: float) -> tqdm:
    shape = "{desc}: {percentage:3.0f}% of {total:.0f} minutes' work [{elapsed}, {remaining} left]"
    return tqdm(total=total, bar_format=shape, mininterval=5.0, maxinterval=60.0)


def _ready(waiting: Sequence[Task], running: dict, jobs: int) -> Iterator[Task]:
    """The next tasks that may begin."""
    unfinished = {task.name for task in waiting} | set(running)
    free = jobs - len(running)
    for task in list(waiting):
        if free > 0 and not unfinished & set(task.after):
            free -= 1
            yield task


class _Running:
    """A task and its present process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.failed = ""
        self._began = time.monotonic()
        self._commands = task.commands()
        self._process: multiprocessing.Process | None = None

    @property
    def minutes(self) -> float:
        """At work so far, but no more than was thought."""
        return min((time.monotonic() - self._began) / 60, self.task.minutes)

    def step(self) -> bool:
        """Look after it; whether all of it is done."""
        if self._process is not None:
            if self._process.is_alive():
                return False
            if self._process.exitcode:
                self.failed = f"{self.task.name} failed: {self._log}"
                return False
        command = next(self._commands, None)
        if command is None:
            return True
        self._log = command.log
        command.log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(argument) for argument in command.arguments]
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(arguments, str(command.log)))
        self._process.start()
        return False

    def end(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _run(arguments: list[str], log: str) -> None:
    """In a process of its own: the program, its output in the log."""
    end_with_parent()
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = arguments
    if not arguments[0].endswith(".py"):
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    sys.path.insert(0, os.path.dirname(arguments[0]))  # as when it is run by itself
    runpy.run_path(arguments[0], run_name="__main__")
