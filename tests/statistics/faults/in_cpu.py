"""Functions that are wrong, for the Numba backend: ``original`` is what each replaces.

They are compiled as what they replace; those that take a ``builder`` emit LLVM.
"""

from numba import float32, int64, njit

from rskernels.kernels.cpu.simd.functions import log_of_normal
from rskernels.kernels.cpu.simd.uniforms import draw_columns
from rskernels.kernels.cpu.simd.vectors import (
    FLOAT,
    I32,
    I64,
    LANES,
    as_lanes,
    broadcast,
    constant,
    filled,
    first,
    first_lanes,
    select,
    splat,
    wide,
)
from rskernels.kernels.cpu.softmax import UNREAD
from rskernels.law.philox import SMALL_WORD, TRAILING, WORD

original = None  # bound where a function is planted


# kernels.cpu.simd.uniforms._emit_uniforms
def zero(builder, lead, trail):
    return constant(wide(FLOAT), 0.0)


def without_trailing(builder, lead, trail):
    return original(builder, lead, constant(wide(I32), 0))


def of_32_bits(builder, lead, trail):
    return original(builder, lead, constant(wide(I32), 1 << 31))


def rounded_twice(builder, lead, trail):
    small = builder.icmp_unsigned("<", lead, constant(wide(I32), SMALL_WORD))
    large = builder.fmul(builder.uitofp(lead, wide(FLOAT)), constant(wide(FLOAT), 2.0**-32))
    return builder.select(small, original(builder, lead, trail), large)


def at_times_0(builder, lead, trail):
    longs, floats = wide(I64), wide(FLOAT)
    small = builder.icmp_unsigned("<", lead, constant(wide(I32), SMALL_WORD))
    high = builder.shl(builder.zext(lead, longs), constant(longs, 32))
    even = builder.sitofp(builder.or_(high, builder.zext(trail, longs)), floats)
    even = builder.fmul(even, constant(floats, 2.0**-64))
    return builder.select(small, even, original(builder, lead, trail))


def never_1(builder, lead, trail):
    u, top = original(builder, lead, trail), constant(wide(FLOAT), 1 - 2**-24)
    return builder.select(builder.fcmp_ordered("<", u, top), u, top)


# kernels.cpu.simd.uniforms._emit_words
def of_24_bits(builder, counter, key):
    words = original(builder, counter, key)
    mask = words[0].type([WORD - 0xFF] * words[0].type.count)
    return [builder.and_(word, mask) for word in words]


def of_low_seed(builder, counter, key):
    return original(builder, counter, builder.and_(key, I64(WORD)))


# kernels.cpu.simd.uniforms._emit_columns
def of_first_words(builder, words):
    return original(builder, (words[0],) * 4)


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


# kernels.cpu.simd.uniforms.draw_block
def of_two_rows(address, row, column, seed):
    original(address, row >> 1, column, seed)


# kernels.cpu.simd.uniforms.draw_trailing_columns
def of_leading_columns(address, row, column, seed):
    draw_columns(address, row, column, seed)


# kernels.cpu.simd.uniforms.words_as_floats
def an_octave_high(words):
    return original(words) * splat(float32(2.0))


# kernels.cpu.law.draw_trailing
def of_leading_stream(row_offset, n, stream, seed):
    return original(row_offset, n, stream - TRAILING, seed)


# kernels.cpu.law.draw_rows
def without_offset(row_offset, n, stream, seed):
    return original(0, n, stream, seed)


def in_blocks(row_offset, n, stream, seed):
    return original(row_offset, n % 1024, stream, seed)


def in_sixteens(row_offset, n, stream, seed):
    return original(row_offset, n % LANES, stream, seed)


# kernels.cpu.law.decide_ids
def of_another_stream(log_r, valid, ids, stream, seed):
    return original(log_r, valid, ids, stream + 1, seed)


# kernels.cpu.simd.memory.load_ids
def of_half_the_lanes(address, inside):
    return original(address, inside & first_lanes(int64(8)))


