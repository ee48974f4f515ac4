"""Eight float32 at a time, for the inner loops of the kernels.

Rows are a multiple of eight columns wide. LLVM would vectorise their loops by itself, but tests for
overlap before each of them, since it cannot know that rows of different vertices are apart; for
rows of a few dozen columns the tests cost as much as the work. Nothing here tests anything: the
caller sees to it that ``index + 8`` stays inside of the array.

``prefetch`` starts to bring a row near that is needed soon. Which vertices a pixel touches is
known in advance, but not to the processor.
"""

from __future__ import annotations

import llvmlite.ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = ["add", "load", "multiply_add", "prefetch", "scale", "store"]

WIDTH = 8
_FLOAT = llvmlite.ir.FloatType()
_VECTOR = llvmlite.ir.VectorType(_FLOAT, WIDTH)
_FLOAT_BYTES = 4


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _address(context, builder, array_type, array, index):
    """Pointer to an element of a contiguous float32 vector."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def _splat(builder, number):
    """All lanes the same number."""
    one = builder.insert_element(
        llvmlite.ir.Constant(_VECTOR, llvmlite.ir.Undefined),
        number,
        llvmlite.ir.Constant(llvmlite.ir.IntType(32), 0),
    )
    zeros = llvmlite.ir.Constant(llvmlite.ir.VectorType(llvmlite.ir.IntType(32), WIDTH), None)
    return builder.shuffle_vector(one, llvmlite.ir.Constant(_VECTOR, llvmlite.ir.Undefined), zeros)


@intrinsic
def load(typing_context, array, index):
    """array[index : index + 8]."""

    def codegen(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments)
        pointer = builder.bitcast(address, _VECTOR.as_pointer())
        return builder.load(pointer, align=_FLOAT_BYTES)

    return _lanes(array, types.uint64), codegen


@intrinsic
def store(typing_context, array, index, lanes):
    """array[index : index + 8] = lanes."""

    def codegen(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments[:2])
        pointer = builder.bitcast(address, _VECTOR.as_pointer())
        builder.store(arguments[2], pointer, align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(array, types.uint64, _lanes), codegen


@intrinsic
def scale(typing_context, number, lanes):
    """number * lanes."""

    def codegen(context, builder, signature, arguments):
        return builder.fmul(_splat(builder, arguments[0]), arguments[1], flags=("contract",))

    return _lanes(types.float32, _lanes), codegen


@intrinsic
def add(typing_context, one, other):
    """one + other."""

    def codegen(context, builder, signature, arguments):
        return builder.fadd(*arguments, flags=("contract",))

    return _lanes(_lanes, _lanes), codegen


@intrinsic
def multiply_add(typing_context, number, lanes, sum_):
    """number * lanes + sum_."""

    def codegen(context, builder, signature, arguments):
        number, lanes, sum_ = arguments
        product = builder.fmul(_splat(builder, number), lanes, flags=("contract",))
        return builder.fadd(product, sum_, flags=("contract",))

    return _lanes(types.float32, _lanes, _lanes), codegen


@intrinsic
def prefetch(typing_context, array, index):
    """Brings the cache line of array[index] near; changes nothing, and may point anywhere."""

    def codegen(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments)
        byte, word = llvmlite.ir.IntType(8).as_pointer(), llvmlite.ir.IntType(32)
        kind = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        read, keep, data = (llvmlite.ir.Constant(word, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(address, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen
