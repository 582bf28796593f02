"""Sixteen-lane vectors as a Numba type, so that kernels state their SIMD order themselves.

A loop that LLVM vectorises sums in an order that depends on the machine's registers. A loop over
these vectors sums in sixteen lanes everywhere: the same row gives the same bits on every processor
that fuses multiplication and addition, and the widest registers are used where Numba's default
stops at half of them.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

from rskernels.law.numbers import FLOAT32_MOST

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
HALF, FLOAT, DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
BYTES = {I16: 2, HALF: 2, FLOAT: 4, DOUBLE: 8}


class Vector(types.Type):
    """Sixteen lanes of one LLVM type."""

    def __init__(self, name, lane):
        self.lane = lane
        super().__init__(name=name)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector lives in vector registers."""

    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, wide(fe_type.lane))


def wide(lane):
    """Return the LLVM type of sixteen lanes."""
    return ir.VectorType(lane, LANES)


f32x16 = Vector("f32x16", FLOAT)
f64x16 = Vector("f64x16", DOUBLE)
i32x16 = Vector("i32x16", I32)
i64x16 = Vector("i64x16", I64)
mask16 = Vector("mask16", I1)
VECTOR_OF = {types.float32: f32x16, types.float64: f64x16}
SCALAR_OF = {vector: scalar for scalar, vector in VECTOR_OF.items()}


def lanes(typing):
    """Make a Numba intrinsic of ``body(builder, *values)``, which emits LLVM.

    ``typing`` maps the Numba types of the one to three arguments to the type of the result.
    """

    def wrap(body):
        def define(*arguments):
            def codegen(context, builder, signature, args):
                value = body(builder, *args)
                return context.get_dummy_value() if value is None else value

            return typing(*arguments)(*arguments), codegen

        by_arity = (
            lambda typingctx, a: define(a),
            lambda typingctx, a, b: define(a, b),
            lambda typingctx, a, b, c: define(a, b, c),
        )
        return intrinsic(by_arity[typing.__code__.co_argcount - 1])

    return wrap


def constant(value_type, value):
    """Return ``value`` in every lane of an LLVM vector type."""
    return ir.Constant(value_type, [value] * LANES)


def broadcast(builder, value):
    """Return an LLVM scalar in every lane."""
    undefined = ir.Constant(wide(value.type), ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(first, undefined, constant(wide(I32), 0))


def call(builder, name, result, *values):
    """Call an LLVM intrinsic by its full name."""
    fn_type = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, fn_type, name), values)


def suffix(value_type):
    """Return what LLVM appends to an intrinsic's name for a type."""
    if isinstance(value_type, ir.VectorType):
        return f"v{value_type.count}{suffix(value_type.element)}"
    if isinstance(value_type, ir.IntType):
        return f"i{value_type.width}"
    return {FLOAT: "f32", DOUBLE: "f64", HALF: "f16"}[value_type]


@lanes(lambda value: VECTOR_OF[value])
def splat(builder, value):
    """Return a float in every lane."""
    return broadcast(builder, value)


@lanes(lambda value, like: like)
def filled(builder, value, like):
    """Return a float64 in every lane of a vector such as ``like``."""
    lane = like.type.element
    return broadcast(builder, value if lane is DOUBLE else builder.fptrunc(value, lane))


@lanes(lambda a, b, c: a)
def fused(builder, a, b, c):
    """Return a * b + c, rounded once where the processor can."""
    return call(builder, f"llvm.fmuladd.{suffix(a.type)}", a.type, a, b, c)


@lanes(lambda condition, a, b: a)
def select(builder, condition, a, b):
    """Return ``a`` in the lanes where the condition holds, else ``b``."""
    return builder.select(condition, a, b)


@lanes(lambda a, b: a)
def minimum(builder, a, b):
    """Return the smaller of each lane, ``b`` where one is NaN: a single instruction on x86."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


@lanes(lambda a, b: a)
def maximum(builder, a, b):
    """Return the larger of each lane, ``b`` where one is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@lanes(lambda a: a)
def absolute(builder, a):
    """Return each lane without its sign."""
    return call(builder, f"llvm.fabs.{suffix(a.type)}", a.type, a)


@lanes(lambda a: mask16)
def isnan(builder, a):
    """Say which lanes are NaN."""
    return builder.fcmp_unordered("uno", a, a)


def named(name):
    """Rename a function made in a factory, before Numba compiles it.

    Numba's cache tells compiled functions apart by name and argument types: two closures that
    share both may be taken for each other by another process.
    """

    def wrap(function):
        function.__name__ = function.__qualname__ = name
        return function

    return wrap


