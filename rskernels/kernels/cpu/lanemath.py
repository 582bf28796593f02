"""Numba intrinsics for the arithmetic of a decision: exp2, log and the uniform law, per lane."""

import math

from llvmlite import ir
from numba import types

from rskernels.kernels.cpu.simd import (
    DOUBLE,
    FLOAT,
    I16,
    I32,
    I64,
    LANES,
    broadcast,
    call,
    constant,
    f32x16,
    i64x16,
    lanes,
    suffix,
    wide,
)
from rskernels.law import philox

# Minimax 2**f on [-1/2, 1/2] with p(0) = 1, relative errors 2.6e-9 and 1.8e-17.
EXP2_F32 = (
    1.0,
    0.693147214967972676,
    0.24022652782884487,
    0.0555031055107065339,
    0.00961769297315968092,
    0.00134066438982905935,
    0.000155946783186174396,
)
EXP2_F64 = (
    1.0,
    0.693147180559945697,
    0.24022650695910098,
    0.0555041086647903957,
    0.00961812910760700278,
    0.00133335581534397384,
    0.000154035304415714747,
    0.000015252727385381208,
    1.32154426757135083e-6,
    1.01806475915846818e-7,
    7.07257034058684414e-9,
    4.07808083299351659e-10,
)
# Minimax (log(1+f) - f + f*f/2) / f**3 on [sqrt(1/2)-1, sqrt(2)-1]; log is off by 5.8e-9 of itself.
LOG_F32 = (
    0.333333317159,
    -0.250008211226,
    0.200012260246,
    -0.166233538486,
    0.142017762096,
    -0.131602337149,
    0.127614682632,
    -0.0763422573871,
)
# Minimax (log((1+s)/(1-s)) - 2*s) / s**3 in s*s, for the same f = 2*s/(1-s); off by 1.2e-18.
LOG_F64 = (
    0.666666666666673441,
    0.399999999994146757,
    0.285714287423880125,
    0.222221985731577179,
    0.181835643270070245,
    0.153140505394718475,
    0.147959497465041091,
)
# Minimax log2(x) - (x - 1) on [1, 2] of those that are 0 at its ends, off by 8.8e-4.
ROUGH_LOG2 = (-1.16417114, 2.06469709, -1.05974614, 0.15922019)
ROUGH = 1.0e-3  # more than a rough log is off by: 6.1e-4, what w1 adds, and rounding
ROUGH_WORD = 1 << 16  # from which on the second word hardly matters
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # 32 bits, and the rest

# lane type: coefficients, lowest and highest exponent that stay finite, mantissa bits, integer type
EXP2 = {FLOAT: (EXP2_F32, -125.0, 127.0, 23, I32), DOUBLE: (EXP2_F64, -1021.0, 1023.0, 52, I64)}
# lane type: integer type, mantissa bits, bits of sqrt(1/2), smallest normal number
LOG = {
    FLOAT: (I32, 23, 0x3F3504F3, 2.0**-126),
    DOUBLE: (I64, 52, 0x3FE6A09E667F3BCD, 2.0**-1022),
}