# kernels.cpu.law.decide_roughly and decide_exactly
def of_inverse(log_r, valid, draws):
    return original(filled(0.0, log_r) - log_r, valid, draws)


def small_rounded_up(log_r, valid, draws):
    least = filled(-2.5, log_r)
    return original(select(log_r > least, log_r, least), valid, draws)


# kernels.cpu.law.decide_exactly
def above(log_r, valid, u):
    return valid & (log_r > log_of_normal(as_lanes(u, log_r)))


def by_float32_log(log_r, valid, u):
    return valid & (log_r >= as_lanes(log_of_normal(u), log_r))


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


# kernels.cpu.dense.rough.rough_factor
def rough_without_M(log_density, log_M, model_is_target):
    return original(log_density, 0.0, model_is_target)


def rough_of_swapped_roles(log_density, log_M, model_is_target):
    return original(log_density, log_M, not model_is_target)


# kernels.cpu.law.scale_of
def scale_at_1(temperature):
    return original(1.0)


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


# kernels.cpu.dtypes.logit_of
def of_neighbour(element):
    logit_at = original(element)
    return njit(lambda row, column, stride: logit_at(row, column ^ 1, stride))


# kernels.cpu.early_exit.headrooms
def half_an_octave_early(log_density, log_M, log_u, model_is_target):
    return original(log_density, log_M, log_u, model_is_target) - splat(0.5)


# kernels.cpu.early_exit.decide_unread, of a model that is the target
def with_q_of_a_fiftieth(z, log_density, log_M, log_u, model_is_target, is_lazy, is_float32):
    _, _, headroom = original(
        z, log_density, log_M, log_u, model_is_target, is_lazy, is_float32
    )  # fmt: skip
    is_open, accepted, _ = original(
        z, log_density + splat(4.0), log_M, log_u, model_is_target, is_lazy, is_float32
    )
    return is_open, accepted, headroom


# kernels.cpu.softmax.parts_total_of
def of_last_part(element):
    one_part = original(element)

    @njit
    def parts_total(row, stride, V, scale, scratch, order, stop, span, state):
        reference, total, bound = state
        begin, end, ahead = span
        for part in range(begin, end):
            rest = order, stop, (part, part + 1, ahead), (reference, 0.0, bound)
            reference, total, bound, read = one_part(row, stride, V, scale, scratch, *rest)
            if read <= part:
                return reference, total, bound, part
        return reference, total, bound, end

    return parts_total


# kernels.cpu.turns.parts_total_of
def begun_anew(element):
    from_state = original(element)

    @njit
    def parts_total(row, stride, V, scale, scratch, order, stop, span, state):
        rest = scale, scratch, order, stop, span, UNREAD
        return from_state(row, stride, V, *rest)

    return parts_total


# kernels.cpu.softmax.short_totals_of
def without_last(element):
    short_totals = original(element)
    return njit(
        lambda rows, read, V, scales, scratch, references, totals: short_totals(
            rows, read, V - 1, scales, scratch, references, totals
        )
    )


# kernels.cpu.linear.blocks.blocks_of
def without_a_block(V, order):
    return [block for at, block in enumerate(original(V, order)) if at != 2]


# kernels.cpu.linear.blocks._packed
def of_rows_before(hidden, low_rank, numbers):
    """Pack the row before in the place of each, once some of the rows are left."""
    if numbers is not None:
        hidden = hidden.roll(1, 0)
        low_rank = low_rank.roll(1, 0)
    return original(hidden, low_rank, numbers)


# kernels.cpu.linear.blocks.low_rank_of
def of_low_rank_once(product):
    return original(product._replace(lora=product.lora._replace(scale=1.0)))


# kernels.cpu.linear.fold.finish_of
def bent_before_scaled(element):
    finish, one, zero = original(element), element.scalar(1.0), int64(0)

    @njit
    def swapped(row, width, affine):
        scale, softcap, bias = affine
        finish(row, width, (one, softcap, bias))
        finish(row, width, (scale, 0.0, zero))

    return swapped