def _operator(function, result, body):
    @infer_global(function)
    class Operator(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return result(*args)(*args)
            return None

    @lower_builtin(function, Vector, Vector)
    def lower(context, builder, signature, args):
        return body(builder, *args)


_operator(operator.add, lambda a, b: a, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, lambda a, b: a, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, lambda a, b: a, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, lambda a, b: a, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.and_, lambda a, b: a, lambda builder, a, b: builder.and_(a, b))
_operator(operator.or_, lambda a, b: a, lambda builder, a, b: builder.or_(a, b))
_operator(operator.lt, lambda a, b: mask16, lambda b, x, y: b.fcmp_ordered("<", x, y))
_operator(operator.le, lambda a, b: mask16, lambda b, x, y: b.fcmp_ordered("<=", x, y))
_operator(operator.gt, lambda a, b: mask16, lambda b, x, y: b.fcmp_ordered(">", x, y))
_operator(operator.eq, lambda a, b: mask16, lambda b, x, y: b.fcmp_ordered("==", x, y))
_operator(operator.ge, lambda a, b: mask16, lambda b, x, y: b.fcmp_ordered(">=", x, y))


def _halves(builder, combine, a, b, width):
    """Combine the halves of each ``width`` lanes, those of ``a`` first, then those of ``b``."""
    low, high = (
        ir.Constant(
            ir.VectorType(I32, LANES),
            [
                vector * LANES + group + half + lane
                for vector in (0, 1)
                for group in range(0, LANES, width)
                for lane in range(width // 2)
            ],
        )
        for half in (0, width // 2)
    )
    return combine(builder, builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))


def _reduction(combine):
    """Return reductions of one vector, and of sixteen at a time, in the same order."""

    def one(builder, value):
        width = LANES
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(I32, width), list(range(start, start + width)))
                for start in (0, width)
            )
            value = combine(
                builder,
                builder.shuffle_vector(value, value, low),
                builder.shuffle_vector(value, value, high),
            )
        return builder.extract_element(value, I32(0))

    def sixteen(builder, address, like):
        pointer = builder.inttoptr(address, like.type.as_pointer())
        values = [
            builder.load(builder.gep(pointer, [I64(row)]), align=BYTES[like.type.element])
            for row in range(LANES)
        ]
        width = LANES
        while width > 1:
            pairs = zip(values[::2], values[1::2], strict=True)
            values = [_halves(builder, combine, a, b, width) for a, b in pairs]
            width //= 2
        return values[0]

    return lanes(lambda vector: SCALAR_OF[vector])(one), lanes(lambda address, like: like)(sixteen)


# ``reduce_rows_...(address, like)`` reduces sixteen vectors in memory, each to the lane of its own.
reduce_add, reduce_rows_add = _reduction(lambda builder, a, b: builder.fadd(a, b))
reduce_max, reduce_rows_max = _reduction(
    lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)
)


@lanes(lambda vector: SCALAR_OF[vector])
def first(builder, vector):
    """Return the first lane."""
    return builder.extract_element(vector, I32(0))


@lanes(lambda vector: f64x16)
def widen(builder, vector):
    """Return float32 or float64 lanes as float64."""
    return vector if vector.type == wide(DOUBLE) else builder.fpext(vector, wide(DOUBLE))


@lanes(lambda vector: vector)
def round_to_float32(builder, vector):
    """Return lanes rounded to float32, as wide as they were; what is finite stays so."""
    if vector.type == wide(FLOAT):
        return vector
    most = constant(vector.type, FLOAT32_MOST)
    size = call(builder, f"llvm.fabs.{suffix(vector.type)}", vector.type, vector)
    huge = builder.and_(
        builder.fcmp_ordered(">", size, most),
        builder.fcmp_ordered("<", size, constant(vector.type, float("inf"))),
    )
    signed = call(builder, f"llvm.copysign.{suffix(vector.type)}", vector.type, most, vector)
    kept = builder.select(huge, signed, vector)
    return builder.fpext(builder.fptrunc(kept, wide(FLOAT)), vector.type)


@lanes(lambda vector: f32x16)
def narrow(builder, vector):
    """Return float64 lanes rounded to float32."""
    return builder.fptrunc(vector, wide(FLOAT))


@lanes(lambda value, like: like)
def as_lanes(builder, value, like):
    """Return float32 lanes in the precision of ``like``."""
    return value if like.type == value.type else builder.fpext(value, like.type)


@lanes(lambda mask: types.int64)
def count(builder, mask):
    """Return how many lanes of a mask are set."""
    return builder.zext(call(builder, "llvm.ctpop.i16", I16, builder.bitcast(mask, I16)), I64)


@lanes(lambda mask: types.int64)
def bits_of(builder, mask):
    """Return a mask as an integer: bit n is lane n, on a processor that is little-endian."""
    return builder.zext(builder.bitcast(mask, I16), I64)


@lanes(lambda bits: mask16)
def mask_of(builder, bits):
    """Return the mask whose lane n is bit n of an integer."""
    return builder.bitcast(builder.trunc(bits, I16), wide(I1))


@lanes(lambda a, b: mask16)
def without(builder, a, b):
    """Say which lanes are set in ``a`` and not in ``b``."""
    return builder.and_(a, builder.not_(b))


@lanes(lambda n: mask16)
def first_lanes(builder, n):
    """Say which lanes come before lane ``n``."""
    index = ir.Constant(wide(I32), list(range(LANES)))
    most = builder.select(builder.icmp_signed("<", n, I64(LANES)), n, I64(LANES))
    return builder.icmp_signed("<", index, broadcast(builder, builder.trunc(most, I32)))


@lanes(lambda n: mask16)
def lane_is(builder, n):
    """Say which lane is lane ``n``; none where ``n`` lies outside."""
    index = ir.Constant(wide(I64), list(range(LANES)))
    return builder.icmp_signed("==", index, broadcast(builder, n))