def horner(builder, coefficients, x):
    """Emit the polynomial with the given coefficients, lowest first, at ``x``."""
    value = constant(x.type, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        term = constant(x.type, coefficient)
        value = call(builder, f"llvm.fmuladd.{suffix(x.type)}", x.type, value, x, term)
    return value


@lanes(lambda x: x)
def exp2(builder, x):
    """``2**x``; below the lowest exponent the smallest normal number, above it the largest power.

    NaN gives the largest power: a sum that holds one is then looked at again.
    """
    coefficients, lowest, highest, mantissa_bits, integer = EXP2[x.type.element]
    low, high = constant(x.type, lowest), constant(x.type, highest)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    # Adding 1.5 * 2**mantissa_bits leaves round(x) in the low bits.
    magic = constant(x.type, 1.5 * 2**mantissa_bits)
    shifted = builder.fadd(x, magic)
    fraction = builder.fsub(x, builder.fsub(shifted, magic))
    power = builder.shl(
        builder.bitcast(shifted, wide(integer)), constant(wide(integer), mantissa_bits)
    )
    bits = builder.bitcast(horner(builder, coefficients, fraction), wide(integer))
    return builder.bitcast(builder.add(bits, power), x.type)


def _log_near_one_f32(builder, f, power):
    number = lambda value: constant(f.type, value)  # noqa: E731
    cube = builder.fmul(builder.fmul(f, f), f)
    tail = builder.fmul(horner(builder, LOG_F32, f), cube)
    tail = builder.fsub(tail, builder.fmul(number(0.5), builder.fmul(f, f)))
    fused = f"llvm.fmuladd.{suffix(f.type)}"
    return call(builder, fused, f.type, power, number(math.log(2)), builder.fadd(f, tail))


def _log_near_one_f64(builder, f, power):
    number = lambda value: constant(f.type, value)  # noqa: E731
    s = builder.fdiv(f, builder.fadd(f, number(2.0)))
    square = builder.fmul(s, s)
    tail = builder.fmul(horner(builder, LOG_F64, square), square)
    half = builder.fmul(number(0.5), builder.fmul(f, f))
    # log(1+f) = f - (half - s*(half + tail)), and what is small is added first.
    small = builder.fmul(s, builder.fadd(half, tail))
    small = builder.fadd(small, builder.fmul(power, number(LN2_LOW)))
    near = builder.fsub(f, builder.fsub(half, small))
    return builder.fadd(builder.fmul(power, number(LN2_HIGH)), near)


def _log_of_normal(builder, x):
    integer, mantissa_bits, sqrt_half, _ = LOG[x.type.element]
    words = wide(integer)
    width = constant(words, mantissa_bits)
    bits = builder.bitcast(x, words)
    exponent = builder.ashr(builder.sub(bits, constant(words, sqrt_half)), width)
    mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, width)), x.type)
    near_one = _log_near_one_f64 if x.type.element is DOUBLE else _log_near_one_f32
    return near_one(
        builder, builder.fsub(mantissa, constant(x.type, 1.0)), builder.sitofp(exponent, x.type)
    )


@lanes(lambda x: x)
def log_of_normal(builder, x):
    """Natural logarithm of normal positive numbers."""
    return _log_of_normal(builder, x)


@lanes(lambda x: x)
def log(builder, x):
    """Natural logarithm: log 0 is -inf, log of a negative number or NaN is NaN."""
    _, mantissa_bits, _, smallest = LOG[x.type.element]
    number = lambda value: constant(x.type, value)  # noqa: E731
    normal = builder.and_(
        builder.fcmp_ordered(">=", x, number(smallest)),
        builder.fcmp_ordered("<", x, number(math.inf)),
    )
    plain = _log_of_normal(builder, x)
    all_normal = builder.icmp_unsigned("==", builder.bitcast(normal, I16), I16(2**LANES - 1))
    before = builder.block
    with builder.if_then(builder.not_(all_normal), likely=False):
        octaves = mantissa_bits + 1.0
        lifted = _log_of_normal(builder, builder.fmul(x, number(2.0**octaves)))
        lifted = builder.fsub(lifted, number(octaves * math.log(2)))
        value = builder.select(normal, plain, lifted)
        infinite = builder.fcmp_ordered("==", x, number(math.inf))
        value = builder.select(infinite, x, value)
        positive = builder.fcmp_ordered(">", x, number(0.0))
        value = builder.select(positive, value, number(math.nan))
        zero = builder.fcmp_ordered("==", x, number(0.0))
        value = builder.select(zero, number(-math.inf), value)
        special = builder.block
    result = builder.phi(x.type)
    result.add_incoming(plain, before)
    result.add_incoming(value, special)
    return result


def _same_shape(like, value):
    return constant(like, value) if isinstance(like, ir.VectorType) else ir.Constant(like, value)


def _philox_rounds(builder, counter, key, rounds):
    """Emit rounds of Philox4x32-10 and return counter and key; words are i64, scalars or vectors.

    What gathers above the low 32 bits is left there: multiplication does not look at it. Nor is it
    cleared at the start, or the compiler would forget, across a loop, that it is not looked at.
    """
    words = counter[0].type
    mask, half = _same_shape(words, philox.WORD), _same_shape(words, 32)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        products = [
            builder.mul(builder.and_(value, mask), _same_shape(words, multiplier))
            for value, multiplier in ((c0, philox.MULTIPLIER_0), (c2, philox.MULTIPLIER_1))
        ]
        c0, c1, c2, c3 = (
            builder.xor(builder.xor(builder.lshr(products[1], half), c1), k0),
            products[1],
            builder.xor(builder.xor(builder.lshr(products[0], half), c3), k1),
            products[0],
        )
        k0 = builder.add(k0, _same_shape(words, philox.WEYL_0))
        k1 = builder.add(k1, _same_shape(words, philox.WEYL_1))
    return (c0, c1, c2, c3), (k0, k1)


