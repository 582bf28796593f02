"""Functions that are wrong, for the Triton backend: ``original`` is what each replaces."""

import triton.language as tl

original = None  # bound where a function is planted
LARGE_UNIT = tl.constexpr(2.0**-32)
SMALL_WORD = tl.constexpr(1 << 26)


# kernels.gpu.law.word_uniform
def zero(w0, w1):
    return original(w0, w1) * 0.0


def of_24_bits(w0, w1):
    return (w0 >> 8).to(tl.float32) * 256 * LARGE_UNIT


def rounded_twice(w0, w1):
    return tl.where(w0 < SMALL_WORD, original(w0, w1), w0.to(tl.float32) * LARGE_UNIT)


def at_times_0(w0, w1):
    even = (tl.where(w0 < SMALL_WORD, w0, 0).to(tl.int64) << 32) + w1.to(tl.int64)
    small = even.to(tl.float32) * LARGE_UNIT * LARGE_UNIT
    return tl.where(w0 < SMALL_WORD, small, original(w0, w1))


def never_1(w0, w1):
    return tl.minimum(original(w0, w1), 0.99999994)


# kernels.gpu.law.uniform
def of_low_seed(row_id, column, stream, seed):
    return original(row_id, column, stream, seed & 0xFFFFFFFF)


def of_low_rows(row_id, column, stream, seed):
    return original(row_id & 0xFFFFFFFF, column, stream, seed)


def of_stream_0(row_id, column, stream, seed):
    return original(row_id, column, stream * 0, seed)


def of_column_0(row_id, column, stream, seed):
    return original(row_id, column * 0, stream, seed)


# kernels.gpu.law.row_id_of
def without_offset(row_offset, row):
    return row


def in_blocks(row_offset, row):
    return original(row_offset, row % 1024)


# kernels.gpu.law.accepts
def at_most(log_r, u):
    return log_r <= tl.log(u.to(log_r.dtype))


def above(log_r, u):
    return log_r > tl.log(u.to(log_r.dtype))


def by_float32_log(log_r, u):
    return log_r >= tl.log(u)


def small_rounded_up(log_r, u):
    return original(tl.maximum(log_r, -2.5), u)


# kernels.gpu.bernoulli.rounded
def of_no_M(value, WIDE: tl.constexpr):
    return value * 0.0


# kernels.gpu.law.temperature_of
def temperature_1(
    temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE: tl.constexpr
):
    return original(temperature_ptr, 0, 1.0, row, False)


def first_temperature(
    temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE: tl.constexpr
):
    return original(temperature_ptr, temperature_stride, temperature, row * 0, HAS_TEMPERATURE)


# kernels.gpu.law.log_ratio_of
def of_swapped_roles(log_q, log_density, MODEL_IS_TARGET: tl.constexpr):
    return original(log_q, log_density, not MODEL_IS_TARGET)


# kernels.gpu.law.natural_log and kernels.gpu.launch._natural_log
def negative(value, LOG_SPACE: tl.constexpr):
    return -original(value, LOG_SPACE)


def none(value, LOG_SPACE: tl.constexpr):
    return original(value, LOG_SPACE) * 0.0


def negative_number(value, log_space):
    return -original(value, log_space)


def no_number(value, log_space):
    return 0.0
