"""Numba intrinsics of the uniform law: the Philox words of rows or columns, and their u."""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rskernels.kernels.cpu.simd.functions import horner
from rskernels.kernels.cpu.simd.vectors import (
    FLOAT,
    I32,
    I64,
    LANES,
    broadcast,
    call,
    constant,
    f32x16,
    i32x16,
    lanes,
    mask16,
    suffix,
    wide,
)
from rskernels.law import philox
from rskernels.law.streams import Stream

GROUP = LANES * philox.COLUMNS
"""Columns whose words are drawn together, of sixteen counters."""
GROUP_BYTES = 4 * GROUP
BLOCK = 2 * GROUP
"""Columns whose leading words are drawn together."""
SHORT_ROWS = GROUP // LANES
"""Rows of at most sixteen columns whose words are drawn together."""

# Minimax log2(x) - (x - 1) on [1, 2] of those that are 0 at its ends, off by 1.14e-4.
ROUGH_LOG2 = (-1.51983449, 3.08639798, -2.13415038, 0.649718782, -0.0821318874)
ROUGH = (
    2.0**-12
)  # octaves, more than a rough log2 u is off by: what trails adds 2.3e-5, and float32
ROUGH_WORD = 1 << 16  # from which on what trails hardly matters


def _same_shape(like, value):
    return ir.Constant(like, [value] * like.count if isinstance(like, ir.VectorType) else value)


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


def _both(builder, first, second):
    """Emit two vectors as one."""
    index = ir.VectorType(I32, 2 * LANES)
    return builder.shuffle_vector(first, second, ir.Constant(index, list(range(2 * LANES))))


def _emit_words(builder, counter, key):
    """Emit the four words of counters and a key, in the low halves of i64."""
    key = [broadcast(builder, part) for part in (key, builder.ashr(key, I64(32)))]
    if counter[0].type.count > LANES:
        key = [_both(builder, part, part) for part in key]
    return _philox_rounds(builder, counter, key, philox.ROUNDS)[0]


def _emit_uniforms(builder, lead, trail):
    """Emit ``philox.word_uniform``."""
    floats, longs = wide(FLOAT), wide(I64)
    small = builder.icmp_unsigned("<", lead, constant(wide(I32), philox.SMALL_WORD))
    high = builder.shl(builder.zext(lead, longs), constant(longs, 33))
    low = builder.shl(builder.zext(trail, longs), constant(longs, 1))
    numerator = builder.or_(builder.or_(high, low), constant(longs, 1))
    u_small = builder.fmul(builder.sitofp(numerator, floats), constant(floats, 2.0**-65))
    u_large = builder.uitofp(builder.or_(lead, constant(wide(I32), 1)), floats)
    u_large = builder.fmul(u_large, constant(floats, 2.0**-32))
    return builder.select(small, u_small, u_large)


def _following(builder, first):
    return builder.add(broadcast(builder, first), ir.Constant(wide(I64), list(range(LANES))))


@lanes(lambda row, stream, seed: i32x16)
def row_words(builder, row, stream, seed):
    """Return the words of the draws (column 0) of sixteen rows that follow each other.

    They are the leading ones; those of ``stream + TRAILING`` trail.
    """
    rows, use = _following(builder, row), broadcast(builder, stream)
    high = builder.ashr(rows, constant(wide(I64), 32))
    words = _emit_words(builder, (rows, high, constant(wide(I64), 0), use), seed)
    return builder.trunc(words[0], wide(I32))


@lanes(lambda ids, stream, seed: i32x16)
def id_words(builder, ids, stream, seed):
    """Return the words of the draws (column 0) of sixteen rows of any ids, as ``row_words``."""
    high, use = builder.ashr(ids, constant(wide(I64), 32)), broadcast(builder, stream)
    words = _emit_words(builder, (ids, high, constant(wide(I64), 0), use), seed)
    return builder.trunc(words[0], wide(I32))


def _emit_columns(builder, words):
    """Emit the words of sixteen counters in the order of their columns, sixteen at a time."""
    mask, half = constant(wide(I64), philox.WORD), constant(wide(I64), 32)
    pairs = [
        builder.or_(builder.and_(words[at], mask), builder.shl(words[at + 1], half))
        for at in (0, 2)
    ]
    columns = []
    for begin in range(0, LANES, 4):
        order = [pair + counter for counter in range(begin, begin + 4) for pair in (0, LANES)]
        index = ir.Constant(ir.VectorType(I32, len(order)), order)
        columns.append(builder.bitcast(builder.shuffle_vector(*pairs, index), wide(I32)))
    return columns


def _emit_drawn(builder, address, counter, seed):
    """Emit what writes the words of sixteen counters, in the order of their columns."""
    pointer = builder.inttoptr(address, wide(I32).as_pointer())
    for at, words in enumerate(_emit_columns(builder, _emit_words(builder, counter, seed))):
        builder.store(words, builder.gep(pointer, [I64(at)]), align=4)