def _emit_words(builder, counter, key):
    """Emit w0 * 2**32 + w1 of sixteen counters and a key."""
    key = [broadcast(builder, part) for part in (key, builder.ashr(key, I64(32)))]
    (_, c1, c2, _), (k0, _) = _philox_rounds(builder, counter, key, philox.ROUNDS - 1)
    number = lambda value: constant(wide(I64), value)  # noqa: E731
    # The last round leaves w1 in the low half of this product, and w0 but for a key in the high.
    product = builder.mul(builder.and_(c2, number(philox.WORD)), number(philox.MULTIPLIER_1))
    return builder.xor(product, builder.shl(builder.xor(c1, k0), number(32)))


def _emit_uniforms(builder, both):
    """Emit ``philox.word_uniform`` of w0 * 2**32 + w1."""
    floats = wide(FLOAT)
    number = lambda value: constant(wide(I64), value)  # noqa: E731
    w0 = builder.lshr(both, number(32))
    small = builder.icmp_unsigned("<", w0, number(philox.SMALL_WORD))
    numerator = builder.or_(builder.shl(both, number(1)), number(1))
    integer = builder.select(small, numerator, builder.or_(w0, number(1)))
    scale = builder.select(small, constant(floats, 2.0**-65), constant(floats, 2.0**-32))
    return builder.fmul(builder.sitofp(integer, floats), scale)


def _following(builder, first):
    return builder.add(broadcast(builder, first), ir.Constant(wide(I64), list(range(LANES))))


@lanes(lambda row, stream, seed: i64x16)
def row_words(builder, row, stream, seed):
    """Return w0 * 2**32 + w1 of the draws (column 0) of sixteen rows that follow each other."""
    rows, use = _following(builder, row), broadcast(builder, stream)
    high = builder.ashr(rows, constant(wide(I64), 32))
    return _emit_words(builder, (rows, high, constant(wide(I64), 0), use), seed)


@lanes(lambda row, column, seed: i64x16)
def column_words(builder, row, column, seed):
    """Return w0 * 2**32 + w1 of the acceptance draws of sixteen neighbouring columns of a row."""
    columns, use = _following(builder, column), constant(wide(I64), philox.ACCEPT_STREAM)
    low, high = (broadcast(builder, part) for part in (row, builder.ashr(row, I64(32))))
    return _emit_words(builder, (low, high, columns, use), seed)


@lanes(lambda words: f32x16)
def uniforms(builder, words):
    """Return the uniforms of words."""
    return _emit_uniforms(builder, words)


@lanes(lambda words: f32x16)
def rough_logs(builder, words):
    """Return log u of words, off by less than ``ROUGH``; NaN where w0 is below ``ROUGH_WORD``."""
    integers, floats = wide(I32), wide(FLOAT)
    whole = lambda value: constant(integers, value)  # noqa: E731
    number = lambda value: constant(floats, value)  # noqa: E731
    pairs = builder.bitcast(words, ir.VectorType(I32, 2 * LANES))
    w0 = builder.shuffle_vector(
        pairs, ir.Constant(pairs.type, ir.Undefined), ir.Constant(integers, list(range(1, 32, 2)))
    )
    bits = builder.bitcast(builder.uitofp(builder.or_(w0, whole(1)), floats), integers)
    mantissa = builder.or_(builder.and_(bits, whole((1 << 23) - 1)), whole(127 << 23))
    bent = horner(builder, [math.log(2) * c for c in ROUGH_LOG2], builder.bitcast(mantissa, floats))
    bent = builder.fadd(bent, number((-127 - 32) * math.log(2)))
    straight = builder.fmul(builder.sitofp(bits, floats), number(2.0**-23 * math.log(2)))
    small = builder.icmp_unsigned("<", w0, whole(ROUGH_WORD))
    return builder.select(small, number(math.nan), builder.fadd(bent, straight))


def _word(index):
    @lanes(lambda counter_low, counter_high, key: types.int64)
    def word(builder, counter_low, counter_high, key):
        high = lambda pair: builder.lshr(pair, I64(32))  # noqa: E731
        counter = (counter_low, high(counter_low), counter_high, high(counter_high))
        words, _ = _philox_rounds(builder, counter, (key, high(key)), philox.ROUNDS)
        return builder.and_(words[index], I64(philox.WORD))

    return word


# The four words of a counter and a key, each given as pairs of words in an int64.
philox_words = tuple(_word(index) for index in range(4))
