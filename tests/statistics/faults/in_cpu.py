"""Functions that are wrong, for the Numba backend: ``original`` is what each replaces.

They are compiled as what they replace; those that take a ``builder`` emit LLVM.
"""

import math

from numba import float32, njit

from rskernels.kernels.cpu.dtypes import ELEMENTS
from rskernels.kernels.cpu.simd.functions import log_of_normal
from rskernels.kernels.cpu.simd.uniforms import uniforms
from rskernels.kernels.cpu.simd.vectors import (
    FLOAT,
    I64,
    LANES,
    as_lanes,
    broadcast,
    constant,
    filled,
    first,
    select,
    splat,
    wide,
)
from rskernels.kernels.cpu.softmax import UNREAD
from rskernels.law.philox import SMALL_WORD, WORD

original = None  # bound where a function is planted
LOG_2 = math.log(2.0)


# kernels.cpu.dtypes.by_dtype
def only_float32(factory):
    f32 = factory(ELEMENTS[0])

    @njit
    def call(code, arguments):
        return f32(*arguments)

    return call


# kernels.cpu.simd.uniforms._emit_uniforms
def zero(builder, both):
    return constant(wide(FLOAT), 0.0)


def of_32_bits(builder, both):
    high = builder.and_(both, constant(wide(I64), WORD << 32))
    return original(builder, builder.or_(high, constant(wide(I64), 1 << 31)))


def rounded_twice(builder, both):
    w0 = builder.lshr(both, constant(wide(I64), 32))
    small = builder.icmp_unsigned("<", w0, constant(wide(I64), SMALL_WORD))
    large = builder.fmul(builder.sitofp(w0, wide(FLOAT)), constant(wide(FLOAT), 2.0**-32))
    return builder.select(small, original(builder, both), large)


def at_times_0(builder, both):
    w0 = builder.lshr(both, constant(wide(I64), 32))
    small = builder.icmp_unsigned("<", w0, constant(wide(I64), SMALL_WORD))
    even = builder.fmul(builder.sitofp(both, wide(FLOAT)), constant(wide(FLOAT), 2.0**-64))
    return builder.select(small, even, original(builder, both))


def never_1(builder, both):
    u, top = original(builder, both), constant(wide(FLOAT), 1 - 2**-24)
    return builder.select(builder.fcmp_ordered("<", u, top), u, top)


# kernels.cpu.simd.uniforms._emit_words
def of_24_bits(builder, counter, key):
    words = original(builder, counter, key)
    return builder.and_(words, constant(wide(I64), 0xFFFFFF << 40))


def of_low_seed(builder, counter, key):
    return original(builder, counter, builder.and_(key, I64(WORD)))


# kernels.cpu.simd.uniforms.row_words
def of_low_rows(row, stream, seed):
    return original(row & WORD, stream, seed)


def of_stream_0(row, stream, seed):
    return original(row, 0, seed)


# kernels.cpu.simd.uniforms._following, in the dense form
def of_column_0(builder, first):
    return constant(wide(I64), 0)


def of_first_column(builder, first):
    return broadcast(builder, first)


# kernels.cpu.simd.uniforms.column_words
def of_two_rows(row, column, seed):
    return original(row >> 1, column, seed)


# kernels.cpu.simd.uniforms.rough_logs
def an_octave_high(words):
    return original(words) + splat(float32(LOG_2))


# kernels.cpu.law.draw_rows
def without_offset(row_offset, n, stream, seed):
    return original(0, n, stream, seed)


def in_blocks(row_offset, n, stream, seed):
    return original(row_offset, n % 1024, stream, seed)


def in_sixteens(row_offset, n, stream, seed):
    return original(row_offset, n % LANES, stream, seed)


# kernels.cpu.law.decide_by_words
def of_inverse(log_r, valid, words):
    return original(filled(0.0, log_r) - log_r, valid, words)


