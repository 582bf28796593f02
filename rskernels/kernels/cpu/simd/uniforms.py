"""Numba intrinsics of the uniform law: the Philox words of sixteen rows or columns, and their u."""

import math

from llvmlite import ir
from numba import types

from rskernels.kernels.cpu.simd.functions import horner
from rskernels.kernels.cpu.simd.vectors import (
    FLOAT,
    I32,
    I64,
    LANES,
    broadcast,
    constant,
    f32x16,
    i64x16,
    lanes,
    wide,
)
from rskernels.law import philox
from rskernels.law.streams import Stream

# Minimax log2(x) - (x - 1) on [1, 2] of those that are 0 at its ends, off by 8.8e-4.
ROUGH_LOG2 = (-1.16417114, 2.06469709, -1.05974614, 0.15922019)
ROUGH = 1.0e-3  # more than a rough log is off by: 6.1e-4, what w1 adds, and rounding
ROUGH_WORD = 1 << 16  # from which on the second word hardly matters


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
    columns, use = _following(builder, column), constant(wide(I64), int(Stream.ACCEPT))
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
