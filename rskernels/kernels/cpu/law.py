"""The law of acceptance on sixteen rows, or entries, at a time: ratios, decisions and exits."""

import math

import numpy as np
from numba import float32, float64, njit

from rskernels.kernels.cpu.lanemath import ROUGH, log, log_of_normal, rough_logs, uniforms
from rskernels.kernels.cpu.simd import (
    absolute,
    as_lanes,
    bits_of,
    filled,
    first,
    part_loader,
    round_to_float32,
    select,
    splat,
    widen,
    without,
)
from rskernels.kernels.cpu.softmax import F64, ROUNDING, load_float

LOG2_E = 1.0 / math.log(2.0)
# What two float32 passes over a row can differ by, in log q; and rounding a log ratio to float32.
MARGIN, FLOAT32_ROUNDING = 2.0**-14, 2.0**-23

_load_f32, _load_f64 = part_loader("f32"), part_loader("f64")


@njit
def scale_of(temperature):
    """Return log2(e)/T, kept finite in float32."""
    return min(LOG2_E / temperature, 3.0e38)


@njit
def natural_logs(values, log_space):
    """Return the logarithms of densities or Ms; NaN where they have none."""
    return values if log_space else log(values)


@njit
def natural_log(value, log_space):
    """Return the logarithm of one density or M."""
    return first(natural_logs(splat(value), log_space))


@njit
def natural_log_f32(value, log_space):
    """Return the logarithm of one density or M, as the lanes of a float32 row have it."""
    return float64(first(natural_logs(splat(float32(value)), log_space)))


@njit
def row_logs(address, code, step, n, inside, log_space):
    """Return the logarithms of the densities or Ms of sixteen rows, from row ``n`` on."""
    if step == 0:
        return natural_logs(splat(load_float(address, code)), log_space)
    if code == F64:
        return natural_logs(_load_f64(address + n * 8, inside), log_space)
    return natural_logs(widen(_load_f32(address + n * 4, inside)), log_space)


@njit
def log_probs(z, references, totals, temperature):
    """Return log q of logits, at most 0; NaN for rows without a softmax."""
    log_q = (z - references) / splat(temperature) - log(totals)
    return select(log_q > splat(0.0), splat(0.0), log_q)


@njit
def log_prob_of(z, reference, total, temperature):
    """Return log q of one logit."""
    return first(log_probs(splat(z), splat(reference), splat(total), temperature))


@njit
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


@njit
def decide(log_q, log_density, log_M, log_u, model_is_target, is_float32):
    """Decide by log r >= log u; return (accepted, valid, log ratio before M, log r)."""
    valid, log_ratio, log_r = ratios(log_q, log_density, log_M, model_is_target, is_float32)
    return valid & (log_r >= log_u), valid, log_ratio, log_r


@njit
def decide_by_words(log_r, valid, words):
    """Decide by log r >= log u of the draws' words, which seldom takes more than a rough log u."""
    gap = log_r - as_lanes(rough_logs(words), log_r)
    unsure = without(valid, absolute(gap) > filled(ROUGH, gap))
    if bits_of(unsure) == 0:
        return valid & (gap >= filled(0.0, gap))
    return valid & (log_r >= log_of_normal(as_lanes(uniforms(words), log_r)))


@njit
def headrooms(log_density, log_M, log_u, model_is_target):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = splat(0.0) - (log_r + log_density) if model_is_target else log_r - log_density
    rounded = absolute(log_r) + absolute(log_M)
    margin = splat(MARGIN) + splat(FLOAT32_ROUNDING) * rounded
    margin = margin + splat(ROUNDING) * absolute(log_density)
    return (room + margin) * splat(LOG2_E)


@njit
def decide_unread(z, log_density, log_M, log_u, model_is_target, is_lazy, is_float32):
    """Return (open, accepted, headroom) of rows of which only the targets' logits are known.

    Rows that are not open are decided. The headroom of the others, infinite unless ``is_lazy``, is
    how far the total may rise above the target's term before the decision is certain, in octaves.
    """
    top = splat(np.inf)
    possible = (absolute(z) < top) & (absolute(log_density) < top) & (absolute(log_M) < top)
    if not is_lazy:
        return possible, without(possible, possible), top
    # With log q = 0 a target is most, and a proposal least, likely accepted.
    accepted, _, _, _ = decide(splat(0.0), log_density, log_M, log_u, model_is_target, is_float32)
    headroom = headrooms(log_density, log_M, log_u, model_is_target)
    if model_is_target:
        return possible & accepted, without(possible, possible), headroom
    return without(possible, accepted), possible & accepted, headroom
