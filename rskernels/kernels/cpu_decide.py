"""The Numba decisions: rows and entries accepted or rejected, and what happened counted.

A density or M is an address with strides, or a value where its code is NONE. Rows are worked in
units of ``unit_rows``; what happened in a unit is added up in its own row of ``summaries``, so
that sums do not depend on threads. All loops release the GIL and touch their own rows only.
"""

import math

import numpy as np
from numba import carray, float32, float64, njit

from rskernels.kernels.cpu_share import next_share
from rskernels.kernels.cpu_softmax import (
    F64,
    I64,
    NONE,
    ROUNDING,
    address_of,
    as_f64,
    as_i64,
    as_u8,
    ask_head,
    load_float,
    load_integer,
    load_logit,
    part_of,
    row_total,
    scratch_for,
    size_of,
    store_float,
)
from rskernels.kernels.lanemath import philox_words, row_uniform
from rskernels.kernels.simd import prefetch

_word0, _word1, _word2, _word3 = philox_words
LOG2_E = 1.0 / math.log(2.0)
# What two float32 passes over a row can differ by, in log q; and rounding a log ratio to float32.
MARGIN, FLOAT32_ROUNDING = 2.0**-14, 2.0**-23
BRIEF = 3  # parts that make up the first block
ACCEPTED, VIOLATIONS, INVALID, IGNORED, EXCESS, MASS, SUMMARY = range(7)


@njit
def natural_log(value, log_space):
    """Return the logarithm of a density or M; NaN where it has none."""
    if log_space:
        return value
    if value > 0.0:
        return math.log(value)
    return -np.inf if value == 0.0 else np.nan


@njit
def scale_of(temperature):
    """Return log2(e)/T, kept finite in float32."""
    return min(LOG2_E / temperature, 3.0e38)


@njit
def tally(summary, which, amount):
    """Add to one entry of a unit's summary; to none where its address is 0."""
    if summary != 0:
        carray(as_f64(summary + which * 8), 1)[0] += amount


