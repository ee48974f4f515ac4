"""Progress: a bar where there is tqdm and enough to do, lines beside it. Workers: none is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from instance_crf.data.parallel import parallel_map, print_beside_bar, progress_bar


@pytest.mark.parametrize(
    "total, least, bar", [(1, 2, False), (2, 2, True), (49, None, False), (50, None, True)]
)
def test_a_bar_where_it_is_worth_it(total, least, bar, capsys):
    with progress_bar(total, "Working", **({} if least is None else {"least": least})) as advance:
        print_beside_bar("by the way")
        advance(total)
    printed = capsys.readouterr().err
    assert ("Working" in printed and f"{total}/{total}" in printed) == bar
    assert "by the way\n" in printed


def test_without_tqdm_there_are_the_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(50, "Working") as advance:
        print_beside_bar("by the way")
        advance(50)
    assert capsys.readouterr() == ("", "by the way\n")


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are looked up in /proc")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_with_a_killed_parent(tmp_path, method, busy):
    script = tmp_path / "work.py"
    script.write_text(f"""
import multiprocessing, os, time
from instance_crf.data.parallel import parallel_map

def work(item):
    os.write(1, b"%d\\n" % os.getpid())
    end = time.time() + 60
    while time.time() < end:
        {"pass" if busy else "time.sleep(1)"}

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    parallel_map(work, range(60), description="work", workers=2, processes=True)
""")
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
    assert len(set(workers)) == 2
    end = time.monotonic() + 10
    while any(map(_alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _die(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_in_one_line():
    with pytest.raises(ChildProcessError, match="Counting: one of 2 processes was killed"):
        parallel_map(_die, range(50), description="Counting", workers=2, processes=True)
