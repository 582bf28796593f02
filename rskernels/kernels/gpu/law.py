"""The law of acceptance in Triton: logarithms, ratios, uniforms and the comparison.

What happens once a row is float64; what happens to every entry is WIDE: float64 for float64
logits, else float32.
"""

import triton
import triton.language as tl

from rskernels.law import numbers, philox
from rskernels.law.streams import Stream

SMALL_WORD = tl.constexpr(philox.SMALL_WORD)
COLUMNS, TRAILING = tl.constexpr(philox.COLUMNS), tl.constexpr(philox.TRAILING)
ROUNDS, WORD = tl.constexpr(philox.ROUNDS), tl.constexpr(philox.WORD)
MULTIPLIER_0, MULTIPLIER_1 = (tl.constexpr(m) for m in (philox.MULTIPLIER_0, philox.MULTIPLIER_1))
WEYL_0, WEYL_1 = tl.constexpr(philox.WEYL_0), tl.constexpr(philox.WEYL_1)
SMALL_UNIT = tl.constexpr(2.0**-65)
LARGE_UNIT = tl.constexpr(2.0**-32)
ACCEPT = tl.constexpr(int(Stream.ACCEPT))
FLOAT32_MOST = tl.constexpr(numbers.FLOAT32_MOST)
LEAST_LOG = tl.constexpr(numbers.LEAST_LOG)
LOG2_E = tl.constexpr(numbers.LOG2_E)
LARGEST_SCALE = tl.constexpr(numbers.LARGEST_SCALE)
LEAST_TEMPERATURE = tl.constexpr(numbers.LEAST_TEMPERATURE)
MOST_TEMPERATURE = tl.constexpr(numbers.MOST_TEMPERATURE)


@triton.jit
def natural_log(value, LOG_SPACE: tl.constexpr):
    """Return the logarithm of a density or M; NaN where it has none."""
    if LOG_SPACE:
        return value
    else:
        negative = tl.where(value == 0.0, float("-inf"), float("nan"))
        return tl.where(value > 0.0, tl.log(tl.where(value > 0.0, value, 1.0)), negative)


@triton.jit
def wide_log(value, WIDE: tl.constexpr, LOG_SPACE: tl.constexpr):
    """Return the logarithm in WIDE, taken in float64 where float32 may not hold the value."""
    if value.dtype == tl.float64:
        return natural_log(value, LOG_SPACE).to(WIDE)
    else:
        return natural_log(value.to(WIDE), LOG_SPACE)


@triton.jit
def rounded(value, WIDE: tl.constexpr):
    """Return float64 rounded to WIDE; what is finite stays so."""
    if tl.float32 == WIDE:
        huge = (tl.abs(value) > FLOAT32_MOST) & (tl.abs(value) < float("inf"))
        value = tl.where(huge, tl.where(value > 0.0, FLOAT32_MOST, -FLOAT32_MOST), value)
    return value.to(WIDE).to(tl.float64)


@triton.jit
def temperature_of(
    temperature_ptr, temperature_stride, temperature, row, HAS_TEMPERATURE: tl.constexpr
):
    """Return a row's T, NaN where it is none, and log2(e)/T, kept finite in float32."""
    if HAS_TEMPERATURE:
        given = tl.load(temperature_ptr + row.to(tl.int64) * temperature_stride).to(tl.float64)
        is_one = (given >= LEAST_TEMPERATURE) & (given <= MOST_TEMPERATURE)
        value = tl.where(is_one, given, float("nan"))
    else:
        value = tl.full([], temperature, tl.float64)
    return value, tl.minimum(tl.full([], LOG2_E, tl.float64) / value, LARGEST_SCALE)


@triton.jit
def target_of(targets_ptr, rows, ignore_index, V, T, HAS_TEMPERATURE: tl.constexpr):
    """Return rows' targets, where they are ignored, and where target and temperature are valid."""
    target = tl.load(targets_ptr + rows).to(tl.int64)
    ignored = target == ignore_index
    inside = (target >= 0) & (target < V) & (ignored == 0)
    if HAS_TEMPERATURE:
        inside &= T > 0.0
    return target, ignored, inside


@triton.jit
def log_prob_of(z, top, total, temperature):
    """Return log q of a logit, at most 0; NaN for a row without a softmax. All float64."""
    log_q = (z - top) / temperature - tl.log(total)
    log_q = tl.where(log_q > 0.0, 0.0, log_q)
    return tl.where(total > 0.0, log_q, float("nan"))


@triton.jit
def log_difference(log_q, log_density, MODEL_IS_TARGET: tl.constexpr):
    """Return log p - log q, whichever of them is the model's; NaN where both are -inf."""
    return log_q - log_density if MODEL_IS_TARGET else log_density - log_q


