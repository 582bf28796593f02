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


# kernels.gpu.law.philox_words
def of_low_seed(c0, c1, c2, c3, seed):
    return original(c0, c1, c2, c3, seed & 0xFFFFFFFF)


# kernels.gpu.law.row_counter
def of_low_rows(row_id, stream):
    return original(row_id & 0xFFFFFFFF, stream)


def of_stream_0(row_id, stream):
    return original(row_id, stream * 0)


def of_leading_stream(row_id, stream):
    return original(row_id, stream & 0x7FFFFFFF)


# kernels.gpu.law.column_words
def of_first_columns(row_id, start, stream, seed, TILE: tl.constexpr):
    words = original(row_id, start, stream, seed, TILE)
    return tl.sum(tl.where(tl.arange(0, TILE) == 0, words, 0), 0) + tl.zeros([TILE], tl.uint32)


def of_one_tile(row_id, start, stream, seed, TILE: tl.constexpr):
    return original(row_id, start * 0, stream, seed, TILE)


def of_first_words(row_id, start, stream, seed, TILE: tl.constexpr):
    quarters = tl.reshape(original(row_id, start, stream, seed, TILE), [TILE // 4, 4])
    first = tl.where(tl.arange(0, 4)[None, :] == 0, quarters, 0)
    return tl.reshape(tl.sum(first, 1)[:, None] + first * 0, [TILE])


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


# kernels.gpu.dense.decide_words
def entries_above(log_r, row_id, start, seed, TILE: tl.constexpr, IS_EXACT: tl.constexpr):
    accepted, distance = original(log_r, row_id, start, seed, TILE, IS_EXACT)
    return accepted & (log_r != 0.0), distance


# kernels.gpu.law.log_difference
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


# kernels.gpu.linear.launch.low_rank_of
def of_low_rank_once(rows):
    lora = rows.product.lora._replace(scale=1.0)
    return original(rows._replace(product=rows.product._replace(lora=lora)))


# kernels.gpu.linear.product.tanh
def unbent(x):
    return x