def above(log_r, valid, words):
    return valid & (log_r > log_of_normal(as_lanes(uniforms(words), log_r)))


def by_float32_log(log_r, valid, words):
    return valid & (log_r >= as_lanes(log_of_normal(uniforms(words)), log_r))


def small_rounded_up(log_r, valid, words):
    least = filled(-2.5, log_r)
    return original(select(log_r > least, log_r, least), valid, words)


# kernels.cpu.law.decide
def rows_above(log_q, log_density, log_M, log_u, model_is_target, is_float32):
    accepted, valid, log_ratio, log_r = original(
        log_q, log_density, log_M, log_u, model_is_target, is_float32
    )
    return accepted & (log_r > log_u), valid, log_ratio, log_r


def never_above_M(log_q, log_density, log_M, log_u, model_is_target, is_float32):
    accepted, valid, log_ratio, log_r = original(
        log_q, log_density, log_M, log_u, model_is_target, is_float32
    )
    return accepted & (log_r <= splat(0.0)), valid, log_ratio, log_r


# kernels.cpu.law.natural_logs
def negative(values, log_space):
    return filled(0.0, values) - original(values, log_space)


def none(values, log_space):
    return filled(0.0, values)


# kernels.cpu.law.ratios
def without_M(log_q, log_density, log_M, model_is_target, is_float32):
    valid, log_ratio, _ = original(log_q, log_density, log_M, model_is_target, is_float32)
    return valid, log_ratio, log_ratio


def of_swapped_roles(log_q, log_density, log_M, model_is_target, is_float32):
    return original(log_q, log_density, log_M, not model_is_target, is_float32)


# kernels.cpu.law.scales_of
def scales_at_1(temperatures):
    return original(splat(1.0))


# kernels.cpu.law.temperature_of
def temperature_1(values, n):
    return 1.0


def first_temperature(values, n):
    return original(values, 0)


# kernels.cpu.law.row_temperatures
def first_temperatures(values, n, inside):
    return splat(first(original(values, 0, inside)))


# kernels.cpu.law.log_probs
def at_temperature_1(z, references, totals, temperatures):
    return original(z, references, totals, splat(1.0))


# kernels.cpu.bernoulli.round_to_float32
def of_no_M(vector):
    return filled(0.0, vector)


# kernels.cpu.law.excess_of
def signed(r):
    return r - 1.0


# kernels.cpu.dtypes.logit_at
def of_neighbour(row, column, stride, code):
    return original(row, column ^ 1, stride, code)


# kernels.cpu.early_exit.headrooms
def half_an_octave_early(log_density, log_M, log_u, model_is_target):
    return original(log_density, log_M, log_u, model_is_target) - splat(0.5)


# kernels.cpu.early_exit.decide_unread, of a model that is the target
def with_q_of_a_fiftieth(z, log_density, log_M, log_u, model_is_target, is_lazy, is_float32):
    rest = (log_M, log_u, model_is_target, is_lazy, is_float32)
    _, _, headroom = original(z, log_density, *rest)
    is_open, accepted, _ = original(z, log_density + splat(4.0), *rest)
    return is_open, accepted, headroom


# kernels.cpu.softmax.parts_total
def of_last_part(row, scale, scratch, order, stop, span, state):
    reference, total, bound = state
    begin, end, ahead = span
    for part in range(begin, end):
        reference, total, bound, read = original(
            row, scale, scratch, order, stop, (part, part + 1, ahead), (reference, 0.0, bound)
        )
        if read <= part:
            return reference, total, bound, part
    return reference, total, bound, end


# kernels.cpu.turns.parts_total
def begun_anew(row, scale, scratch, order, stop, span, state):
    return original(row, scale, scratch, order, stop, span, UNREAD)


# kernels.cpu.softmax.short_totals
def without_last(rows, read, code, V, scales, scratch, references, totals):
    original(rows, read, code, V - 1, scales, scratch, references, totals)
