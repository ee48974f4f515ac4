"""What every program of this project does at its end: an exit status, and errors in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["USER_ERRORS", "first_of", "one_line", "run_program"]

USER_ERRORS = (OSError, ImportError, ValueError)
"""Errors about what the user gave."""


def run_program(main: Callable[[], int | None]) -> int:
    """Run ``main``; returns the exit status: its own, 1 after an error, 130 if interrupted.

    An error about what the user gave (:data:`USER_ERRORS`) is one line; any other is ours, and
    keeps its traceback.
    """
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except USER_ERRORS as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def one_line(error: Exception) -> str:
    """The error's message in one line; a system's own begins with the file."""
    return " ".join(map(str.strip, _text(error).splitlines()))


def first_of(lines: Sequence[str], most: int = 5) -> str:
    """The first of many lines in one, and how many more there are."""
    more = len(lines) - most
    return "; ".join(lines[:most]) + (f"; and {more} more" if more > 0 else "")


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
