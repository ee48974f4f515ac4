"""How the kernels are compiled."""

from __future__ import annotations

import warnings

import numba

__all__ = ["kernel"]

# Everything but "afn" (coarse functions): sums may be reordered, values are finite by construction.
FAST_MATH = {"contract", "nnan", "ninf", "nsz", "reassoc", "arcp"}


def kernel(function=None, *, inline: bool = False):
    """Compiles at the first call, without the GIL; later processes read the compiled code.

    Where numba finds no directory to write to (neither beside the module nor in the user's cache),
    the code is compiled anew in each process. NUMBA_CACHE_DIR names another directory.

    Args:
        inline: a piece of kernels, put into each of them.
    """
    if function is None:
        return lambda function: kernel(function, inline=inline)
    options = {"nogil": True, "fastmath": FAST_MATH}
    if inline:
        return numba.njit(forceinline=True, **options)(function)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        warnings.warn(
            f"Compiled CRF kernels cannot be kept ({error}); set NUMBA_CACHE_DIR to a directory "
            "that can be written to.",
            stacklevel=2,
        )
        return numba.njit(**options)(function)