def column_drawer(stream):
    """Return ``draw(address, row, column, seed)``, which writes the words of a stream.

    They are those of the ``GROUP`` columns of a row from ``column`` on, which it divides.
    """

    @intrinsic
    def draw(typingctx, address, row, column, seed):
        def codegen(context, builder, signature, args):
            address, row, column, seed = args
            counters = _following(builder, builder.ashr(column, I64(2)))
            low, high = (broadcast(builder, part) for part in (row, builder.ashr(row, I64(32))))
            counter = (low, high, counters, constant(wide(I64), stream))
            _emit_drawn(builder, address, counter, seed)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return draw


def block_drawer(stream):
    """Return ``draw(address, row, column, seed)``, which writes the words of a stream.

    They are those of the ``BLOCK`` columns of a row from ``column`` on, which it divides. One
    group's rounds wait for each other; those of two fill the time.
    """

    @intrinsic
    def draw(typingctx, address, row, column, seed):
        def codegen(context, builder, signature, args):
            address, row, column, seed = args
            counters = builder.ashr(column, I64(2))
            counters = [_following(builder, builder.add(counters, I64(at))) for at in (0, LANES)]
            low, high = (broadcast(builder, part) for part in (row, builder.ashr(row, I64(32))))
            use = constant(wide(I64), stream)
            counter = (
                _both(builder, low, low), _both(builder, high, high), _both(builder, *counters),
                _both(builder, use, use),
            )  # fmt: skip
            words = _emit_words(builder, counter, seed)
            pointer = builder.inttoptr(address, wide(I32).as_pointer())
            for half in (0, 1):
                index = ir.Constant(wide(I32), [half * LANES + lane for lane in range(LANES)])
                those = [builder.shuffle_vector(word, word, index) for word in words]
                for at, drawn in enumerate(_emit_columns(builder, those)):
                    place = builder.gep(pointer, [I64(half * philox.COLUMNS + at)])
                    builder.store(drawn, place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return draw


draw_block = block_drawer(int(Stream.ACCEPT))
draw_columns, draw_trailing_columns = (
    column_drawer(stream) for stream in (int(Stream.ACCEPT), int(Stream.ACCEPT) + philox.TRAILING)
)


@lanes(lambda address, row, seed: types.void)
def draw_short_rows(builder, address, row, seed):
    """Write the leading words of the first sixteen columns of ``SHORT_ROWS`` rows from ``row`` on.

    The words of a row lie side by side, and are those that ``draw_columns`` gives.
    """
    index = lambda of: ir.Constant(wide(I64), [of(lane) for lane in range(LANES)])  # noqa: E731
    rows = builder.add(broadcast(builder, row), index(lambda lane: lane // SHORT_ROWS))
    counter = (
        rows, builder.ashr(rows, constant(wide(I64), 32)), index(lambda lane: lane % SHORT_ROWS),
        constant(wide(I64), int(Stream.ACCEPT)),
    )  # fmt: skip
    _emit_drawn(builder, address, counter, seed)


@lanes(lambda address: i32x16)
def load_words(builder, address):
    """Return sixteen words from memory."""
    return builder.load(builder.inttoptr(address, wide(I32).as_pointer()), align=4)


@lanes(lambda words: f32x16)
def words_as_floats(builder, words):
    """Return words as float32 numbers."""
    return builder.uitofp(words, wide(FLOAT))


@lanes(lambda lead, trail: f32x16)
def uniforms(builder, lead, trail):
    """Return the uniforms of words."""
    return _emit_uniforms(builder, lead, trail)


@lanes(lambda words: mask16)
def need_trailing(builder, words):
    """Say which leading words leave bits of u to the trailing ones."""
    return builder.icmp_unsigned("<", words, constant(wide(I32), philox.SMALL_WORD))


@lanes(lambda words: f32x16)
def rough_log2s(builder, words):
    """Return log2 u of leading words, off by less than ``ROUGH``; NaN below ``ROUGH_WORD``."""
    integers, numbers = wide(I32), wide(FLOAT)
    whole = lambda value: constant(integers, value)  # noqa: E731
    bits = builder.bitcast(builder.uitofp(words, numbers), integers)
    mantissa = builder.or_(builder.and_(bits, whole((1 << 23) - 1)), whole(127 << 23))
    constant_term = ROUGH_LOG2[0] - 127 - 32
    bent = horner(builder, (constant_term, *ROUGH_LOG2[1:]), builder.bitcast(mantissa, numbers))
    rough = call(
        builder, f"llvm.fmuladd.{suffix(numbers)}", numbers,
        builder.sitofp(bits, numbers), constant(numbers, 2.0**-23), bent,
    )  # fmt: skip
    small = builder.icmp_unsigned("<", words, whole(ROUGH_WORD))
    return builder.select(small, constant(numbers, math.nan), rough)


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
