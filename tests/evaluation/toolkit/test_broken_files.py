"""Any bytes, any JSON, and good files with one thing changed: numbers or an error, never a hang."""

import multiprocessing
import sys
import traceback

import pytest

from . import broken_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds its memory by /proc")
LIMIT = 120  # seconds for one reader


def _run(name, folder, examples, results):
    try:
        broken_files.check(name, folder, examples)
    except BaseException:
        results.put(traceback.format_exc())
        raise SystemExit(1) from None
    results.put("")


@pytest.mark.parametrize("name", broken_files.CASES)
def test_whatever_a_file_holds(name, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([broken_files.__name__])
    results = context.SimpleQueue()
    process = context.Process(target=_run, args=(name, tmp_path, 100, results), daemon=True)
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        pytest.fail(f"{name}: not done after {LIMIT} s")
    assert not results.empty(), f"{name}: the process ended with {process.exitcode}"
    assert results.get() == ""