@triton.jit
def log_ratio_of(log_q, log_density, MODEL_IS_TARGET: tl.constexpr):
    """Return log p - log q; a target density of 0 is a ratio of 0, whatever the proposal's."""
    numerator = log_q if MODEL_IS_TARGET else log_density
    difference = log_difference(log_q, log_density, MODEL_IS_TARGET)
    return tl.where(numerator == float("-inf"), float("-inf"), difference)


@triton.jit
def is_valid(log_q, log_density, log_ratio, log_M):
    """Say whether a decision may be taken; a NaN anywhere fails."""
    finite = (log_density < float("inf")) & (log_ratio < float("inf"))
    return finite & (log_q <= 0.0) & (log_M > float("-inf"))


@triton.jit
def accepts(log_r, u):
    """Say where log r >= log u, in the precision of the ratio."""
    return log_r >= tl.log(u.to(log_r.dtype))


@triton.jit
def excess_of(r):
    """Return by how much a ratio exceeds M, as a part of M."""
    return tl.where(r > 1.0, r - 1.0, 0.0)


@triton.jit
def load_seed(seed_ptr, seed, HAS_SEED: tl.constexpr):
    """Return the seed, from memory where it is a tensor."""
    return tl.load(seed_ptr) if HAS_SEED else seed.to(tl.int64)


@triton.jit
def row_id_of(row_offset, row):
    """Return the ids of rows of a batch."""
    return row_offset.to(tl.int64) + row


@triton.jit
def word_uniform(lead, trail):
    """Return the uniform of two words, as ``philox.word_uniform`` does: rounded once."""
    small = lead < SMALL_WORD
    numerator = (lead.to(tl.int64) << 33) + (trail.to(tl.int64) << 1) + 1
    u_small = tl.where(small, numerator, 0).to(tl.float32) * SMALL_UNIT
    u_large = (lead | 1).to(tl.float32) * LARGE_UNIT
    return tl.where(small, u_small, u_large)


@triton.jit
def philox_words(c0, c1, c2, c3, seed):
    """Return the four words of counters; a product gives both its halves at once."""
    seed = seed.to(tl.uint64)
    k0, k1 = (seed & WORD).to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(ROUNDS):
        product_0 = c0.to(tl.uint64) * MULTIPLIER_0
        product_1 = c2.to(tl.uint64) * MULTIPLIER_1
        c0, c2 = (
            (product_1 >> 32).to(tl.uint32) ^ c1 ^ k0,
            (product_0 >> 32).to(tl.uint32) ^ c3 ^ k1,
        )
        c1, c3 = product_1.to(tl.uint32), product_0.to(tl.uint32)
        k0, k1 = k0 + WEYL_0, k1 + WEYL_1
    return c0, c1, c2, c3


@triton.jit
def row_counter(row_id, stream):
    """Return the words of a counter that a row and a stream decide."""
    row_id = row_id.to(tl.uint64)
    return (row_id & WORD).to(tl.uint32), (row_id >> 32).to(tl.uint32), stream.to(tl.uint32)


@triton.jit
def row_word(row_id, stream, seed):
    """Return the leading word of rows' one decision, or the trailing one of stream + TRAILING."""
    low, high, use = row_counter(row_id, stream)
    word, _, _, _ = philox_words(low, high, low * 0, use, seed)
    return word


@triton.jit
def uniform(row_id, stream, seed):
    """Return the uniforms of rows' one decision, float32 in (0, 1]."""
    trailing = stream.to(tl.int64) + TRAILING
    return word_uniform(row_word(row_id, stream, seed), row_word(row_id, trailing, seed))


@triton.jit
def column_words(row_id, start, stream, seed, TILE: tl.constexpr):
    """Return the leading words of TILE columns of a row, four of every counter."""
    low, high, use = row_counter(row_id, stream)
    # Two counters a thread: their words are the eight columns whose logits it has loaded.
    even = (tl.arange(0, TILE // (2 * COLUMNS)) * 2 + start // COLUMNS).to(tl.uint32)
    e0, e1, e2, e3 = philox_words(low, high, even, use, seed)
    o0, o1, o2, o3 = philox_words(low, high, even + 1, use, seed)
    words = tl.join(
        tl.join(tl.join(e0, o0), tl.join(e2, o2)), tl.join(tl.join(e1, o1), tl.join(e3, o3))
    )
    return tl.reshape(words, [TILE])


@triton.jit
def log_uniform(row_id, seed):
    """Return log u of a row's one decision, float64."""
    return tl.log(uniform(row_id, tl.full([], ACCEPT, tl.int64), seed).to(tl.float64))
