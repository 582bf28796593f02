"""The law of acceptance on sixteen rows, or entries, at a time: ratios, decisions and exits."""

import numpy as np
from numba import float32, float64, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.dtypes import F64, I64, NONE, load_float, load_integer
from rskernels.kernels.cpu.simd.functions import log, log_of_normal
from rskernels.kernels.cpu.simd.memory import part_loader
from rskernels.kernels.cpu.simd.uniforms import (
    ROUGH,
    id_words,
    need_trailing,
    rough_log2s,
    row_words,
    uniforms,
)
from rskernels.kernels.cpu.simd.vectors import (
    absolute,
    as_lanes,
    bits_of,
    filled,
    first,
    narrow,
    round_to_float32,
    select,
    splat,
    widen,
    without,
)
from rskernels.law.numbers import (
    LARGEST_SCALE,
    LEAST_TEMPERATURE,
    LOG2_E,
    MOST_TEMPERATURE,
)
from rskernels.law.philox import TRAILING

ROUNDED = 2.0**-16  # octaves; more than float32 rounds log2 r by where u is not far below

_load_f32, _load_f64 = part_loader("f32"), part_loader("f64")


@inner
def scale_of(temperature):
    """Return log2(e)/T, kept finite in float32; NaN of NaN."""
    scale = LOG2_E / temperature
    return LARGEST_SCALE if scale > LARGEST_SCALE else scale


@inner
def scales_of(temperatures):
    """Return log2(e)/T of sixteen rows, as ``scale_of`` has it."""
    scales, largest = splat(LOG2_E) / temperatures, splat(LARGEST_SCALE)
    return select(scales > largest, largest, scales)


@inner
def temperature_of(values, n):
    """Return the temperature in memory of row ``n``, NaN where it is none."""
    address, code, step, _ = values
    given = load_float(address + n * step * (8 if code == F64 else 4), code)
    return given if LEAST_TEMPERATURE <= given <= MOST_TEMPERATURE else np.nan


@inner
def row_temperatures(values, n, inside):
    """Return the temperatures in memory of sixteen rows, from row ``n`` on, NaN where none."""
    given = row_values(values, n, inside)
    is_one = (given >= splat(LEAST_TEMPERATURE)) & (given <= splat(MOST_TEMPERATURE))
    return select(is_one, given, splat(np.nan))


@inner
def natural_logs(values, log_space):
    """Return the logarithms of densities or Ms; NaN where they have none."""
    return values if log_space else log(values)


@inner
def natural_log(value, log_space):
    """Return the logarithm of one density or M."""
    return first(natural_logs(splat(value), log_space))


@inner
def natural_log_f32(value, log_space):
    """Return the logarithm of one density or M, as the lanes of a float32 row have it."""
    return float64(first(natural_logs(splat(float32(value)), log_space)))


@njit(inline="always")
def row_logs(values, shared, n, inside, log_space):
    """Return the logarithms of the densities or Ms of sixteen rows, from row ``n`` on.

    ``values`` is (address, code, step, number); where it is a number, ``shared`` is its logarithm.
    """
    if values[1] == NONE:
        return shared
    return natural_logs(row_values(values, n, inside), log_space)


@inner
def row_values(values, n, inside):
    """Return what sixteen rows, from row ``n`` on, have in memory."""
    address, code, step, _ = values
    if step == 0:
        return splat(load_float(address, code))
    if code == F64:
        return _load_f64(address + n * 8, inside)
    return widen(_load_f32(address + n * 4, inside))


@inner
def log_probs(z, references, totals, temperatures):
    """Return log q of logits, at most 0; NaN for rows without a softmax or a temperature."""
    log_q = (z - references) / temperatures - log(totals)
    return select(log_q > splat(0.0), splat(0.0), log_q)


@inner
def log_prob_of(z, reference, total, temperature):
    """Return log q of one logit."""
    return first(log_probs(splat(z), splat(reference), splat(total), splat(temperature)))


