"""How the kernels are compiled, and where the compiled code is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numba

__all__ = ["is_compiled", "kernel"]

# Everything but "afn" (coarse functions): sums may be reordered, values are finite by construction.
FAST_MATH = {"contract", "nnan", "ninf", "nsz", "reassoc", "arcp"}


def kernel(function=None, *, inline: bool = False):
    """Compiles at the first call, without the GIL; later processes read the compiled code.

    Args:
        inline: a piece of kernels, put into each of them.
    """
    if function is None:
        return lambda function: kernel(function, inline=inline)
    options = {"nogil": True, "fastmath": FAST_MATH}
    if inline:
        return numba.njit(forceinline=True, **options)(function)
    folder = cache_folder()
    if folder is None:
        return numba.njit(**options)(function)
    # numba reads its setting when a function is decorated; other users of numba keep theirs.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


@cache
def cache_folder() -> Path | None:
    """Where compiled code is kept: NUMBA_CACHE_DIR, beside this module, or in the user's cache.

    numba recompiles a kernel when the kernel's own file changes, but not when another does whose
    pieces are inlined. So the folder is named after all sources of the backend and numba's version.
    None, with a warning, if no folder can be written to.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    candidates = [
        os.environ.get("NUMBA_CACHE_DIR"),
        Path(__file__).with_name("__pycache__"),
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instance_crf",
    ]
    problem: OSError | None = None
    for candidate in filter(None, candidates):
        folder = Path(candidate) / f"kernels-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            problem = error
    warnings.warn(
        f"Compiled CRF kernels cannot be kept ({problem}); set NUMBA_CACHE_DIR to a directory "
        "that can be written to.",
        stacklevel=2,
    )
    return None


def is_compiled() -> bool:
    """Whether compiled kernels are there."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("*.nbi"))
