"""How the kernels are compiled, and small pieces that several of them share."""

from __future__ import annotations

import warnings

import llvmlite.ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

__all__ = ["fast_exp", "kernel"]

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


@intrinsic
def _float_of_bits(typing_context, bits):
    """The float32 with the given bits."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], llvmlite.ir.FloatType())

    return types.float32(types.int32), codegen


@kernel(inline=True)
def fast_exp(x):
    """exp of a float32 <= 0 to a relative error below 5e-6; 0 below -87. Vectorises."""
    scaled = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    whole = np.int32(scaled - np.float32(0.5))
    f = (scaled - np.float32(whole)) * np.float32(0.6931471805599453)
    series = np.float32(1 / 120) + f * np.float32(1 / 720)
    series = np.float32(1 / 6) + f * (np.float32(1 / 24) + f * series)
    series = np.float32(1) + f * (np.float32(1) + f * (np.float32(0.5) + f * series))
    power = _float_of_bits(np.int32((whole + np.int32(127)) << np.int32(23)))
    return series * power if scaled > np.float32(-126.0) else np.float32(0)
