"""Tasks: in their order, so many at once, one after the other, and none after a failure."""

import os
import signal
import subprocess
import sys
import time

import pytest

from instance_crf.experiments.tasks import Command, Task, run_tasks

PROGRAM = """
import sys, time
path, seconds = sys.argv[1:]
with open(path, "a") as file:
    print("begin", sys.argv[0].rpartition("/")[2], file=file, flush=True)
    time.sleep(float(seconds))
    print("end", sys.argv[0].rpartition("/")[2], file=file, flush=True)
print("said")
"""


@pytest.fixture
def make_task(tmp_path):
    """A function: name, after -> a task that notes when it begins and ends; ``fails``: broken."""

    def make(name, after=(), *, seconds=0.0, fails=False):
        program = tmp_path / f"{name}.py"
        program.write_text("raise SystemExit(3)" if fails else PROGRAM)

        def commands():
            yield Command([program, tmp_path / "order.txt", seconds], tmp_path / f"{name}.log")

        return Task(name, tuple(after), 0.1, commands)

    return make


def order(tmp_path):
    return (tmp_path / "order.txt").read_text().split("\n")[:-1]


def test_one_after_the_other(make_task, tmp_path):
    tasks = [make_task("b", ["a"]), make_task("c", ["b", "elsewhere"]), make_task("a")]
    run_tasks(tasks, 2)
    steps = [f"{what} {name}.py" for name in "abc" for what in ("begin", "end")]
    assert order(tmp_path) == steps
    assert (tmp_path / "a.log").read_text() == "said\n"


def test_two_at_once(make_task, tmp_path):
    run_tasks([make_task("a", seconds=1.5), make_task("b", seconds=1.5)], 2)
    assert [line.split()[0] for line in order(tmp_path)] == ["begin", "begin", "end", "end"]


def test_nothing_begins_after_a_failure_and_its_log_is_named(make_task, tmp_path):
    tasks = [make_task("bad", fails=True), make_task("next", ["bad"]), make_task("other")]
    with pytest.raises(ChildProcessError, match=r"bad failed: .*bad\.log"):
        run_tasks(tasks, 1)
    assert not (tmp_path / "order.txt").exists()


def test_tasks_that_wait_for_one_another(make_task):
    with pytest.raises(ValueError, match="wait for one another: a, b"):
        run_tasks([make_task("a", ["b"]), make_task("b", ["a"])], 1)


def test_programs_end_with_the_one_that_began_them(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "from pathlib import Path\n"
        "from instance_crf.experiments.tasks import Command, Task, run_tasks\n"
        "def commands():\n"
        "    here = Path(__file__).parent\n"
        "    yield Command([here / 'child.py'], here / 'log')\n"
        "if __name__ == '__main__':\n"
        "    run_tasks([Task('a', (), 1, commands)], 1)\n"
    )
    alive = tmp_path / "alive"
    (tmp_path / "child.py").write_text(
        f"import os, time\nopen({str(alive)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if alive.exists() and alive.read_text():
            break
        time.sleep(0.1)
    child = int(alive.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        time.sleep(0.1)
    raise AssertionError("the program has outlived its owner")