@inner
def ratios(log_q, log_density, log_M, model_is_target, is_float32):
    """Return (valid, log ratio before M, log r).

    A target density of 0 is a ratio of 0, whatever the proposal's. Ratio and M are rounded where
    the ratio is returned as float32, so that an M that equals it is not violated.
    """
    zero, low, top = filled(0.0, log_q), filled(-np.inf, log_q), filled(np.inf, log_q)
    numerator = log_q if model_is_target else log_density
    denominator = log_density if model_is_target else log_q
    log_ratio = select(numerator > low, numerator - denominator, low)
    if is_float32:
        log_ratio, log_M = round_to_float32(log_ratio), round_to_float32(log_M)
    valid = (log_density < top) & (log_q <= zero) & (log_ratio < top) & (log_M > low)
    log_r = log_ratio - log_M
    return valid, log_ratio, log_r


@inner
def decide(log_q, log_density, log_M, log_u, model_is_target, is_float32):
    """Decide by log r >= log u; return (accepted, valid, log ratio before M, log r)."""
    valid, log_ratio, log_r = ratios(log_q, log_density, log_M, model_is_target, is_float32)
    return valid & (log_r >= log_u), valid, log_ratio, log_r


@inner
def compare_roughly(octaves, words, room):
    """Return (log2 r >= log2 u, whether that is sure) of the draws' leading words.

    It is sure where they differ by more than ``ROUGH`` and ``room``, which is what ``octaves``, the
    log2 r in float32, may be off by.
    """
    gap = octaves - rough_log2s(words)
    least = splat(float32(ROUGH + room))
    return gap > splat(float32(0.0)), absolute(gap) > least


@inner
def decide_roughly(log_r, valid, words):
    """Return (accepted, open) of the draws' leading words: what is not open is decided."""
    octaves = narrow(log_r) * splat(float32(LOG2_E))
    is_below, is_sure = compare_roughly(octaves, words, ROUNDED)
    return valid & is_below, without(valid, is_sure)


@inner
def decide_exactly(log_r, valid, u):
    """Return which log r are at least log u."""
    return valid & (log_r >= log_of_normal(as_lanes(u, log_r)))


@inner
def seed_of(address, value):
    """Return the seed, which is in memory unless the address is 0."""
    return load_integer(address, I64) if address != 0 else value


@inner
def draw_rows(row_offset, n, stream, seed):
    """Return the leading words of the draws of sixteen rows, from row ``n`` on."""
    return row_words(row_offset + n, stream, seed)


@inner
def draw_trailing(row_offset, n, stream, seed):
    """Return the trailing words of the draws of sixteen rows, from row ``n`` on."""
    return draw_rows(row_offset, n, stream + TRAILING, seed)


@inner
def draw_uniforms(row_offset, n, stream, seed):
    """Return the uniforms of sixteen rows, from row ``n`` on."""
    lead = draw_rows(row_offset, n, stream, seed)
    if bits_of(need_trailing(lead)) == 0:
        return uniforms(lead, lead)
    return uniforms(lead, draw_trailing(row_offset, n, stream, seed))


@inner
def decide_rows(log_r, valid, row_offset, n, stream, seed):
    """Return which log r of sixteen rows, from row ``n`` on, are at least log u."""
    lead = draw_rows(row_offset, n, stream, seed)
    accepted, is_open = decide_roughly(log_r, valid, lead)
    if bits_of(is_open) == 0:
        return accepted
    return decide_exactly(log_r, valid, uniforms(lead, draw_trailing(row_offset, n, stream, seed)))


@inner
def decide_ids(log_r, valid, ids, stream, seed):
    """Return which log r of sixteen rows of any ids are at least log u."""
    lead = id_words(ids, stream, seed)
    accepted, is_open = decide_roughly(log_r, valid, lead)
    if bits_of(is_open) == 0:
        return accepted
    trail = id_words(ids, stream + TRAILING, seed)
    return decide_exactly(log_r, valid, uniforms(lead, trail))


@inner
def excess_of(r):
    """Return by how much a ratio exceeds M, as a part of M."""
    return max(r - 1.0, 0.0)
