"""The Numba loops that read no logits: decisions on given ratios, and Philox words."""

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.decide import store_rows, tally
from rskernels.kernels.cpu.dtypes import F64, as_i64
from rskernels.kernels.cpu.law import decide_ids, decide_rows, natural_logs, row_logs, seed_of
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import load_ids, part_loader, store_mask
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.uniforms import philox_words
from rskernels.kernels.cpu.simd.vectors import (
    LANES,
    count,
    first_lanes,
    reduce_add,
    round_to_float32,
    select,
    splat,
    widen,
)
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.numbers import ACCEPTED, EXCESS, INVALID, LOG2_E, MASS, SUMMARY, VIOLATIONS

_load_f32, _load_f64 = part_loader("f32"), part_loader("f64")
_word0, _word1, _word2, _word3 = philox_words
LEAST_OCTAVES, MOST_OCTAVES = -1021.0, 1024.0  # of a normal float64


@inner
def decide_sixteen(log_ratio, M, shared_M, log_space, draw, n, inside):
    """Return (log ratio, log M, valid, accepted) of sixteen rows, from row ``n`` on."""
    address, code = log_ratio
    seed, row_offset, stream, ids = draw
    log_M = row_logs(M, shared_M, n, inside, log_space)
    if code == F64:
        values = _load_f64(address + n * 8, inside)
    else:
        values = widen(_load_f32(address + n * 4, inside))
    valid = (values < splat(np.inf)) & (log_M > splat(-np.inf))
    if ids != 0:
        chosen = decide_ids(values - log_M, valid, load_ids(ids + n * 8, inside), stream, seed)
    else:
        chosen = decide_rows(values - log_M, valid, row_offset, n, stream, seed)
    return values, log_M, valid, chosen


@inner
def shares_of_M(log_r, valid):
    """Return w/M of sixteen rows, 0 where they are invalid or it is no normal float64."""
    octaves = log_r * splat(LOG2_E)
    r = select(octaves < splat(MOST_OCTAVES), exp2(octaves), splat(np.inf))
    return select(valid & (octaves > splat(LEAST_OCTAVES)), r, splat(0.0))


@cached
@njit(nogil=True)
def bernoulli_rows(share, arguments):
    """Accept each log ratio of the units that it takes where log r - log M >= log u."""
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    log_ratio, M, draw, log_space, mask = arguments
    seed_address, seed, row_offset, stream, ids = draw
    draw = seed_of(seed_address, seed), row_offset, stream, ids
    shared_M = natural_logs(splat(M[3]), log_space)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        end = min(N, (begin + grab) * unit_rows)
        for n in range(begin * unit_rows, end, LANES):
            inside = first_lanes(end - n)
            _, _, _, chosen = decide_sixteen(log_ratio, M, shared_M, log_space, draw, n, inside)
            store_mask(mask + n, inside, chosen)
        begin = next_share(counter, begin, grab)
    restore(mode)
    return 0


@cached
@njit(nogil=True)
def decide_ratio_rows(share, arguments):
    """Decide as ``bernoulli_rows``, write the valid log ratios, and sum what happened by units."""
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    log_ratio, M, draw, log_space, outputs = arguments
    seed_address, seed, row_offset, stream, ids = draw
    mask, ratios, summaries = outputs
    _, code = log_ratio
    draw = seed_of(seed_address, seed), row_offset, stream, ids
    shared_M = natural_logs(splat(M[3]), log_space)
    zero, none = splat(0.0), splat(np.nan)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for unit in range(begin, min(units, begin + grab)):
            start, end = unit * unit_rows, min(N, (unit + 1) * unit_rows)
            accepted, violations, valid_rows = 0, 0, 0
            excess, mass = splat(0.0), splat(0.0)
            for n in range(start, end, LANES):
                inside = first_lanes(end - n)
                log_w, log_M, valid, chosen = decide_sixteen(
                    log_ratio, M, shared_M, log_space, draw, n, inside
                )
                store_mask(mask + n, inside, chosen)
                store_rows(ratios, code, n, inside, select(valid, log_w, none))
                valid = valid & inside
                if code != F64:
                    log_M = round_to_float32(log_M)
                log_r = log_w - log_M
                r = shares_of_M(log_r, valid)
                over = valid & (log_r > zero)
                excess = excess + select(over, r - splat(1.0), zero)
                mass = mass + r
                accepted += count(chosen & inside)
                violations += count(over)
                valid_rows += count(valid)
            summary = summaries + unit * (SUMMARY * 8)
            tally(summary, ACCEPTED, accepted)
            tally(summary, VIOLATIONS, violations)
            tally(summary, INVALID, end - start - valid_rows)
            tally(summary, EXCESS, reduce_add(excess))
            tally(summary, MASS, reduce_add(mass))
        begin = next_share(counter, begin, grab)
    restore(mode)
    return 0


@cached
@njit(nogil=True)
def philox_rows(share, arguments):
    """Write the Philox words of counters [N, 4] and keys [N, 2], all int64."""
    next_unit, grab, units, unit_rows, N = share
    counter, key, words = arguments
    counters, keys = carray(as_i64(counter), (N, 4)), carray(as_i64(key), (N, 2))
    out = carray(as_i64(words), (N, 4))
    begin = next_share(next_unit, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            low = counters[n, 0] | (counters[n, 1] << 32)
            high = counters[n, 2] | (counters[n, 3] << 32)
            both = keys[n, 0] | (keys[n, 1] << 32)
            out[n, 0] = _word0(low, high, both)
            out[n, 1] = _word1(low, high, both)
            out[n, 2] = _word2(low, high, both)
            out[n, 3] = _word3(low, high, both)
        begin = next_share(next_unit, begin, grab)
    return 0
