"""A thread pool for the compiled kernels, which run without the GIL.

Threads of our own rather than numba's parallel loops: those must not be entered from two threads at
once, and may not survive a fork. A pool belongs to the process that made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

__all__ = ["run_tasks", "split_range"]

Task = tuple[Callable, tuple]


@lru_cache(maxsize=4)
def _pool(process: int, num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="instance-crf")


def run_tasks(tasks: Sequence[Task], num_threads: int | None = None) -> list:
    """Runs ``function(*arguments)`` for every task, on as many threads, and waits for all.

    Args:
        tasks: the first runs in the calling thread when there are as many threads as tasks.
        num_threads: defaults to the number of tasks; 1 runs them one after the other.

    Returns:
        What the tasks return, in their order.
    """
    num_threads = len(tasks) if num_threads is None else min(num_threads, len(tasks))
    if num_threads <= 1:
        return [function(*arguments) for function, arguments in tasks]
    pool = _pool(os.getpid(), num_threads - 1 if num_threads == len(tasks) else num_threads)
    if num_threads == len(tasks):
        others = [pool.submit(function, *arguments) for function, arguments in tasks[1:]]
        function, arguments = tasks[0]
        return [function(*arguments)] + [other.result() for other in others]
    futures = [pool.submit(function, *arguments) for function, arguments in tasks]
    return [future.result() for future in futures]


def split_range(length: int, parts: int) -> list[tuple[int, int]]:
    """Cuts range(length) into at most ``parts`` consecutive ranges of nearly equal length."""
    parts = max(1, min(parts, length))
    edges = [length * i // parts for i in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