@njit
def row_address(base, n, inner, outer_stride, inner_stride, size):
    """Return the address of row ``n`` of a tensor with two leading strides, in elements."""
    if n < inner:
        return base + n * inner_stride * size
    return base + ((n // inner) * outer_stride + (n % inner) * inner_stride) * size


@njit
def log_prob_of(z, reference, total, temperature):
    """Return log q of a logit, at most 0; NaN for a row without a softmax."""
    log_q = (z - reference) / temperature - math.log(total)
    return 0.0 if log_q > 0.0 else log_q


@njit
def ratio(log_q, log_density, model_is_target):
    """Return log p - log q; a target density of 0 is a ratio of 0, whatever the proposal's."""
    numerator = log_q if model_is_target else log_density
    denominator = log_density if model_is_target else log_q
    if numerator == -np.inf:
        return -np.inf
    return numerator - denominator


@njit
def decide_row(log_q, log_density, log_M, log_u, model_is_target, code, summary):
    """Decide by log r >= log u, count what happened, and return (accepted, log ratio)."""
    log_ratio = ratio(log_q, log_density, model_is_target)
    if code != F64:
        # What is compared is what is returned, so that an envelope taken from it is not violated.
        log_ratio = float64(float32(log_ratio))
    # Written so that a NaN anywhere fails.
    if not (log_density < np.inf and log_q <= 0.0 and log_ratio < np.inf and log_M > -np.inf):
        tally(summary, INVALID, 1)
        return False, np.nan
    log_r = log_ratio - log_M
    accepted = log_r >= log_u
    if summary != 0:
        r = math.exp(log_r)
        tally(summary, ACCEPTED, accepted)
        tally(summary, VIOLATIONS, log_ratio > log_M)
        tally(summary, EXCESS, max(r - 1.0, 0.0))
        tally(summary, MASS, r)
    return accepted, log_ratio


@njit
def headroom_of(log_density, log_M, log_u, model_is_target):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = -(log_r + log_density) if model_is_target else log_r - log_density
    margin = MARGIN + FLOAT32_ROUNDING * abs(log_r) + ROUNDING * abs(log_density)
    return (room + margin) * LOG2_E


@njit
def decide_unread(z, log_density, log_M, log_u, model_is_target, is_lazy, code):
    """Return (is certain, accepted, headroom) of a row of which only the target's logit is known.

    The headroom, infinite unless ``is_lazy``, is how far the total may rise above the target's
    term before the decision is certain, in octaves.
    """
    if not (abs(z) < np.inf and abs(log_density) < np.inf and abs(log_M) < np.inf):
        return True, False, np.inf
    if not is_lazy:
        return False, False, np.inf
    # With log q = 0 a target is most, and a proposal least, likely accepted.
    accepted, _ = decide_row(0.0, log_density, log_M, log_u, model_is_target, code, 0)
    if accepted != model_is_target:
        return True, accepted, np.inf
    return False, False, headroom_of(log_density, log_M, log_u, model_is_target)


@njit(nogil=True, cache=True)
def target_rows(
    counter, grab, units, unit_rows, N,
    logits, code, inner, outer_stride, inner_stride, stride, V,
    targets, target_code, density, density_code, density_step, density_value,
    M, M_code, M_step, M_value, seed_address, seed, row_offset, temperature, log_space,
    model_is_target, ignore_index, is_lazy, order, mask, log_prob, log_ratio, summaries,
):  # fmt: skip
    """Decide the target's entry of each row of the units that it takes.

    Where ``is_lazy``, a row is read until its decision is certain. ``order`` is 0 or the address
    of its blocks, int64, in the order in which they are visited. ``log_prob``, ``log_ratio`` and
    ``summaries`` are 0 where only the mask is wanted. Returns how many targets lie outside
    ``[0, V)``.
    """
    scratch_memory = scratch_for(stride)
    scratch = address_of(scratch_memory)
    scale = scale_of(temperature)
    size, out_size = size_of(code), 8 if code == F64 else 4
    target_size, density_size, M_size = size_of(target_code), size_of(density_code), size_of(M_code)
    log_density = natural_log(density_value, log_space)
    log_M = natural_log(M_value, log_space)
    if seed_address != 0:
        seed = load_integer(seed_address, I64)
    accepted = carray(as_u8(mask), N)
    outside = 0
    first, _ = part_of(0, V, order)
    long_rows = 0  # one after the other; as the last rows, so the next
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            summary = summaries + n // unit_rows * (SUMMARY * 8) if log_prob != 0 else 0
            if is_lazy and n + 1 < N:
                # A row that ends early is over before the next one has been fetched.
                row = row_address(logits, n + 1, inner, outer_stride, inner_stride, size)
                target = load_integer(targets + (n + 1) * target_size, target_code)
                prefetch(row + target * stride * size)
                ask_head(row + first * stride * size, size, V - first)
            target = load_integer(targets + n * target_size, target_code)
            log_q, log_w = np.nan, np.nan
            accepted[n] = False
            if target == ignore_index:
                tally(summary, IGNORED, 1)
            elif target < 0 or target >= V:
                outside += 1
            else:
                if density_code != NONE:
                    value = load_float(density + n * density_step * density_size, density_code)
                    log_density = natural_log(value, log_space)
                if M_code != NONE:
                    value = load_float(M + n * M_step * M_size, M_code)
                    log_M = natural_log(value, log_space)
                row = row_address(logits, n, inner, outer_stride, inner_stride, size)
                z = load_logit(row + target * stride * size, code)
                log_u = math.log(row_uniform(row_offset + n, 0, seed))
                headroom = np.inf
                if log_prob == 0:
                    is_certain, accepted[n], headroom = decide_unread(
                        z, log_density, log_M, log_u, model_is_target, is_lazy, code
                    )
                    if is_certain:
                        continue
                reference, total, parts = row_total(
                    row, code, stride * size, V, scale, scratch, z, headroom, order,
                    is_lazy and long_rows < 2,
                )  # fmt: skip
                long_rows = long_rows + 1 if parts >= BRIEF else 0
                log_q = log_prob_of(z, reference, total, temperature)
                accepted[n], log_w = decide_row(
                    log_q, log_density, log_M, log_u, model_is_target, code, summary
                )
            if log_prob != 0:
                store_float(log_prob + n * out_size, code, log_q)
                store_float(log_ratio + n * out_size, code, log_w)
        begin = next_share(counter, begin, grab)
    return outside


@njit(nogil=True, cache=True)
def bernoulli_rows(
    counter, grab, units, unit_rows, N, log_ratio, code, M, M_code, M_step, M_value,
    seed_address, seed, row_offset, stream, log_space, mask,
):  # fmt: skip
    """Accept each log ratio of the units that it takes where log r - log M >= log u."""
    size, M_size = size_of(code), size_of(M_code)
    log_M = natural_log(M_value, log_space)
    if seed_address != 0:
        seed = load_integer(seed_address, I64)
    accepted = carray(as_u8(mask), N)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            if M_code != NONE:
                log_M = natural_log(load_float(M + n * M_step * M_size, M_code), log_space)
            value = load_float(log_ratio + n * size, code)
            log_u = math.log(row_uniform(row_offset + n, stream, seed))
            accepted[n] = value < np.inf and log_M > -np.inf and value - log_M >= log_u
        begin = next_share(counter, begin, grab)


@njit(nogil=True, cache=True)
def philox_rows(shares, grab, units, unit_rows, N, counter, key, words):
    """Write the Philox words of counters [N, 4] and keys [N, 2], all int64."""
    counters, keys = carray(as_i64(counter), (N, 4)), carray(as_i64(key), (N, 2))
    out = carray(as_i64(words), (N, 4))
    begin = next_share(shares, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            low = counters[n, 0] | (counters[n, 1] << 32)
            high = counters[n, 2] | (counters[n, 3] << 32)
            both = keys[n, 0] | (keys[n, 1] << 32)
            out[n, 0] = _word0(low, high, both)
            out[n, 1] = _word1(low, high, both)
            out[n, 2] = _word2(low, high, both)
            out[n, 3] = _word3(low, high, both)
        begin = next_share(shares, begin, grab)
