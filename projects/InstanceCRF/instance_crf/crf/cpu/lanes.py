"""Eight float32 at a time, for the inner loops of the kernels.

Rows are a multiple of eight columns wide. LLVM would vectorise their loops by itself, but tests for
overlap before each of them, since it cannot know that rows of different vertices are apart; for
rows of a few dozen columns the tests cost as much as the work. Nothing here tests anything: the
caller sees to it that ``index + 8`` stays inside of the array.

Arithmetic is ``+ - * /``, with other lanes or with a float32.

``prefetch`` starts to bring a row near that is needed soon. Which vertices a pixel touches is
known in advance, but not to the processor.
"""

from __future__ import annotations

import operator

import llvmlite.ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

__all__ = ["exp", "lane_sum", "load", "prefetch", "repeat", "store"]

WIDTH = 8
_FLOAT = llvmlite.ir.FloatType()
_INT = llvmlite.ir.IntType(32)
_VECTOR = llvmlite.ir.VectorType(_FLOAT, WIDTH)
_INT_VECTOR = llvmlite.ir.VectorType(_INT, WIDTH)
_FLOAT_BYTES = 4
_FLAGS = ("contract", "reassoc", "nsz", "nnan", "ninf")


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _address(context, builder, array_type, array, index):
    """Pointer to an element of a contiguous array, by the place of its numbers in memory."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def _repeat(builder, number, vector=_VECTOR):
    """All lanes the same number."""
    nothing = llvmlite.ir.Constant(vector, llvmlite.ir.Undefined)
    one = builder.insert_element(nothing, number, llvmlite.ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, nothing, llvmlite.ir.Constant(_INT_VECTOR, None))


def _constant(value: float):
    return llvmlite.ir.Constant(_VECTOR, [value] * WIDTH)


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
def repeat(typing_context, number):
    """Eight times the number."""

    def codegen(context, builder, signature, arguments):
        return _repeat(builder, arguments[0])

    return _lanes(types.float32), codegen


@intrinsic
def lane_sum(typing_context, lanes):
    """The sum of the lanes, a float32."""

    def codegen(context, builder, signature, arguments):
        values = arguments[0]
        width = WIDTH
        while width > 1:
            width //= 2
            half = llvmlite.ir.VectorType(_INT, width)
            low, high = (
                builder.shuffle_vector(
                    values,
                    values,
                    llvmlite.ir.Constant(half, [first + i for i in range(width)]),
                )
                for first in (0, width)
            )
            values = builder.fadd(low, high, flags=_FLAGS)
        return builder.extract_element(values, llvmlite.ir.Constant(_INT, 0))

    return types.float32(_lanes), codegen


@intrinsic
def exp(typing_context, lanes):
    """exp of lanes <= 0 to a relative error below 5e-6; 0 below -87."""

    def codegen(context, builder, signature, arguments):
        def multiply_add(one, other, more):
            return builder.fadd(builder.fmul(one, other, flags=_FLAGS), more, flags=_FLAGS)

        # 2^(whole + f) with a polynomial for 2^f, |f| <= 1; below 2^-126 it is 0.
        scaled = builder.fmul(arguments[0], _constant(1.4426950408889634), flags=_FLAGS)
        tiny = builder.fcmp_ordered("<=", scaled, _constant(-126.0))
        scaled = builder.select(tiny, _constant(-126.0), scaled)
        rounded = builder.fsub(scaled, _constant(0.5), flags=_FLAGS)
        whole = builder.fptosi(rounded, _INT_VECTOR)
        f = builder.fsub(scaled, builder.sitofp(whole, _VECTOR), flags=_FLAGS)
        f = builder.fmul(f, _constant(0.6931471805599453), flags=_FLAGS)
        series = _constant(1 / 720)
        for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
            series = multiply_add(series, f, _constant(coefficient))
        bias, mantissa = (llvmlite.ir.Constant(_INT_VECTOR, [n] * WIDTH) for n in (127, 23))
        power = builder.bitcast(builder.shl(builder.add(whole, bias), mantissa), _VECTOR)
        value = builder.fmul(series, power, flags=_FLAGS)
        return builder.select(tiny, _constant(0.0), value)

    return _lanes(_lanes), codegen


@intrinsic
def prefetch(typing_context, array, index):
    """Brings the cache line of an array's number near; changes nothing, may point anywhere."""

    def codegen(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments)
        byte = llvmlite.ir.IntType(8).as_pointer()
        kind = llvmlite.ir.FunctionType(llvmlite.ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        read, keep, data = (llvmlite.ir.Constant(_INT, value) for value in (0, 3, 1))
        builder.call(function, [builder.bitcast(address, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen


def _define(function, instruction: str) -> None:
    """Gives lanes an operator."""

    @type_callable(function)
    def type_operator(context):
        def typer(one, other):
            if (one, other) in ((_lanes, _lanes), (_lanes, types.float32), (types.float32, _lanes)):
                return _lanes
            return None

        return typer

    def lower(context, builder, signature, arguments):
        one, other = (
            value if kind == _lanes else _repeat(builder, value)
            for value, kind in zip(arguments, signature.args, strict=True)
        )
        return getattr(builder, instruction)(one, other, flags=_FLAGS)

    for kinds in ((_lanes, _lanes), (_lanes, types.float32), (types.float32, _lanes)):
        lower_builtin(function, *kinds)(lower)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _define(getattr(operator, _name), _instruction)
    _define(getattr(operator, "i" + _name), _instruction)
