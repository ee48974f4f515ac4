"""One way to work through many files: in parallel, in order, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

__all__ = [
    "default_workers",
    "end_loading_with_parent",
    "end_with_parent",
    "parallel_map",
    "print_beside_bar",
    "progress_bar",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """The CPU cores this process may use, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(available or 1, 16)


def end_with_parent() -> None:
    """Have this process end as soon as the one that started it has, in whatever way that did.

    For the initializer of a pool of processes: those of a pool whose owner was killed wait for
    work for ever, and keep open what they have inherited, such as the lock of a folder. In a
    process that `multiprocessing` has not started it does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


def end_loading_with_parent(loader: Any) -> None:
    """Have the processes of a DataLoader that has not begun end with this one, as
    :func:`end_with_parent` does; by themselves they look after it every 5 seconds."""
    loader.worker_init_fn = partial(_begin_loading, loader.worker_init_fn)


def _begin_loading(begin: Callable[[int], object] | None, number: int) -> None:
    end_with_parent()
    if begin is not None:
        begin(number)


@contextmanager
def progress_bar(
    total: int, description: str, *, least: int = 50
) -> Iterator[Callable[[int], object]]:
    """Give a function that says how many more of ``total`` images are done, which moves a bar.

    There is no bar where tqdm is not installed, and none for fewer than ``least`` images.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda count: None
    else:
        with tqdm(total=total, desc=description, unit="image", disable=total < least) as bar:
            yield bar.update


def print_beside_bar(line: str) -> None:
    """Print to the error output, above the bar if there is one."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(line, file=sys.stderr)
    else:
        tqdm.write(line, file=sys.stderr)


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    workers: int | None = None,
    processes: bool = False,
    each: Callable[[Item, Result], object] | None = None,
) -> list[Result]:
    """``[function(item) for item in items]`` with ``workers`` at once and a bar with the time left.

    The first exception stops the work and is raised; a process that was killed, as
    ChildProcessError.

    Args:
        function: what to do; importable if ``processes``.
        items: in the order of the results.
        description: of the bar.
        workers: default one a core.
        processes: for work in Python. Threads do where decoding images, which releases the
            interpreter lock, takes the time.
        each: called in this process with an item and its result, as soon as it is there.
    """
    workers = default_workers() if workers is None else workers
    executor: Executor | None = None
    results: Iterable[Result] = map(function, items)
    if workers > 1 and len(items) >= 50:
        if processes:
            # The function goes to each process once, not with every item: it may hold much.
            executor = ProcessPoolExecutor(workers, initializer=_remember, initargs=(function,))
            results = executor.map(_call_remembered, items, chunksize=8)
        else:
            executor = ThreadPoolExecutor(workers)
            results = executor.map(function, items)
    collected = []
    try:
        with progress_bar(len(items), description) as advance:
            for item, result in zip(items, results, strict=True):
                if each is not None:
                    each(item, result)
                collected.append(result)
                advance(1)
    except BrokenExecutor as error:
        raise ChildProcessError(
            f"{description}: one of {workers} processes was killed, for want of memory (give fewer "
            "--workers) or by a broken file."
        ) from error
    finally:
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
    return collected


_remembered: Callable | None = None


def _remember(function: Callable) -> None:
    end_with_parent()
    global _remembered
    _remembered = function


def _call_remembered(item):
    return _remembered(item)
