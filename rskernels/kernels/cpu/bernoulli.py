"""The Numba loops that read no logits: decisions on given ratios, and Philox words."""

import numpy as np
from numba import carray, njit

from rskernels.kernels.cpu.cache import cached
from rskernels.kernels.cpu.dtypes import F64, as_i64
from rskernels.kernels.cpu.law import decide_rows, natural_logs, row_logs, seed_of
from rskernels.kernels.cpu.simd.memory import part_loader, store_mask
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.uniforms import philox_words
from rskernels.kernels.cpu.simd.vectors import LANES, first_lanes, splat, widen
from rskernels.kernels.cpu.threads import next_share

_load_f32, _load_f64 = part_loader("f32"), part_loader("f64")
_word0, _word1, _word2, _word3 = philox_words


@cached
@njit(nogil=True)
def bernoulli_rows(share, arguments):
    """Accept each log ratio of the units that it takes where log r - log M >= log u."""
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    log_ratio, M, draw, log_space, mask = arguments
    address, code = log_ratio
    seed_address, seed, row_offset, stream = draw
    seed, shared_M = seed_of(seed_address, seed), natural_logs(splat(M[3]), log_space)
    low, top = splat(-np.inf), splat(np.inf)
    begin = next_share(counter, -grab, grab)
    while begin < units:
        end = min(N, (begin + grab) * unit_rows)
        for n in range(begin * unit_rows, end, LANES):
            inside = first_lanes(end - n)
            log_M = row_logs(M, shared_M, n, inside, log_space)
            if code == F64:
                values = _load_f64(address + n * 8, inside)
            else:
                values = widen(_load_f32(address + n * 4, inside))
            valid = (values < top) & (log_M > low)
            accepted = decide_rows(values - log_M, valid, row_offset, n, stream, seed)
            store_mask(mask + n, inside, accepted)
        begin = next_share(counter, begin, grab)
    restore(mode)


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
